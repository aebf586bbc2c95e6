//! Assigns addresses and writes them down, in status for the agents and in a record for its own next start and for the
//! other speakers (`standalone`). In a cluster one speaker assigns, and what all announce is what the Services' status says.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use roadstead_allocator::{
    Allocation, Assignment, Classes, Cleared, Reason, allocate_beside, allocate_within, observed, prior_of,
};
use roadstead_layer2::{
    membership::Arrival,
    replica::{Assignments, Documents, Lost, Table},
    wire::Mac,
};
use roadstead_model::{ObjectName, Snapshot};
use roadstead_sources::StatusWriter;
use tracing::{debug, error, info, warn};

use crate::{
    metrics::Metrics,
    plan::Desired,
    record,
    report::{Announcing, Report},
    standalone::{Meeting, Plan, Standalone},
};

/// Who says which address is whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Authority {
    /// The map that speakers keep together, of which so many are configured.
    Files { members: usize },
    /// The status of the Services in a cluster, which the one that leads writes.
    Status,
}

/// The allocation of this node from start to end.
pub(crate) struct Controller {
    status: StatusWriter,
    authority: Authority,
    /// This speaker is to assign.
    leads: bool,
    node: String,
    record: PathBuf,
    metrics: Metrics,
    classes: Classes,
    standalone: Standalone,
    /// What was assigned last.
    assigned: Table,
    /// The Services that got addresses from this process: of those it knows what became of them.
    known: BTreeSet<ObjectName>,
    reasons: BTreeMap<ObjectName, Reason>,
    differences: BTreeMap<String, String>,
    report: Report,
    written: bool,
}

impl Controller {
    /// Goes on from the state directory.
    pub(crate) fn new(
        state_dir: &Path,
        status: StatusWriter,
        authority: Authority,
        node: &str,
        classes: Classes,
        metrics: Metrics,
    ) -> Self {
        let path = record::path(state_dir);
        let (members, map) = match authority {
            Authority::Files { members } => (members, record::read(&path)),
            // The status is what was assigned.
            Authority::Status => (1, Ok(None)),
        };
        let map = map.unwrap_or_else(|error| {
            error!(path = %path.display(), %error, "cannot read what was assigned before; only status is left of it");
            None
        });
        let map = map.unwrap_or_default();
        let held = map.iter().filter(|(_, entry)| !entry.ips.is_empty());
        Self {
            status,
            authority,
            leads: authority != Authority::Status,
            node: node.to_owned(),
            record: path,
            metrics,
            classes,
            assigned: held.map(|(name, entry)| (name.clone(), entry.ips.clone())).collect(),
            standalone: Standalone::new(node, members, map),
            known: BTreeSet::new(),
            reasons: BTreeMap::new(),
            differences: BTreeMap::new(),
            report: Report::new(state_dir, node),
            written: true,
        }
    }

    /// Begins or ends to assign; whether that is news. Who begins knows nothing but the status.
    pub(crate) fn lead(&mut self, leads: bool) -> bool {
        let news = leads != self.leads;
        if news {
            self.leads = leads;
            self.standalone = Standalone::new(&self.node, 1, Assignments::default());
            self.assigned.clear();
            self.known.clear();
            self.reasons.clear();
            self.report.forget();
            self.written = false;
        }
        news
    }

    /// Takes a document of a peer; whether there is something to allocate anew.
    pub(crate) fn receive(&mut self, arrival: &Arrival) -> bool {
        self.standalone.receive(arrival)
    }

    /// Takes what is known of the peers; whether there is something to allocate anew.
    pub(crate) fn hear(&mut self, meeting: &Meeting) -> bool {
        if self.authority == Authority::Status {
            return false;
        }
        let changed = self.standalone.hear(meeting);
        self.compare();
        changed
    }

    /// What the peers are told; nothing where the Services' status tells it.
    pub(crate) fn documents(&self) -> Option<&Documents> {
        (self.authority != Authority::Status).then(|| self.standalone.documents())
    }

    /// In what the copies of the files differ, of each peer whose copy has done so for a while.
    pub(crate) fn differences(&self) -> &BTreeMap<String, String> {
        &self.differences
    }

