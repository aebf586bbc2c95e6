//! What annotations and the controller's ConfigMap decide about the requests of an Ingress.
//!
//! On the configuration's way this stands between `model` and the table: each Ingress gets one [`Settings`], shared by its
//! routes, with everything parsed and decided, so that a request only looks. Settings are read in two layers by the same
//! code: first the ConfigMap over ingress-nginx's built-in values, then each Ingress's annotations over that. A key that nobody
//! reads is reported by name; none is ignored in silence. Each group of settings has a file of its own.

mod access;
mod affinity;
mod balance;
mod client_auth;
mod edge;
#[cfg(test)]
pub(crate) mod fixture;
mod hsts;
mod known;
mod log;
mod reader;
mod redirect;
mod retries;
mod rewrite;
mod tls;
mod units;

use roadstead_model::{ConfigMap, Ingress, Problem};

pub use access::{Access, Sources};
pub use affinity::{Affinity, AffinityMode, SameSite, SessionCookie};
pub use balance::{Balance, HashBy, Policy, Reach};
pub use client_auth::{ClientAuth, ClientAuthRules, ClientCertificate};
pub use edge::EdgeOptions;
pub use hsts::HstsOptions;
pub(crate) use known::Known;
pub use log::{Escape, LogOptions, LogVariable, Logging};
pub(crate) use reader::annotation_warning;
pub(crate) use reader::{Reader, Wrong, warning};
pub use redirect::Moved;
pub use redirect::Redirects;
pub use retries::{Cause, Causes, Retries};
pub use rewrite::{Rewrite, RewriteTarget};
pub use tls::{CipherOrder, TlsSettings, Versions};
#[cfg(test)]
pub(crate) use units::network;

pub(crate) use crate::Template;

/// The settings of one Ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether ingress-nginx's own habits hold.
    pub profile: Profile,
    /// Redirects that are decided before anything else.
    pub redirects: Redirects,
    /// Paths as regular expressions, and what endpoints see of them.
    pub rewrite: Rewrite,
    /// Who may come by address.
    pub access: Access,
    /// Whether requests are told in the access log.
    pub logging: Logging,
    /// Which endpoint takes a request.
    pub balance: Balance,
    /// Which client stays with which endpoint; `None` where none does.
    pub affinity: Option<Affinity>,
    /// When a request goes to another endpoint.
    pub retries: Retries,
    /// TLS of its hosts.
    pub tls: TlsSettings,
}

/// Which habits an Ingress asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// The specification of Ingress, and nothing else where it speaks.
    #[default]
    Standard,
    /// What ingress-nginx does beside it, such as regular expressions for all of a host: for class `nginx` alone.
    Nginx,
}

/// What holds for the whole controller: its ConfigMap, read once a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What Ingresses have that say nothing themselves.
    pub defaults: Settings,
    /// How requests are told in the access log.
    pub log: LogOptions,
    /// Connections, before anybody knows an Ingress.
    pub edge: EdgeOptions,
    /// Strict-Transport-Security.
    pub hsts: HstsOptions,
}

impl Settings {
    /// Reads one layer over another.
    fn read(reader: &mut Reader<'_>, base: &Self) -> Self {
        let settings = Self {
            profile: base.profile,
            redirects: Redirects::read(reader, &base.redirects),
            rewrite: Rewrite::read(reader),
            access: Access::read(reader, &base.access),
            logging: Logging::read(reader, &base.logging),
            balance: Balance::read(reader, &base.balance),
            affinity: Affinity::read(reader),
            retries: Retries::read(reader, &base.retries),
            tls: TlsSettings::read(reader, &base.tls),
        };
        if settings.affinity.is_some() && settings.balance.reach == Reach::ClusterIp {
            reader.complain("affinity", "has no effect: with service-upstream the Service's own balancing chooses");
        }
        settings
    }

    /// The settings of an Ingress, and what of its annotations has no effect.
    pub(crate) fn of_ingress(
        ingress: &Ingress,
        profile: Profile,
        options: &Options,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut reader = Reader::of_ingress(ingress, problems);
        let mut settings = Self { profile, ..Self::read(&mut reader, &options.defaults) };
        if settings.tls.passthrough {
            // Nothing of HTTP is seen here, so nothing else that the annotations say can hold.
            let tls = TlsSettings { passthrough: true, ..options.defaults.tls.clone() };
            settings = Self { profile, tls, ..options.defaults.clone() };
            if reader.len() > 1 {
                reader.complain("ssl-passthrough", "voids all other annotations of the Ingress");
            }
        }
        reader.finish();
        settings
    }
}

impl Options {
    /// The controller's options; without a ConfigMap the built-in ones.
    pub(crate) fn read(config_map: Option<&ConfigMap>, problems: &mut Vec<Problem>) -> Self {
        let Some(config_map) = config_map else { return Self::default() };
        let mut reader = Reader::of_config_map(config_map, problems);
        let options = Self {
            defaults: Settings::read(&mut reader, &Settings::default()),
            log: LogOptions::read(&mut reader),
            edge: EdgeOptions::read(&mut reader),
            hsts: HstsOptions::read(&mut reader),
        };
        reader.finish();
        options
    }
}
