use super::*;
use crate::{
    action::ExportFormat::{Pem, Pkcs12},
    certificate::pem::{Fault, RejectReason},
    store::Family,
    testing::{ca, fixed, host},
};

const PATH: &str = "/var/lib/nodetrust/export/ca.crt";
const JAVA: &str = "/var/lib/nodetrust/export/ca.p12";

type Contents = BTreeMap<ExportFormat, ExportContent>;

/// A host with one anchor of ours, and what its bundle would be exported as.
fn exported() -> (Observed, Contents) {
    let anchor = ca("Corp Root");
    let bundle = format!("# Corp Root\n{}\n{}", anchor.pem(), fixed("rsa-2048").pem());
    let contents = [Pem, Pkcs12].map(|format| (format, content(format, bundle.as_bytes())));
    (host(Family::Debian, &[&anchor]), contents.into())
}

fn found(path: &str, found: ExistingFile) -> BTreeMap<String, ExistingFile> {
    BTreeMap::from([(path.to_owned(), found)])
}

fn ours(format: ExportFormat, bytes: &[u8]) -> ExistingFile {
    ExistingFile::Ours { format: Some(format), bytes: bytes.to_vec() }
}

fn wanted(path: &str) -> ExportPaths {
    BTreeMap::from([(Pem, path.to_owned())])
}

fn told(export: &PodBundlePlan) -> Vec<String> {
    export.actions.iter().map(ToString::to_string).collect()
}

#[test]
fn the_content_has_each_certificate_once_in_the_order_of_the_bundle_and_nothing_else() {
    let (one, two) = (ca("One"), ca("Two"));
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let bundle = format!("# Two\r\n{}{key}text\n{}{}", two.pem().replace('\n', "\r\n"), one.pem(), two.pem());
    let bytes = format!("{HEADER}{}{}", two.pem(), one.pem()).into_bytes();
    assert_eq!(content(Pem, bundle.as_bytes()), ExportContent { bytes, certificates: 2, left_out: 0 });
    let bytes = pkcs12::trust_store([two.der(), one.der()].into_iter());
    assert_eq!(content(Pkcs12, bundle.as_bytes()), ExportContent { bytes, certificates: 2, left_out: 0 });
}

/// Java would read nothing of the file.
#[test]
fn a_certificate_that_java_may_not_read_is_left_out_of_its_store_and_told() {
    let one = ca("One");
    let cases = include_str!("../../../tests/data/readers/certificates.pem");
    let odd = cases.split_once("# bc-trailing\n").unwrap().1.split("\n\n").next().unwrap();
    let bundle = format!("{odd}\n{}", one.pem());
    let java = content(Pkcs12, bundle.as_bytes());
    assert_eq!(java, ExportContent { left_out: 1, ..content(Pkcs12, one.pem().as_bytes()) });
    assert_eq!(content(Pem, bundle.as_bytes()).certificates, 2);
    let want = BTreeMap::from([(Pkcs12, JAVA.to_owned())]);
    let contents = BTreeMap::from([(Pkcs12, java.clone())]);
    let plan = decide(&want, &found(JAVA, ours(Pkcs12, &java.bytes)), Some(&contents), &exported().0);
    let view = &plan.views[&Pkcs12];
    assert_eq!((view.current, view.certificates), (true, 1));
    assert_eq!(view.how(), "as the extracted bundle without 1 certificate that Java may not read");
}

#[test]
fn it_is_written_once_and_again_when_it_differs() {
    let (observed, contents) = exported();
    for (format, path) in [(Pem, PATH), (Pkcs12, JAVA)] {
        let want = BTreeMap::from([(format, path.to_owned())]);
        let good = &contents[&format].bytes;
        let cut = &good[..good.len() - 20];
        for there in [
            ExistingFile::Nothing,
            ours(format, cut),
            ours(if format == Pem { Pkcs12 } else { Pem }, cut),
            ExistingFile::Ours { format: None, bytes: Vec::new() },
        ] {
            let export = decide(&want, &found(path, there), Some(&contents), &observed);
            assert_eq!(told(&export), [format!("export   {path} (2 certificates)")]);
            assert_eq!((&export.contents, export.views[&format].current), (&contents, false));
        }
        let export = decide(&want, &found(path, ours(format, good)), Some(&contents), &observed);
        let view = PodBundleView { path: path.into(), current: true, certificates: 2, detail: String::new() };
        assert_eq!(export, PodBundlePlan { views: [(format, view)].into(), ..PodBundlePlan::default() });
    }
}

#[test]
fn a_bundle_that_is_not_sound_is_not_handed_on() {
    let (sound, contents) = exported();
    let fault = Fault { line: 3, reason: RejectReason::NotPemOrDer, detail: "cut".into() };
    let mut broken = sound.clone();
    broken.effective.faults.push(fault);
    let mut lost = sound.clone();
    lost.lost.insert(ca("Somebody's").fingerprint);
    let mut empty = sound.clone();
    empty.effective.set.clear();
    for (observed, why) in [
        (broken, "OpenSSL cannot load the extracted bundle"),
        (lost, "the extracted bundle has lost certificates"),
        (empty, "the extracted bundle has no certificates"),
    ] {
        let worse = BTreeMap::from([(Pem, content(Pem, b""))]);
        let found = found(PATH, ours(Pem, &contents[&Pem].bytes));
        let export = decide(&wanted(PATH), &found, Some(&worse), &observed);
        assert_eq!(told(&export), [""; 0], "{why}");
        let view = &export.views[&Pem];
        assert_eq!((view.certificates, view.current), (2, false));
        assert_eq!(view.how(), format!("stays as it was: {why}"));
    }
}