    fn compare(&mut self) {
        let differences = self.standalone.differences();
        if differences == self.differences {
            return;
        }
        for (peer, difference) in differences.iter().filter(|(peer, told)| self.differences.get(*peer) != Some(told)) {
            warn!(%peer, difference, "the peer's copy of the files differs from this node's");
        }
        for peer in self.differences.keys().filter(|peer| !differences.contains_key(*peer)) {
            info!(%peer, "the peer's copy of the files no longer differs");
        }
        self.metrics.disagreeing(differences.keys());
        self.differences = differences;
    }

    /// What is desired by this snapshot; nothing as long as the sources have not been read in full. What is occupied, by
    /// the hosts with these hardware addresses, is given to nobody.
    pub(crate) fn take(&mut self, snapshot: &Arc<Snapshot>, occupied: &BTreeMap<IpAddr, Mac>) -> Option<Desired> {
        if !snapshot.synced {
            return None;
        }
        self.report.keep(snapshot);
        if self.authority == Authority::Status {
            return Some(self.follow(snapshot, occupied));
        }
        let (allocation, fresh) = self.assign(snapshot, occupied);
        Some(Desired { snapshot: Arc::clone(snapshot), allocation, fresh })
    }

    /// What is desired where the status is what counts: it is announced as it is, and who leads writes the next one.
    fn follow(&mut self, snapshot: &Arc<Snapshot>, occupied: &BTreeMap<IpAddr, Mac>) -> Desired {
        let allocation = observed(snapshot, &self.classes);
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
        let plan = self.standalone.plan(snapshot, &self.classes, &self.known);
        let known: BTreeSet<IpAddr> = plan.prior.values().chain(plan.held.values()).flatten().copied().collect();
        let occupied: BTreeSet<IpAddr> = occupied.keys().copied().collect();
        let mut allocation = allocate_within(snapshot, &plan.prior, &plan.held, &occupied, &self.classes, &plan.closed);
        self.standalone.draw(&plan, &allocation);
        self.foresee(snapshot, &plan, &occupied, &mut allocation);
        let mut assigned = allocation.assigned();
        self.known.extend(assigned.keys().cloned());
        // What may not be taken away stays in status, though it may not be announced.
        let Plan { prior, held, closed, lost, .. } = plan;
        let kept = prior.into_iter().filter(|(name, _)| closed.contains_key(name));
        for (name, ips) in held.into_iter().chain(kept) {
            assigned.entry(name).or_insert(ips);
        }
        let before = std::mem::replace(&mut self.assigned, assigned);
        for (name, Lost { ips, to }) in lost {
            allocation.cleared.entry(name).or_insert(Cleared { ips, reason: Reason::Yielded { to } });
        }
        self.note_moved(&before, &mut allocation);
        let mut had = prior_of(snapshot);
        had.extend(before);
        self.report.allocation(snapshot, &had, &allocation);
        self.metrics.allocation(&allocation);
        self.metrics.config(snapshot);
        self.tell_reasons(&allocation);
        self.compare();
        self.written = false;
        let fresh = self.assigned.values().flatten().filter(|ip| !known.contains(*ip)).copied().collect();
        (allocation, fresh)
    }

    /// Where another node assigns, and could not give an address either, the reason is told here too.
    fn foresee(&self, snapshot: &Snapshot, plan: &Plan, occupied: &BTreeSet<IpAddr>, allocation: &mut Allocation) {
        let waits = |got: &Assignment| got.ips.is_empty() && matches!(got.reason, Some(Reason::AssignedBy(_)));
        if !allocation.services.values().any(waits) {
            return;
        }
        let mut foreseen = allocate_beside(snapshot, &plan.prior, &plan.held, occupied, &self.classes).services;
        for (name, got) in allocation.services.iter_mut().filter(|(_, got)| waits(got)) {
            let lacks = foreseen.remove(name).filter(|foreseen| foreseen.ips.is_empty());
            got.reason = lacks.and_then(|lacks| lacks.reason).or(got.reason.take());
        }
    }

