//! From a snapshot to a table: the oldest Ingress wins a conflict, a bad part is left out and reported.
//!
//! Here are rules and paths; `certificates`, `hosts` and `additions` hold what goes beyond one path.

mod additions;
mod certificates;
mod hosts;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use roadstead_model::{
    BackendPort, Host, Ingress, IngressBackend, IngressPath, IngressRule, ObjectName, PathType, Problem, Snapshot,
};

use certificates::TlsClaim;

use crate::{
    Backend, BackendId, Canary, Case, Controller, Pattern, PatternError, Reach, RewriteTarget, Route, Settings, Table,
    Target,
    class::Claim,
    path::is_normal,
    settings::{Known, Options, Profile, annotation_warning, warning},
    table::{Paths, RouteId},
};

/// A table, and what was left out of it.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// The routes.
    pub table: Arc<Table>,
    /// Conflicts, settings without effect, parts that cannot be served.
    pub problems: Vec<Problem>,
    /// Those of the problems that another Ingress is the reason of, by the Ingress that they are told to.
    pub conflicts: BTreeMap<ObjectName, Vec<String>>,
    known: Known,
}

impl Compiled {
    /// Whether a problem of an Ingress, by its field and reason, is one that another Ingress is the reason of.
    #[must_use]
    pub fn is_conflict(&self, ingress: &ObjectName, field: &str, reason: &str) -> bool {
        let told = |text: &String| text.strip_prefix(field).and_then(|rest| rest.strip_prefix(": ")) == Some(reason);
        self.conflicts.get(ingress).is_some_and(|conflicts| conflicts.iter().any(told))
    }
}

/// Whether two snapshots give the same table: then only endpoints and Secrets need to be looked at.
#[must_use]
pub fn same_inputs(before: &Snapshot, after: &Snapshot) -> bool {
    same(&before.ingresses, &after.ingresses, Ingress::is_served_as)
        && same(&before.ingress_classes, &after.ingress_classes, |class, other| class == other)
        // Settings may stand in any ConfigMap that an Ingress or the controller's own one names.
        && same(&before.config_maps, &after.config_maps, |config_map, other| config_map == other)
}

/// Whether two maps hold the same objects. Most are the same in memory, which costs one look.
fn same<K: Ord, V>(
    before: &BTreeMap<K, Arc<V>>,
    after: &BTreeMap<K, Arc<V>>,
    is_same: impl Fn(&V, &V) -> bool,
) -> bool {
    before.len() == after.len()
        && before.iter().zip(after).all(|((key, value), (other_key, other))| {
            key == other_key && (Arc::ptr_eq(value, other) || is_same(value, other))
        })
}

/// Makes the table of the Ingresses that the controller claims.
#[must_use]
pub fn compile(snapshot: &Snapshot, controller: &Controller) -> Compiled {
    compile_after(snapshot, controller, None)
}

/// As [`compile`], taking what stays the same from the compilation before.
#[must_use]
pub fn compile_after(snapshot: &Snapshot, controller: &Controller, before: Option<&Compiled>) -> Compiled {
    let before = before.map(|before| &before.known);
    let mut compiler = Compiler::default();
    let config_maps = Known::config_maps_of(before, &snapshot.config_maps);
    let own = controller.config_map(snapshot).map(Arc::as_ref);
    let options = Options::resolve(own, &config_maps, &mut compiler.problems);
    let options = Known::options_of(before, options);
    let mut known = Known::new(Arc::clone(&options)).among(config_maps);
    compiler.table.options = Arc::clone(&options);
    let mut ours = Vec::new();
    for ingress in snapshot.ingresses.values() {
        match controller.classes.claim(ingress, snapshot) {
            Claim::Ours => ours.push(ingress),
            Claim::Theirs => {}
            Claim::Nobodys => compiler.problems.push(warning(
                ingress,
                "spec.ingressClassName".to_owned(),
                "is not set and no IngressClass is the default one: not served".to_owned(),
            )),
        }
    }
    ours.sort_by_key(|ingress| ingress.meta.age_order());
    let mut served = Vec::with_capacity(ours.len());
    for ingress in ours {
        let profile = controller.profile(ingress, snapshot);
        let settings = known.settings(before, ingress, profile, &mut compiler.problems);
        served.push(Served { ingress, settings });
    }
    compiler.default_backend = controller.default_backend.as_ref();
    compiler.regex_hosts = served.iter().flat_map(Served::regex_hosts).collect();
    for Served { ingress, settings } in &served {
        compiler.table.ingresses.push(ingress.meta.name.clone());
        if settings.canary == Canary::Main {
            compiler.add(ingress, settings);
        }
    }
    compiler.add_canaries(&served);
    compiler.add_server_snippets(&served);
    compiler.add_aliases(&served);
    compiler.add_last(controller, &options);
    compiler.claims.sort_by_key(|claim| !claim.has_rule);
    compiler.assign_certificates();
    for (host, alias) in std::mem::take(&mut compiler.shared) {
        compiler.share_certificate(&host, &alias);
    }
    compiler.add_siblings();
    let Compiler { table, problems, conflicts, .. } = compiler;
    Compiled { table: Arc::new(table), problems, conflicts, known }
}

