//! What containerd's files set together. Each expectation is what `containerd config dump` of 1.6.20, 1.7.24 and 2.1.9 printed for the
//! same files.

use super::*;

const V2: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = ";
const V3: &str = "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = ";

fn of(texts: &[&str], generation: Option<Generation>) -> Result<Setting, String> {
    let files: Vec<ContainerdFile> = texts.iter().map(|text| ContainerdFile::parse(text).unwrap()).collect();
    joined(&files, generation)
}

fn dir(path: &str) -> Result<Setting, String> {
    Ok(Setting::Directory(path.into()))
}

#[test]
fn the_last_file_that_sets_the_directory_wins() {
    let (main, drop_in) = (format!("{V2}\"/main\""), format!("{V2}\"/drop-in\""));
    for generation in [None, Some(Generation::One), Some(Generation::Two)] {
        assert_eq!(of(&[&main, &drop_in], generation), dir("/drop-in"));
        assert_eq!(of(&[&drop_in, &main], generation), dir("/main"));
        assert_eq!(of(&[&main, &format!("{V2}\"\"")], generation), Ok(Setting::NotConfigured));
        assert_eq!(of(&[&main, "version = 2\n[grpc]\nuid = 1\n", ""], generation), dir("/main"));
        assert_eq!(of(&[], generation), Ok(Setting::NotConfigured));
    }
}

#[test]
fn a_drop_in_for_something_else_of_the_plug_in_unsets_the_directory_of_containerd_1_only() {
    let main = format!("{V2}\"/main\"");
    let drop_in = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nmax_concurrent_downloads = 5\n";
    assert_eq!(of(&[&main, drop_in], Some(Generation::One)), Ok(Setting::NotConfigured));
    assert_eq!(of(&[&main, drop_in], Some(Generation::Two)), dir("/main"));
    assert!(of(&[&main, drop_in], None).unwrap_err().contains("different ways"));
}

#[test]
fn the_version_says_which_section_counts() {
    let (old, new) = (format!("{V2}\"/two\""), format!("{V3}\"/three\""));
    assert_eq!(of(&[&new, &old], Some(Generation::Two)), dir("/two"));
    assert_eq!(of(&[&old, &new], Some(Generation::Two)), dir("/three"));
    assert_eq!(of(&["[plugins.cri.registry]\nconfig_path = \"/one\"\n"], Some(Generation::One)), dir("/one"));
    for (text, generation) in [
        (new.clone(), Generation::One),
        (V3.replace("version = 3", "version = 2") + "\"/x\"", Generation::Two),
        (V2.replace("version = 2", "version = 3") + "\"/x\"", Generation::Two),
        (V2.replace("version = 2", "") + "\"/x\"", Generation::One),
        ("[plugins.cri.registry]\nconfig_path = \"/one\"\n".to_owned(), Generation::Two),
        (format!("{old}\n[plugins.cri]\n"), Generation::Two),
    ] {
        // Versions of containerd differ here, so the program must be asked.
        assert!(of(&[&text], Some(generation)).is_err(), "{text} {generation:?}");
    }
}

#[test]
fn a_dump_is_read_by_the_name_that_its_program_reads() {
    let dumped = |text: &str| ContainerdFile::parse(text).unwrap().dumped();
    assert_eq!(dumped(&format!("{V3}'/certs/'")), Setting::Directory("/certs".into()));
    assert_eq!(dumped(&format!("{V2}'/certs'")), Setting::Directory("/certs".into()));
    assert_eq!(dumped("[plugins.cri.registry]\nconfig_path = '/one'"), Setting::Directory("/one".into()));
    assert_eq!(dumped(""), Setting::NotConfigured);
    assert_eq!(dumped("[plugins]\ncri = 3\n"), Setting::NotConfigured);
    // 2.1 prints what it does not know as well
    let with_unknown = format!("{V3}''\n[plugins.cri.registry]\nconfig_path = '/wrong'\n");
    assert_eq!(dumped(&with_unknown), Setting::NotConfigured);
    let list = "/etc/containerd/certs.d:/etc/docker/certs.d";
    assert_eq!(dumped(&format!("{V2}'{list}'")), Setting::Several(list.into()));
    assert!(matches!(dumped(&format!("{V2}'certs.d'")), Setting::Unknown(_)));
    assert!(ContainerdFile::parse("[plugins").is_err());
}

