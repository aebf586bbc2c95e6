//! Starting other programs, as root where they need it, with errors that say what failed.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs a command that talks to the terminal itself.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("could not start {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command for its output, whether it succeeds or not; nothing where it cannot be started.
pub(crate) fn output(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<Output> {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()
}

/// Whether there is such a program; its answer does not matter.
pub(crate) fn starts(program: &str, flag: &str) -> bool {
    output(program, &[flag]).is_some()
}

/// Standard output of a command that succeeds.
pub(crate) fn answer(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = output(program, arguments).filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// A command that runs as root: itself where we are root, through `sudo` otherwise.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Command {
    if crate::host::is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("-E").arg(program);
    command
}

/// Hands every line of a stream to a function until the stream ends.
pub(crate) fn each_line(stream: impl Read, mut line: impl FnMut(&str)) {
    // Foreign programs may write bytes that are not UTF-8; a lost byte is better than a lost line.
    for bytes in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        line(String::from_utf8_lossy(&bytes).trim_end_matches('\r'));
    }
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program());
    let words = [program].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
