//! Assigns addresses and writes them down, in status for the agents and in a record for its own next start. In a cluster one speaker
//! assigns, and what all announce is what the Services' status says.
//!
//! The record is needed beside the status because a snapshot has the status of those Services only that it names: what
//! an earlier process assigned to the Services of a file that cannot be read now would be forgotten, and given away.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use roadstead_allocator::{Allocation, Classes, Reason, allocate_beside, observed, prior_of};
use roadstead_layer2::{membership::Table, wire::Mac};
use roadstead_model::{ObjectName, Severity, Snapshot};
use roadstead_sources::StatusWriter;
use tracing::{error, info, warn};

use crate::{
    metrics::Metrics,
    plan::Desired,
    report::{Announcing, Report},
};

/// Who says which address is whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Authority {
    /// The rules, which every speaker follows by itself.
    Rules,
    /// The status of the Services in a cluster, which the one that leads writes.
    Status,
}

/// The allocation of this node from start to end.
pub(crate) struct Controller {
    status: StatusWriter,
    authority: Authority,
    /// This speaker is to assign.
    leads: bool,
    /// What the Services' status says, where that is what counts.
    observed: Table,
    record: PathBuf,
    metrics: Metrics,
    classes: Classes,
    /// What was assigned last. It goes before the status in a snapshot, which may be older than the last write.
    assigned: Table,
    /// The Services that got addresses from this process: of those it knows what became of them.
    known: BTreeSet<ObjectName>,
    /// The table of the node whose word counts, until the next allocation.
    adopted: Option<Table>,
    reasons: BTreeMap<ObjectName, Reason>,
    report: Report,
    written: bool,
}

impl Controller {
    pub(crate) fn new(
        state_dir: &Path,
        status: StatusWriter,
        authority: Authority,
        node: &str,
        classes: Classes,
        metrics: Metrics,
    ) -> Self {
        let record = state_dir.join("speaker-assigned.json");
        let assigned = match read(&record) {
            // In a cluster the status is what was assigned.
            _ if authority == Authority::Status => Table::new(),
            Ok(assigned) => assigned,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Table::new(),
            Err(error) => {
                error!(path = %record.display(), %error, "cannot read what was assigned before; only status is left of it");
                Table::new()
            }
        };
        Self {
            status,
            authority,
            leads: authority == Authority::Rules,
            observed: Table::new(),
            record,
            metrics,
            classes,
            assigned,
            known: BTreeSet::new(),
            adopted: None,
            reasons: BTreeMap::new(),
            report: Report::new(state_dir, node),
            written: true,
        }
    }

    /// Begins or ends to assign; whether that is news. Who begins knows nothing but the status.
    pub(crate) fn lead(&mut self, leads: bool) -> bool {
        let news = leads != self.leads;
        if news {
            self.leads = leads;
            self.assigned.clear();
            self.known.clear();
            self.reasons.clear();
            self.report.forget();
            self.written = false;
        }
        news
    }

    /// The next allocation begins from this table of another node.
    pub(crate) fn adopt(&mut self, table: &Table) {
        if self.authority == Authority::Status {
            return;
        }
        info!(services = table.len(), "takes the addresses that a running node assigned");
        self.adopted = Some(table.clone());
    }

    /// What is desired by this snapshot; nothing as long as the sources have not been read in full. What is occupied, by
    /// the hosts with these hardware addresses, is given to nobody.
    pub(crate) fn take(&mut self, snapshot: &Arc<Snapshot>, occupied: &BTreeMap<IpAddr, Mac>) -> Option<Desired> {
        if !snapshot.synced {
            return None;
        }
        if self.authority == Authority::Status {
            return Some(self.follow(snapshot, occupied));
        }
        let (allocation, fresh) = self.assign(snapshot, occupied);
        Some(Desired { snapshot: Arc::clone(snapshot), allocation, fresh })
    }

