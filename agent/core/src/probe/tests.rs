//! Chains made for each reason, judged against a bundle; and that the sentence and the next step name what matters.
//!
//! Long because each reason needs a chain of its own.

use std::{collections::BTreeMap, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, SanType, date_time_ymd,
};

use super::*;
use crate::{
    certificate::anchor::Anchor,
    ledger::{AnchorState, Ledger, LedgerAnchor},
    report::Behind,
    source::{
        policy::{Circumstances, Policy},
        resolve::resolve,
    },
    testing::{NOW, at, params, source},
    time::Time,
};

type ProbeCa = CertifiedIssuer<'static, KeyPair>;

const DAY: i64 = 24 * 3600;

fn root(name: &str) -> ProbeCa {
    root_with(name, |_| {})
}

fn root_with(name: &str, edit: impl FnOnce(&mut CertificateParams)) -> ProbeCa {
    CertifiedIssuer::self_signed(named_params(name, edit), KeyPair::generate().unwrap()).unwrap()
}

fn intermediate(name: &str, above: &ProbeCa, edit: impl FnOnce(&mut CertificateParams)) -> ProbeCa {
    CertifiedIssuer::signed_by(named_params(name, edit), KeyPair::generate().unwrap(), above).unwrap()
}

fn named_params(name: &str, edit: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    params(|params| {
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        edit(params);
    })
}

fn leaf_params(edit: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["registry.corp".to_owned(), "*.apps.corp".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::IpAddress("10.0.0.1".parse().unwrap()));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "registry.corp");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    edit(&mut params);
    params
}

fn leaf(above: &ProbeCa) -> Vec<u8> {
    leaf_with(above, |_| {})
}

fn leaf_with(above: &ProbeCa, edit: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    leaf_params(edit).signed_by(&KeyPair::generate().unwrap(), above).unwrap().der().to_vec()
}

fn der(ca: &ProbeCa) -> Vec<u8> {
    ca.der().to_vec()
}

fn anchor(ca: &ProbeCa) -> Arc<Anchor> {
    crate::testing::anchor(ca.der())
}

fn fp16(ca: &ProbeCa) -> String {
    anchor(ca).fingerprint.fp16()
}

/// A host: bundle, ledger, sources.
#[derive(Default)]
struct ProbeHost {
    bundle: Vec<Vec<u8>>,
    ledger: Ledger,
    sources: Option<SourceEvidence>,
    behind: Option<Behind>,
    late: i64,
}

impl ProbeHost {
    fn of(cas: &[&ProbeCa]) -> Self {
        Self { bundle: cas.iter().map(|ca| der(ca)).collect(), ..Self::default() }
    }

    fn with_entry(mut self, ca: &ProbeCa, state: AnchorState, edit: impl FnOnce(&mut LedgerAnchor)) -> Self {
        let anchor = anchor(ca);
        let mut entry = LedgerAnchor::new(&anchor, state);
        edit(&mut entry);
        self.ledger.anchors = BTreeMap::from_iter(self.ledger.anchors.into_iter().chain([(anchor.fingerprint, entry)]));
        self
    }

    fn saying(mut self, ca: &ProbeCa, policy: &Policy) -> Self {
        let snapshots = vec![source("org", &[&anchor(ca)])];
        let at = Circumstances { drops_not_ca: Some(false), installed: &|_| false, now: NOW };
        let resolved = resolve(&snapshots, &self.ledger, policy, at);
        self.sources = Some(SourceEvidence { snapshots, resolved });
        self
    }

    fn judge(&self, target: &str, chain: &[Vec<u8>]) -> Probe {
        let now = at(NOW + self.late, 1000, "boot");
        let facts = Facts {
            bundle: &self.bundle,
            ledger: &self.ledger,
            sources: self.sources.as_ref(),
            removal_grace: 3600,
            now: &now,
            behind: self.behind.as_ref(),
        };
        judge(&Target::parse(target).unwrap(), chain, facts)
    }

    #[track_caller]
    fn trusts(&self, chain: &[Vec<u8>]) -> Probe {
        let probe = self.judge("registry.corp:443", chain);
        assert_eq!((probe.verdict, probe.reason), (ProbeVerdict::Trusted, None), "{probe:#?}");
        assert!(!probe.text.is_empty() && probe.next.is_empty() && probe.anchor.is_some(), "{probe:#?}");
        probe
    }