/// An Ingress with what its annotations mean.
struct Served<'a> {
    ingress: &'a Ingress,
    settings: Arc<Settings>,
}

impl<'a> Served<'a> {
    /// Hosts that class `nginx` matches by regular expressions alone, because one path of theirs is one.
    fn regex_hosts(&self) -> impl Iterator<Item = Option<&'a Host>> {
        let is_regex = |path: &&IngressPath| self.settings.rewrite.is_regex(&path.path);
        let has_regex = move |rule: &&IngressRule| rule.paths.iter().any(|path| is_regex(&path));
        let rules = self
            .ingress
            .rules
            .iter()
            .filter(|_| self.settings.profile == Profile::Nginx && self.settings.canary == Canary::Main);
        rules.filter(has_regex).map(|rule| rule.host.as_ref())
    }
}

/// A Service that is named without a port: its first one is meant, which a port's empty name says to `endpoints_of`.
fn first_port(service: ObjectName) -> Backend {
    Backend { service, port: BackendPort::Name(String::new()), reach: Reach::Endpoints }
}

/// A Service's port, reached as the Ingress asks.
fn service_backend(settings: &Settings, service: &ObjectName, port: &BackendPort) -> Backend {
    Backend { service: service.clone(), port: port.clone(), reach: settings.balance.reach }
}

/// Why a path has no place in the table.
enum Unplaced {
    /// An older route has it.
    Lost(RouteId),
    /// It is no regular expression.
    Pattern(PatternError),
}

#[derive(Default)]
struct Compiler<'a> {
    table: Table,
    problems: Vec<Problem>,
    conflicts: BTreeMap<ObjectName, Vec<String>>,
    backend_ids: HashMap<Backend, BackendId>,
    claims: Vec<TlsClaim<'a>>,
    /// All paths of class `nginx` on these hosts are regular expressions.
    regex_hosts: HashSet<Option<&'a Host>>,
    /// The controller's default backend.
    default_backend: Option<&'a ObjectName>,
    /// Hosts whose certificates serve another name too.
    shared: Vec<(String, String)>,
    /// Routes whose host wants its sibling.
    www: Vec<(&'a Ingress, Option<Host>, RouteId)>,
}

impl<'a> Compiler<'a> {
    fn add(&mut self, ingress: &'a Ingress, settings: &Arc<Settings>) {
        self.table.authentication.add(&ingress.meta.name, &settings.auth);
        if ingress.rules.is_empty() {
            self.add_catch_all(ingress, settings);
        }
        for (index, rule) in ingress.rules.iter().enumerate() {
            self.add_rule(ingress, settings, index, rule);
        }
        for (index, tls) in ingress.tls.iter().enumerate() {
            self.claim_tls(ingress, index, tls);
        }
    }

    fn add_catch_all(&mut self, ingress: &Ingress, settings: &Arc<Settings>) {
        let field = "spec.defaultBackend";
        let Some(backend) = &ingress.default_backend else {
            let reason = "is not set and there are no rules: the Ingress serves nothing".to_owned();
            self.problems.push(warning(ingress, field.to_owned(), reason));
            return;
        };
        if let Some(older) = self.table.catch_all {
            self.lost(ingress, field.to_owned(), "the default backend", older);
            return;
        }
        let id = self.route(ingress, settings, None, None, None, (field, backend));
        self.table.catch_all = Some(id);
        self.claim_host(ingress, settings, None);
    }

