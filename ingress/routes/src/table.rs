//! The table itself: hosts, the paths of each host, and what they lead to.

use std::{collections::HashMap, sync::Arc};

use roadstead_model::{BackendPort, Host, ObjectName, PathType};

use crate::{
    Auth, Options, PasswordSecret, Pattern, Profile, Program, Reach, RouteCanary, Settings,
    host::wildcard_key,
    tls::{CertificateIndex, HostTls},
};

/// An immutable generation of routes. It holds names of Services, never endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub(crate) exact: HashMap<String, Paths>,
    pub(crate) wildcard: HashMap<String, Paths>,
    /// Rules without a host.
    pub(crate) any: Option<Paths>,
    /// Hosts that are sent to a host of a rule, by `from-to-www-redirect`.
    pub(crate) siblings: HashMap<String, Sibling>,
    /// Other names of hosts, written as in an Ingress, by `server-alias`.
    pub(crate) aliases: HashMap<String, Host>,
    /// The default backend of an Ingress without rules.
    pub(crate) catch_all: Option<RouteId>,
    /// What takes requests that nothing else takes: the controller's default backend.
    pub(crate) last: Option<RouteId>,
    pub(crate) routes: Vec<Arc<Route>>,
    pub(crate) backends: Vec<Backend>,
    pub(crate) certificates: CertificateIndex,
    pub(crate) ingresses: Vec<ObjectName>,
    pub(crate) options: Arc<Options>,
    pub(crate) tls_hosts: Vec<HostTls>,
    pub(crate) authentication: Authentication,
}

/// What the authentication of this table's Ingresses needs to know of other objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authentication {
    secrets: Vec<(ObjectName, PasswordSecret)>,
    services: Vec<(ObjectName, Backend)>,
}

impl Authentication {
    pub(crate) fn add(&mut self, ingress: &ObjectName, auth: &Auth) {
        if let Some(basic) = auth.basic.set() {
            self.secrets.push((ingress.clone(), basic.secret.clone()));
        }
        if let Some(service) = auth.external.set().and_then(|external| external.service.as_ref()) {
            self.services.push((ingress.clone(), service.clone()));
        }
    }

    /// Secrets of users, each with an Ingress that asks for it; not each only once.
    pub fn secrets(&self) -> impl Iterator<Item = (&ObjectName, &PasswordSecret)> {
        self.secrets.iter().map(|(ingress, secret)| (ingress, secret))
    }

    /// Services that are asked who may come, in the same form.
    pub fn services(&self) -> impl Iterator<Item = (&ObjectName, &Backend)> {
        self.services.iter().map(|(ingress, service)| (ingress, service))
    }
}

/// A host with or without `www.` that is sent to the host that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sibling {
    /// The host that is served.
    pub(crate) host: String,
    /// A route of the Ingress that asks for it.
    pub(crate) route: RouteId,
}

/// What the table knows of a host and a path before the Ingress's own settings are asked.
pub(crate) enum Found<'t> {
    /// The route.
    Route(&'t Arc<Route>),
    /// The whole host is sent to another one.
    Sibling(&'t str, &'t Arc<Route>),
    /// The root of the host is sent to a path of it.
    AppRoot(&'t str, &'t Arc<Route>),
    /// Only the path with a slash behind it is served: ingress-nginx sends there.
    Slash(&'t Arc<Route>),
}

/// A Service's port that routes lead to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    /// The Service.
    pub service: ObjectName,
    /// Its port.
    pub port: BackendPort,
    /// Whether its endpoints stand for it, or its own address does.
    pub reach: Reach,
}

/// The place of a [`Backend`] in [`Table::backends`]; means nothing to another table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackendId(pub(crate) usize);

