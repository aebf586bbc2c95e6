//! What every proxy is told to serve: hosts, their endpoints, a certificate. Each proxy's module says it in its own words.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::clock;
use crate::worker::http::endpoint::MARKS;

/// Asked in the clear. It has no certificate, so that nobody redirects it.
pub(crate) const PLAIN: &str = "plain.example";
/// Asked over TLS.
pub(crate) const SECURE: &str = "secure.example";
/// Its endpoint changes.
pub(crate) const FLIPS: &str = "flips.example";
/// The paths of each of the many hosts.
pub(crate) const PATHS: [&str; 3] = ["/", "/api", "/static"];
/// Where the endpoint listens.
pub(crate) const ENDPOINT_PORTS: [u16; 2] = [9000, 9001];

/// Which endpoint serves [`FLIPS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    First,
    Second,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// The letter of its answers, which is its name in configurations too.
    pub(crate) fn mark(self) -> char {
        let [first, second] = MARKS;
        char::from(if self == Self::First { first } else { second })
    }
}

/// What is served, and where its configurations are kept.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// The address of both endpoints.
    pub(crate) endpoint: Ipv4Addr,
    /// Many hosts beside those with names.
    pub(crate) hosts: u32,
    /// A folder of the proxy's own.
    pub(crate) folder: PathBuf,
    pub(crate) certificate: Certificate,
}

/// A self-signed certificate for [`SECURE`] on ECDSA P-256, as PEM.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Certificate {
    pub(crate) fn make() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([SECURE.to_owned()]).context("no certificate")?;
        Ok(Self { chain: made.cert.pem(), key: made.signing_key.serialize_pem() })
    }
}

impl Site {
    /// Both endpoints, in the order of the sides.
    pub(crate) fn endpoints(&self) -> [(Side, SocketAddr); 2] {
        let [first, second] = ENDPOINT_PORTS.map(|port| (self.endpoint, port).into());
        [(Side::First, first), (Side::Second, second)]
    }

    /// The names of the many hosts.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        (0..self.hosts).map(host)
    }

    /// A file of this proxy's configuration, written whole by a rename; tells the monotonic time right before that.
    pub(crate) fn write(&self, file: &str, text: &str) -> Result<Duration> {
        let path = self.folder.join(file);
        let hidden = path.with_file_name(format!(".{}.new", path.file_name().unwrap_or_default().display()));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
        }
        fs::write(&hidden, text).with_context(|| format!("could not write {}", hidden.display()))?;
        let now = clock::monotonic()?;
        fs::rename(&hidden, &path).with_context(|| format!("could not rename {}", hidden.display()))?;
        Ok(now)
    }

    /// The path of a file of this proxy's configuration, as configurations name it.
    pub(crate) fn path(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }

    /// A site of the same kind for another proxy.
    pub(crate) fn at(&self, folder: &Path) -> Self {
        Self { folder: folder.to_owned(), ..self.clone() }
    }
}

/// The name of one of the many hosts.
pub(crate) fn host(number: u32) -> String {
    format!("host-{number:05}.example")
}