    fn add_rule(&mut self, ingress: &'a Ingress, settings: &Arc<Settings>, index: usize, rule: &'a IngressRule) {
        let default = match &ingress.default_backend {
            Some(backend) if self.paths(rule.host.as_ref()).default.is_none() => Some(backend),
            _ => None,
        };
        if let Some(backend) = default {
            let id = self.route(ingress, settings, rule.host.as_ref(), None, None, ("spec.defaultBackend", backend));
            self.paths(rule.host.as_ref()).default = Some(id);
        }
        for (place, entry) in rule.paths.iter().enumerate() {
            let field = format!("spec.rules[{index}].http.paths[{place}]");
            let id = self.table.routes.len();
            match self.place(settings, rule.host.as_ref(), entry, id) {
                Ok(pattern) => {
                    self.review_path(ingress, settings, &field, entry, pattern.as_ref());
                    self.note_redirects(ingress, settings, rule.host.as_ref(), &entry.path, id);
                    let path = Some((entry.path_type, entry.path.clone()));
                    self.route(ingress, settings, rule.host.as_ref(), path, pattern, (&field, &entry.backend));
                }
                Err(Unplaced::Lost(older)) => {
                    let host = rule.host.as_ref().map_or_else(|| "any host".to_owned(), |host| format!("host {host}"));
                    let what = format!("{} path {:?} of {host}", entry.path_type, entry.path);
                    self.lost(ingress, field, &what, older);
                }
                Err(Unplaced::Pattern(error)) => {
                    let reason = format!("{:?} as a regular expression {error}; the path is not served", entry.path);
                    self.problems.push(warning(ingress, format!("{field}.path"), reason));
                }
            }
        }
        self.claim_host(ingress, settings, rule.host.as_ref());
    }

    /// Puts a path into its host. Class `nginx` reads all paths of a host as regular expressions in either case once one of them
    /// is one; elsewhere only an Ingress's own `ImplementationSpecific` paths may be, and case counts.
    fn place(
        &mut self,
        settings: &Settings,
        host: Option<&Host>,
        entry: &IngressPath,
        id: RouteId,
    ) -> Result<Option<Pattern>, Unplaced> {
        let text = if entry.path.is_empty() { "/" } else { &entry.path };
        let is_regex = settings.rewrite.is_regex(text);
        let of_host = settings.profile == Profile::Nginx && self.regex_hosts.contains(&host);
        let case = match settings.profile {
            Profile::Nginx if of_host => Case::Insensitive,
            Profile::Standard if is_regex && entry.path_type == PathType::ImplementationSpecific => Case::Sensitive,
            _ => {
                return self
                    .paths(host)
                    .insert(entry.path_type, &entry.path, id)
                    .map(|()| None)
                    .map_err(Unplaced::Lost);
            }
        };
        let pattern = Pattern::new(text, case).map_err(Unplaced::Pattern)?;
        self.paths(host).insert_pattern(entry.path_type, pattern.clone(), id).map_err(Unplaced::Lost)?;
        if of_host && !is_regex && entry.path_type == PathType::Prefix && !text.ends_with('/') {
            // ingress-nginx makes two locations of such a prefix, which sorts it before others of its length.
            let below = Pattern::new(&format!("{text}/"), case).map_err(Unplaced::Pattern)?;
            let _ = self.paths(host).insert_pattern(entry.path_type, below, id);
        }
        Ok(Some(pattern))
    }

    /// Reports what of a path that is served will not do what it says.
    fn review_path(
        &mut self,
        ingress: &Ingress,
        settings: &Settings,
        field: &str,
        entry: &IngressPath,
        pattern: Option<&Pattern>,
    ) {
        let literal = pattern.is_none() && entry.path_type != PathType::ImplementationSpecific;
        if literal && !is_normal(entry.path.as_bytes()) {
            let reason = format!("{:?} is matched after normalising and may never match", entry.path);
            self.problems.push(warning(ingress, format!("{field}.path"), reason));
        }
        if pattern.is_none() && settings.rewrite.use_regex {
            let reason = format!("is {}: use-regex is for ImplementationSpecific paths", entry.path_type);
            self.problems.push(warning(ingress, format!("{field}.pathType"), reason));
        }
        let groups = pattern.map_or(0, Pattern::groups);
        let asked = settings.rewrite.of_path(&entry.path).map_or(0, RewriteTarget::groups);
        if asked > groups {
            let reason = format!("asks for ${asked} of {field}.path, which has {groups} groups: it is empty");
            self.problems.push(annotation_warning(ingress, "rewrite-target", reason));
        }
    }

