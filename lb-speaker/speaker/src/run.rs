//! `run`: the daemon. Snapshots come in, addresses are assigned and written to status, the engine announces.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use prometheus::Registry;
use roadstead_allocator::Classes;
use roadstead_layer2::{
    announce::REFRESH,
    membership::{Arrival, Key, MAX_NAME, Membership},
    ownership::{self, Ownership, Rules},
    replica::{Documents, Index},
};
use roadstead_sources::{Interest, NamespaceFlag, SourceFlags};
use roadstead_telemetry::{Health, Shutdown, TelemetryFlags};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::{
    controller::{Authority, Controller},
    engine::{Engine, Setup},
    kernel::{KernelResponder, Origin},
    links::Watch,
    members::Members,
    metrics::Metrics,
    peers::{PeerAddress, PeerSocket},
    ports::Ports,
    priority,
    record::replace,
    report::Announcing,
    responder::{Choice, InKernel},
    selection::Selection,
    survey::{Questions, Survey},
};

/// Name of the Lease by which one speaker assigns addresses, and of the field manager.
const LEASE: &str = "roadstead-speaker";

/// Flags of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunFlags {
    #[command(flatten)]
    source: SourceFlags,
    #[command(flatten)]
    telemetry: TelemetryFlags,
    #[command(flatten)]
    namespace: NamespaceFlag,
    /// Announce on this interface (repeatable; default: every Ethernet interface that is up and has an address)
    #[arg(long = "interface", value_name = "IF", env = "ROADSTEAD_INTERFACE", value_delimiter = ',')]
    interfaces: Vec<String>,
    /// Announce on no interface whose name matches this expression, whatever else is said (repeatable). Where no
    /// --interface is named, `MetalLB`'s usual patterns or those of the ConfigMap metallb-excludel2 hold beside it
    #[arg(long = "exclude-interface", value_name = "REGEX", env = "ROADSTEAD_EXCLUDE_INTERFACE")]
    excluded_interfaces: Vec<String>,
    /// Another speaker, or this one, whose name is passed over (repeatable; default: this node is alone; in a cluster every Node, at
    /// its first InternalIP)
    #[arg(long = "peer", value_name = "NAME=ADDR[:PORT]", env = "ROADSTEAD_PEER", value_delimiter = ',')]
    peers: Vec<PeerAddress>,
    /// Where to hear the other speakers, UDP
    #[arg(long, value_name = "ADDR", env = "ROADSTEAD_LISTEN_MEMBERSHIP", default_value = "[::]:7946")]
    listen_membership: SocketAddr,
    /// File with the key, in hexadecimal, that all speakers share. Keys in further lines are believed and not used
    #[arg(long, value_name = "FILE", env = "ROADSTEAD_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// Seconds between two unasked announcements of an address, so that switches do not forget its port; 0 for none after
    /// the burst with which it comes here
    #[arg(long, value_name = "SECONDS", env = "ROADSTEAD_ANNOUNCE_INTERVAL", default_value_t = REFRESH.as_secs())]
    announce_interval: u64,
    /// Serve Services of this loadBalancerClass instead of those without a class (roadstead.dev/speaker is always served)
    #[arg(long = "lb-class", value_name = "CLASS", env = "ROADSTEAD_LB_CLASS")]
    lb_class: Option<String>,
    /// Let the thread of heartbeats and answers go before all ordinary work, at this real-time priority
    #[arg(long, value_name = "1-99", env = "ROADSTEAD_REALTIME_PRIORITY", value_parser = clap::value_parser!(u8).range(1..=99))]
    realtime_priority: Option<u8>,
    /// Ask the segment for an address that nobody had before it is handed out: one that another host answers for is not.
    /// Off where a router answers for everything (proxy ARP)
    #[arg(long, env = "ROADSTEAD_PROBE_ADDRESSES", default_value = "on")]
    probe_addresses: Switch,
    /// Who answers questions for addresses
    #[arg(long, env = "ROADSTEAD_RESPONDER", default_value = "userspace")]
    responder: Choice,
    /// Where the agent pins, for a responder in its programs
    #[arg(long, env = "ROADSTEAD_BPFFS", value_name = "DIR", default_value = "/sys/fs/bpf/roadstead")]
    bpffs: PathBuf,
    /// Who wins an address
    #[arg(long, env = "ROADSTEAD_ELECTION", default_value = "metallb")]
    election: Election,
    /// What a node does that no longer hears its peers
    #[arg(long, env = "ROADSTEAD_PARTITION", default_value = "availability")]
    partition: Partition,
}

