//! The daemon under test: a process, its manifests, its addresses, its memory as the kernel counts it.

use std::{
    fmt, fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use roadstead_lab::program;
use tempfile::TempDir;

/// Longer than anything here takes on a loaded machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// A running `roadstead-ingress`; killed when it is dropped.
pub(super) struct Proxy {
    child: Child,
    manifests: TempDir,
    state: TempDir,
    log: Arc<Mutex<Vec<String>>>,
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
}

impl Proxy {
    /// Starts it on these manifests, each a file's name and text.
    pub(super) fn start(files: &[(&str, &str)]) -> Self {
        Self::with(&[], files)
    }

    /// Starts it with more flags, on free ports, which it logs once it serves.
    pub(super) fn with(flags: &[&str], files: &[(&str, &str)]) -> Self {
        let (manifests, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        for (name, text) in files {
            fs::write(manifests.path().join(name), text).unwrap();
        }
        let mut command = Command::new(program("roadstead-ingress").unwrap());
        // Every flag is also a variable; a developer's must not reach this one.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"ROADSTEAD_")) {
            command.env_remove(name);
        }
        let any = "127.0.0.1:0";
        command.args(["run", "--log-format", "json", "--http", any, "--https", any, "--threads", "2"]);
        command.arg("--manifests").arg(manifests.path()).arg("--state-dir").arg(state.path());
        let mut child =
            command.args(flags).env("RUST_LOG", "info").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let serving = lines.by_ref().find(|line| {
            said.push(line.clone());
            line.contains("\"serving\"")
        });
        let serving = serving.unwrap_or_else(|| panic!("it does not serve:\n{}", said.join("\n")));
        let (http, https) = (address(&serving, "http"), address(&serving, "https"));
        let log = Arc::new(Mutex::new(said));
        let writing = Arc::clone(&log);
        // A full pipe would stop it.
        std::thread::spawn(move || lines.for_each(|line| writing.lock().unwrap().push(line)));
        Self { child, manifests, state, log, http, https }
    }

    /// Writes a manifest as an operator's tool does: beside its place, then renamed into it.
    pub(super) fn write(&self, name: &str, text: &str) {
        let staged = self.manifests.path().join(format!(".{name}.new"));
        fs::write(&staged, text).unwrap();
        fs::rename(staged, self.manifests.path().join(name)).unwrap();
    }

    /// What it wrote to the status of Ingresses.
    pub(super) fn status(&self) -> String {
        fs::read_to_string(self.state.path().join("status/ingresses.yaml")).unwrap_or_default()
    }

    /// Every line that it has logged.
    pub(super) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Its memory now.
    pub(super) fn memory(&self) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        Memory { resident: field("VmRSS:"), peak: field("VmHWM:") }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What the kernel says of a process, in KiB.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) resident: u64,
    pub(super) peak: u64,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VmRSS {:.1} MiB, VmHWM {:.1} MiB", mib(self.resident), mib(self.peak))
    }
}

fn mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap()) / 1024.0
}

fn address(serving: &str, field: &str) -> SocketAddr {
    let (_, rest) = serving.split_once(&format!("\"{field}\":\"[")).expect("its addresses");
    rest.split_once(']').unwrap().0.parse().unwrap()
}

/// Asks until the answer is yes.
pub(super) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
