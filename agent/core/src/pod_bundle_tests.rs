use super::*;
use crate::{
    certificate::pem::{Fault, RejectReason},
    store::Family,
    testing::{ca, fixed, host},
};

const PATH: &str = "/var/lib/nodetrust/export/ca.crt";

/// A host with one anchor of ours, and what its bundle would be exported as.
fn exported() -> (Observed, String) {
    let anchor = ca("Corp Root");
    let bundle = format!("# Corp Root\n{}\n{}", anchor.pem(), fixed("rsa-2048").pem());
    (host(Family::Debian, &[&anchor]), content(bundle.as_bytes()))
}

fn found(path: &str, found: ExistingFile) -> BTreeMap<String, ExistingFile> {
    BTreeMap::from([(path.to_owned(), found)])
}

fn ours(text: &str) -> ExistingFile {
    ExistingFile::Ours(text.as_bytes().to_vec())
}

fn told(export: &PodBundlePlan) -> Vec<String> {
    export.actions.iter().map(ToString::to_string).collect()
}

#[test]
fn the_content_has_each_certificate_once_in_the_order_of_the_bundle_and_nothing_else() {
    let (one, two) = (ca("One"), ca("Two"));
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let bundle = format!("# Two\r\n{}{key}text\n{}{}", two.pem().replace('\n', "\r\n"), one.pem(), two.pem());
    assert_eq!(content(bundle.as_bytes()), format!("{HEADER}{}{}", two.pem(), one.pem()));
}

#[test]
fn it_is_written_once_and_again_when_it_differs() {
    let (observed, content) = exported();
    for there in [ExistingFile::Nothing, ours(HEADER), ExistingFile::Ours(Vec::new())] {
        let export = decide(Some(PATH), &found(PATH, there), Some(content.clone()), &observed);
        assert_eq!(told(&export), [format!("export   {PATH} (2 certificates)")]);
        assert_eq!((&export.content, export.view.unwrap().current), (&content, false));
    }
    let export = decide(Some(PATH), &found(PATH, ours(&content)), Some(content), &observed);
    let view = PodBundleView { path: PATH.into(), current: true, certificates: 2, detail: String::new() };
    assert_eq!(export, PodBundlePlan { view: Some(view), ..PodBundlePlan::default() });
}

#[test]
fn a_bundle_that_is_not_sound_is_not_handed_on() {
    let (sound, content) = exported();
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
        let export = decide(Some(PATH), &found(PATH, ours(&content)), Some(HEADER.into()), &observed);
        assert_eq!(told(&export), [""; 0], "{why}");
        let view = export.view.unwrap();
        assert_eq!((view.certificates, view.current), (2, false));
        assert_eq!(view.detail, format!("stays as it was: {why}"));
    }
}

#[test]
fn what_is_not_ours_is_left_alone_and_told() {
    let (observed, content) = exported();
    let there = ExistingFile::Other("a file that nodetrust did not write is there".into());
    let export = decide(Some(PATH), &found(PATH, there.clone()), Some(content.clone()), &observed);
    assert_eq!(told(&export), [""; 0]);
    let [problem] = &*export.problems else { panic!("{export:?}") };
    assert_eq!(problem.kind, ProblemKind::Export);
    assert!(!problem.kind.is_failure() && problem.text.contains(PATH) && !problem.next.is_empty());

    // Nor at a path that we once wrote to.
    let export = decide(None, &found("/old", there), Some(content), &observed);
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
    let (observed, content) = exported();
    let mut both = found("/old/ca.crt", ours(&content));
    both.insert(PATH.into(), ExistingFile::Nothing);
    let export = decide(Some(PATH), &both, Some(content.clone()), &observed);
    assert_eq!(
        told(&export),
        [format!("export   {PATH} (2 certificates)"), "remove   /old/ca.crt (no longer in export.bundle)".into()]
    );
    both.insert(PATH.into(), ExistingFile::Other("a directory".into()));
    let export = decide(Some(PATH), &both, Some(content.clone()), &observed);
    assert_eq!(told(&export), [""; 0], "the old one is the only one that there is");
    // As our file it is kept current.
    both.insert("/old/ca.crt".into(), ours(HEADER));
    for known in [Some(content.clone()), None] {
        let export = decide(Some(PATH), &both, known.clone(), &observed);
        assert_eq!(told(&export), ["export   /old/ca.crt (2 certificates)"]);
        assert_eq!(export.content, known.unwrap_or_default());
    }
    let mut lost = observed.clone();
    lost.lost.insert(ca("Somebody's").fingerprint);
    assert_eq!(
        told(&decide(Some(PATH), &both, Some(content.clone()), &lost)),
        [""; 0],
        "not with a bundle that is not sound"
    );

    let export = decide(None, &found("/old/ca.crt", ours(&content)), None, &observed);
    assert_eq!(told(&export), ["remove   /old/ca.crt (no longer in export.bundle)"]);
}

#[test]
fn while_the_store_is_about_to_change_it_is_only_announced() {
    let (observed, content) = exported();
    let export = decide(Some(PATH), &found(PATH, ours(&content)), None, &observed);
    assert_eq!(told(&export), [format!("export   {PATH} (2 certificates)")]);
    assert!(!export.view.unwrap().current && export.content.is_empty());
}