    /// Refused for this reason, with all of these words in sentence, notes and next steps.
    #[track_caller]
    fn refuses(&self, chain: &[Vec<u8>], reason: ProbeReason, words: &[&str]) -> Probe {
        refused(self.judge("registry.corp:443", chain), reason, words)
    }
}

#[track_caller]
fn refused(probe: Probe, reason: ProbeReason, words: &[&str]) -> Probe {
    assert_eq!((probe.verdict, probe.reason), (ProbeVerdict::NotTrusted, Some(reason)), "{probe:#?}");
    assert!(!probe.next.is_empty() && probe.next.iter().all(|next| !next.is_empty()), "{probe:#?}");
    let all = format!("{} {} {}", probe.text, probe.notes.join(" "), probe.next.join(" "));
    for word in words {
        assert!(all.contains(word), "`{word}` is not in: {all}");
    }
    probe
}

#[test]
fn a_chain_to_the_bundle_is_trusted_and_names_its_anchor() {
    let (corp, other) = (root("Corp Root CA"), root("Other Root"));
    let issuing = intermediate("Corp Issuing CA", &corp, |params| params.not_after = date_time_ymd(2026, 12, 24));
    let world = ProbeHost::of(&[&other, &corp]);
    let probe = world.trusts(&[leaf(&corp)]);
    let end = probe.anchor.unwrap();
    assert_eq!((end.sha256, end.state, end.grace_end), (anchor(&corp).fingerprint, None, None));
    assert_eq!(probe.not_after.unwrap().to_string(), "2027-01-01T00:00:00Z", "the leaf's end comes first");
    // With an intermediate. Further certificates and their order do not matter, and their dates do not count.
    let stray = intermediate("Stray", &other, |params| params.not_after = date_time_ymd(2026, 12, 2));
    let probe = world.trusts(&[leaf(&issuing), der(&stray), der(&corp), der(&issuing)]);
    assert_eq!(probe.chain.len(), 4);
    assert_eq!(probe.not_after.unwrap().to_string(), "2026-12-24T00:00:00Z");
    assert_eq!(probe.notes, Vec::<String>::new());
}

#[test]
fn whose_the_anchor_is_and_how_long_it_stays() {
    let corp = root("Corp Root CA");
    let chain = [leaf(&corp)];
    let world = ProbeHost::of(&[&corp]).with_entry(&corp, AnchorState::Desired, |_| {});
    let probe = world.trusts(&chain);
    assert_eq!(probe.anchor.unwrap().state, Some(AnchorState::Desired));
    assert!(probe.text.ends_with("desired"), "{}", probe.text);

    let world = ProbeHost::of(&[&corp])
        .with_entry(&corp, AnchorState::Grace, |entry| entry.unwanted_since = Some(at(NOW - 600, 400, "boot")));
    let probe = world.trusts(&chain);
    assert_eq!(probe.anchor.unwrap().grace_end, Some(Time(NOW + 3000)), "3600 s less the 600 that have passed");
    assert!(probe.text.contains("grace until 2026-12-01T00:50:00Z"), "{}", probe.text);
    assert!(probe.notes[0].contains("renew"), "{:?}", probe.notes);

    let world = ProbeHost::of(&[&corp]).with_entry(&corp, AnchorState::Retired, |_| {});
    assert!(world.trusts(&chain).notes[0].contains("retired"));
}

#[test]
fn what_the_runtime_does_not_know_yet_is_not_trusted_by_it() {
    let (corp, other) = (root("Corp Root CA"), root("Other Root"));
    let mut world = ProbeHost::of(&[&corp, &other]).with_entry(&corp, AnchorState::Desired, |_| {});
    let chain = [leaf(&corp)];
    world.behind = Some(Behind {
        missing: vec![anchor(&corp).fingerprint],
        why: "1 anchor newer than the process; a restart is held".into(),
        next: "drain the node".into(),
    });
    let probe = world.judge("registry.corp:443", &chain);
    assert_eq!((probe.verdict, probe.reason), (ProbeVerdict::NotTrustedByRuntime, Some(ProbeReason::RuntimeStale)));
    assert!(!probe.is_trusted() && probe.is_trusted_there(), "programs on the host do");
    assert!(!probe.is_trusted() && probe.anchor.is_some(), "{probe:#?}");
    assert!(probe.text.contains("Corp Root CA") && probe.text.ends_with("a restart is held"), "{}", probe.text);
    assert_eq!(probe.next, ["drain the node"]);
    // A fault of the server is told first.
    refused(world.judge("absent.corp:443", &chain), ProbeReason::NameMismatch, &[]);
    let probe = refused(probe.after(&Failure::NotItsKey), ProbeReason::BadSignature, &["a restart is held"]);
    assert_eq!(probe.next.len(), 2);
    // The process has this other anchor.
    world.trusts(&[leaf(&other)]);
}

