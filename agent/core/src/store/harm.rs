//! Does a run of the store's tool make any reader of the bundle worse off?
//!
//! In: the bundle before and after. Out: the [`Harm`], if there is any. Each reader is compared with itself: what one could not load
//! before it need not load afterwards, but what it could load it must, with every certificate that still has a source.

use data_encoding::BASE64;

use crate::certificate::{
    bundle::{BundleReader, Effective},
    pem::{self, Fault},
};

/// Fewer foreign certificates than this that leave at once are a package's upgrade or somebody's will.
pub const MANY: usize = 10;

/// Foreign certificates that are not in the bundle any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Departed {
    /// Their sources are still there: the tool has lost them.
    pub lost: usize,
    /// Nobody has deselected them, and their sources are gone.
    pub gone: usize,
    /// How many foreign certificates there were.
    pub of: usize,
    /// How many are missing, for whatever reason.
    pub dropped: usize,
}

impl Departed {
    /// Whether most are gone at once: an emptied file or a cut list rather than somebody's will.
    pub fn is_most(&self) -> bool {
        self.is_many() && self.gone.saturating_mul(2) > self.of
    }

    /// Whether so many are gone at once that a person should hear of it, be it a package's upgrade.
    pub fn is_many(&self) -> bool {
        self.gone >= MANY
    }
}

/// What is worse than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Harm {
    /// There is no bundle any more.
    NoBundle,
    /// Foreign certificates are missing though their sources are still there.
    Lost,
    /// Most foreign certificates are missing, and so are their sources.
    MostGone,
    /// A reader could load it and cannot any more, because of this.
    Broken(BundleReader, Fault),
    /// There is a private key in it.
    PrivateKey,
}

/// The worst harm, if there is any.
pub fn harm(before: &Effective, after: &Effective, departed: Departed) -> Option<Harm> {
    if departed.lost > 0 {
        return Some(Harm::Lost);
    }
    if before.present && !after.present {
        return Some(Harm::NoBundle);
    }
    if departed.is_most() {
        return Some(Harm::MostGone);
    }
    let broken = BundleReader::ALL.into_iter().filter(|reader| reader.loads(before));
    let broken = broken.filter_map(|reader| Some(Harm::Broken(reader, reader.faults(after).first()?.clone())));
    broken.chain((after.private_key && !before.private_key).then_some(Harm::PrivateKey)).next()
}

/// A PEM block, whatever its label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawBlock {
    /// The line of its BEGIN.
    pub begin: usize,
    /// The line of its END.
    pub end: usize,
    /// What is in it.
    pub content: Vec<u8>,
}

/// Every block whose content can be decoded, read without any strictness: for telling where a certificate lies, not what it is.
pub fn blocks(text: &[u8]) -> Vec<RawBlock> {
    let mut found = Vec::new();
    let mut open: Option<(usize, Vec<u8>)> = None;
    for (number, line) in pem::lines(text) {
        if line.starts_with(b"-----BEGIN ") {
            open = Some((number, Vec::new()));
        } else if line.starts_with(b"-----END ") {
            let Some((begin, body)) = open.take() else { continue };
            if let Ok(content) = BASE64.decode(&body) {
                found.push(RawBlock { begin, end: number, content });
            }
        } else if let Some((_, body)) = &mut open {
            body.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::pem::RejectReason;

    fn bundle(faults: usize, gnutls_faults: usize) -> Effective {
        let fault = Fault { line: 7, reason: RejectReason::NotPemOrDer, detail: "broken".into() };
        let of = |n| vec![fault.clone(); n];
        Effective { present: true, faults: of(faults), gnutls_faults: of(gnutls_faults), ..Effective::default() }
    }

    #[test]
    fn each_reader_is_compared_with_itself() {
        let none = Departed::default();
        let broken = |before: &Effective, after: &Effective| match harm(before, after, none) {
            Some(Harm::Broken(reader, _)) => Some(reader),
            None => None,
            other => panic!("{other:?}"),
        };
        let (openssl, gnutls) = (Some(BundleReader::OpenSsl), Some(BundleReader::GnuTls));
        for (before, after, worse) in [
            ((0, 0), (0, 0), None),
            ((0, 0), (1, 0), openssl),
            ((0, 0), (0, 1), gnutls),
            ((1, 0), (1, 0), None),
            ((1, 0), (0, 1), gnutls),
            ((0, 1), (1, 1), openssl),
            ((1, 1), (2, 2), None),
            ((1, 1), (0, 0), None),
        ] {
            let (before, after) = (bundle(before.0, before.1), bundle(after.0, after.1));
            assert_eq!(broken(&before, &after), worse, "{before:?} {after:?}");
        }
        assert_eq!(harm(&Effective::default(), &bundle(1, 1), none), None, "there was nothing to load");
        assert_eq!(harm(&bundle(0, 0), &Effective::default(), none), Some(Harm::NoBundle));
        let key = Effective { private_key: true, ..bundle(0, 0) };
        assert_eq!(harm(&bundle(0, 0), &key, none), Some(Harm::PrivateKey));
        assert_eq!(harm(&key, &key, none), None);
    }

    #[test]
    fn most_of_many_is_no_upgrade() {
        let departed =
            |lost, gone, of| harm(&bundle(0, 0), &bundle(0, 0), Departed { lost, gone, of, dropped: lost + gone });
        assert_eq!(departed(1, 0, 143), Some(Harm::Lost));
        assert_eq!(departed(0, 141, 143), Some(Harm::MostGone));
        assert_eq!(departed(0, 72, 143), Some(Harm::MostGone));
        assert_eq!(departed(0, 71, 143), None, "not more than half");
        assert_eq!(departed(0, MANY - 1, MANY - 1), None, "not many");
        assert_eq!(departed(0, MANY, MANY), Some(Harm::MostGone));
    }
}