impl BackendId {
    /// The index into [`Table::backends`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// The place of a route in its table.
pub(crate) type RouteId = usize;

/// One path of one rule, or a default backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The Ingress that it comes from.
    pub ingress: ObjectName,
    /// The rule's host; `None` matches every host.
    pub host: Option<Host>,
    /// The path as written; `None` for a default backend.
    pub path: Option<(PathType, String)>,
    /// The regular expression that the path is, where it is one.
    pub pattern: Option<Pattern>,
    /// Where requests go.
    pub target: Target,
    /// The backend that answers for errors, and for the own one while that has no endpoint.
    pub fallback: Option<BackendId>,
    /// The snippet of the host.
    pub server_snippet: Option<Arc<Program>>,
    /// Where some of them go instead.
    pub canary: Option<RouteCanary>,
    /// What the Ingress's annotations and the controller's options decide.
    pub settings: Arc<Settings>,
}

impl Route {
    /// Every backend that its requests may go to.
    pub fn backends(&self) -> impl Iterator<Item = BackendId> {
        let own = match self.target {
            Target::Backend(id) => Some(id),
            Target::Resource { .. } => None,
        };
        own.into_iter().chain(self.canary.as_ref().map(|canary| canary.backend)).chain(self.fallback)
    }
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A Service's port.
    Backend(BackendId),
    /// An object of another kind, which nothing here serves.
    Resource {
        /// `kind` of the object.
        kind: String,
        /// `name` of the object.
        name: String,
    },
}

impl Table {
    /// Every backend that a route leads to, once; [`BackendId::index`] is the place in this slice.
    #[must_use]
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// The backend with this id.
    #[must_use]
    pub fn backend(&self, id: BackendId) -> Option<&Backend> {
        self.backends.get(id.0)
    }

    /// Every route, in no order that means anything.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// TLS hosts and their Secrets.
    #[must_use]
    pub fn certificates(&self) -> &CertificateIndex {
        &self.certificates
    }

    /// The Ingresses that this table serves, oldest first.
    #[must_use]
    pub fn ingresses(&self) -> &[ObjectName] {
        &self.ingresses
    }

    /// What authentication needs of other objects.
    #[must_use]
    pub fn authentication(&self) -> &Authentication {
        &self.authentication
    }

    /// What holds for the whole controller.
    #[must_use]
    pub fn options(&self) -> &Arc<Options> {
        &self.options
    }

    /// Hosts that ask for more of TLS than a certificate; [`Table::tls_host`] gives an index into this slice.
    #[must_use]
    pub fn tls_hosts(&self) -> &[HostTls] {
        &self.tls_hosts
    }

    /// What a host asks of TLS, by index; `None` where it asks for nothing special. The host is in lower case without a
    /// trailing dot, and none where the client has named none.
    #[must_use]
    pub fn tls_host(&self, host: Option<&str>) -> Option<usize> {
        if self.tls_hosts.is_empty() {
            return None;
        }
        match host.and_then(|host| self.named(host)) {
            Some(paths) => paths.tls,
            None => self.any.as_ref()?.tls,
        }
    }

    /// Whether any host asks for client certificates.
    #[must_use]
    pub fn has_client_auth(&self) -> bool {
        self.tls_hosts.iter().any(|host| host.client_auth.is_some())
    }