#[test]
fn an_unknown_issuer_is_named() {
    let (corp, other) = (root("Corp Root CA"), root("Other Root"));
    let issuing = intermediate("Issuing CA 7", &other, |_| {});
    let world = ProbeHost::of(&[&corp]);
    // With the leaf alone, the issuer may be a root or an intermediate.
    let probe = world.refuses(
        &[leaf(&other)],
        ProbeReason::UnknownIssuer,
        &["\"Other Root\"", "sent no chain", "if it is a root"],
    );
    assert_eq!(probe.anchor, None);
    assert_eq!(probe.chain[0].issuer_common_name, "Other Root");
    world.refuses(
        &[leaf(&issuing), der(&issuing)],
        ProbeReason::UnknownIssuer,
        &["\"Other Root\"", "\"Issuing CA 7\"", "add"],
    );
    world.refuses(
        &[leaf(&issuing), der(&issuing), der(&other)],
        ProbeReason::UnknownIssuer,
        &["unknown root", &fp16(&other)],
    );
    // An empty bundle is valid.
    ProbeHost::default().refuses(&[leaf(&corp)], ProbeReason::UnknownIssuer, &["\"Corp Root CA\""]);
}

#[test]
fn another_key_of_the_same_name_is_told_from_an_unknown_issuer() {
    let (old, new) = (root("Corp Root CA"), root("Corp Root CA"));
    let issuing = intermediate("Issuing CA 7", &old, |_| {});
    let chain = [leaf(&issuing), der(&issuing)];
    let world = ProbeHost::of(&[&new]);
    let store = format!("the store has \"Corp Root CA\" (sha256 {}) under that name, with another key", fp16(&new));
    world.refuses(
        &chain,
        ProbeReason::OtherKey,
        &[&store, "\"Issuing CA 7\"", "add the \"Corp Root CA\" that signed it"],
    );
    world.refuses(&[leaf(&old)], ProbeReason::OtherKey, &[&store]);
    world.refuses(&[leaf(&issuing), der(&issuing), der(&old)], ProbeReason::OtherKey, &[&store, &fp16(&old)]);
    // The ledger remembers which CA it is.
    let world = ProbeHost::of(&[&new]).with_entry(&old, AnchorState::Retired, |entry| entry.gone = Some(NOW - DAY));
    world.refuses(&chain, ProbeReason::OtherKey, &[&store, &fp16(&old), "was removed 2026-11-30", "to a source again"]);
    // With both in the bundle the right one is found, whichever comes first.
    ProbeHost::of(&[&new, &old]).trusts(&chain);
}

#[test]
fn a_ca_that_nodetrust_knows_and_the_store_lacks() {
    let corp = root("Corp Root CA");
    let chain = [leaf(&corp)];
    let fingerprint = anchor(&corp).fingerprint;
    let world = ProbeHost::default().saying(&corp, &Policy::default());
    world.refuses(&chain, ProbeReason::NotInstalled, &["source org wants it", "nodetrust apply"]);
    let deny = Policy { denied: [fingerprint].into(), ..Policy::default() };
    let world = ProbeHost::default().saying(&corp, &deny);
    world.refuses(
        &chain,
        ProbeReason::NotInstalled,
        &["source org has it", "rejected as denied", "deniedFingerprints"],
    );
    for (state, gone, words) in [
        (AnchorState::Denied, None, "deniedFingerprints"),
        (AnchorState::Retired, None, "grace is over"),
        (AnchorState::Retired, Some(NOW), "was removed 2026-12-01"),
        (AnchorState::Grace, None, "in grace"),
        (AnchorState::Desired, None, "should be there"),
    ] {
        let world = ProbeHost::default().with_entry(&corp, state, |entry| entry.gone = gone);
        world.refuses(&chain, ProbeReason::NotInstalled, &[words, &fp16(&corp)]);
    }
    // A CA of that name that has not signed it is named, and is not the reason.
    let namesake = root("Corp Root CA");
    let world = ProbeHost::default().with_entry(&namesake, AnchorState::Desired, |_| {});
    world.refuses(&chain, ProbeReason::UnknownIssuer, &[&fp16(&namesake), "has not signed it"]);
}

