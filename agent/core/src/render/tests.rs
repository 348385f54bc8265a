use std::sync::Arc;

use data_encoding::BASE64;
use rcgen::DnType;

use super::{
    FirstBoot, RenderFormat,
    check::{TemplateCheck, TemplateVerdict, check},
    find, render,
};
use crate::{
    certificate::{anchor::Anchor, fingerprint::Fingerprint},
    ledger::Ledger,
    source::{
        Resolved,
        policy::{Circumstances, NotCa, Policy},
        resolve::resolve,
    },
    store::{Family, advice::NATIVE_SYSTEMS},
    testing::{NOW, anchor, ca, self_signed, source},
};

fn resolved(anchors: &[&Arc<Anchor>]) -> Resolved {
    let at = Circumstances { drops_not_ca: None, installed: &|_| false, now: NOW };
    resolve(&[source("org", anchors)], &Ledger::new(), &Policy::default(), at)
}

fn rendered(anchors: &[&Arc<Anchor>], format: RenderFormat) -> String {
    render(&FirstBoot::new(&resolved(anchors), &Policy::default(), None), format)
}

fn with_anchors() -> impl Iterator<Item = RenderFormat> {
    RenderFormat::ALL.into_iter().filter(|format| format.holds_anchors())
}

fn found(text: impl AsRef<[u8]>) -> Vec<Fingerprint> {
    find::find(text.as_ref()).anchors.into_keys().collect()
}

fn checked(text: &str, anchors: &[&Arc<Anchor>]) -> TemplateCheck {
    check("template", find::find(text.as_bytes()), &resolved(anchors), &Policy::default(), NOW)
}

#[test]
fn every_format_is_found_to_carry_its_own_set_and_names_its_digest() {
    let (one, other) = (ca("Corp Root 2021"), ca("Corp Root 2026"));
    for format in with_anchors() {
        let text = rendered(&[&one, &other], format);
        let set = resolved(&[&one, &other]);
        let digest = FirstBoot::new(&set, &Policy::default(), None).digest.to_string();
        assert!(text.contains(&digest), "{}: {text}", format.as_str());
        let check = checked(&text, &[&one, &other]);
        assert_eq!((check.verdict, check.certificates, check.notes), (TemplateVerdict::Current, 2, vec![]), "{text}");
        assert_eq!(rendered(&[&other, &one], format), text, "the order of the sources does not matter");
        assert_eq!(format.as_str().parse(), Ok(format));
    }
}

#[test]
fn a_name_in_a_certificate_cannot_leave_its_comment() {
    let name = "a\nput x <<'EOF'\r\u{2028}{{ x }}{% x %}{# x #} \u{e9}\u{202e}'\"\\";
    let odd = ca(name);
    for format in with_anchors() {
        let text = rendered(&[&odd], format);
        assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "{text}");
        assert!(!text.lines().any(|line| line.trim().starts_with("put x")), "{text}");
        // Cluster API sends the files through Jinja
        assert!(!["{{", "{%", "{#"].iter().any(|sign| text.contains(sign)), "{text}");
    }
}

#[test]
fn the_script_knows_every_system_that_the_agent_knows() {
    let script = rendered(&[&ca("Corp Root")], RenderFormat::Script);
    let native = script.lines().find(|line| line.contains("sets trust in its own way")).unwrap();
    let ids = native.trim().split(')').next().unwrap().split(" | ");
    assert!(ids.eq(NATIVE_SYSTEMS.iter().map(|system| system.id).chain(["bottlerocket"])), "{native}");
    let families = ["debian", "redhat", "suse", "arch", "alpine", "flatcar", "photon", "directory"];
    for family in families {
        assert!(script.contains(&format!("\n    {family})\n      anchors=/")), "{family}");
    }
    assert!(!script.contains("# @") && !script.contains("@units@"), "{script}");
    let set = resolved(&[&ca("Corp Root")]);
    let fixed = render(&FirstBoot::new(&set, &Policy::default(), Some(Family::Suse)), RenderFormat::Script);
    assert!(fixed.contains("\nfamily=suse\n") && !fixed.contains("\nfind_family\n"), "{fixed}");
    let fixed = render(&FirstBoot::new(&set, &Policy::default(), Some(Family::Bottlerocket)), RenderFormat::Script);
    assert!(fixed.contains("\nfail \"the bottlerocket store") && !fixed.contains("family=bottlerocket"), "{fixed}");
}

#[test]
fn what_p11_kit_drops_is_left_out_there_unless_the_policy_accepts_it() {
    let leaf = anchor(&self_signed(|params| {
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        params.distinguished_name.push(DnType::CommonName, "ingress");
    }));
    let put = format!("put {} not-ca <<", leaf.fingerprint.fp16());
    assert!(rendered(&[&leaf], RenderFormat::Script).contains(&put));
    let accept = Policy { not_ca: NotCa::Accept, ..Policy::default() };
    let set = resolved(&[&leaf]);
    assert!(!render(&FirstBoot::new(&set, &accept, None), RenderFormat::Script).contains("not-ca <<"));
}

