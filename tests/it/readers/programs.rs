//! The real readers: the list of them, and how the tests ask them.

use std::{
    fs,
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

/// The library whose rules a reader has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReaderKind {
    OpenSsl,
    GnuTls,
    Go,
    Python,
}

#[derive(Debug)]
pub struct Reader {
    pub kind: ReaderKind,
    /// Program and version.
    pub name: String,
    command: Vec<String>,
}

static ALL: LazyLock<Vec<Reader>> = LazyLock::new(find);

/// All but Python's ssl module, which reads bundles only.
pub fn all() -> Vec<&'static Reader> {
    ALL.iter().filter(|reader| reader.kind != ReaderKind::Python).collect()
}

pub fn of_bundles() -> &'static [Reader] {
    &ALL
}

/// The machine's own, and those that scripts/readers has fetched: below NODETRUST_READERS a system with other libraries and
/// another Go.
fn find() -> Vec<Reader> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/readers");
    let script = here.join("libraries.py").display().to_string();
    let mut all = Vec::new();
    let mut libraries = vec![vec!["/usr/bin/python3".to_owned(), script.clone()]];
    let mut go = vec![PathBuf::from("/usr/bin/go")];
    if let Some(fetched) = std::env::var_os("NODETRUST_READERS").map(PathBuf::from) {
        let place = fetched.join("trixie/usr/lib/x86_64-linux-gnu").display().to_string();
        let loader = format!("{place}/ld-linux-x86-64.so.2");
        libraries.push([&loader, "--library-path", &place, "/usr/bin/python3", &script].map(str::to_owned).to_vec());
        go.push(fetched.join("sid/go"));
    }
    for command in libraries {
        for (kind, word) in
            [(ReaderKind::OpenSsl, "openssl"), (ReaderKind::GnuTls, "gnutls"), (ReaderKind::Python, "python")]
        {
            all.push(Reader::new(kind, [&command[..], &[word.to_owned()]].concat()));
        }
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for compiler in go {
        assert!(compiler.exists(), "no {}: scripts/test and scripts/readers install it", compiler.display());
        all.push(Reader::new(ReaderKind::Go, vec![build(&compiler, &here.join("go.go"), target)]));
    }
    all
}

/// Builds the Go program, which is static; again at once, since Go keeps what it has built. As a module of this very version:
/// without one a newer Go behaves as an older one did.
fn build(compiler: &Path, source: &Path, target: &Path) -> String {
    let go = |args: &[&str], place: &Path| {
        let done = Command::new(compiler)
            .args(args)
            .current_dir(place)
            .envs([
                ("CGO_ENABLED", "0"),
                ("GOTOOLCHAIN", "local"),
                ("GOFLAGS", ""),
                ("GOPROXY", "off"),
                ("GOWORK", "off"),
            ])
            .env("GOCACHE", target.join("go-cache"))
            .env_remove("GOROOT")
            .env_remove("GODEBUG")
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let version = go(&["version"], target).split_whitespace().nth(2).unwrap_or("go").to_owned();
    let place = target.join("readers").join(&version);
    fs::create_dir_all(&place).unwrap();
    fs::copy(source, place.join("main.go")).unwrap();
    if !place.join("go.mod").exists() {
        go(&["mod", "init", "reader"], &place);
    }
    go(&["build", "-o", "reader"], &place);
    place.join("reader").display().to_string()
}

impl Reader {
    fn new(kind: ReaderKind, command: Vec<String>) -> Self {
        let mut reader = Self { kind, name: String::new(), command };
        reader.name = reader
            .command("version")
            .output()
            .map(|output| {
                assert!(output.status.success(), "{reader:?}: {}", String::from_utf8_lossy(&output.stderr));
                String::from_utf8_lossy(&output.stdout).trim().to_owned()
            })
            .unwrap();
        reader
    }

    fn command(&self, what: &str) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).arg(what);
        command
    }

    /// `ok`, or why not, for each certificate.
    pub fn certificates(&self, ders: &[&[u8]]) -> Vec<String> {
        self.ask("certificates", ders)
    }

    /// `ok` with the number of certificates loaded, or why not, for each PEM file.
    pub fn bundles(&self, files: &[&[u8]]) -> Vec<String> {
        self.ask("bundles", files)
    }

    fn ask(&self, what: &str, frames: &[&[u8]]) -> Vec<String> {
        let mut child = self.command(what).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = BufWriter::new(child.stdin.take().unwrap());
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let lines: Vec<String> = std::thread::scope(|scope| {
            scope.spawn(move || {
                for frame in frames {
                    stdin.write_all(&(frame.len() as u32).to_be_bytes()).unwrap();
                    stdin.write_all(frame).unwrap();
                }
            });
            stdout.lines().map(Result::unwrap).collect()
        });
        assert!(child.wait().unwrap().success(), "{} failed", self.name);
        assert_eq!(lines.len(), frames.len(), "{}", self.name);
        lines
    }
}