#[test]
fn time_is_judged_on_every_certificate_anchor_included() {
    let corp = root("Corp Root CA");
    let expired = |params: &mut CertificateParams| params.not_after = date_time_ymd(2026, 11, 30);
    let future = |params: &mut CertificateParams| params.not_before = date_time_ymd(2026, 12, 2);
    let world = ProbeHost::of(&[&corp]);
    world.refuses(
        &[leaf_with(&corp, expired)],
        ProbeReason::Expired,
        &["certificate 0", "2026-11-30T00:00:00Z", "2026-12-01", "renew"],
    );
    world.refuses(&[leaf_with(&corp, future)], ProbeReason::NotYetValid, &["2026-12-02", "clock"]);
    let old = intermediate("Issuing CA 7", &corp, expired);
    world.refuses(&[leaf(&old), der(&old)], ProbeReason::Expired, &["certificate 1", "\"Issuing CA 7\""]);
    // Go and OpenSSL look at the anchor's own dates as well
    let gone = root_with("Old Root CA", expired);
    ProbeHost::of(&[&gone]).refuses(
        &[leaf(&gone)],
        ProbeReason::Expired,
        &["the CA \"Old Root CA\"", "in the store expired"],
    );
    // An expired CA beside its renewal does no harm.
    let key = KeyPair::generate().unwrap();
    let renewed = CertifiedIssuer::self_signed(named_params("Renewed", |_| {}), &key).unwrap();
    let before = named_params("Renewed", expired).self_signed(&key).unwrap();
    let mut both = ProbeHost::of(&[]);
    both.bundle = vec![before.der().to_vec(), renewed.der().to_vec()];
    let leaf = leaf_params(|_| {}).signed_by(&KeyPair::generate().unwrap(), &renewed).unwrap().der().to_vec();
    both.trusts(&[leaf]);
    // An unknown issuer comes first, and the other fault is told as well.
    let other = root("Other Root");
    world.refuses(&[leaf_with(&other, expired)], ProbeReason::UnknownIssuer, &["\"Other Root\"", "expired"]);
}

#[test]
fn names_are_compared_and_shown() {
    let corp = root("Corp Root CA");
    let world = ProbeHost::of(&[&corp]);
    let chain = [leaf(&corp)];
    for good in ["registry.corp:1", "https://REGISTRY.corp", "a.apps.corp:443", "10.0.0.1:443"] {
        assert!(world.judge(good, &chain).is_trusted(), "{good}");
    }
    for bad in ["registry:443", "a.b.apps.corp:443", "apps.corp:443", "10.0.0.2:443", "[::1]:443"] {
        refused(world.judge(bad, &chain), ProbeReason::NameMismatch, &["registry.corp", "*.apps.corp", "10.0.0.1"]);
    }
    let many = leaf_with(&corp, |params| {
        params.subject_alt_names =
            (0..20).map(|n| SanType::DnsName(format!("h{n}.corp").try_into().unwrap())).collect();
    });
    world.refuses(&[many], ProbeReason::NameMismatch, &["h0.corp", "h7.corp", "and 12 more"]);
    let bare = leaf_with(&corp, |params| params.subject_alt_names.clear());
    world.refuses(&[bare], ProbeReason::NameMismatch, &["no subjectAltName", "common name"]);
    // With both faults the chain is the reason, and the name is told as well.
    let other = root("Other Root");
    refused(world.judge("elsewhere:443", &[leaf(&other)]), ProbeReason::UnknownIssuer, &["not for elsewhere"]);
}

