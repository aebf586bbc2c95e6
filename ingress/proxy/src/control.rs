//! The configuration's last step: snapshots become the routes, pools and certificates that requests are served from.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;
use roadstead_model::{IngressStatus, ObjectName, Problem, Severity, Snapshot};
use roadstead_routes::{
    Backend, BackendId, Compiled, Controller, Endpoints, Protocol, Settings, Table, app_protocol, compile_after,
    endpoints_of, same_inputs, unserved,
};
use rustls::crypto::CryptoProvider;
use tokio::sync::watch;

use crate::{
    certificates::{CertificateError, CertificateStore, Certificates, Resolver},
    edge::{EdgeFlags, EdgePolicy},
    events::{Findings, News, Step},
    metrics::Metrics,
    passwords::PasswordStore,
    policy::Policy,
    record::log::AccessLog,
    tls::{TlsChoice, TlsProfiles, TlsStore},
    upstream::{Named, Needs, Pool, TlsPolicies},
};

/// One generation of routes with the pools that they lead to. A request takes it once and keeps it to its end.
#[derive(Default)]
pub struct Generation {
    /// Counts up; no two generations of a process have the same.
    pub number: u64,
    /// The routes.
    pub table: Arc<Table>,
    /// By the backend's index.
    pools: Vec<Arc<Pool>>,
    /// How TLS of its hosts ends here.
    pub profiles: Arc<TlsProfiles>,
}

impl Generation {
    /// The pool of a backend of this generation's table.
    #[must_use]
    pub fn pool(&self, id: BackendId) -> Option<&Arc<Pool>> {
        self.pools.get(id.index())
    }

    /// What becomes of a TLS connection whose client names this host, in lower case without a trailing dot, or none.
    #[must_use]
    pub fn tls(&self, name: Option<&str>) -> TlsChoice<'_> {
        let options = self.table.options();
        let Some(index) = self.table.tls_host(name) else {
            let is_unknown = !name.is_some_and(|name| self.table.names(name));
            if options.edge.reject_unknown_hosts && is_unknown {
                return TlsChoice::None;
            }
            return self.profiles.plain().map_or(TlsChoice::None, TlsChoice::Terminate);
        };
        let passthrough = self.table.tls_hosts().get(index).and_then(|host| host.passthrough);
        match passthrough.and_then(|backend| self.pool(backend)) {
            Some(pool) => TlsChoice::PassThrough(pool),
            None => self.profiles.of(index).map_or(TlsChoice::None, TlsChoice::Terminate),
        }
    }
}

/// What requests and handshakes read.
pub struct Live {
    /// The routes.
    pub generation: ArcSwap<Generation>,
    /// The certificates.
    pub certificates: Arc<ArcSwap<Certificates>>,
    /// What connections are served by.
    pub edge: ArcSwap<EdgePolicy>,
    /// How endpoints are spoken to over TLS.
    pub endpoint_tls: ArcSwap<TlsPolicies>,
    /// What Services say that their ports speak, for those that say something.
    pub app_protocols: ArcSwap<HashMap<Backend, Protocol>>,
    /// The counters.
    pub metrics: Metrics,
    /// The access log, where there is one.
    pub log: OnceLock<AccessLog>,
    /// What is kept for who may come and how often.
    pub policy: Policy,
}

/// Whose addresses are written to the status of Ingresses.
#[derive(Clone, Debug, Default)]
pub struct Publish {
    /// These addresses.
    pub addresses: Vec<IpAddr>,
    /// Else those of this Service's status.
    pub service: Option<ObjectName>,
}

/// Applies snapshots.
pub struct Control {
    live: Arc<Live>,
    controller: Controller,
    store: CertificateStore,
    edge: EdgeFlags,
    tls: TlsStore,
    profiles: Arc<TlsProfiles>,
    passwords: PasswordStore,
    provider: Arc<CryptoProvider>,
    pools: HashMap<Backend, Arc<Pool>>,
    names: watch::Sender<Arc<[Named]>>,
    generations: u64,
    applied: Option<(Arc<Snapshot>, Compiled)>,
    reported: BTreeSet<String>,
    news: Option<News>,
}

