//! Stepping into a running lab: a command becomes a process of one of its places.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::identity::LabId;
use crate::{leftovers, namespace, place};

/// The flags of `roadstead-lab enter`.
#[derive(Args, Debug)]
pub struct EnterFlags {
    /// Which lab, where several run
    #[arg(long, value_name = "NAME")]
    lab: Option<String>,
    /// Node, pod or client
    place: String,
    /// The command (default: a shell)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Becomes the command.
///
/// # Errors
///
/// Where there is no such place, or the command cannot be started.
pub fn run(flags: &EnterFlags) -> Result<ExitCode> {
    let id = lab(flags.lab.as_deref())?;
    let namespace = namespace::path(&id.namespace(&flags.place));
    let file = std::fs::File::open(&namespace).with_context(|| format!("{id} has no place {}", flags.place))?;
    let cgroup = leaf(&leftovers::cgroup_of(id)?, &flags.place).context("the place has no control group")?;
    let shell = || std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let (program, arguments) =
        flags.command.split_first().map_or_else(|| (shell(), [].as_slice()), |(program, rest)| (program.clone(), rest));
    let mut command = Command::new(&program);
    command.args(arguments);
    place::enter(&mut command, file.into(), &cgroup)?;
    // In place of this process: the terminal and the exit code are the command's own.
    Err(command.exec()).with_context(|| format!("could not start {}", program.display()))
}

/// The lab that is meant: the named one, or the only living one.
fn lab(name: Option<&str>) -> Result<LabId> {
    if let Some(name) = name {
        return name.parse().ok().with_context(|| format!("{name} is no name of a lab"));
    }
    let living: Vec<LabId> = leftovers::found().into_iter().filter(|id| id.is_alive()).collect();
    match living.as_slice() {
        [only] => Ok(*only),
        [] => bail!("no lab runs"),
        several => {
            let names: Vec<String> = several.iter().map(ToString::to_string).collect();
            bail!("several labs run, --lab says which: {}", names.join(", "))
        }
    }
}

/// The client's group stands beside those of the nodes; a node's processes and its pods' stand below the node's.
fn leaf(root: &Path, place: &str) -> Option<PathBuf> {
    let host = root.join(place).join("host");
    let direct = [host, root.join(place)].into_iter().find(|group| group.is_dir());
    direct.or_else(|| {
        let nodes = std::fs::read_dir(root).ok()?.flatten();
        nodes.map(|node| node.path().join(place)).find(|group| group.is_dir())
    })
}