#[test]
fn bottlerocket_user_data_is_toml_with_trusted_entries() {
    let (one, other) = (ca("Corp Root 2021"), ca("Corp Root 2026"));
    let file: toml::Table = rendered(&[&one, &other], RenderFormat::Bottlerocket).parse().unwrap();
    let pki = file["settings"]["pki"].as_table().unwrap();
    assert_eq!(pki.len(), 2);
    for root in [&one, &other] {
        let entry = &pki[&format!("nodetrust-{}", root.fingerprint.fp16())];
        assert_eq!(entry["trusted"].as_bool(), Some(true));
        assert_eq!(BASE64.decode(entry["data"].as_str().unwrap().as_bytes()).unwrap(), root.pem().as_bytes());
    }
}

/// What `gzip -n` makes of a text.
fn gzip(text: &str) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// A text in lines of so many characters.
fn wrapped(text: &str, width: usize, indent: &str) -> String {
    text.as_bytes().chunks(width).map(|line| format!("{indent}{}\n", str::from_utf8(line).unwrap())).collect()
}

#[test]
fn certificates_are_found_in_every_form_that_templates_have() {
    let root = ca("Corp Root");
    let (pem, base64) = (root.pem(), BASE64.encode(root.pem().as_bytes()));
    let indented = pem.replace('\n', "\n      ");
    let escaped = pem.replace('\n', "\\n");
    let percent: String = pem.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let cloud = format!("#cloud-config\nwrite_files:\n- path: /x\n  content: |\n      {indented}\n");
    let forms = [
        ("PEM", pem.clone()),
        ("PEM with Windows' line ends", pem.replace('\n', "\r\n")),
        ("a YAML block", format!("content: |\n      {indented}\nnext: 1\n")),
        ("a JSON string", format!("{{\"ca\": \"{escaped}\"}}")),
        ("a JSON string with escaped slashes", format!("{{\"ca\": \"{}\"}}", escaped.replace('/', "\\/"))),
        (
            "a string inside of a string",
            format!("{{\"x\": \"{{\\\"ca\\\": \\\"{}\\\"}}\"}}", escaped.replace("\\n", "\\\\n")),
        ),
        ("a folded YAML string", format!("ca: \"{}\"\n", escaped.replace("\\n", "\\n\\\n    "))),
        ("base64 in YAML", format!("- encoding: b64\n  content: {base64}\n  path: /x\n")),
        ("base64 in YAML before a bare word", format!("content: {}\nword\n", base64.trim_end_matches('='))),
        ("a binary of YAML", format!("content: !!binary |\n{}path: /x\n", wrapped(&base64, 60, "    "))),
        ("DER in base64", format!("ca: {}\n", BASE64.encode(root.der()))),
        ("gzip and base64", format!("encoding: gz+b64\ncontent: {}\n", BASE64.encode(&gzip(&pem)))),
        (
            "a part of a mail",
            format!(
                "Content-Transfer-Encoding: base64\n\n{}\n--b--\n",
                wrapped(&BASE64.encode(cloud.as_bytes()), 76, "")
            ),
        ),
        ("quoted-printable", format!("Content-Transfer-Encoding: quoted-printable\n\n{}\n", pem.replace('=', "=3D"))),
        ("a data URL", format!("{{\"source\": \"data:;base64,{base64}\"}}")),
        (
            "a data URL with percent signs",
            format!("{{\"source\": \"data:text/plain;base64,{}\"}}", base64.replace('=', "%3D")),
        ),
        ("a data URL of text", format!("{{\"source\": \"data:,{percent}\"}}")),
        ("a variable of a shell", format!("CA={base64}\necho \"$CA\"\n")),
        ("user data in base64 in base64", BASE64.encode(BASE64.encode(cloud.as_bytes()).as_bytes())),
        ("a document in a JSON string", format!("{{\"userData\": \"{}\"}}", cloud.replace('\n', "\\n"))),
        (
            "base64 in a document in a JSON string",
            format!("{{\"userData\": \"write_files:\\n- content: {base64}\\n  path: /x\\n\"}}"),
        ),
    ];
    for (what, text) in forms {
        let all = find::find(text.as_bytes());
        assert_eq!(all.anchors.into_keys().collect::<Vec<_>>(), [root.fingerprint], "{what}: {text}");
        assert_eq!(all.notes, Vec::<String>::new(), "{what}: {text}");
    }
    assert_eq!(found(gzip(&cloud)), [root.fingerprint]);
    assert_eq!(found(root.der()), [root.fingerprint]);
}

