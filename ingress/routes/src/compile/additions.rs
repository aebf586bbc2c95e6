//! What Ingresses add to routes of others: canaries, and snippets for all paths of a host.

use std::{collections::HashMap, sync::Arc};

use roadstead_model::{Host, Ingress, IngressBackend};

use super::{Compiler, Served, service_backend};
use crate::{
    Canary, CanaryRules, Program, Route, RouteCanary, Target,
    settings::{Profile, annotation_warning, warning},
    table::RouteId,
};

impl<'a> Compiler<'a> {
    /// Gives hosts their snippets: of each host the oldest one. Outside class `nginx` one is for its Ingress's own paths alone.
    pub(super) fn add_server_snippets(&mut self, served: &[Served<'_>]) {
        let mut of_host: HashMap<Option<&Host>, (&Ingress, Profile, &Arc<Program>)> = HashMap::new();
        for Served { ingress, settings } in served.iter().filter(|served| served.settings.canary == Canary::Main) {
            let Some(program) = settings.snippets.server.set() else { continue };
            for host in ingress.rules.iter().map(|rule| rule.host.as_ref()) {
                let (older, ..) = of_host.entry(host).or_insert((ingress, settings.profile, program));
                if older.meta.name != ingress.meta.name {
                    let host = host.map_or_else(|| "any host".to_owned(), Host::to_string);
                    let reason = format!("has no effect: Ingress {} has the one of {host}", older.meta.name);
                    self.conflict(annotation_warning(ingress, "server-snippet", reason));
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

    /// Gives canaries to the routes that the main Ingresses made.
    pub(super) fn add_canaries(&mut self, served: &[Served<'_>]) {
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

    pub(super) fn is_of_namespace(&self, id: RouteId, ingress: &Ingress) -> bool {
        self.table.routes.get(id).is_some_and(|route| route.ingress.namespace == ingress.meta.name.namespace)
    }

    pub(super) fn add_canary(
        &mut self,
        Served { ingress, settings }: &Served<'_>,
        rules: &Arc<CanaryRules>,
        field: &str,
        what: &str,
        id: RouteId,
        backend: &IngressBackend,
    ) {
        // Judged before it has a backend in the table: the pool of a refused one would stand there for nobody.
        let Some(route) = self.table.routes.get(id) else { return };
        if let (Target::Backend(main), IngressBackend::Service { service, port }) = (&route.target, backend)
            && self.table.backend(*main) == Some(&service_backend(settings, service, port))
        {
            let reason = format!("is the backend of the main Ingress {} too: no canary", route.ingress);
            return self.problems.push(warning(ingress, field.to_owned(), reason));
        }
        if let Some(other) = &route.canary {
            let reason =
                format!("{what} has the canary of Ingress {} already, and a rule has one: not served", other.ingress);
            return self.conflict(warning(ingress, field.to_owned(), reason));
        }
        let Target::Backend(backend) = self.target(ingress, settings, field, backend) else { return };
        let canary = RouteCanary { backend, ingress: ingress.meta.name.clone(), rules: Arc::clone(rules) };
        if let Some(route) = self.table.routes.get_mut(id) {
            Arc::make_mut(route).canary = Some(canary);
        }
    }
}