    /// What is desired where the status is what counts: it is announced as it is, and who leads writes the next one.
    fn follow(&mut self, snapshot: &Arc<Snapshot>, occupied: &BTreeMap<IpAddr, Mac>) -> Desired {
        let allocation = observed(snapshot, &self.classes);
        self.observed = allocation.assigned();
        let fresh = if self.leads {
            self.assign(snapshot, occupied).1
        } else {
            self.metrics.allocation(&allocation);
            self.metrics.config(snapshot);
            BTreeSet::new()
        };
        Desired { snapshot: Arc::clone(snapshot), allocation, fresh }
    }

    /// Assigns, and prepares what is to be written; also the addresses that nobody had before.
    fn assign(&mut self, snapshot: &Snapshot, occupied: &BTreeMap<IpAddr, Mac>) -> (Allocation, BTreeSet<IpAddr>) {
        let prior = self.prior(snapshot);
        let held = self.held(snapshot, &prior);
        let known: BTreeSet<IpAddr> = prior.values().flatten().copied().collect();
        let occupied: BTreeSet<IpAddr> = occupied.keys().copied().collect();
        let allocation = allocate_beside(snapshot, &prior, &held, &occupied, &self.classes);
        self.report.allocation(snapshot, &prior, &allocation);
        self.assigned = allocation.assigned();
        self.known.extend(self.assigned.keys().cloned());
        self.assigned.extend(held);
        self.metrics.allocation(&allocation);
        self.metrics.config(snapshot);
        let reasons = allocation.services.iter().filter_map(|(name, got)| Some((name.clone(), got.reason.clone()?)));
        let reasons: BTreeMap<ObjectName, Reason> = reasons.collect();
        for (service, reason) in reasons.iter().filter(|(service, reason)| self.reasons.get(*service) != Some(*reason))
        {
            warn!(%service, %reason, "no address assigned");
        }
        self.reasons = reasons;
        self.written = false;
        let fresh = self.assigned.values().flatten().filter(|ip| !known.contains(*ip)).copied().collect();
        (allocation, fresh)
    }

    /// Takes what this node announces, to be told by the next write.
    pub(crate) fn announcing(&mut self, announcing: &Announcing) {
        self.report.announcing(announcing);
        self.written = false;
    }

    /// All addresses that are assigned or held; where the status counts, those in it.
    pub(crate) fn table(&self) -> &Table {
        match self.authority {
            Authority::Rules => &self.assigned,
            Authority::Status => &self.observed,
        }
    }

    /// Writes what is not written yet; true if nothing is left to write.
    pub(crate) fn write(&mut self) -> bool {
        if !self.written {
            let recorded = match self.authority {
                Authority::Rules => record(&self.record, &self.assigned),
                Authority::Status => Ok(()),
            };
            let written = recorded.and_then(|()| self.report.write(&self.status, &self.assigned));
            self.written = written.is_ok();
            if let Err(error) = written {
                error!(%error, "cannot write the status, so the agents do not learn the addresses; tries again");
            }
        }
        self.written
    }

    fn prior(&mut self, snapshot: &Snapshot) -> Table {
        let mut prior = prior_of(snapshot);
        // Of what the record alone knows, status says the same or, where an operator deleted it, the better.
        let fresh = |name: &ObjectName| self.known.contains(name) || !snapshot.services.contains_key(name);
        prior.extend(
            self.assigned.iter().filter(|(name, _)| fresh(name)).map(|(name, ips)| (name.clone(), ips.clone())),
        );
        if let Some(table) = self.adopted.take() {
            let taken: BTreeSet<IpAddr> = table.values().flatten().copied().collect();
            prior.retain(|name, ips| table.contains_key(name) || !ips.iter().any(|ip| taken.contains(ip)));
            prior.extend(table);
        }
        prior
    }