impl RunFlags {
    /// Whether the other speakers are those of the cluster's nodes.
    fn finds_peers(&self) -> bool {
        self.peers.is_empty() && self.source.name_a_server()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Election {
    /// `MetalLB`'s hash of node and address: an address goes back to a node that returns
    Metallb,
    /// Whoever has an address keeps it; new ones go to the nodes with the fewest
    Sticky,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Partition {
    /// It announces: both sides serve those who reach them
    Availability,
    /// It announces only what a majority of all configured speakers backs: never two owners, and none without a majority
    Strict,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(flags: RunFlags) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    runtime.block_on(serve(flags))
}

async fn serve(flags: RunFlags) -> anyhow::Result<()> {
    roadstead_telemetry::init_logging(&flags.telemetry);
    let shutdown = Shutdown::on_signals().context("cannot catch signals")?;
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).context("cannot register the metrics")?;
    let health = Health::new(registry.clone());
    let node = flags.source.node_name().context("cannot read the hostname; --node-name says which node this is")?;
    let (announcing, mut announced) = watch::channel(Announcing::default());
    let started = priority::with(flags.realtime_priority, || start_engine(&flags, &node, &metrics, announcing));
    let (engine, mut arrivals) = started.context("cannot take the real-time priority (CAP_SYS_NICE)")??;
    let serve = |addr| {
        let server = roadstead_telemetry::serve(addr, health.clone(), shutdown.clone());
        server.with_context(|| format!("cannot serve metrics on {addr}"))
    };
    let served = flags.telemetry.metrics_addr.map(serve).transpose()?;
    let namespace = flags.namespace.resolve();
    let interest = Interest::speaker(&namespace).written_by(LEASE, &namespace, &node);
    let source = roadstead_sources::start(&flags.source, interest).context("cannot start the source")?;
    source.register(&registry).context("cannot register the source's metrics")?;
    let mut snapshots = source.snapshots();
    let mut leads = source.leads();
    let members = flags.peers.iter().filter(|peer| peer.name != node).count() + 1;
    let authority = if leads.is_some() { Authority::Status } else { Authority::Files { members } };
    let state_dir = &flags.source.state_dir;
    let (writer, classes) = (source.status_writer(state_dir), Classes::new(flags.lb_class.clone()));
    let mut controller = Controller::new(state_dir, writer, authority, &node, classes, metrics);
    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    info!(%node, "started");
    let (mut verdicts, mut members, mut meetings) = (engine.verdicts(), engine.members(), engine.meetings());
    let mut refused = BTreeMap::new();
    let mut told = Told::default();
    told.documents(&engine, controller.documents());
    let (mut fresh, mut met, mut configured, mut number) = (true, false, false, 0);
    let mut peers = Vec::new();
    let ended = loop {
        // Everything that came before the meeting said that it is over is taken in by then.
        let meeting = meetings.borrow_and_update().clone();
        while let Ok(arrival) = arrivals.try_recv() {
            fresh |= controller.receive(&arrival);
        }
        if let Some(leads) = &mut leads {
            fresh |= controller.lead(*leads.borrow_and_update());
        }
        fresh |= controller.hear(&meeting);
        // Who joins announces nothing before it knows what the running nodes assigned.
        met |= meeting.over;
        let verdict = verdicts.borrow_and_update().clone();
        fresh |= verdict.occupied != refused;
        if fresh && met {
            fresh = false;
            refused.clone_from(&verdict.occupied);
            let snapshot = snapshots.borrow_and_update().clone();
            if flags.finds_peers() && snapshot.synced {
                let port = flags.listen_membership.port();
                let others = snapshot.nodes.values().filter(|other| *other.meta.name.name != *node);
                let found: Vec<_> = others.filter_map(|other| PeerAddress::of_node(other, port)).collect();
                if found != peers {
                    engine.meet(found.clone());
                    peers = found;
                }
            }
            if let Some(desired) = controller.take(&snapshot, &refused) {
                number = engine.set(Arc::new(desired), controller.table().clone());
                configured = true;
            }
        }
        // Nobody learns of an address before the segment was asked for it.
        let written = verdict.done >= number && controller.write();
        if written {
            told.documents(&engine, controller.documents());
        }
        told.members(&members.borrow_and_update(), controller.differences(), state_dir);
        health.set_ready(written && configured && source.is_current() && meeting.live.contains(&node));
        tokio::select! {
            () = shutdown.wait() => break Ok(()),
            changed = snapshots.changed() => match changed {
                Ok(()) => fresh = true,
                Err(_) => break Err(anyhow::anyhow!("the source ended")),
            },
            changed = meetings.changed() => if changed.is_err() {
                break Err(anyhow::anyhow!("the engine ended"));
            },
            Some(arrival) = arrivals.recv() => fresh |= controller.receive(&arrival),
            changed = verdicts.changed() => if changed.is_err() {
                break Err(anyhow::anyhow!("the engine ended"));
            },
            Ok(()) = members.changed() => {}
            Ok(()) = announced.changed() => controller.announcing(&announced.borrow_and_update().clone()),
            () = changed(&mut leads) => {}
            _ = every_second.tick() => {}
        }
    };
    health.set_ready(false);
    engine.stop();
    // What is announced no more is told before the Lease is given back.
    controller.announcing(&Announcing::default());
    controller.write();
    source.stop().await;
    shutdown.trigger();
    if let Some(served) = served {
        served.await.context("the metrics server ended in a panic")?;
    }
    ended
}

/// Waits for another leader; for ever where nobody leads.
async fn changed(leads: &mut Option<watch::Receiver<bool>>) {
    if let Some(leads) = leads
        && leads.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// What was handed on last.
#[derive(Default)]
struct Told {
    documents: Option<Index>,
    members: Members,
}

impl Told {
    fn documents(&mut self, engine: &Engine, documents: Option<&Documents>) {
        if let Some(documents) = documents.filter(|documents| self.documents.as_ref() != Some(&documents.index)) {
            self.documents = Some(documents.index.clone());
            engine.publish(documents.clone());
        }
    }

    /// Writes down what is known of all speakers: `explain` and the next start read it.
    fn members(&mut self, members: &Members, differences: &BTreeMap<String, String>, state_dir: &Path) {
        let members = members.clone().with(differences);
        if members == self.members {
            return;
        }
        if let Err(error) = members.write(state_dir) {
            warn!(%error, "cannot write what is known of the speakers, so `explain` does not know it");
        }
        self.members = members;
    }
}

fn start_engine(
    flags: &RunFlags,
    node: &str,
    metrics: &Metrics,
    announcing: watch::Sender<Announcing>,
) -> anyhow::Result<(Engine, mpsc::Receiver<Arrival>)> {
    if node.is_empty() || node.len() > MAX_NAME {
        bail!("a node name has 1 to {MAX_NAME} bytes");
    }
    let key = flags.key_file.as_deref().map(read_key).transpose()?;
    let others: Vec<PeerAddress> = flags.peers.iter().filter(|peer| peer.name != node).cloned().collect();
    // Before the first look, so that no change falls between.
    let watch = Watch::open().inspect_err(|error| {
        warn!(%error, "cannot hear of changes of interfaces; looks at them once a second");
    });
    let selection = Selection::new(flags.interfaces.clone(), &flags.excluded_interfaces);
    let mut ports = Ports::new(selection.context("--exclude-interface is no regular expression")?);
    let questions = Questions {
        bpffs: (flags.responder != Choice::Userspace).then(|| flags.bpffs.clone()),
        peers: others.iter().map(|peer| peer.address).collect(),
    };
    let survey = Survey::take(&questions).context("cannot list the network interfaces")?;
    ports.rescan(survey.links, BTreeSet::new())?;
    let peers = if others.is_empty() && !flags.finds_peers() {
        None
    } else {
        let socket = PeerSocket::open(flags.listen_membership, &others);
        let mut socket = socket.with_context(|| format!("cannot hear the peers on {}", flags.listen_membership))?;
        socket.set_everybody(survey.everybody);
        Some(socket)
    };
    if peers.is_some() && key.is_none() {
        warn!("heartbeats are not authenticated: no --key-file");
    }
    let others_at = others.iter().map(|peer| peer.address).collect();
    let names = others.into_iter().map(|peer| peer.name);
    let boot = next_boot(&flags.source.state_dir);
    let mut membership = Membership::new(node, boot, names, key, Duration::ZERO);
    match random() {
        // A majority that waits for a kernel to fall silent would be none.
        Ok(_) if matches!(flags.partition, Partition::Strict) => {}
        Ok(secret) => membership.probe_by(&secret),
        Err(error) => warn!(%error, "no random bytes, so peers that fall silent are not probed"),
    }
    let port = flags.listen_membership.port();
    let mut kernel = InKernel::open(flags.responder, flags.bpffs.clone(), port, others_at)?;
    ports.show(|ports, links| kernel.look(ports, links, &survey.attached));
    if kernel.vouches() && !matches!(flags.partition, Partition::Strict) {
        membership.answer_by_kernel();
    }
    // Of another node, where a state directory was copied, they say nothing.
    let earlier = Members::read(&flags.source.state_dir).filter(|earlier| earlier.node == node);
    let remembered = earlier.map(|earlier| earlier.own_claims()).unwrap_or_default();
    let rules = Rules { election: flags.election.into(), partition: flags.partition.into() };
    if rules.partition == ownership::Partition::Strict && peers.as_ref().is_some_and(|_| flags.peers.len() < 3) {
        warn!("two speakers have no majority without each other: when one is gone, the other announces nothing");
    }
    Engine::start(Setup {
        node: node.to_owned(),
        ownership: Ownership::new(membership, rules, remembered),
        origin: Origin::now(),
        peers,
        ports,
        watch: watch.ok(),
        questions,
        refresh: (flags.announce_interval > 0).then(|| Duration::from_secs(flags.announce_interval)),
        probe: flags.probe_addresses == Switch::On,
        metrics: metrics.clone(),
        announcing,
        kernel: Some(Box::new(kernel)),
    })
}

impl From<Election> for ownership::Election {
    fn from(flag: Election) -> Self {
        match flag {
            Election::Metallb => Self::Metallb,
            Election::Sticky => Self::Sticky,
        }
    }
}

impl From<Partition> for ownership::Partition {
    fn from(flag: Partition) -> Self {
        match flag {
            Partition::Availability => Self::Availability,
            Partition::Strict => Self::Strict,
        }
    }
}

fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_key(path: &Path) -> anyhow::Result<Key> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read the key file {}", path.display()))?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().with_context(|| format!("{} holds no key", path.display()))?;
    let key = Key::new(&key_bytes(path, first)?);
    lines.try_fold(key, |key, line| Ok(key.believing(&key_bytes(path, line)?)))
}

fn key_bytes(path: &Path, line: &str) -> anyhow::Result<Vec<u8>> {
    let digits: Option<Vec<u8>> = line.chars().map(|digit| digit.to_digit(16)?.try_into().ok()).collect();
    let digits = digits.with_context(|| format!("{} holds something else than hexadecimal digits", path.display()))?;
    if digits.len() < 32 || digits.len() % 2 != 0 {
        bail!("{} must hold at least 16 bytes in hexadecimal, two digits each", path.display());
    }
    Ok(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

/// A number above that of every earlier start, by which peers tell a restart from a replay. The clock alone would not
/// do: one that was set back would make this node look replayed.
fn next_boot(state_dir: &Path) -> u64 {
    let path = state_dir.join("speaker-boot");
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let last = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    if last.is_none() {
        info!(path = %path.display(), "no boot number of an earlier start: if the clock was set back, peers refuse this node");
    }
    let last = last.unwrap_or(0);
    let boot = u64::try_from(clock).unwrap_or(u64::MAX).max(last.saturating_add(1));
    if let Err(error) = replace(&path, boot.to_string().as_bytes()) {
        warn!(path = %path.display(), %error, "cannot keep the boot number; a clock set back would confuse the peers");
    }
    boot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_number_rises_even_when_the_clock_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let first = next_boot(folder.path());
        assert!(first > 1_600_000_000_000_000);
        fs::write(folder.path().join("speaker-boot"), (u64::MAX - 1).to_string()).unwrap();
        assert_eq!(next_boot(folder.path()), u64::MAX);
    }

    #[test]
    fn keys_are_hexadecimal_and_long_enough() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let cases = [
            ("00112233445566778899aabbccddeeff\n", true),
            ("00112233445566778899AABBCCDDEEFF", true),
            ("00112233445566778899aabbccddee", false),
            ("00112233445566778899aabbccddeeff0", false),
            ("00112233445566778899aabbccddeexx", false),
            ("00112233445566778899aabbccddeeff\n\n  ffeeddccbbaa99887766554433221100\n", true),
            ("00112233445566778899aabbccddeeff\nffee", false),
            ("\n", false),
            ("", false),
        ];
        for (text, expected) in cases {
            fs::write(&path, text).unwrap();
            assert_eq!(read_key(&path).is_ok(), expected, "{text:?}");
        }
    }
}
