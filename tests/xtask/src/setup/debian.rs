//! A small Debian with systemd, which the tests boot to install the package in: from Debian's mirror, kept outside the
//! checkout in the user's cache folder.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{apt, step};
use crate::process;

/// What the package asks for, beside what every Debian has.
const INCLUDED: &str = "systemd,systemd-sysv";

/// Installs it where it is missing; tells its folder. It is of this machine's release, whose C library the programs want.
pub(super) fn install() -> Result<PathBuf> {
    let release = fs::read_to_string("/etc/os-release").context("could not read /etc/os-release")?;
    let suite = suite(&release).context("this is no release of Debian, which the package is made for")?;
    let folder = cache_folder()?.join(suite);
    if folder.is_dir() {
        return Ok(folder);
    }
    apt::install(&["mmdebstrap"])?;
    let fresh = folder.with_extension("new");
    step(&format!("installing a Debian {suite} into {} (a minute or two, once)", folder.display()), || {
        remove(&fresh)?;
        let mut install = process::as_root("mmdebstrap");
        install.args(["--quiet", "--variant=minbase"]).arg(format!("--include={INCLUDED}")).arg(suite).arg(&fresh);
        process::run(&mut install)?;
        process::run(process::as_root("mv").arg(&fresh).arg(&folder))
    })?;
    ensure!(folder.is_dir(), "{} is not there", folder.display());
    Ok(folder)
}

/// `bookworm`, of Debian itself.
fn suite(release: &str) -> Option<&str> {
    let field =
        |name: &str| release.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim_matches('"'));
    field("VERSION_CODENAME=").filter(|_| field("ID=") == Some("debian"))
}

fn cache_folder() -> Result<PathBuf> {
    let folder = super::cache_folder()?.join("debian");
    fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    Ok(folder)
}

/// What a set-up has left that was broken off; it is root's.
fn remove(folder: &std::path::Path) -> Result<()> {
    let mut remove: Command = process::as_root("rm");
    process::run(remove.args(["--recursive", "--force", "--one-file-system"]).arg(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_debians() {
        let cases = [
            ("PRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_CODENAME=bookworm\nID=debian\n", Some("bookworm")),
            ("ID=\"debian\"\nVERSION_CODENAME=\"trixie\"\n", Some("trixie")),
            ("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n", None),
            ("ID=debian\n", None),
            ("", None),
        ];
        for (release, expected) in cases {
            assert_eq!(suite(release), expected, "{release}");
        }
    }
}
