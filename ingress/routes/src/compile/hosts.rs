//! What holds for a whole host: TLS and its root, redirects to its sibling with or without `www.`, its aliases.

use std::sync::Arc;

use roadstead_model::{Host, Ingress};

use super::{Compiler, Served};
use crate::{
    BackendId, Canary, Settings, Target,
    host::www_sibling,
    settings::{Profile, annotation_warning},
    table::{RouteId, Sibling},
    tls::HostTls,
};

impl<'a> Compiler<'a> {
    /// What the Ingress asks of TLS holds for all of a host, so the host's entry is made by whoever asks first.
    pub(super) fn claim_host(&mut self, ingress: &Ingress, settings: &Settings, host: Option<&Host>) {
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
        let merged = entry.merge(&ingress.meta.name, asked, defaults);
        entry.passthrough = entry.passthrough.or(passthrough);
        if let Err(owner) = merged {
            let reason = format!("client certificates of {name} are already asked for by Ingress {owner}");
            self.conflict(annotation_warning(ingress, "auth-tls-secret", reason));
        }
        if asked.passthrough && passthrough.is_none() {
            let reason =
                format!("needs a Service at path / of {name} that no older Ingress serves; not passed through");
            self.problems.push(annotation_warning(ingress, "ssl-passthrough", reason));
        }
    }

    /// Where the Ingress leads a host's path `/`, as in ingress-nginx the one that a whole connection goes to.
    pub(super) fn root_backend(&mut self, ingress: &Ingress, host: Option<&Host>) -> Option<BackendId> {
        let id = self.paths(host).find(b"/")?;
        let route = self.table.routes.get(id).filter(|route| route.ingress == ingress.meta.name)?;
        match &route.target {
            Target::Backend(backend) => Some(*backend),
            Target::Resource { .. } => None,
        }
    }

    /// What a path that was placed means for the rest of its host.
    pub(super) fn note_redirects(
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
    pub(super) fn add_siblings(&mut self) {
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

    /// Gives hosts their other names, once all hosts are known.
    pub(super) fn add_aliases(&mut self, served: &[Served<'_>]) {
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

    pub(super) fn add_alias(&mut self, ingress: &Ingress, host: &Host, alias: &Host) {
        let table = &mut self.table;
        let is_host = match alias {
            Host::Exact(name) => table.exact.contains_key(name),
            Host::Wildcard(rest) => table.wildcard.contains_key(rest),
        };
        if is_host || table.aliases.get(&alias.to_string()).is_some_and(|other| other != host) {
            let reason = format!("{alias} is served already; it stays what it is");
            self.conflict(annotation_warning(ingress, "server-alias", reason));
            return;
        }
        table.aliases.insert(alias.to_string(), host.clone());
        if let (Host::Exact(host), Host::Exact(alias)) = (host, alias) {
            self.shared.push((host.clone(), alias.clone()));
        }
    }
}
