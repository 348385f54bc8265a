//! Go's rules for proxies, after the table of its own tests, and systemd's for files of variables.

use super::*;

fn environment(text: &[&str]) -> Environment {
    let mut environment = Environment::default();
    environment.assign(text.iter().copied());
    environment
}

/// The proxy for a target with this NO_PROXY.
#[track_caller]
fn with_no_proxy(no_proxy: &str, target: &str) -> Option<String> {
    let environment = environment(&["HTTPS_PROXY=http://proxy.corp:3128", &format!("NO_PROXY={no_proxy}")]);
    let target = Target::parse(target).unwrap();
    environment.proxy_for(&target).unwrap().map(|proxy| proxy.to_string())
}

#[test]
fn a_registry_is_asked_through_the_proxy_unless_no_proxy_names_it() {
    for (no_proxy, target) in [
        ("", "registry.corp:443"),
        ("corp2", "registry.corp:443"),
        ("egistry.corp", "registry.corp:443"),
        (".registry.corp", "registry.corp:443"),
        ("*.registry.corp", "registry.corp:443"),
        ("registry.corp:80", "registry.corp:443"),
        (":443", "registry.corp:443"),
        ("10.0.0.0/8", "11.0.0.1:443"),
        ("10.0.0.1:80", "10.0.0.1:443"),
        ("fd00::/8", "[fe80::1]:443"),
        ("10.0.0.0/8", "registry.corp:443"),
        ("10.0.0.0/99", "10.0.0.1:443"),
        (".1", "10.0.0.1:443"),
        ("*corp", "registry.corp:443"),
    ] {
        assert_eq!(with_no_proxy(no_proxy, target).as_deref(), Some("proxy.corp:3128"), "{no_proxy} {target}");
    }
    for (no_proxy, target) in [
        ("*", "registry.corp:443"),
        ("a, *, b", "registry.corp:443"),
        ("corp", "registry.corp:443"),
        (".corp", "registry.corp:443"),
        ("*.corp", "registry.corp:443"),
        ("a,b , REGISTRY.corp", "Registry.Corp:443"),
        ("registry.corp:443", "registry.corp:443"),
        ("10.0.0.0/8", "10.255.0.1:5000"),
        ("0.0.0.0/0", "10.255.0.1:5000"),
        ("10.0.0.1", "10.0.0.1:5000"),
        ("10.0.0.1:5000", "10.0.0.1:5000"),
        ("fd00::1", "[fd00::1]:443"),
        ("[fd00::1]:443", "[fd00::1]:443"),
        ("[fd00::1]", "[fd00::1]:443"),
        ("fd00::/8", "[fd12::1]:443"),
        // These targets never go through a proxy.
        ("", "localhost:5000"),
        ("", "127.0.0.2:5000"),
        ("", "[::1]:5000"),
    ] {
        assert_eq!(with_no_proxy(no_proxy, target), None, "{no_proxy} {target}");
    }
}

#[test]
fn a_proxy_is_read_in_every_form_that_go_takes() {
    let target = Target::parse("registry.corp:443").unwrap();
    let proxy = |text: &str| environment(&[text]).proxy_for(&target).map(|proxy| proxy.map(|proxy| proxy.to_string()));
    for (text, expected) in [
        ("HTTPS_PROXY=http://proxy:3128", Some("proxy:3128")),
        ("https_proxy=proxy:3128", Some("proxy:3128")),
        ("HTTPS_PROXY=HTTP://proxy/", Some("proxy:80")),
        ("HTTPS_PROXY=proxy", Some("proxy:80")),
        ("HTTPS_PROXY=http://user:pass@proxy:3128/x?y", Some("proxy:3128")),
        ("HTTPS_PROXY=http://[fd00::1]", Some("[fd00::1]:80")),
        ("HTTPS_PROXY=http://[fd00::1]:3128", Some("[fd00::1]:3128")),
        ("HTTPS_PROXY=", None),
        ("HTTP_PROXY=http://proxy:3128", None),
        ("ALL_PROXY=http://proxy:3128", None),
    ] {
        assert_eq!(proxy(text), Ok(expected.map(str::to_owned)), "{text}");
    }
    for text in [
        "https://me:secret@proxy:3128",
        "socks5://me:secret@proxy:1080",
        "ftp://me:secret@proxy",
        "http://me:secret@",
        "http://me:secret@a b",
    ] {
        let error = proxy(&format!("HTTPS_PROXY={text}")).unwrap_err();
        assert!(error.starts_with("its HTTPS_PROXY is ") && !error.contains("secret"), "{error}");
    }
    let both = environment(&["https_proxy=lower:1", "HTTPS_PROXY=upper:1"]);
    assert_eq!(both.proxy_for(&target).unwrap().unwrap().to_string(), "upper:1");
    let empty = environment(&["https_proxy=lower:1", "HTTPS_PROXY="]);
    assert_eq!(empty.proxy_for(&target).unwrap().unwrap().to_string(), "lower:1");
    let mut k3s = environment(&["HTTPS_PROXY=k3s:1", "CONTAINERD_HTTPS_PROXY=containerd:1"]);
    k3s.without_prefix("CONTAINERD_");
    assert_eq!(k3s.proxy_for(&target).unwrap().unwrap().to_string(), "containerd:1");
}

#[test]
fn later_assignments_win_and_some_are_taken_away() {
    let mut of = environment(&["A=1", "B=1", "A=2", "=3", "1C=4", "no assignment", "D=x=y"]);
    of.unset(["B=2", "B", "D=z"]);
    assert_eq!(of, environment(&["A=2", "D=x=y"]));
    of.unset(["D=x=y"]);
    assert_eq!(of, environment(&["A=2"]));
}

#[test]
fn an_environment_file_is_read_as_systemd_reads_it() {
    let text = "# HTTPS_PROXY=http://a:1\n; x\n\n  HTTPS_PROXY=http://proxy:3128  \nNO_PROXY=\"a, b\\\"c\\x\"\nSINGLE='a \\ b' \n\
                LONG=a\\\nb\nMANY=\"two\nlines\"\nexport NOT=1\nSPACED=a b \nESCAPED=a\\ b\\#\nHASH=a#b\nEMPTY=\nJOINED=\"a\"'b'c\nEND=x";
    let mut of = Environment::default();
    of.assign_file(text);
    let expected = [
        "HTTPS_PROXY=http://proxy:3128",
        "NO_PROXY=a, b\"c\\x",
        "SINGLE=a \\ b",
        "LONG=ab",
        "MANY=two\nlines",
        "SPACED=a b",
        "ESCAPED=a b#",
        "HASH=a#b",
        "EMPTY=",
        "JOINED=abc",
        "END=x",
    ];
    assert_eq!(of, environment(&expected));
    for odd in ["", "\\", "A=\\", "A='", "A=\"\\", "'", "=\n=", "A\n"] {
        Environment::default().assign_file(odd);
    }
}