    /// Whether a rule or a TLS entry names a host.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        self.named(host).is_some() || self.certificates.lookup(host).is_some()
    }

    fn named(&self, host: &str) -> Option<&Paths> {
        self.exact.get(host).or_else(|| self.wildcard.get(wildcard_key(host)?))
    }

    /// What takes a normalised path; the host is chosen before the path, and never left for another one.
    pub(crate) fn find(&self, host: &str, path: &[u8]) -> Option<Found<'_>> {
        self.find_served(host, path).or_else(|| Some(Found::Route(self.routes.get(self.last?)?)))
    }

    fn find_served(&self, host: &str, path: &[u8]) -> Option<Found<'_>> {
        let paths = match self.exact.get(host).or_else(|| self.alias(host)) {
            Some(paths) => paths,
            None => {
                if let Some(sibling) = self.siblings.get(host) {
                    return Some(Found::Sibling(&sibling.host, self.routes.get(sibling.route)?));
                }
                let wildcard =
                    wildcard_key(host).and_then(|key| self.wildcard.get(key).or_else(|| self.wildcard_alias(key)));
                match wildcard.or(self.any.as_ref()) {
                    Some(paths) => paths,
                    None => return Some(Found::Route(self.routes.get(self.catch_all?)?)),
                }
            }
        };
        let route = || {
            let is_any = self.any.as_ref().is_some_and(|any| std::ptr::eq(any, paths));
            paths.find(path).or(paths.default).or_else(|| self.catch_all.filter(|_| is_any))
        };
        if path == b"/"
            && let Some(asking) = paths.app_root.and_then(|id| self.routes.get(id))
            && let Some(app_root) = asking.settings.redirects.app_root.as_deref()
            && self.may_take_root(asking, route())
        {
            return Some(Found::AppRoot(app_root, asking));
        }
        if let Some(id) = paths.slash(path) {
            return Some(Found::Slash(self.routes.get(id)?));
        }
        Some(Found::Route(self.routes.get(route()?)?))
    }

    /// The paths of a host by another name of it.
    fn alias(&self, name: &str) -> Option<&Paths> {
        match self.aliases.get(name)? {
            Host::Exact(host) => self.exact.get(host),
            Host::Wildcard(rest) => self.wildcard.get(rest),
        }
    }

    fn wildcard_alias(&self, rest: &str) -> Option<&Paths> {
        if self.aliases.is_empty() { None } else { self.alias(&format!("*.{rest}")) }
    }

    /// ingress-nginx sends the root of the host away whoever serves it; elsewhere only the Ingress that serves it may.
    fn may_take_root(&self, asking: &Route, owner: Option<RouteId>) -> bool {
        let owner = owner.and_then(|id| self.routes.get(id));
        asking.settings.profile == Profile::Nginx || owner.is_none_or(|owner| owner.ingress == asking.ingress)
    }
}

/// The paths of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paths {
    exact: HashMap<Vec<u8>, RouteId>,
    /// By the elements, written without a closing slash.
    prefix: HashMap<Vec<u8>, Prefix>,
    /// Raw string prefixes and regular expressions, longest first.
    raw: Vec<RawPath>,
    pub(crate) default: Option<RouteId>,
    /// A route of the Ingress that sends the host's root elsewhere.
    pub(crate) app_root: Option<RouteId>,
    /// Paths of class `nginx` that end in a slash, written without it.
    slashed: HashMap<Vec<u8>, RouteId>,
    /// Index into the table's hosts with TLS of their own.
    pub(crate) tls: Option<usize>,
}

/// A path that is matched from the request's first byte on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RawPath {
    text: Vec<u8>,
    /// `None` is a plain string.
    pattern: Option<Pattern>,
    path_type: PathType,
    id: RouteId,
}

impl RawPath {
    fn goes_before(&self, other: &Self) -> bool {
        (self.text.len(), &self.text) > (other.text.len(), &other.text)
    }

    fn begins(&self, path: &[u8]) -> bool {
        self.pattern.as_ref().map_or_else(|| path.starts_with(&self.text), |pattern| pattern.begins(path))
    }
}

/// `/foo` and `/foo/` mean the same elements. Where a host has both, the request's own form decides, as in nginx.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Prefix {
    bare: Option<RouteId>,
    slashed: Option<RouteId>,
}