#[test]
fn a_chain_that_the_server_does_not_send() {
    let corp = root("Corp Root CA");
    let issuing = intermediate("Issuing CA 7", &corp, |_| {});
    let world = ProbeHost::of(&[&corp]);
    world.refuses(
        &[leaf(&issuing)],
        ProbeReason::UnknownIssuer,
        &["sent no chain", "intermediate", "\"Issuing CA 7\""],
    );
    // authorityInfoAccess: caIssuers http://pki.corp/7.crt (RFC 5280, 4.2.2.1)
    let mut access =
        vec![0x30, 0x24, 0x30, 0x22, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x02, 0x86, 0x16];
    access.extend_from_slice(b"http://pki.corp/7.crt?");
    let with_place = leaf_with(&issuing, |params| {
        params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access));
    });
    world.refuses(
        &[with_place],
        ProbeReason::IncompleteChain,
        &["http://pki.corp/7.crt", "have the server send its chain"],
    );
    // authorityKeyIdentifier with the name of the issuer's issuer, as `openssl ca` writes it (RFC 5280, 4.2.1.1)
    let name = &anchor(&corp).subject.raw;
    let len = |n: usize| u8::try_from(n).unwrap();
    let mut identifier = vec![0x30, len(name.len() + 7), 0xa1, len(name.len() + 2), 0xa4, len(name.len())];
    identifier.extend_from_slice(name);
    identifier.extend_from_slice(&[0x82, 0x01, 0x07]);
    let with_name = leaf_with(&issuing, |params| {
        params.use_authority_key_identifier_extension = false;
        params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 35], identifier));
    });
    world.refuses(&[with_name], ProbeReason::IncompleteChain, &["Corp Root CA", "have the server send its chain"]);
    // The intermediate itself may be an anchor.
    let probe = ProbeHost::of(&[&issuing]).trusts(&[leaf(&issuing)]);
    assert!(probe.notes[0].contains("partial chains"), "{:?}", probe.notes);
}

