//! From a snapshot to a table: the oldest Ingress wins a conflict, a bad part is left out and reported.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use roadstead_model::{
    BackendPort, Host, Ingress, IngressBackend, IngressPath, IngressRule, IngressTls, ObjectName, PathType, Problem,
    Snapshot,
};

use crate::{
    Backend, BackendId, Canary, CanaryRules, Case, CertificateRef, Controller, Pattern, PatternError, Program, Reach,
    RewriteTarget, Route, RouteCanary, Settings, Table, Target,
    class::Claim,
    host::www_sibling,
    path::is_normal,
    settings::{Known, Options, Profile, annotation_warning, warning},
    table::{Paths, RouteId, Sibling},
    tls::HostTls,
};

/// A table, and what was left out of it.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// The routes.
    pub table: Arc<Table>,
    /// Conflicts, settings without effect, parts that cannot be served.
    pub problems: Vec<Problem>,
    known: Known,
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
    Compiled { table: Arc::new(compiler.table), problems: compiler.problems, known }
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

/// An Ingress asks for a Secret to serve a host.
struct TlsClaim<'a> {
    ingress: &'a Ingress,
    field: String,
    host: Option<Host>,
    secret: Option<&'a ObjectName>,
    /// The Ingress has a rule for this very host. Such claims come first, so that no Ingress can take the certificate of
    /// a host that it does not serve.
    has_rule: bool,
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

    /// What the Ingress asks of TLS holds for all of a host, so the host's entry is made by whoever asks first.
    fn claim_host(&mut self, ingress: &Ingress, settings: &Settings, host: Option<&Host>) {
        let options = Arc::clone(&self.table.options);
        let (asked, defaults) = (&settings.tls, &options.defaults.tls);
        if asked == defaults {
            return;
        }
        let next = self.table.tls_hosts.len();
        let index = *self.paths(host).tls.get_or_insert(next);
        let passthrough = asked.passthrough.then(|| self.root_backend(ingress, host)).flatten();
        if index == next {
            self.table.tls_hosts.push(HostTls::new(host.cloned(), defaults));
        }
        let Some(entry) = self.table.tls_hosts.get_mut(index) else { return };
        let name = host.map_or_else(|| "any host".to_owned(), |host| format!("host {host}"));
        if let Err(owner) = entry.merge(&ingress.meta.name, asked, defaults) {
            let reason = format!("client certificates of {name} are already asked for by Ingress {owner}");
            self.problems.push(annotation_warning(ingress, "auth-tls-secret", reason));
        }
        if !asked.passthrough {
            return;
        }
        match passthrough {
            Some(backend) => entry.passthrough = entry.passthrough.or(Some(backend)),
            None => {
                let reason =
                    format!("needs a Service at path / of {name} that no older Ingress serves; not passed through");
                self.problems.push(annotation_warning(ingress, "ssl-passthrough", reason));
            }
        }
    }

    /// Where the Ingress leads a host's path `/`, as in ingress-nginx the one that a whole connection goes to.
    fn root_backend(&mut self, ingress: &Ingress, host: Option<&Host>) -> Option<BackendId> {
        let id = self.paths(host).find(b"/")?;
        let route = self.table.routes.get(id).filter(|route| route.ingress == ingress.meta.name)?;
        match &route.target {
            Target::Backend(backend) => Some(*backend),
            Target::Resource { .. } => None,
        }
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

    /// What a path that was placed means for the rest of its host.
    fn note_redirects(
        &mut self,
        ingress: &'a Ingress,
        settings: &Settings,
        host: Option<&Host>,
        path: &str,
        id: RouteId,
    ) {
        let of_regexes = self.regex_hosts.contains(&host);
        let paths = self.paths(host);
        if settings.redirects.app_root.is_some() {
            paths.app_root.get_or_insert(id);
        }
        if settings.profile == Profile::Nginx && !of_regexes {
            paths.redirect_to_slash(path, id);
        }
        if settings.redirects.from_to_www {
            self.www.push((ingress, host.cloned(), id));
        }
    }

    /// Gives hosts with `from-to-www-redirect` their siblings, once all hosts are known.
    fn add_siblings(&mut self) {
        for (ingress, host, id) in std::mem::take(&mut self.www) {
            let reason = match host {
                Some(Host::Exact(name)) => {
                    let sibling = www_sibling(&name);
                    if !self.table.exact.contains_key(&sibling) && !self.table.aliases.contains_key(&sibling) {
                        self.share_certificate(&name, &sibling);
                        self.table.siblings.entry(sibling).or_insert(Sibling { host: name, route: id });
                        continue;
                    }
                    format!("has no effect: host {sibling} has rules of its own")
                }
                Some(Host::Wildcard(rest)) => format!("has no effect on the wildcard host *.{rest}"),
                None => "has no effect on a rule without a host".to_owned(),
            };
            self.problems.push(annotation_warning(ingress, "from-to-www-redirect", reason));
        }
    }

    /// A host's other name gets its certificate, unless a TLS entry names it too; whether the certificate is valid for it is for
    /// its client to tell.
    fn share_certificate(&mut self, host: &str, other: &str) {
        let index = &mut self.table.certificates;
        if index.lookup(other).is_none()
            && let Some(entry) = index.lookup(host).cloned()
        {
            index.exact.insert(other.to_owned(), entry);
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
                let reach = settings.balance.reach;
                Target::Backend(self.backend(Backend { service: service.clone(), port: port.clone(), reach }))
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

    /// Gives hosts their snippets: of each host the oldest one. Outside class `nginx` one is for its Ingress's own paths alone.
    fn add_server_snippets(&mut self, served: &[Served<'_>]) {
        let mut of_host: HashMap<Option<&Host>, (&Ingress, Profile, &Arc<Program>)> = HashMap::new();
        for Served { ingress, settings } in served.iter().filter(|served| served.settings.canary == Canary::Main) {
            let Some(program) = settings.snippets.server.set() else { continue };
            for host in ingress.rules.iter().map(|rule| rule.host.as_ref()) {
                let (older, ..) = of_host.entry(host).or_insert((ingress, settings.profile, program));
                if older.meta.name != ingress.meta.name {
                    let host = host.map_or_else(|| "any host".to_owned(), Host::to_string);
                    let reason = format!("has no effect: Ingress {} has the one of {host}", older.meta.name);
                    self.problems.push(annotation_warning(ingress, "server-snippet", reason));
                }
            }
        }
        for route in self.table.routes.iter_mut().filter(|_| !of_host.is_empty()) {
            let Some((ingress, profile, program)) = of_host.get(&route.host.as_ref()) else { continue };
            if *profile == Profile::Nginx || route.ingress == ingress.meta.name {
                Arc::make_mut(route).server_snippet = Some(Arc::clone(program));
            }
        }
    }

    /// Gives hosts their other names, once all hosts are known.
    fn add_aliases(&mut self, served: &[Served<'_>]) {
        let mains = served.iter().filter(|served| served.settings.canary == Canary::Main);
        for Served { ingress, settings } in mains.filter(|served| !served.settings.passing.aliases.is_empty()) {
            let Some(host) = ingress.rules.iter().find_map(|rule| rule.host.as_ref()) else {
                let reason = "has no effect without a host of its own".to_owned();
                self.problems.push(annotation_warning(ingress, "server-alias", reason));
                continue;
            };
            for alias in &settings.passing.aliases {
                self.add_alias(ingress, host, alias);
            }
        }
    }

    fn add_alias(&mut self, ingress: &Ingress, host: &Host, alias: &Host) {
        let table = &mut self.table;
        let is_host = match alias {
            Host::Exact(name) => table.exact.contains_key(name),
            Host::Wildcard(rest) => table.wildcard.contains_key(rest),
        };
        if is_host || table.aliases.get(&alias.to_string()).is_some_and(|other| other != host) {
            let reason = format!("{alias} is served already; it stays what it is");
            self.problems.push(annotation_warning(ingress, "server-alias", reason));
            return;
        }
        table.aliases.insert(alias.to_string(), host.clone());
        if let (Host::Exact(host), Host::Exact(alias)) = (host, alias) {
            self.shared.push((host.clone(), alias.clone()));
        }
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

    /// Gives canaries to the routes that the main Ingresses made.
    fn add_canaries(&mut self, served: &[Served<'_>]) {
        let canaries = served.iter().filter_map(|served| match &served.settings.canary {
            Canary::Canary(rules) => Some((served, Arc::new(rules.clone()))),
            Canary::Main | Canary::Unreadable => None,
        });
        let mut canaries = canaries.peekable();
        if canaries.peek().is_none() {
            return;
        }
        let key = |route: &Route| Some((route.host.clone(), route.path.clone()?));
        let routes = self.table.routes.iter().enumerate().filter_map(|(id, route)| Some((key(route)?, id)));
        let places: HashMap<_, RouteId> = routes.collect();
        for (served, rules) in canaries {
            let Served { ingress, settings } = served;
            if let (Some(backend), Some(id)) = (&ingress.default_backend, self.table.catch_all) {
                self.add_canary(served, &rules, "spec.defaultBackend", "the default backend", id, backend);
            }
            for (index, rule) in ingress.rules.iter().enumerate() {
                for (place, entry) in rule.paths.iter().enumerate() {
                    let field = format!("spec.rules[{index}].http.paths[{place}]");
                    let host = rule.host.as_ref().map_or_else(|| "any host".to_owned(), |host| format!("host {host}"));
                    let what = format!("{} path {:?} of {host}", entry.path_type, entry.path);
                    let main = places.get(&(rule.host.clone(), (entry.path_type, entry.path.clone()))).copied();
                    let own = |id: &RouteId| settings.profile == Profile::Nginx || self.is_of_namespace(*id, ingress);
                    match main.filter(own) {
                        Some(id) => self.add_canary(served, &rules, &field, &what, id, &entry.backend),
                        None => {
                            let reason = format!("no Ingress that is no canary serves {what}: not served");
                            self.problems.push(warning(ingress, field, reason));
                        }
                    }
                }
            }
        }
    }

    fn is_of_namespace(&self, id: RouteId, ingress: &Ingress) -> bool {
        self.table.routes.get(id).is_some_and(|route| route.ingress.namespace == ingress.meta.name.namespace)
    }

    fn add_canary(
        &mut self,
        Served { ingress, settings }: &Served<'_>,
        rules: &Arc<CanaryRules>,
        field: &str,
        what: &str,
        id: RouteId,
        backend: &IngressBackend,
    ) {
        let target = self.target(ingress, settings, field, backend);
        let Some(route) = self.table.routes.get_mut(id) else { return };
        let Target::Backend(backend) = target else { return };
        let reason = if route.target == target {
            format!("is the backend of the main Ingress {} too: no canary", route.ingress)
        } else if let Some(other) = &route.canary {
            format!("{what} has the canary of Ingress {} already, and a rule has one: not served", other.ingress)
        } else {
            let canary = RouteCanary { backend, ingress: ingress.meta.name.clone(), rules: Arc::clone(rules) };
            Arc::make_mut(route).canary = Some(canary);
            return;
        };
        self.problems.push(warning(ingress, field.to_owned(), reason));
    }

    fn lost(&mut self, ingress: &Ingress, field: String, what: &str, older: RouteId) {
        let owner = self.table.routes.get(older).map(|route| &route.ingress);
        let reason = match owner {
            Some(owner) if *owner != ingress.meta.name => format!("{what} is already served by Ingress {owner}"),
            _ => format!("{what} is given twice, the first one serves"),
        };
        self.problems.push(warning(ingress, field, reason));
    }

    fn claim_tls(&mut self, ingress: &'a Ingress, index: usize, tls: &'a IngressTls) {
        let rule_hosts: Vec<_> = ingress.rules.iter().filter_map(|rule| rule.host.as_ref()).collect();
        let mut claim = |host: Option<&Host>| {
            let has_rule = host.is_none_or(|host| rule_hosts.contains(&host));
            let field = format!("spec.tls[{index}]");
            let secret = tls.secret.as_ref();
            self.claims.push(TlsClaim { ingress, field, host: host.cloned(), secret, has_rule });
        };
        match (tls.hosts.is_empty(), rule_hosts.is_empty()) {
            (false, _) => tls.hosts.iter().for_each(|host| claim(Some(host))),
            (true, false) => rule_hosts.iter().for_each(|host| claim(Some(host))),
            (true, true) => claim(None),
        }
    }

    /// Claims are sorted by now: those with a rule first, each kind oldest first.
    fn assign_certificates(&mut self) {
        for claim in std::mem::take(&mut self.claims) {
            let entry = CertificateRef { secret: claim.secret.cloned(), ingress: claim.ingress.meta.name.clone() };
            let index = &mut self.table.certificates;
            let kept = match &claim.host {
                Some(Host::Exact(name)) => index.exact.entry(name.clone()).or_insert_with(|| entry.clone()),
                Some(Host::Wildcard(rest)) => index.wildcard.entry(rest.clone()).or_insert_with(|| entry.clone()),
                None => index.default.get_or_insert_with(|| entry.clone()),
            };
            if kept.secret != entry.secret {
                let host = claim.host.as_ref().map_or_else(|| "every other host".to_owned(), Host::to_string);
                let reason = format!("the certificate of {host} is already chosen by Ingress {}", kept.ingress);
                self.problems.push(warning(claim.ingress, claim.field, reason));
            }
        }
    }
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
