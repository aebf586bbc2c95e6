//! A Debian on a node of the lab, with systemd as its first process: what the package is installed in.
//!
//! Root file system and package are made by `cargo xtask test`, which names them; without them, and where there is no
//! lab, the tests say so and pass.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use roadstead_lab::{Lab, Node, Process, wait_for, wait_until};

/// Name the root file system and the package; xtask sets both.
const DEBIAN_VARIABLE: &str = "ROADSTEAD_DEBIAN_DIR";
const PACKAGE_VARIABLE: &str = "ROADSTEAD_PACKAGE";

/// How long systemd, dpkg and the daemons may take.
pub(super) const LATE: Duration = Duration::from_secs(60);

/// The three daemons' units.
pub(super) const UNITS: [&str; 3] = ["roadstead", "roadstead-speaker", "roadstead-ingress"];

/// What the tests need beside the lab.
#[derive(Debug)]
pub(super) struct Ground {
    debian: PathBuf,
    package: PathBuf,
}

impl Ground {
    /// Finds everything; `None`, with a word on stderr, where something is missing.
    pub(super) fn find() -> Option<Self> {
        let named = |variable: &str| env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
        let lack = roadstead_lab::lack().or_else(|| {
            let missing = [DEBIAN_VARIABLE, PACKAGE_VARIABLE].into_iter().find(|variable| named(variable).is_none());
            missing.map(|variable| format!("no {variable}: \"cargo xtask test\" makes a Debian and the package"))
        });
        if let Some(lack) = lack {
            eprintln!("skipped: {lack}");
            return None;
        }
        Some(Self { debian: named(DEBIAN_VARIABLE)?, package: named(PACKAGE_VARIABLE)? })
    }

    /// Boots a node of the lab; returns when its systemd has started everything.
    pub(super) fn boot<'lab>(&self, lab: &'lab Lab, node: &'lab Node) -> Machine<'lab> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/deploy/boot.sh");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child=KILL"]);
        command.args(["--propagation", "private", "sh"]).arg(script).arg(&self.debian);
        command.arg(lab.folder().join(format!("{}-debian", node.name()))).arg(node.name()).arg(lab.manifests());
        let process = node.host().spawn("debian", command).unwrap();
        let first = || {
            assert!(process.is_running(), "{}", process.log());
            let children = format!("/proc/{0}/task/{0}/children", process.pid());
            let child: u32 = fs::read_to_string(children).ok()?.split_whitespace().next()?.parse().ok()?;
            (fs::read_to_string(format!("/proc/{child}/comm")).ok()?.trim() == "systemd").then_some(child)
        };
        let first = wait_for(LATE, "systemd is the first process", first).unwrap();
        let machine = Machine { node, first, _process: process };
        // "degraded" where a part of Debian misses something of a whole machine.
        let started = || ["running", "degraded"].contains(&machine.output(&["systemctl", "is-system-running"]).trim());
        wait_until(LATE, "Debian has started", started).unwrap();
        machine
    }

    /// Installs the package, as an upgrade where it is there.
    pub(super) fn install(&self, machine: &Machine<'_>) {
        machine.write("/var/tmp/roadstead.deb", &fs::read(&self.package).unwrap());
        machine.run(&["dpkg", "--install", "/var/tmp/roadstead.deb"]);
    }
}

/// A booted Debian. It ends with its lab, or when it is dropped.
#[derive(Debug)]
pub(super) struct Machine<'lab> {
    node: &'lab Node,
    /// The number of its systemd outside.
    first: u32,
    _process: Process,
}

impl Machine<'_> {
    /// The name of its node.
    pub(super) fn name(&self) -> &str {
        self.node.name()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.first));
        command.args(["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "env", "-i"]);
        command.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive"]).args(words);
        command
    }

    /// Runs a program inside, which must succeed; what it says.
    #[track_caller]
    pub(super) fn run(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{}: {words:?}: {said}\n{}", self.name(), self.journal());
        said
    }

    /// What a program says, however it ends.
    pub(super) fn output(&self, words: &[&str]) -> String {
        String::from_utf8_lossy(&self.command(words).output().unwrap().stdout).into_owned()
    }

    /// A file inside, seen from outside.
    pub(super) fn path(&self, inside: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.first)).join(inside.trim_start_matches('/'))
    }

    /// Writes a file inside.
    pub(super) fn write(&self, inside: &str, bytes: &[u8]) {
        fs::write(self.path(inside), bytes).unwrap();
    }

    /// A property of a unit, as `systemctl show` has it.
    pub(super) fn property(&self, unit: &str, name: &str) -> String {
        let name = format!("--property={name}");
        self.output(&["systemctl", "show", &name, "--value", &format!("{unit}.service")]).trim().to_owned()
    }

    /// Whether the unit is active and its daemon says that it is ready.
    pub(super) fn is_ready(&self, unit: &str) -> bool {
        let port = 9471 + UNITS.iter().position(|known| *known == unit).unwrap();
        let url = format!("http://127.0.0.1:{port}/readyz");
        let ready = || self.node.host().probe_once(&roadstead_lab::Probe::http(&url)).is_ok_and(|answer| answer.ok);
        self.property(unit, "ActiveState") == "active" && ready()
    }

    /// The last lines of the daemons.
    pub(super) fn journal(&self) -> String {
        self.output(&["journalctl", "--no-pager", "--lines=60", "--output=cat", "--unit=roadstead*"])
    }
}