#[test]
fn a_servers_own_certificate_in_the_bundle() {
    let key = KeyPair::generate().unwrap();
    let own = |edit: fn(&mut CertificateParams)| leaf_params(edit).self_signed(&key).unwrap().der().to_vec();
    let plain = own(|_| {});
    ProbeHost::default().refuses(
        std::slice::from_ref(&plain),
        ProbeReason::SelfSigned,
        &["signed itself", "add this certificate"],
    );
    let world = ProbeHost { bundle: vec![plain.clone()], ..ProbeHost::default() };
    assert!(world.trusts(&[plain]).notes[0].contains("every renewal"));
    // A server certificate that calls itself a CA, as `openssl req -x509` makes it.
    let ca = own(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    ProbeHost { bundle: vec![ca.clone()], ..ProbeHost::default() }.trusts(&[ca]);
    // Go takes an issued certificate too.
    let corp = root("Corp Root CA");
    let issued = leaf(&corp);
    let probe = ProbeHost { bundle: vec![issued.clone()], ..ProbeHost::default() }.trusts(&[issued]);
    assert!(probe.notes[0].contains("OpenSSL refuses"), "{:?}", probe.notes);
    // A leaf that is marked as a CA, below a CA in the store.
    let marked = leaf_with(&corp, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    ProbeHost::of(&[&corp]).trusts(std::slice::from_ref(&marked));
    ProbeHost::default().refuses(&[marked], ProbeReason::UnknownIssuer, &["Corp Root CA"]);
    // An expired certificate is refused, in the bundle or not.
    let old = own(|params| params.not_after = date_time_ymd(2026, 11, 30));
    ProbeHost { bundle: vec![old.clone()], ..ProbeHost::default() }.refuses(&[old], ProbeReason::Expired, &["renew"]);
}

#[test]
fn certificates_that_are_not_for_this_use() {
    let corp = root("Corp Root CA");
    let world = ProbeHost::of(&[&corp]);
    let client = leaf_with(&corp, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    world.refuses(&[client], ProbeReason::WrongUsage, &["the server's certificate", "serverAuth"]);
    // OpenSSL takes server-gated cryptography, by Microsoft's and Netscape's identifier, for serverAuth. Go does not.
    for gated in [&[1, 3, 6, 1, 4, 1, 311, 10, 3, 3][..], &[2, 16, 840, 1, 113730, 4, 1]] {
        let gated = vec![ExtendedKeyUsagePurpose::Other(gated.to_vec())];
        let server = leaf_with(&corp, |params| params.extended_key_usages.clone_from(&gated));
        world.refuses(&[server], ProbeReason::WrongUsage, &["OpenSSL accepts it, Go refuses", "lacks serverAuth"]);
    }
    let any = leaf_with(&corp, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]);
    let note = &world.trusts(&[any]).notes[0];
    assert!(note.starts_with("Go accepts it, OpenSSL refuses") && note.contains("lacks serverAuth"), "{note}");
    let mute = intermediate("Mute CA", &corp, |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    world.refuses(&[leaf(&mute), der(&mute)], ProbeReason::WrongUsage, &["\"Mute CA\"", "keyCertSign"]);
    let no_ca = intermediate("No CA", &corp, |params| params.is_ca = IsCa::ExplicitNoCa);
    world.refuses(&[leaf(&no_ca), der(&no_ca)], ProbeReason::WrongUsage, &["\"No CA\"", "not a CA"]);
    let mail = intermediate("Mail CA", &corp, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
    });
    world.refuses(&[leaf(&mail), der(&mail)], ProbeReason::WrongUsage, &["\"Mail CA\"", "serverAuth"]);
    for (edit, words) in [
        ((|params| params.is_ca = IsCa::ExplicitNoCa) as fn(&mut CertificateParams), "CA:FALSE"),
        (|params| params.is_ca = IsCa::NoCa, "basicConstraints"),
        (|params| params.key_usages = vec![KeyUsagePurpose::CrlSign], "keyUsage"),
        (|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth], "extendedKeyUsage"),
    ] {
        let odd = root_with("Odd Root", edit);
        ProbeHost::of(&[&odd]).refuses(&[leaf(&odd)], ProbeReason::WrongUsage, &["the CA \"Odd Root\"", words]);
    }
}

#[test]
fn limits_that_a_ca_sets() {
    let only = |params: &mut CertificateParams| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("other.test".into())],
            excluded_subtrees: Vec::new(),
        });
    };
    let corp = root("Corp Root CA");
    let narrow = intermediate("Narrow CA", &corp, only);
    ProbeHost::of(&[&corp]).refuses(&[leaf(&narrow), der(&narrow)], ProbeReason::Constraint, &["nameConstraints"]);
    let bound = root_with("Bound Root", only);
    ProbeHost::of(&[&bound]).refuses(&[leaf(&bound)], ProbeReason::Constraint, &["nameConstraints"]);
    let last = intermediate("Last CA", &corp, |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let further = intermediate("Further CA", &last, |_| {});
    let chain = [leaf(&further), der(&further), der(&last)];
    ProbeHost::of(&[&corp]).refuses(&chain, ProbeReason::Constraint, &["pathLenConstraint"]);
}

#[test]
fn damaged_and_mixed_up_certificates() {
    let corp = root("Corp Root CA");
    let (right, wrong) = (intermediate("Issuing CA 7", &corp, |_| {}), intermediate("Issuing CA 7", &corp, |_| {}));
    let world = ProbeHost::of(&[&corp]);
    world.refuses(
        &[leaf(&right), der(&wrong)],
        ProbeReason::BadSignature,
        &["certificate 1", "has not signed it", "several keys"],
    );
    world.trusts(&[leaf(&right), der(&wrong), der(&right)]);
    world.refuses(&[vec![1, 2, 3]], ProbeReason::Malformed, &["cannot be used"]);
    world.refuses(&[], ProbeReason::Malformed, &["no certificate"]);
    // Go and OpenSSL end the handshake for what is no certificate, wherever it stands
    world.refuses(&[leaf(&right), vec![1, 2, 3], der(&right)], ProbeReason::Malformed, &["certificate 1"]);
    // A signature with one bit turned.
    let mut turned = leaf(&corp);
    let last = turned.len() - 1;
    turned[last] ^= 1;
    world.refuses(&[turned], ProbeReason::BadSignature, &["Corp Root CA", "does not match"]);
    // A broken certificate in the bundle breaks nothing else.
    let mut world = ProbeHost::of(&[&corp]);
    world.bundle.insert(0, vec![0x30, 0x80]);
    world.trusts(&[leaf(&corp)]);
}