impl Paths {
    /// Adds a path, unless its place is taken: then the route that has it is returned.
    pub(crate) fn insert(&mut self, path_type: PathType, path: &str, id: RouteId) -> Result<(), RouteId> {
        let path = path.as_bytes();
        match path_type {
            PathType::Exact => match self.exact.insert(path.to_vec(), id) {
                None => Ok(()),
                Some(older) => {
                    self.exact.insert(path.to_vec(), older);
                    Err(older)
                }
            },
            PathType::Prefix => {
                let bare = path.strip_suffix(b"/");
                let prefix = self.prefix.entry(bare.unwrap_or(path).to_vec()).or_default();
                let slot = if bare.is_some() { &mut prefix.slashed } else { &mut prefix.bare };
                slot.map_or(Ok(()), Err)?;
                *slot = Some(id);
                Ok(())
            }
            PathType::ImplementationSpecific => {
                let text = if path.is_empty() { b"/" } else { path };
                self.insert_raw(RawPath { text: text.to_vec(), pattern: None, path_type, id })
            }
        }
    }

    /// Adds a path that is a regular expression, unless its place is taken.
    pub(crate) fn insert_pattern(&mut self, path_type: PathType, pattern: Pattern, id: RouteId) -> Result<(), RouteId> {
        let text = pattern.text().as_bytes().to_vec();
        self.insert_raw(RawPath { text, pattern: Some(pattern), path_type, id })
    }

    /// By length, then against the alphabet, as ingress-nginx sorts them; of equal ones the first stays in front.
    fn insert_raw(&mut self, new: RawPath) -> Result<(), RouteId> {
        let start = self.raw.partition_point(|raw| raw.goes_before(&new));
        let equal = self.raw.iter().skip(start).take_while(|raw| raw.text == new.text);
        let same_kind = |raw: &&RawPath| raw.pattern == new.pattern && raw.path_type == new.path_type;
        if let Some(older) = equal.clone().find(same_kind) {
            return Err(older.id);
        }
        let place = start + equal.count();
        self.raw.insert(place, new);
        Ok(())
    }

    /// Notes that the path without the slash at its end is sent to the one with it.
    pub(crate) fn redirect_to_slash(&mut self, path: &str, id: RouteId) {
        if let Some(bare) = path.strip_suffix('/').filter(|bare| !bare.is_empty()) {
            self.slashed.entry(bare.as_bytes().to_vec()).or_insert(id);
        }
    }

    /// The route of the path with a slash behind it, where that one is served and this one is not named.
    fn slash(&self, path: &[u8]) -> Option<RouteId> {
        let id = self.slashed.get(path)?;
        let named = self.exact.contains_key(path)
            || self.prefix.get(path).is_some_and(|prefix| prefix.bare.is_some())
            || self.raw.iter().any(|raw| raw.text == path);
        (!named).then_some(*id)
    }

    /// The longest path that matches; on a tie Exact goes before Prefix, and Prefix before a raw prefix.
    pub(crate) fn find(&self, path: &[u8]) -> Option<RouteId> {
        if let Some(id) = self.exact.get(path) {
            return Some(*id);
        }
        let prefix = self.longest_prefix(path);
        let raw = self.raw.iter().find(|raw| raw.begins(path)).map(|raw| (raw.text.len(), raw.id));
        match (prefix, raw) {
            (Some((length, _)), Some((raw_length, id))) if raw_length > length => Some(id),
            (Some((_, id)), _) | (None, Some((_, id))) => Some(id),
            (None, None) => None,
        }
    }

    /// Looks each run of leading elements up, longest first: as many steps as the path has elements.
    fn longest_prefix(&self, path: &[u8]) -> Option<(usize, RouteId)> {
        if self.prefix.is_empty() {
            return None;
        }
        let mut elements = path.strip_suffix(b"/").unwrap_or(path);
        loop {
            if let Some(prefix) = self.prefix.get(elements) {
                let slashed = prefix.slashed.map(|id| (elements.len() + 1, id));
                let bare = prefix.bare.map(|id| (elements.len(), id));
                return if elements.len() == path.len() { bare.or(slashed) } else { slashed.or(bare) };
            }
            let cut = elements.iter().rposition(|byte| *byte == b'/')?;
            elements = elements.get(..cut)?;
        }
    }
}