#[test]
fn what_is_not_ours_is_left_alone_and_told() {
    let (observed, contents) = exported();
    let there = ExistingFile::Other("a file that nodetrust did not write is there".into());
    for (format, field) in [(Pem, "export.bundle"), (Pkcs12, "export.pkcs12")] {
        let want = BTreeMap::from([(format, PATH.to_owned())]);
        let export = decide(&want, &found(PATH, there.clone()), Some(&contents), &observed);
        assert_eq!(told(&export), [""; 0]);
        let [problem] = &*export.problems else { panic!("{export:?}") };
        assert_eq!(problem.kind, ProblemKind::Export);
        assert!(!problem.kind.is_failure() && problem.text.contains(PATH) && problem.next.contains(field));
    }

    // Nor at a path that we once wrote to.
    let export = decide(&ExportPaths::new(), &found("/old", there), Some(&contents), &observed);
    assert_eq!(export, PodBundlePlan::default());
}

#[test]
fn a_name_is_a_name_and_its_file_lies_in_our_directory() {
    for name in ["ca-certificates.crt", "a", "A_z.0-9", "-", "a..b", &"x".repeat(MAX_NAME)] {
        let path = path_of(name).expect(name);
        assert_eq!(path, format!("/var/lib/nodetrust/export/{name}"));
        assert!(is_in_place(&path), "{name}");
    }
    for text in [
        "",
        ".",
        "..",
        ".hidden",
        "a/b",
        "/etc/ld.so.preload",
        "../x",
        "a b",
        "a\nb",
        "\u{e4}",
        "a\0",
        "~",
        "a\\b",
        "%2e",
    ] {
        assert_eq!(path_of(text), None, "{text:?}");
        assert!(!is_in_place(&format!("{DIRECTORY}/{text}")), "{text:?}");
    }
    assert_eq!(path_of(&"x".repeat(MAX_NAME + 1)), None);
    for path in
        ["/etc/all.pem", "/var/lib/nodetrust/export", "/var/lib/nodetrust/exported/x", "/var/lib/nodetrust/ledger.json"]
    {
        assert!(!is_in_place(path), "{path}");
    }
}

#[test]
fn an_earlier_path_goes_after_the_new_one_has_come() {
    let (observed, contents) = exported();
    let content = &contents[&Pem].bytes;
    let want = wanted(PATH);
    let decide_with = |both: &BTreeMap<String, ExistingFile>| decide(&want, both, Some(&contents), &observed);
    let mut both = found("/old/ca.crt", ours(Pem, content));
    both.insert(PATH.into(), ExistingFile::Nothing);
    assert_eq!(
        told(&decide_with(&both)),
        [format!("export   {PATH} (2 certificates)"), "remove   /old/ca.crt (no longer named in export)".into()]
    );
    both.insert(PATH.into(), ExistingFile::Other("a directory".into()));
    assert_eq!(told(&decide_with(&both)), [""; 0], "the old one is the only one that there is");
    // As our file it is kept current.
    both.insert("/old/ca.crt".into(), ours(Pem, HEADER.as_bytes()));
    for known in [Some(&contents), None] {
        let export = decide(&want, &both, known, &observed);
        assert_eq!(told(&export), ["export   /old/ca.crt (2 certificates)"]);
        assert_eq!(export.contents, known.cloned().unwrap_or_default());
    }
    let mut lost = observed.clone();
    lost.lost.insert(ca("Somebody's").fingerprint);
    let export = decide(&want, &both, Some(&contents), &lost);
    assert_eq!(told(&export), [""; 0], "not with a bundle that is not sound");

    let export = decide(&ExportPaths::new(), &found("/old/ca.crt", ours(Pem, content)), None, &observed);
    assert_eq!(told(&export), ["remove   /old/ca.crt (no longer named in export)"]);
}

#[test]
fn a_file_waits_for_the_new_one_of_its_own_form() {
    let (observed, contents) = exported();
    let want = BTreeMap::from([(Pem, PATH.to_owned()), (Pkcs12, JAVA.to_owned())]);
    let mut found = found(PATH, ours(Pem, &contents[&Pem].bytes));
    found.insert(JAVA.into(), ExistingFile::Other("a directory".into()));
    for (path, format) in [("/var/lib/nodetrust/export/old.crt", Pem), ("/var/lib/nodetrust/export/old.p12", Pkcs12)] {
        found.insert(path.into(), ours(format, &contents[&format].bytes));
    }
    let export = decide(&want, &found, Some(&contents), &observed);
    assert_eq!(told(&export), ["remove   /var/lib/nodetrust/export/old.crt (no longer named in export)"]);

    // the names change places
    let mut swapped = BTreeMap::from([(PATH.to_owned(), ours(Pkcs12, &contents[&Pkcs12].bytes))]);
    swapped.insert(JAVA.into(), ours(Pem, &contents[&Pem].bytes));
    let export = decide(&want, &swapped, Some(&contents), &observed);
    assert_eq!(
        told(&export),
        [format!("export   {PATH} (2 certificates)"), format!("export   {JAVA} (2 certificates)")]
    );
}

#[test]
fn while_the_store_is_about_to_change_it_is_only_announced() {
    let (observed, contents) = exported();
    let export = decide(&wanted(PATH), &found(PATH, ours(Pem, &contents[&Pem].bytes)), None, &observed);
    assert_eq!(told(&export), [format!("export   {PATH} (2 certificates)")]);
    assert!(!export.views[&Pem].current && export.contents.is_empty());
}