#[test]
fn the_socket_is_found_in_every_version() {
    let address = |text: &str| ContainerdFile::parse(text).unwrap().address();
    assert_eq!(address("version = 2\n[grpc]\naddress = '/run/dockershim.sock'"), Some("/run/dockershim.sock".into()));
    assert_eq!(
        address("[plugins.'io.containerd.server.v1.grpc']\naddress = '/run/a.sock'"),
        Some("/run/a.sock".into())
    );
    assert_eq!(address("[grpc]\naddress = ''"), None);
    assert_eq!(address("grpc = 1"), None);
}

#[test]
fn imports_are_found_from_the_file_s_directory() {
    let file = ContainerdFile::parse("imports = ['a.toml', '/b/*.toml', 3]").unwrap();
    assert_eq!(file.imports(), ["a.toml", "/b/*.toml"]);
    assert!(ContainerdFile::parse("imports = 'a.toml'").unwrap().imports().is_empty());
    let place = |import| import_place("/etc/containerd/config.toml", import);
    assert_eq!(place("a.toml"), "/etc/containerd/a.toml");
    assert_eq!(place("./conf.d//*.toml"), "/etc/containerd/conf.d/*.toml");
    assert_eq!(place("../k0s/a.toml"), "/etc/k0s/a.toml");
    assert_eq!(place("/b/../../c.toml"), "/c.toml");
    assert_eq!(import_place("/config.toml", "a.toml"), "/a.toml");
}

#[test]
fn a_pattern_fits_as_the_shell_s_does() {
    for (pattern, name, is) in [
        ("*.toml", "a.toml", true),
        ("*.toml", ".toml", true),
        ("*.toml", "a.toml.bak", false),
        ("*", "", true),
        ("a*b*c", "axxbyyc", true),
        ("a*b*c", "axxc", false),
        ("??-*.toml", "10-x.toml", true),
        ("??-*.toml", "1-x.toml", false),
        ("a.toml", "a.toml", true),
        ("a.toml", "aatoml", false),
        ("é*", "éa", true),
    ] {
        assert_eq!(fits(pattern, name), Some(is), "{pattern} {name}");
    }
    assert_eq!(fits("[ab].toml", "a.toml"), None);
    assert_eq!(fits("a\\*", "a*"), None);
    assert_eq!(pattern_parts("/etc/containerd/conf.d/*.toml"), ("/etc/containerd/conf.d".into(), vec!["*.toml"]));
    assert_eq!(pattern_parts("/etc/*/a.toml"), ("/etc".into(), vec!["*", "a.toml"]));
    assert_eq!(pattern_parts("/*"), ("/".into(), vec!["*"]));
}

#[test]
fn options_are_found_in_every_form() {
    let words: Vec<String> =
        ["/usr/bin/containerd", "-c", "/c.toml", "--address=/run/a.sock", "--root", "--state"].map(Into::into).into();
    assert_eq!(option(&words, &["config", "c"]), Some("/c.toml"));
    assert_eq!(option(&words, &["address", "a"]), Some("/run/a.sock"));
    assert_eq!(option(&words, &["root"]), Some("--state"), "the next word is the value, whatever it is");
    assert_eq!(option(&words, &["log-level"]), None);
    assert_eq!(option(&words[..2], &["c"]), None);
    assert_eq!(option(&[], &["c"]), None);
}

#[test]
fn the_generation_is_in_the_version() {
    for (text, is) in [
        ("1.6.20~ds1", Some(Generation::One)),
        ("v1.7.11-k3s2", Some(Generation::One)),
        ("v2.1.9", Some(Generation::Two)),
        ("2.1.9+unknown", Some(Generation::Two)),
        ("", None),
        ("unknown", None),
        ("12.1", None),
    ] {
        assert_eq!(Generation::of(text), is, "{text}");
    }
}