    /// Addresses that another node has taken from a Service.
    fn note_moved(&self, before: &Table, allocation: &mut Allocation) {
        for (name, ips) in before {
            let has = self.assigned.get(name).map_or(&[][..], Vec::as_slice);
            let is_known = allocation.services.contains_key(name) && !allocation.cleared.contains_key(name);
            let writer = self.standalone.other_writer(name);
            if let Some(writer) = writer.filter(|_| is_known && ips.iter().any(|ip| !has.contains(ip))) {
                let reason = Reason::AssignedAnew(writer.to_owned());
                allocation.cleared.insert(name.clone(), Cleared { ips: ips.clone(), reason });
            }
        }
    }

    fn tell_reasons(&mut self, allocation: &Allocation) {
        let reasons = allocation.services.iter().filter_map(|(name, got)| Some((name.clone(), got.reason.clone()?)));
        let reasons: BTreeMap<ObjectName, Reason> = reasons.collect();
        for (service, reason) in reasons.iter().filter(|(service, reason)| self.reasons.get(*service) != Some(*reason))
        {
            let has_one = allocation.services.get(service).is_some_and(|got| !got.ips.is_empty());
            if reason.is_waiting() {
                debug!(%service, %reason, "no address assigned yet");
            } else if has_one {
                info!(%service, %reason, "no further address assigned beside the one it has");
            } else {
                warn!(%service, %reason, "no address assigned");
            }
        }
        self.reasons = reasons;
    }

    /// Takes what this node announces, to be told by the next write.
    pub(crate) fn announcing(&mut self, announcing: &Announcing) {
        self.report.announcing(announcing);
        self.written = false;
    }

    /// All addresses that this node has assigned or holds, those that are not written yet too. Where the status counts, who does
    /// not lead has none.
    pub(crate) fn table(&self) -> &Table {
        &self.assigned
    }

    /// Writes what is not written yet; true if nothing is left to write. What peers are told is written down before.
    pub(crate) fn write(&mut self) -> bool {
        let recorded = self.standalone.hand_on(|map| match self.authority {
            Authority::Files { .. } => record::write(&self.record, map),
            Authority::Status => Ok(()),
        });
        if let Err(error) = recorded {
            error!(path = %self.record.display(), %error, "cannot write down what is assigned; tries again");
            return false;
        }
        if !self.written {
            let written = self.report.write(&self.status, &self.assigned);
            self.written = written.is_ok();
            if let Err(error) = written {
                error!(%error, "cannot write the status, so the agents do not learn the addresses; tries again");
            }
        }
        self.written
    }
}

#[cfg(test)]
mod several;
#[cfg(test)]
mod tests {
    use std::fs;

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
            self.start_by(Authority::Files { members: 1 })
        }

        fn start_by(&self, authority: Authority) -> Controller {
            let (folder, metrics) = (self.folder.path(), Metrics::new(&Registry::new()).unwrap());
            Controller::new(folder, StatusWriter::new(folder), authority, "node-a", Classes::default(), metrics)
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
    fn who_has_nobody_to_tell_makes_no_documents() {
        let node = swapped();
        let mut controller = node.start_by(Authority::Status);
        controller.lead(true);
        node.take(&mut controller);
        check(&controller, &[("web", 10), ("api", 11)]);
        assert!(controller.documents().is_none());
        assert_eq!(controller.standalone.documents().index, Documents::default().index);
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

    /// What is asked for on the segment is what stands in the table, until the status says it.
    #[test]
    fn an_address_that_is_asked_for_stays_so_when_the_next_snapshot_comes() {
        let node = Node::new();
        let mut controller = node.start_by(Authority::Status);
        node.service("web");
        let unwritten =
            Arc::new(load(&[node.folder.path().join("m")], &LoadOptions { state_dir: None, ..LoadOptions::default() }));
        assert!(controller.take(&unwritten, &BTreeMap::new()).unwrap().fresh.is_empty(), "another leads");
        check(&controller, &[]);
        assert!(controller.lead(true));
        assert_eq!(controller.take(&unwritten, &BTreeMap::new()).unwrap().fresh.len(), 1);
        assert!(controller.take(&unwritten, &BTreeMap::new()).unwrap().fresh.is_empty());
        check(&controller, &[("web", 10)]);
        assert!(controller.lead(false));
        check(&controller, &[]);
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