impl Control {
    /// Nothing is served before the first snapshot.
    ///
    /// # Errors
    /// The default certificate could not be made.
    pub fn new(
        controller: Controller,
        metrics: Metrics,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, CertificateError> {
        let store = CertificateStore::new(Arc::clone(&provider))?;
        let certificates = Arc::new(ArcSwap::from_pointee(store.none()));
        let tls = TlsStore::new(Arc::clone(&provider), Arc::new(Resolver(Arc::clone(&certificates))));
        let live = Arc::new(Live {
            generation: ArcSwap::default(),
            certificates,
            edge: ArcSwap::from_pointee(EdgePolicy::default()),
            endpoint_tls: ArcSwap::default(),
            app_protocols: ArcSwap::default(),
            metrics,
            log: OnceLock::new(),
            policy: Policy::default(),
        });
        Ok(Self {
            live,
            controller,
            store,
            edge: EdgeFlags::default(),
            tls,
            profiles: Arc::default(),
            passwords: PasswordStore::default(),
            provider,
            pools: HashMap::new(),
            names: watch::Sender::new(Arc::from([])),
            generations: 0,
            applied: None,
            reported: BTreeSet::new(),
            news: None,
        })
    }

    /// Goes by what the command line says of the edge; before the first snapshot.
    #[must_use]
    pub fn with_edge(mut self, flags: EdgeFlags) -> Self {
        self.edge = flags;
        self
    }

    /// What is served; stays the same object over all snapshots.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    /// The external names that pools stand for, to be resolved ([`crate::upstream::keep_resolved`]).
    #[must_use]
    pub fn names(&self) -> watch::Receiver<Arc<[Named]>> {
        self.names.subscribe()
    }

    /// Serves from a snapshot; one that is not synced changes nothing once something is served.
    pub fn apply(&mut self, snapshot: &Arc<Snapshot>) {
        if !snapshot.synced && self.applied.is_some() {
            return;
        }
        let before = self.applied.as_ref().map(|(before, _)| Arc::clone(before));
        let (compiled, changed) = self.compiled(snapshot);
        let mut findings = Findings::default();
        findings.extend(Step::Routes, compiled.problems.clone());
        findings.extend(Step::Backends, self.fill_pools(&compiled.table, snapshot));
        // Certificates first: a route may be asked for as soon as it is there, and then its host must have its own.
        let mut problems = Vec::new();
        let certificates = self.store.update(
            compiled.table.certificates(),
            self.edge.default_certificate.as_ref(),
            snapshot,
            &mut problems,
        );
        findings.extend(Step::Certificates, problems);
        self.live.metrics.certificates.show(certificates.expiries.clone());
        self.live.certificates.store(Arc::new(certificates));
        let mut problems = Vec::new();
        self.update_policy(&compiled.table, snapshot, &mut problems);
        self.equip(&compiled.table, snapshot, &mut problems);
        let guarded = self.set_edge(&compiled.table, snapshot, &mut problems);
        if changed || guarded {
            self.swap(&compiled.table);
        }
        findings.extend(Step::References, problems);
        self.report(&findings);
        self.note(before.as_deref(), snapshot, &compiled, &findings);
        self.applied = Some((Arc::clone(snapshot), compiled));
    }

    /// Notes what is to be told of this snapshot. While one is not complete, what is lacking may be on its way.
    fn note(&mut self, before: Option<&Snapshot>, snapshot: &Snapshot, compiled: &Compiled, findings: &Findings) {
        if !snapshot.synced {
            return;
        }
        let is_new = |name: &&ObjectName| {
            let Some(now) = snapshot.ingresses.get(*name) else { return false };
            match before.filter(|before| before.synced) {
                Some(before) => before
                    .ingresses
                    .get(*name)
                    .is_none_or(|before| !Arc::ptr_eq(before, now) && !before.is_served_as(now)),
                // Of those that were there at the start, the ones that nobody seems to have taken yet.
                None => now.status.addresses.is_empty(),
            }
        };
        let news = self.news.get_or_insert_default();
        news.complaints = findings.complaints(compiled, snapshot);
        news.taken.extend(compiled.table.ingresses().iter().filter(is_new).cloned());
    }

    /// What is to be told since the last time, and the snapshot that it is about; nothing where there was no complete one.
    pub fn take_news(&mut self) -> Option<(News, Arc<Snapshot>)> {
        let (snapshot, _) = self.applied.as_ref()?;
        Some((self.news.take()?, Arc::clone(snapshot)))
    }

    /// Makes what connections and handshakes go by; true where a handshake's answer changed, which is part of a generation.
    fn set_edge(&mut self, table: &Table, snapshot: &Snapshot, problems: &mut Vec<Problem>) -> bool {
        let options = table.options();
        let policy = EdgePolicy::new(&self.edge, options);
        let config_map = self.controller.config_map(snapshot).map(|config_map| &config_map.meta.name);
        problems.extend(policy.problems(options, config_map));
        if **self.live.edge.load() != policy {
            self.live.edge.store(Arc::new(policy));
        }
        match self.tls.update(table, snapshot, problems) {
            Ok(profiles) if *self.profiles != profiles => {
                self.profiles = Arc::new(profiles);
                true
            }
            Ok(_) => false,
            Err(error) => {
                // Profiles go by a host's place in the table, so those of another table must not be kept.
                tracing::error!(%error, "cannot set up TLS, no handshake is answered");
                self.profiles = Arc::default();
                true
            }
        }
    }

    /// Who may come is known before the routes that ask for it.
    fn update_policy(&mut self, table: &Table, snapshot: &Snapshot, problems: &mut Vec<Problem>) {
        let (policy, asked) = (&self.live.policy, table.authentication());
        policy.passwords.store(Arc::new(self.passwords.update(asked.secrets(), snapshot, problems)));
        policy.authorizer.update(asked.services(), snapshot, problems);
    }

    fn compiled(&mut self, snapshot: &Arc<Snapshot>) -> (Compiled, bool) {
        match self.applied.take() {
            Some((before, compiled)) if same_inputs(&before, snapshot) => (compiled, false),
            before => {
                let before = before.as_ref().map(|(_, compiled)| compiled);
                (compile_after(snapshot, &self.controller, before), true)
            }
        }
    }

    /// Pools are kept by the backend's name, so that a route that stays keeps its turn and its endpoints.
    fn fill_pools(&mut self, table: &Table, snapshot: &Snapshot) -> Vec<Problem> {
        let hashed = hashed_backends(table);
        let (mut names, mut errors) = (Vec::new(), BTreeMap::new());
        for (index, backend) in table.backends().iter().enumerate() {
            let endpoints = endpoints_of(snapshot, backend, self.controller.node.as_deref()).unwrap_or_else(|error| {
                errors.insert(index, error);
                Endpoints::default()
            });
            let pool = self.pools.entry(backend.clone()).or_insert_with(|| Arc::new(Pool::new(backend)));
            let needs = if hashed.contains(&index) { Needs::Ring } else { Needs::Nothing };
            match endpoints.external {
                // Until the name is resolved, the pool has what it had.
                Some((host, port)) => names.push(Named { pool: Arc::clone(pool), host, port: port.get(), needs }),
                None => pool.set(&endpoints, needs),
            }
        }
        self.names.send_if_modified(|before| {
            let changed = !before.iter().eq(&names);
            if changed {
                *before = names.into();
            }
            changed
        });
        unserved(table, &errors)
    }

    /// What requests need to reach endpoints beside their addresses.
    fn equip(&self, table: &Table, snapshot: &Snapshot, problems: &mut Vec<Problem>) {
        // Most routes share their settings with many others.
        let shared: HashMap<_, _> =
            table.routes().iter().map(|route| (Arc::as_ptr(&route.settings), &route.settings.upstream_tls)).collect();
        let policies = self.live.endpoint_tls.load().update(shared.into_values(), snapshot, &self.provider);
        policies.report(table, problems);
        self.live.endpoint_tls.store(Arc::new(policies));
        let named = |backend: &Backend| Some((backend.clone(), app_protocol(snapshot, backend)?));
        self.live.app_protocols.store(Arc::new(table.backends().iter().filter_map(named).collect()));
    }

    fn swap(&mut self, table: &Arc<Table>) {
        let pool = |backend| self.pools.get(backend).cloned().unwrap_or_else(|| Arc::new(Pool::new(backend)));
        let pools: Vec<_> = table.backends().iter().map(pool).collect();
        self.live.metrics.pools.show(table.backends().iter().cloned().zip(pools.iter().cloned()).collect());
        let used: BTreeSet<_> = table.backends().iter().collect();
        self.pools.retain(|backend, _| used.contains(backend));
        self.generations += 1;
        self.live.generation.store(Arc::new(Generation {
            number: self.generations,
            table: Arc::clone(table),
            pools,
            profiles: Arc::clone(&self.profiles),
        }));
        self.live.metrics.updated();
        let served: HashSet<_> = table.ingresses().iter().collect();
        self.live.metrics.routes.retain(|ingress| served.contains(ingress));
        tracing::info!(ingresses = table.ingresses().len(), backends = table.backends().len(), "routes changed");
    }

    /// Logs what is new, and counts what there is. The source logs its own problems.
    fn report(&mut self, findings: &Findings) {
        for severity in [Severity::Warning, Severity::Error] {
            let count = findings.problems().filter(|problem| problem.severity == severity).count();
            let gauge = self.live.metrics.problems.with_label_values(&[severity.to_string().as_str()]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let mut now = BTreeSet::new();
        for problem in findings.problems() {
            let text = problem.to_string();
            if !self.reported.contains(&text) {
                tracing::warn!(problem = %text, "configuration is not served as written");
            }
            now.insert(text);
        }
        self.reported = now;
    }

    /// What to write to each of our Ingresses: where it is served, as far as that is to be published, and what of it another one
    /// has. Those that have neither, and do not say so now, are left out.
    #[must_use]
    pub fn status(&self, publish: &Publish) -> BTreeMap<ObjectName, IngressStatus> {
        let Some((snapshot, compiled)) = &self.applied else { return BTreeMap::new() };
        let service = publish.service.as_ref().filter(|_| publish.addresses.is_empty());
        let addresses = match service {
            None => Some(publish.addresses.clone()),
            Some(name) => {
                let service = snapshot.services.get(name);
                service.map(|service| service.status.iter().map(|entry| entry.ip).collect())
            }
        };
        let publishes = service.is_some() || !publish.addresses.is_empty();
        let status = |name: &ObjectName| {
            // While the Service that is to be published is not there, its last addresses stay.
            let before = || snapshot.ingresses.get(name).map(|ingress| ingress.status.addresses.clone());
            let addresses = addresses.clone().or_else(before).unwrap_or_default();
            let conflicts = compiled.conflicts.get(name).cloned().unwrap_or_default();
            let status = IngressStatus { addresses, conflicts };
            let shows = snapshot.ingresses.get(name).map(|ingress| &ingress.status);
            // Where nothing is published, addresses are another's word.
            let is_to_go =
                shows.is_some_and(|shows| publishes && !shows.addresses.is_empty() || !shows.conflicts.is_empty());
            (is_to_go || status != IngressStatus::default()).then(|| (name.clone(), status))
        };
        compiled.table.ingresses().iter().filter_map(status).collect()
    }
}

/// The backends, by index, that some route chooses endpoints of by a hash.
fn hashed_backends(table: &Table) -> HashSet<usize> {
    let is_hashed = |settings: &Settings| settings.balance.hash_by.is_some() || settings.affinity.is_some();
    let hashed = table.routes().iter().filter(|route| is_hashed(&route.settings)).flat_map(|route| route.backends());
    hashed.map(BackendId::index).collect()
}
