//! The proxies: what each is told, how it is started and how it takes a change.
//!
//! All get one thread, keep-alive connections without end on both sides, pools larger than the load, the same certificate
//! and the usual fields about the client for the endpoint. What else a proxy does by default stays.

mod envoy;
mod haproxy;
mod nginx;
mod roadstead;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use super::site::{Side, Site};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proxy {
    /// `roadstead-ingress run` on a directory of manifests.
    Roadstead,
    /// nginx as Debian has it, without access log.
    Nginx,
    /// The same with an access log and the request fields of ingress-nginx.
    NginxLogging,
    /// HAProxy as Debian has it.
    Haproxy,
    /// Envoy from its wheel.
    Envoy,
}

/// How a proxy gets to know of a change that was renamed into place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// It watches its files.
    Watches,
    /// It is told by a signal.
    Signal(Signal),
}

impl Proxy {
    pub(crate) const ALL: [Self; 5] = [Self::Roadstead, Self::Nginx, Self::NginxLogging, Self::Haproxy, Self::Envoy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Roadstead => "roadstead",
            Self::Nginx => "nginx",
            Self::NginxLogging => "nginx, logging",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }

    /// The name in files.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::NginxLogging => "nginx-logging",
            other => other.name(),
        }
    }

    /// Where it listens in the clear, and for TLS.
    pub(crate) fn ports(self) -> Ports {
        let place = self as u16;
        Ports { http: 8000 + place, https: 8400 + place }
    }

    /// Writes its whole configuration.
    pub(crate) fn configure(self, site: &Site) -> Result<()> {
        match self {
            Self::Roadstead => roadstead::configure(site),
            Self::Nginx => nginx::configure(site, self.ports(), nginx::Log::Off),
            Self::NginxLogging => nginx::configure(site, self.ports(), nginx::Log::File),
            Self::Haproxy => haproxy::configure(site, self.ports()),
            Self::Envoy => envoy::configure(site, self.ports()),
        }
    }

    /// Renames the part into place that leads the host that changes to this endpoint; tells when, on the monotonic clock.
    pub(crate) fn flip(self, site: &Site, side: Side) -> Result<Duration> {
        match self {
            Self::Roadstead => roadstead::flip(site, side),
            Self::Nginx | Self::NginxLogging => nginx::flip(site, side),
            Self::Haproxy => haproxy::flip(site, side),
            Self::Envoy => envoy::flip(site, side),
        }
    }

    /// How it notices that.
    pub(crate) fn notice(self) -> Notice {
        match self {
            Self::Roadstead | Self::Envoy => Notice::Watches,
            Self::Nginx | Self::NginxLogging => Notice::Signal(Signal::SIGHUP),
            // The master of HAProxy reloads.
            Self::Haproxy => Notice::Signal(Signal::SIGUSR2),
        }
    }

    /// How it is started.
    pub(crate) fn command(self, site: &Site, programs: &Programs) -> Result<Command> {
        match self {
            Self::Roadstead => roadstead::command(site, self.ports()),
            Self::Nginx | Self::NginxLogging => Ok(nginx::command(site)),
            Self::Haproxy => Ok(haproxy::command(site)),
            Self::Envoy => match &programs.envoy {
                Some(program) => Ok(envoy::command(site, program)),
                None => bail!("there is no Envoy here"),
            },
        }
    }

    /// The files that it writes with every request, which are emptied between samples.
    pub(crate) fn access_log(self, site: &Site) -> Option<PathBuf> {
        (self == Self::NginxLogging).then(|| PathBuf::from(site.path(nginx::ACCESS_LOG)))
    }
}

/// Programs that no package manager puts into the path.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) envoy: Option<PathBuf>,
}

impl Programs {
    /// Whether this host has the proxy.
    pub(crate) fn has(&self, proxy: Proxy) -> bool {
        let is_found = |program: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        };
        match proxy {
            Proxy::Roadstead => true,
            Proxy::Nginx | Proxy::NginxLogging => is_found("nginx"),
            Proxy::Haproxy => is_found("haproxy"),
            Proxy::Envoy => self.envoy.as_deref().is_some_and(Path::is_file),
        }
    }
}

/// Where a proxy listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) http: u16,
    pub(crate) https: u16,
}
