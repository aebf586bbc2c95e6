//! `roadstead run`: the daemon's loop. Stopping leaves every program attached; the next start continues.

use std::time::Duration;

use anyhow::Context as _;
use roadstead_sources::{self as sources, Interest};
use roadstead_telemetry::{self as telemetry, Health, Shutdown};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use crate::{agent::Agent, flags::RunFlags, metrics::Metrics, netlink::Watch};

/// How long to wait for an API server's first full snapshot before attaching all the same.
const FIRST_SYNC: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_secs(1);
const COLLECT: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(flags: RunFlags) -> anyhow::Result<()> {
    telemetry::init_logging(&flags.telemetry);
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let registry = prometheus::Registry::new();
    let metrics = Metrics::register(&registry).context("cannot register metrics")?;
    let health = Health::new(registry.clone());
    let server = match flags.telemetry.metrics_addr {
        Some(addr) => Some(
            telemetry::serve(addr, health.clone(), shutdown.clone())
                .with_context(|| format!("cannot serve metrics on {addr}"))?,
        ),
        None => None,
    };
    warn_unless_forwarding();

    let source = sources::start(&flags.source, Interest::agent()).context("cannot start the source")?;
    source.register(&registry).context("cannot register the source's metrics")?;
    let mut snapshots = source.snapshots();
    let mut watch = Watch::open().context("cannot follow the devices")?;
    // Files are read by now, as far as they are there.
    let patience = if flags.source.name_a_server() { FIRST_SYNC } else { Duration::ZERO };
    let mut agent = Agent::load(flags, metrics, health.clone())?;
    let synced = snapshots.wait_for(|snapshot| snapshot.synced);
    tokio::select! {
        () = shutdown.wait() => return Ok(()),
        synced = timeout(patience, synced) => if !matches!(synced, Ok(Ok(_))) {
            warn!("the configuration is not read in full yet; what an earlier agent has programmed stays");
        },
    }
    let first = snapshots.borrow_and_update().clone();
    let mut synced = first.synced;
    // A program must not meet a half-filled map. Programs of an earlier agent serve on meanwhile.
    anyhow::ensure!(agent.apply(first), "the first snapshot could not be programmed");
    agent.attach()?;
    info!("serving");

    let (mut tick, mut collect) = (interval(TICK), interval(COLLECT));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    collect.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        health.set_ready(synced && source.is_current());
        tokio::select! {
            () = shutdown.wait() => break,
            changed = snapshots.changed() => {
                changed.context("the source has stopped")?;
                let snapshot = snapshots.borrow_and_update().clone();
                synced |= snapshot.synced;
                agent.apply(snapshot);
            }
            () = watch.changed() => agent.devices_changed(),
            _ = tick.tick() => agent.tick(),
            _ = collect.tick() => agent.collect(),
        }
    }
    agent.stop().await;
    source.stop().await;
    if let Some(server) = server {
        // The task ends with the shutdown; one that panicked has nothing left to lose.
        let _ = server.await;
    }
    info!("stopped; programs stay attached and keep forwarding");
    Ok(())
}

/// Without forwarding the kernel drops what the programs hand on; kube-proxy leaves the switch to the node's set-up,
/// and so do we.
fn warn_unless_forwarding() {
    for (family, path) in
        [("IPv4", "/proc/sys/net/ipv4/ip_forward"), ("IPv6", "/proc/sys/net/ipv6/conf/all/forwarding")]
    {
        let on = std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "1");
        if !on {
            warn!(family, path, "forwarding is off: Services reach no pods from the network; write 1 to the path");
        }
    }
}
