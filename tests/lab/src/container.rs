//! A container in the sense of the runtimes: a process with a root of its own, a user, and exactly the capabilities that
//! its pod's spec asks for. `roadstead-lab container FILE` becomes that process.
//!
//! What runtimes do is done in their order, by whoever is to become the program: mounts, root, user, capabilities,
//! `no_new_privs`. A user other than root gets a capability only where the program's file has it as well, as there.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};
use serde::{Deserialize, Serialize};

mod capabilities;

pub(crate) use capabilities::Capability;

/// The flags of `roadstead-lab container`.
#[derive(Args, Debug)]
pub struct ContainerFlags {
    /// What to become, as JSON
    file: PathBuf,
}

/// What a container is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Container {
    /// An empty folder, on which the root is mounted.
    pub(crate) root: PathBuf,
    pub(crate) mounts: Vec<Mount>,
    /// The program, inside, and its arguments.
    pub(crate) command: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) user: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) capabilities: Vec<Capability>,
    pub(crate) no_new_privileges: bool,
    pub(crate) read_only_root: bool,
}

/// A file or folder of the host inside the container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Mount {
    pub(crate) source: PathBuf,
    /// Absolute, inside.
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
}

/// What a program that is not linked statically needs of its host, and what every runtime gives.
const OF_THE_HOST: [(&str, bool); 7] = [
    ("/usr/lib", true),
    ("/usr/lib64", true),
    ("/lib", true),
    ("/lib64", true),
    ("/proc", false),
    ("/sys", true),
    ("/dev", false),
];

/// Becomes the container's program.
///
/// # Errors
///
/// Where the kernel refuses something.
pub fn run(flags: &ContainerFlags) -> Result<std::process::ExitCode> {
    let text = fs::read_to_string(&flags.file).with_context(|| format!("could not read {}", flags.file.display()))?;
    let container: Container = serde_json::from_str(&text).context("no description of a container")?;
    container.make_root()?;
    container.become_user()?;
    let (program, arguments) = container.command.split_first().context("a container without a command")?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(&container.environment);
    let error = std::os::unix::process::CommandExt::exec(&mut command);
    Err(error).with_context(|| format!("could not start {program}"))
}

/// Gives a program's file capabilities by their names, as `setcap NAMES=ep FILE` does.
///
/// # Errors
///
/// Where a name is none, or the kernel refuses.
pub fn grant(file: &Path, names: &[&str]) -> Result<()> {
    let all = names.iter().map(|name| Capability::named(name)).collect::<Result<Vec<_>>>()?;
    capabilities::grant(file, &all)
}

impl Container {
    /// Mounts everything below the root, in a namespace of its own, and enters it.
    fn make_root(&self) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNS).context("no mounts of its own")?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        mount(Some("tmpfs"), &self.root, Some("tmpfs"), MsFlags::empty(), Some("mode=0755")).context("no root")?;
        for (path, read_only) in OF_THE_HOST {
            self.of_the_host(Path::new(path), read_only)?;
        }
        fs::create_dir_all(self.root.join("tmp"))?;
        for one in &self.mounts {
            self.bind(one)?;
        }
        if self.read_only_root {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(None::<&str>, &self.root, None::<&str>, flags, None::<&str>).context("the root stays writable")?;
        }
        nix::unistd::chroot(&self.root).context("the root could not be entered")?;
        nix::unistd::chdir("/").context("no root folder")
    }

    fn of_the_host(&self, path: &Path, read_only: bool) -> Result<()> {
        if let Ok(target) = fs::read_link(path) {
            // As distributions with one folder of libraries have it.
            let link = self.inside(path);
            return symlink(&target, &link).with_context(|| format!("no {}", link.display()));
        }
        if !path.exists() {
            return Ok(());
        }
        self.bind(&Mount { source: path.to_owned(), target: path.to_owned(), read_only })
    }

    fn bind(&self, one: &Mount) -> Result<()> {
        let target = self.inside(&one.target);
        let failed = || format!("{} is not mounted at {}", one.source.display(), one.target.display());
        if one.source.is_dir() {
            fs::create_dir_all(&target).with_context(failed)?;
        } else {
            fs::create_dir_all(target.parent().unwrap_or(&self.root)).with_context(failed)?;
            fs::write(&target, "").with_context(failed)?;
        }
        let none = None::<&str>;
        mount(Some(&one.source), &target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).with_context(failed)?;
        if one.read_only {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, &target, none, flags, none).with_context(failed)?;
        }
        Ok(())
    }

    fn inside(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn become_user(&self) -> Result<()> {
        capabilities::keep_over_change_of_user()?;
        capabilities::bound(&self.capabilities)?;
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        nix::unistd::setgroups(&groups).context("no groups")?;
        let own = groups.first().copied().unwrap_or(Gid::from_raw(self.user));
        nix::unistd::setgid(own).context("no group")?;
        nix::unistd::setuid(Uid::from_raw(self.user)).context("no user")?;
        capabilities::permit(&self.capabilities)?;
        if self.no_new_privileges {
            nix::sys::prctl::set_no_new_privs().context("no_new_privs")?;
        }
        Ok(())
    }
}

/// A path as system calls take it.
fn c_string(path: &Path) -> Result<CString> {
    match CString::new(path.as_os_str().as_encoded_bytes()) {
        Ok(path) => Ok(path),
        Err(_) => bail!("{} holds a zero byte", path.display()),
    }
}
