//! The `ip` command: links, addresses and routes of the lab are made with it in batches, one process a namespace.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The `ip` program, found also where a user's PATH lacks the folders of administration programs.
fn ip() -> Command {
    let mut command = Command::new("ip");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(Into::into));
    if let Ok(path) = std::env::join_paths(folders) {
        command.env("PATH", path);
    }
    command
}

/// Runs commands, one a line, in a namespace or in the host's; stops at the first that fails.
pub(crate) fn batch(namespace: Option<&str>, lines: &[String]) -> Result<()> {
    let mut command = ip();
    if let Some(name) = namespace {
        command.args(["-n", name]);
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("could not start ip (Debian's package iproute2)")?;
    let mut stdin = child.stdin.take().context("ip has no standard input")?;
    // A batch that fails early closes its end; the error that counts is then the one that ip itself tells.
    let written = stdin.write_all((lines.join("\n") + "\n").as_bytes());
    drop(stdin);
    let output = child.wait_with_output().context("ip could not be waited for")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        bail!("ip {} failed: {said}\n{}", namespace.unwrap_or("on the host"), lines.join("\n"));
    }
    written.context("ip did not read its commands")
}

/// What `ip` shows in a namespace, or why it shows nothing: for a human's eye only.
pub(crate) fn show(namespace: &str, arguments: &[&str]) -> String {
    match ip().args(["-n", namespace]).args(arguments).output() {
        Ok(output) => {
            let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            format!("$ ip {}\n{shown}{said}\n", arguments.join(" "))
        }
        Err(error) => format!("$ ip {}\n{error}\n", arguments.join(" ")),
    }
}