    fn paths(&mut self, host: Option<&Host>) -> &mut Paths {
        match host {
            Some(Host::Exact(name)) => self.table.exact.entry(name.clone()).or_default(),
            Some(Host::Wildcard(rest)) => self.table.wildcard.entry(rest.clone()).or_default(),
            None => self.table.any.get_or_insert_default(),
        }
    }

    /// Appends a route; its id is its place, which `insert` was told before.
    fn route(
        &mut self,
        ingress: &Ingress,
        settings: &Arc<Settings>,
        host: Option<&Host>,
        path: Option<(PathType, String)>,
        pattern: Option<Pattern>,
        (field, backend): (&str, &IngressBackend),
    ) -> RouteId {
        let target = self.target(ingress, settings, field, backend);
        let own = settings.errors.backend.as_ref();
        let global = self.default_backend.filter(|_| !settings.errors.codes.is_empty());
        let fallback = own.or(global).cloned().map(|service| self.backend(first_port(service)));
        let route = Route {
            ingress: ingress.meta.name.clone(),
            host: host.cloned(),
            path,
            pattern,
            target,
            fallback,
            server_snippet: None,
            canary: None,
            settings: Arc::clone(settings),
        };
        self.table.routes.push(Arc::new(route));
        self.table.routes.len() - 1
    }

    /// Where a backend of an Ingress leads.
    fn target(&mut self, ingress: &Ingress, settings: &Settings, field: &str, backend: &IngressBackend) -> Target {
        match backend {
            IngressBackend::Service { service, port } => {
                Target::Backend(self.backend(service_backend(settings, service, port)))
            }
            IngressBackend::Resource { kind, name } => {
                let reason = format!("{kind} {name}: resource backends are not served, requests get 503");
                self.problems.push(warning(ingress, format!("{field}.resource"), reason));
                Target::Resource { kind: kind.clone(), name: name.clone() }
            }
        }
    }

    fn backend(&mut self, backend: Backend) -> BackendId {
        if let Some(id) = self.backend_ids.get(&backend) {
            return *id;
        }
        let id = BackendId(self.table.backends.len());
        self.table.backends.push(backend.clone());
        self.backend_ids.insert(backend, id);
        id
    }

    /// Adds the route of the controller's default backend, which takes what nothing else does.
    fn add_last(&mut self, controller: &Controller, options: &Options) {
        let Some(service) = &controller.default_backend else { return };
        let backend = self.backend(first_port(service.clone()));
        self.table.last = Some(self.table.routes.len());
        self.table.routes.push(Arc::new(Route {
            ingress: ObjectName::new("", ""),
            host: None,
            path: None,
            pattern: None,
            target: Target::Backend(backend),
            fallback: None,
            server_snippet: None,
            canary: None,
            settings: Arc::new(options.defaults.clone()),
        }));
    }

    fn lost(&mut self, ingress: &Ingress, field: String, what: &str, older: RouteId) {
        let owner = self.table.routes.get(older).map(|route| &route.ingress);
        match owner.filter(|owner| **owner != ingress.meta.name) {
            Some(owner) => {
                let reason = format!("{what} is already served by Ingress {owner}");
                self.conflict(warning(ingress, field, reason));
            }
            None => {
                let reason = format!("{what} is given twice, the first one serves");
                self.problems.push(warning(ingress, field, reason));
            }
        }
    }

    /// Reports what an older Ingress has in the place of this one, which its owner cannot know.
    fn conflict(&mut self, problem: Problem) {
        if let Some(object) = &problem.object {
            let field = problem.field.as_deref().unwrap_or_default();
            let told = format!("{field}: {}", problem.reason);
            self.conflicts.entry(object.name.clone()).or_default().push(told);
        }
        self.problems.push(problem);
    }
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
