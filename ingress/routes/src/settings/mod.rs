//! What annotations and the controller's ConfigMap decide about the requests of an Ingress.
//!
//! On the configuration's way this stands between `model` and the table: each Ingress gets one [`Settings`], shared by its
//! routes, with everything parsed and decided, so that a request only looks. Settings are read in two layers by the same
//! code: first the ConfigMap over ingress-nginx's built-in values, then each Ingress's annotations over that. A key that nobody
//! reads is reported by name; none is ignored in silence. Each group of settings has a file of its own.

mod access;
mod affinity;
mod auth;
mod balance;
mod basic;
mod blocks;
mod body;
mod canary;
mod client_auth;
mod cors;
#[cfg(test)]
mod documented;
mod edge;
mod errors;
mod external;
#[cfg(test)]
pub(crate) mod fixture;
mod guard;
mod headers;
mod hsts;
mod keepalive;
mod known;
mod limits;
mod log;
mod passing;
mod reader;
mod redirect;
mod retries;
mod rewrite;
mod snippets;
mod tls;
mod transport;
mod units;
mod upstream_tls;

use roadstead_model::{ConfigMap, Ingress, Problem};

pub use access::Access;
pub use affinity::{Affinity, AffinityMode, SameSite, SessionCookie};
pub use auth::{Auth, Satisfy};
pub use balance::{Balance, HashBy, Policy, Reach};
pub use basic::{BasicAuth, PasswordSecret, SecretForm};
pub use blocks::{Blocks, TextPattern};
pub use body::{Body, Buffering};
pub use canary::{Canary, CanaryRules, HeaderTest};
pub use client_auth::{ClientAuth, ClientAuthRules, ClientCertificate};
pub use cors::{Cors, OriginPattern, Origins, fuzz_origin};
pub use edge::EdgeOptions;
pub use errors::Errors;
pub use external::{AuthCache, AuthKeepalive, Cookies, ExternalAuth, Statuses};
pub use guard::Guard;
pub use headers::Headers;
use headers::{header_name, header_templates, option_headers};
pub use hsts::HstsOptions;
pub use keepalive::Keepalive;
pub(crate) use known::Known;
pub use limits::Limits;
pub use log::{Escape, LogOptions, LogVariable, Logging};
pub use passing::{Passing, Substitution};
pub(crate) use reader::ConfigMaps;
pub use reader::Namespaces;
pub(crate) use reader::{Reader, Wrong, warning};
pub(crate) use reader::{annotation_values, annotation_warning};
pub use redirect::Moved;
pub use redirect::Redirects;
pub(crate) use redirect::is_absolute;
pub use retries::{Cause, Causes, Retries};
pub use rewrite::{Rewrite, RewriteTarget};
pub use snippets::Snippets;
pub use tls::{CipherOrder, TlsSettings, Versions};

pub use transport::{Protocol, ReadAhead, Transport, Version};
pub(crate) use units::network;
pub(crate) use units::object as named_object;
pub use upstream_tls::{SecretChoice, Sni, UpstreamTls, UpstreamVersions, Verify};

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
    /// Other names of its hosts, and what is changed of heads.
    pub passing: Passing,
    /// Its snippets.
    pub snippets: Snippets,
    /// Who answers for errors.
    pub errors: Errors,
    /// Whether it takes requests of another Ingress's rules.
    pub canary: Canary,
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
    /// How requests travel to endpoints.
    pub transport: Transport,
    /// How endpoints are spoken to over TLS.
    pub upstream_tls: UpstreamTls,
    /// What holds for the bodies of requests.
    pub body: Body,
    /// TLS of its hosts.
    pub tls: TlsSettings,
    /// Who must say who they are.
    pub auth: Auth,
    /// How often a client may come.
    pub limits: Limits,
    /// What other origins' pages may do; `None` leaves that to the endpoint.
    pub cors: Option<Cors>,
    /// Fields that are set or hidden.
    pub headers: Headers,
    /// Which objects an Ingress may name.
    pub namespaces: Namespaces,
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
    /// How long connections to endpoints are kept.
    pub keepalive: Keepalive,
    /// Connections, before anybody knows an Ingress.
    pub edge: EdgeOptions,
    /// Strict-Transport-Security.
    pub hsts: HstsOptions,
    /// Whom nobody serves.
    pub blocks: Blocks,
    /// `add-headers`: set on every answer.
    pub add_headers: Vec<(String, Template)>,
}

impl Settings {
    /// Reads one layer over another.
    fn read(reader: &mut Reader<'_>, base: &Self) -> Self {
        let cross = reader.option("allow-cross-namespace-resources").boolean();
        let namespaces = match cross {
            None => base.namespaces,
            Some(true) => Namespaces::All,
            Some(false) => Namespaces::Own,
        };
        reader.namespaces = namespaces;
        let settings = Self {
            namespaces,
            profile: base.profile,
            redirects: Redirects::read(reader, &base.redirects),
            rewrite: Rewrite::read(reader),
            passing: Passing::read(reader, &base.passing),
            snippets: Snippets::read(reader, &base.snippets),
            errors: Errors::read(reader, &base.errors),
            canary: Canary::read(reader),
            access: Access::read(reader, &base.access),
            logging: Logging::read(reader, &base.logging),
            balance: Balance::read(reader, &base.balance),
            affinity: Affinity::read(reader),
            retries: Retries::read(reader, &base.retries),
            transport: Transport::read(reader, &base.transport),
            upstream_tls: UpstreamTls::read(reader),
            body: Body::read(reader, &base.body),
            tls: TlsSettings::read(reader, &base.tls),
            auth: Auth::read(reader, &base.auth),
            limits: Limits::read(reader, &base.limits),
            cors: Cors::read(reader),
            headers: Headers::read(reader, &base.headers),
        };
        if settings.affinity.is_some() && settings.balance.reach == Reach::ClusterIp {
            reader.complain("affinity", "has no effect: with service-upstream the Service's own balancing chooses");
        }
        settings
    }

    /// The settings of an Ingress, and what of its annotations has no effect.
    pub(crate) fn resolve(
        ingress: &Ingress,
        profile: Profile,
        options: &Options,
        config_maps: &ConfigMaps,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut reader = Reader::of_ingress(ingress, problems).among(config_maps);
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
    pub(crate) fn resolve(
        config_map: Option<&ConfigMap>,
        config_maps: &ConfigMaps,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let Some(config_map) = config_map else { return Self::default() };
        let mut reader = Reader::of_config_map(config_map, problems).among(config_maps);
        let options = Self::read_all(&mut reader);
        reader.finish();
        options
    }

    fn read_all(reader: &mut Reader<'_>) -> Self {
        Self {
            defaults: Settings::read(reader, &Settings::default()),
            log: LogOptions::read(reader),
            keepalive: Keepalive::read(reader),
            edge: EdgeOptions::read(reader),
            hsts: HstsOptions::read(reader),
            blocks: Blocks::read(reader),
            add_headers: option_headers(reader, "add-headers").unwrap_or_default(),
        }
    }
}

/// For tests of one group, which name no ConfigMap.
#[cfg(test)]
impl Settings {
    pub(crate) fn of_ingress(
        ingress: &Ingress,
        profile: Profile,
        options: &Options,
        problems: &mut Vec<Problem>,
    ) -> Self {
        Self::resolve(ingress, profile, options, &ConfigMaps::new(), problems)
    }
}

#[cfg(test)]
impl Options {
    pub(crate) fn read(config_map: Option<&ConfigMap>, problems: &mut Vec<Problem>) -> Self {
        Self::resolve(config_map, &ConfigMaps::new(), problems)
    }
}