    /// What stays with Services that cannot be judged: while something has errors, an object that this process has not
    /// seen may be in what cannot be read, the Service as well as the pool of its address.
    fn held(&self, snapshot: &Snapshot, prior: &Table) -> Table {
        if snapshot.problems.iter().all(|problem| problem.severity != Severity::Error) {
            return Table::new();
        }
        let has_pool =
            |ip: &IpAddr| snapshot.pools.values().any(|pool| pool.addresses.iter().any(|range| range.contains(*ip)));
        let unknown = |name: &ObjectName, ips: &[IpAddr]| match snapshot.services.get(name) {
            None => true,
            Some(service) => {
                let wanted = &service.load_balancer.requested_ips;
                self.classes.serve(service) && !ips.iter().all(has_pool) && wanted.iter().all(|ip| ips.contains(ip))
            }
        };
        let held = prior.iter().filter(|(name, ips)| !self.known.contains(*name) && unknown(name, ips));
        held.map(|(name, ips)| (name.clone(), ips.clone())).collect()
    }
}

/// Writes a file whole or not at all.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

fn record(path: &Path, assigned: &Table) -> io::Result<()> {
    let by_name: BTreeMap<String, &Vec<IpAddr>> = assigned.iter().map(|(name, ips)| (name.to_string(), ips)).collect();
    let text = serde_json::to_vec_pretty(&by_name).map_err(io::Error::other)?;
    if fs::read(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    replace(path, &text)
}

fn read(path: &Path) -> io::Result<Table> {
    let by_name: BTreeMap<String, Vec<IpAddr>> =
        serde_json::from_slice(&fs::read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let named = by_name.into_iter().filter_map(|(name, ips)| {
        let (namespace, name) = name.split_once('/')?;
        Some((ObjectName::new(namespace, name), ips))
    });
    Ok(named.collect())
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use roadstead_sources::{LoadOptions, load};

    use super::*;

    const POOL: &str = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
        metadata: {name: p, namespace: metallb-system}\nspec: {addresses: [192.0.2.10-192.0.2.20]}\n";

    struct Node {
        folder: tempfile::TempDir,
    }

    impl Node {
        fn new() -> Self {
            let node = Self { folder: tempfile::tempdir().unwrap() };
            fs::create_dir(node.folder.path().join("m")).unwrap();
            node.file("pool.yaml", POOL);
            node
        }

        fn file(&self, name: &str, text: &str) {
            fs::write(self.folder.path().join("m").join(name), text).unwrap();
        }

        fn service(&self, name: &str) {
            let text = format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
                 spec: {{type: LoadBalancer, ports: [{{port: 80}}]}}\n"
            );
            self.file(&format!("{name}.yaml"), &text);
        }

        fn start(&self) -> Controller {
            let (folder, metrics) = (self.folder.path(), Metrics::new(&Registry::new()).unwrap());
            let status = StatusWriter::new(folder);
            Controller::new(folder, status, Authority::Rules, "node-a", Classes::default(), metrics)
        }

        fn snapshot(&self) -> Snapshot {
            let options = LoadOptions { state_dir: Some(self.folder.path().to_owned()), ..LoadOptions::default() };
            load(&[self.folder.path().join("m")], &options)
        }

        fn take(&self, controller: &mut Controller) {
            assert!(controller.take(&Arc::new(self.snapshot()), &BTreeMap::new()).is_some());
            controller.write();
        }

        fn status(&self) -> String {
            fs::read_to_string(self.folder.path().join("status/services.yaml")).unwrap_or_default()
        }
    }

    #[track_caller]
    fn check(controller: &Controller, expected: &[(&str, u8)]) {
        let ip = |last: u8| vec![IpAddr::from([192, 0, 2, last])];
        let expected = expected.iter().map(|(name, last)| (ObjectName::new("default", name), ip(*last)));
        assert_eq!(*controller.table(), expected.collect::<Table>());
    }

    /// `web` is older than `api`, which comes first by name.
    fn swapped() -> Node {
        let node = Node::new();
        let mut controller = node.start();
        node.service("web");
        node.take(&mut controller);
        node.service("api");
        node.take(&mut controller);
        check(&controller, &[("web", 10), ("api", 11)]);
        node
    }

    #[test]
    fn nothing_is_written_before_the_sources_were_read() {
        let node = swapped();
        let before = node.status();
        let mut controller = node.start();
        let unread = Snapshot { synced: false, ..Snapshot::default() };
        assert!(controller.take(&Arc::new(unread), &BTreeMap::new()).is_none());
        assert_eq!(node.status(), before);
        node.take(&mut controller);
        check(&controller, &[("web", 10), ("api", 11)]);
    }

    #[test]
    fn what_cannot_be_read_after_a_restart_keeps_its_addresses() {
        for broken in ["web.yaml", "pool.yaml"] {
            let node = swapped();
            let (path, before) = (node.folder.path().join("m").join(broken), node.status());
            let good = fs::read_to_string(&path).unwrap();
            node.file(broken, "kind: [");
            let mut controller = node.start();
            node.take(&mut controller);
            assert_eq!(node.status(), before, "{broken}");
            node.service("aaa");
            node.take(&mut controller);
            node.file(broken, &good);
            node.take(&mut controller);
            check(&controller, &[("web", 10), ("api", 11), ("aaa", 12)]);
        }
    }

    #[test]
    fn what_another_host_has_is_given_up_before_anybody_learns_of_it() {
        let node = Node::new();
        let mut controller = node.start();
        node.service("web");
        let ip = |last: u8| IpAddr::from([192, 0, 2, last]);
        let mut occupied = BTreeMap::new();
        for last in [10, 11, 12] {
            let desired = controller.take(&Arc::new(node.snapshot()), &occupied).unwrap();
            check(&controller, &[("web", last)]);
            assert_eq!(desired.fresh, BTreeSet::from([ip(last)]));
            occupied.insert(ip(last), Mac([2, 0, 0, 0, 0, 9]));
        }
        occupied.remove(&ip(12));
        let desired = controller.take(&Arc::new(node.snapshot()), &occupied).unwrap();
        assert_eq!(desired.fresh, BTreeSet::new(), "it was asked for already");
        assert_eq!(node.status(), "");
        controller.write();
        assert!(node.status().contains("192.0.2.12") && !node.status().contains("192.0.2.11"), "{}", node.status());
    }

    #[test]
    fn what_is_gone_gives_its_address_back() {
        let node = swapped();
        let mut controller = node.start();
        fs::remove_file(node.folder.path().join("m/web.yaml")).unwrap();
        node.take(&mut controller);
        check(&controller, &[("api", 11)]);
        node.service("zzz");
        node.take(&mut controller);
        check(&controller, &[("api", 11), ("zzz", 10)]);
    }

    #[test]
    fn the_table_of_a_running_node_goes_before_what_was_assigned_here() {
        let node = Node::new();
        node.service("web");
        node.service("api");
        node.service("own");
        let mut controller = node.start();
        node.take(&mut controller);
        check(&controller, &[("api", 10), ("own", 11), ("web", 12)]);
        controller.adopt(swapped().start_table());
        node.take(&mut controller);
        check(&controller, &[("web", 10), ("api", 11), ("own", 12)]);
    }

    impl Node {
        fn start_table(&self) -> &'static Table {
            Box::leak(Box::new(self.start().assigned))
        }
    }

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let node = Node::new();
        node.service("web");
        let mut controller = node.start();
        // A file where the folder should be: even root cannot write there.
        fs::write(node.folder.path().join("status"), "").unwrap();
        node.take(&mut controller);
        assert!(!controller.write());
        fs::remove_file(node.folder.path().join("status")).unwrap();
        assert!(controller.write());
        assert!(node.status().contains("192.0.2.10"));
    }
}