#[test]
fn long_chains_are_cut() {
    let corp = root("Corp Root CA");
    let mut chain = vec![leaf(&corp)];
    chain.extend((0..30).map(|n| der(&root(&format!("Root {n}")))));
    let probe = ProbeHost::of(&[&corp]).trusts(&chain);
    assert_eq!(probe.chain.len(), MAX_CHAIN);
    assert!(probe.notes[0].contains("31 certificates"), "{:?}", probe.notes);
    // Two CAs that sign each other do not make a loop without end.
    let keys = [KeyPair::generate().unwrap(), KeyPair::generate().unwrap()];
    let a = CertifiedIssuer::self_signed(named_params("A", |_| {}), &keys[0]).unwrap();
    let b = CertifiedIssuer::self_signed(named_params("B", |_| {}), &keys[1]).unwrap();
    let a_by_b = named_params("A", |_| {}).signed_by(&keys[0], &b).unwrap().der().to_vec();
    let b_by_a = named_params("B", |_| {}).signed_by(&keys[1], &a).unwrap().der().to_vec();
    let leaf = leaf_params(|_| {}).signed_by(&KeyPair::generate().unwrap(), &a).unwrap().der().to_vec();
    ProbeHost::of(&[&corp]).refuses(&[leaf, a_by_b, b_by_a], ProbeReason::UnknownIssuer, &["\"A\""]);
}

#[test]
fn what_happens_after_the_certificates_were_shown() {
    let corp = root("Corp Root CA");
    let world = ProbeHost::of(&[&corp]);
    let probe = world.trusts(&[leaf(&corp)]).after(&Failure::Alert("certificate_required".into()));
    assert!(probe.is_trusted() && probe.notes[0].contains("certificate_required"), "{probe:#?}");
    refused(world.trusts(&[leaf(&corp)]).after(&Failure::NotItsKey), ProbeReason::BadSignature, &["key"]);
}

#[test]
fn every_failure_to_connect_has_a_next_step() {
    let target = Target::parse("registry.corp:443").unwrap();
    // whoever has named a proxy is not asked whether one is needed
    let unreached = |why| Failure::ProxyUnreached("http://proxy.corp:3128".into(), Box::new(why));
    for (failure, reason, word) in [
        (Failure::Dns("registry.corp".into(), "no".into()), ProbeReason::Dns, "resolv.conf"),
        (Failure::Refused("10.0.0.1:443".into()), ProbeReason::Refused, "port"),
        (Failure::Timeout("connecting".into()), ProbeReason::Timeout, "firewall"),
        (Failure::Network("no route".into()), ProbeReason::Unreachable, "route"),
        (unreached(Failure::Refused("10.0.0.2:3128".into())), ProbeReason::Refused, "port of the proxy"),
        (
            unreached(Failure::Dns("proxy.corp".into(), "no".into())),
            ProbeReason::Dns,
            "the server itself was not asked",
        ),
        (Failure::ProxyStatus(407, false), ProbeReason::Proxy, "wants a user"),
        (Failure::ProxyStatus(407, true), ProbeReason::Proxy, "does not take"),
        (Failure::ProxyStatus(403, false), ProbeReason::Proxy, "allow CONNECT to registry.corp:443"),
        (Failure::ProxyStatus(502, false), ProbeReason::Proxy, "does not reach"),
        (Failure::ProxyAnswer("x"), ProbeReason::Proxy, "HTTP proxy"),
        (Failure::NotTls, ProbeReason::NotTls, "port"),
        (Failure::TlsVersion, ProbeReason::TlsVersion, "1.2"),
        (Failure::Alert("unrecognized_name".into()), ProbeReason::Handshake, "name"),
        (Failure::Alert("handshake_failure".into()), ProbeReason::Handshake, "cipher"),
        (Failure::Closed, ProbeReason::Handshake, "log"),
    ] {
        let probe = Probe::not_reached(&target, &failure);
        assert_eq!((probe.verdict, probe.reason), (ProbeVerdict::NotReached, Some(reason)), "{probe:?}");
        assert!(probe.next.len() == 1 && probe.next[0].contains(word), "{probe:?}");
        let names_proxy = probe.text.contains("proxy.corp:3128");
        assert!(!names_proxy || !probe.next[0].contains("is needed"), "{probe:?}");
    }
}
