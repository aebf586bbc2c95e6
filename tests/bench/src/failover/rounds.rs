//! One case: round by round something is done to each contestant's owner, and undone.
//!
//! While one recovers the others have their turn. The slow one is struck first in each round and looked at last: what it
//! waits for are its own seconds.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use roadstead_lab::wait_until;

use super::plan::{Contestant, Fault, Plan};
use super::team::Team;
use super::watch::{Seen, Watch};
use crate::report::time;
use crate::service::progress;

/// How long a node may take until it is back and has its address again.
const BACK: Duration = Duration::from_secs(60);
/// How long a move may take: keepalived's default is under 4 s, so whoever takes longer does not move at all.
const MOVE: Duration = Duration::from_secs(15);

/// A contestant with its watch.
pub(crate) struct Player {
    pub(crate) team: Team,
    watch: Watch,
    /// The node that has the addresses when all are there.
    home: String,
    /// When its node began to come back, and from what.
    returning: Option<(Instant, Fault)>,
}

/// What was seen in one round.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) contestant: Contestant,
    pub(crate) fault: Fault,
    /// The address comes back to a node that has returned.
    pub(crate) is_return: bool,
    /// Another node took over in time.
    pub(crate) moved: bool,
    pub(crate) seen: Vec<Seen>,
}

impl Player {
    /// Starts a contestant and waits until one node has all.
    pub(crate) fn start(contestant: Contestant, nodes: usize) -> Result<Self> {
        progress(&format!("starting {}", contestant.name()));
        let team = Team::start(contestant, nodes)?;
        let watch = Watch::start(&team)?;
        watch.idle();
        let mut player = Self { team, watch, home: String::new(), returning: None };
        let mut home = None;
        // keepalived's first node takes the address back some seconds after the others have had it.
        let waited = wait_until(BACK, "one node has everything", || {
            home = player.watch.owner().filter(|owner| contestant.is_ours() || &**owner == "node-a");
            home.is_some() && player.team.is_whole()
        });
        if waited.is_err() {
            player.team.keep_evidence();
        }
        waited.with_context(|| format!("{}: {}", contestant.name(), player.watch.tell()))?;
        player.home = home.map(|home| home.to_string()).unwrap_or_default();
        Ok(player)
    }

    /// Waits until all nodes are back; what the return of the last one looked like.
    fn recover(&mut self) -> Result<Option<Sample>> {
        let waited = wait_until(BACK, "the node is back", || {
            self.watch.owner().as_deref() == Some(&self.home) && self.team.is_whole()
        });
        if waited.is_err() {
            self.team.keep_evidence();
        }
        waited.with_context(|| format!("{}: {}", self.team.contestant.name(), self.watch.tell()))?;
        let returned = self.returning.take();
        Ok(returned.map(|(since, fault)| self.sample(fault, true, true, since)))
    }

    fn strike(&self, fault: Fault) -> Result<Instant> {
        self.watch.hurry()?;
        let now = Instant::now();
        // An outage begins with the last answer before.
        self.watch.forget(now.checked_sub(Duration::from_secs(2)).unwrap_or(now));
        self.team.strike(&self.home, fault)?;
        Ok(now)
    }

    /// Waits until the address has moved, looks, and lets the node return.
    fn collect(&mut self, fault: Fault, since: Instant) -> Result<Sample> {
        let moved = wait_until(MOVE, "the address moves", || self.watch.has_moved_from(&self.home, since)).is_ok();
        let sample = self.sample(fault, false, moved, since);
        self.watch.idle();
        if fault == Fault::Drain {
            // The way back is planned too: each datagram counts.
            self.watch.hurry()?;
        }
        self.returning = Some((Instant::now(), fault));
        self.team.restore(&self.home, fault)?;
        Ok(sample)
    }

    fn sample(&self, fault: Fault, is_return: bool, moved: bool, since: Instant) -> Sample {
        let seen = self.watch.review(since, Instant::now());
        Sample { contestant: self.team.contestant, fault, is_return, moved, seen }
    }
}

/// Goes through all rounds of a case.
pub(crate) fn run(players: &mut [Player], fault: Fault, plan: &Plan, samples: &mut Vec<Sample>) -> Result<()> {
    let most = players.iter().map(|player| plan.rounds(fault, player.team.contestant)).max().unwrap_or_default();
    for round in 0..most {
        let mut said = Vec::new();
        let mut take = |sample: Sample| {
            said.push(told(&sample));
            samples.push(sample);
        };
        let count = players.len().max(1);
        let mut order: Vec<usize> = (0..players.len()).map(|place| (place + round) % count).collect();
        order.retain(|place| {
            players.get(*place).is_some_and(|player| round < plan.rounds(fault, player.team.contestant))
        });
        let is_slow = |players: &[Player], place: usize| {
            players.get(place).is_some_and(|player| player.team.contestant.is_slow()) && fault != Fault::Drain
        };
        let (slow, quick): (Vec<usize>, Vec<usize>) = order.into_iter().partition(|place| is_slow(players, *place));
        let mut struck = Vec::new();
        for place in slow {
            let player = players.get_mut(place).context("no such contestant")?;
            player.recover()?.into_iter().for_each(&mut take);
            struck.push((place, player.strike(fault)?));
        }
        for place in quick {
            let player = players.get_mut(place).context("no such contestant")?;
            player.recover()?.into_iter().for_each(&mut take);
            let since = player.strike(fault)?;
            take(player.collect(fault, since)?);
            if fault == Fault::Drain {
                player.recover()?.into_iter().for_each(&mut take);
                player.watch.idle();
            }
        }
        for (place, since) in struck {
            take(players.get_mut(place).context("no such contestant")?.collect(fault, since)?);
        }
        said.retain(|one| !one.is_empty());
        progress(&format!("{}, round {} of {most}: {}", fault.word(), round + 1, said.join("; ")));
    }
    for player in players {
        samples.extend(player.recover()?);
    }
    Ok(())
}

/// A word on a round for who waits.
fn told(sample: &Sample) -> String {
    if sample.is_return {
        return String::new();
    }
    let outages: Vec<String> = sample.seen.iter().map(|seen| time(seen.datagrams.outage.as_secs_f64())).collect();
    let moved = if sample.moved { "" } else { ", did not move" };
    format!("{} {}{moved}", sample.contestant.name(), outages.join(", "))
}