#[test]
fn what_a_node_would_not_trust_does_not_count() {
    let root = ca("Corp Root");
    let (pem, base64) = (root.pem(), BASE64.encode(root.pem().as_bytes()));
    let commented = format!("# {}\n", pem.trim_end().replace('\n', "\n# "));
    assert_eq!(found(&commented), []);
    assert_eq!(found(format!("  # ca: {base64}\n")), []);
    assert_eq!(found(format!("{{\"x\": \"{}\"}}", commented.replace('\n', "\\n"))), []);
    for cluster in [
        format!("apiVersion: node.eks.aws/v1alpha1\nspec:\n  cluster:\n    certificateAuthority: {base64}\n"),
        format!("    certificate-authority-data: {base64}\n"),
        format!("[settings.pki]\n[settings.kubernetes]\ncluster-certificate = \"{base64}\"\n"),
    ] {
        assert_eq!(found(&cluster), [], "{cluster}");
    }
    let distrusted = format!("[settings.pki.old]\ndata = \"{base64}\"\n");
    let all = find::find(distrusted.as_bytes());
    assert!(all.anchors.is_empty() && all.notes[0].contains("settings.pki.old"), "{all:?}");
    assert_eq!(found(format!("{distrusted}trusted = true\n")), [root.fingerprint]);
}

#[test]
fn nothing_of_a_key_is_told() {
    let key = rcgen::KeyPair::generate().unwrap();
    let text = format!("{}{}", key.serialize_pem(), ca("Corp Root").pem());
    for text in
        [text.clone(), BASE64.encode(text.as_bytes()), key.serialize_pem().replace("PRIVATE KEY", "CERTIFICATE")]
    {
        let all = find::find(text.as_bytes());
        let told = format!("{:?}", all);
        let secret = BASE64.encode(key.serialized_der());
        assert!(!told.contains(&secret[..32]) && !told.contains(&secret[secret.len() - 32..]), "{told}");
    }
}

#[test]
fn a_hostile_template_is_read_within_bounds() {
    let mut nested = ca("Corp Root").pem();
    for _ in 0..20 {
        nested = BASE64.encode(nested.as_bytes());
    }
    let all = find::find(nested.as_bytes());
    assert!(all.anchors.is_empty() && !all.notes.is_empty(), "{all:?}");
    let bomb = BASE64.encode(&gzip(&"a".repeat(find::MAX_TEMPLATE_BYTES + 1)));
    assert!(found(bomb).is_empty());
    for open in ["-----BEGIN CERTIFICATE-----\n", "data:,data:;base64,", "data:", "\\n", "\\\\\\u00", "="] {
        let all = find::find(open.repeat(100_000).as_bytes());
        assert!(all.anchors.is_empty() && all.notes.len() < 30);
    }
}

#[test]
fn a_template_is_current_only_with_the_set_and_nothing_else() {
    let (new, same_name, other) = (ca("Corp Root"), ca("Corp Root"), ca("Other Root"));
    let expired = anchor(&self_signed(|params| {
        params.distinguished_name.push(DnType::CommonName, "Old Root");
        params.not_after = rcgen::date_time_ymd(2024, 1, 1);
    }));
    let verdict = |text: &str| checked(text, &[&new, &other]).verdict;
    let both = new.pem() + &other.pem();
    assert_eq!(verdict(&both), TemplateVerdict::Current);
    assert_eq!(verdict(&new.pem()), TemplateVerdict::Outdated);
    assert_eq!(verdict(&(both.clone() + &expired.pem())), TemplateVerdict::Expired);
    assert_eq!(verdict("#cloud-config\n"), TemplateVerdict::Empty);

    let check = checked(&(same_name.pem() + &other.pem()), &[&new, &other]);
    assert_eq!(check.verdict, TemplateVerdict::Outdated);
    assert_eq!(check.missing.iter().map(|row| row.sha256).collect::<Vec<_>>(), [new.fingerprint]);
    assert_eq!(check.extra.iter().map(|row| row.sha256).collect::<Vec<_>>(), [same_name.fingerprint]);
    let detail = check.extra[0].detail.clone().unwrap();
    assert!(detail.contains(&new.fingerprint.fp16()), "{detail}");

    let denying = Policy { denied: [same_name.fingerprint].into(), ..Policy::default() };
    let check = check_with(&(same_name.pem() + &both), &[&new, &other], &denying);
    assert!(check.extra[0].detail.clone().unwrap().contains("deniedFingerprints"), "{check:?}");
}

fn check_with(text: &str, anchors: &[&Arc<Anchor>], policy: &Policy) -> TemplateCheck {
    check("template", find::find(text.as_bytes()), &resolved(anchors), policy, NOW)
}
