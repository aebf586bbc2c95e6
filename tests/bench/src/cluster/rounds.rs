//! The rounds: each contestant starts where nothing is programmed, is changed under, ends, and starts again over what it left.

use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::plan::{Contestant, Plan};
use super::site::Site;
use super::team::{Running, clean_up};
use super::usage::{Memory, Spent};
use crate::clock;
use crate::report::{number, time};
use crate::service::progress;
use crate::stage::{Watcher, peak_memory};
use crate::state::Side;

/// What was seen of a contestant in one round. Times are in seconds, memory is in MiB.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) contestant: Contestant,
    /// Until it said that it is ready.
    pub(crate) ready: Option<f64>,
    /// Until a client's connection to the last Service was answered.
    pub(crate) answered: Option<f64>,
    /// Processor time up to then, its own and the control plane's.
    pub(crate) cpu: f64,
    pub(crate) control_cpu: f64,
    /// MiB that came to its node meanwhile.
    pub(crate) received: f64,
    /// Memory: the most, and some seconds later.
    pub(crate) peak: f64,
    pub(crate) memory: Memory,
    /// Changes, from the API server's answer until a client saw each.
    pub(crate) changes: Vec<f64>,
    /// After an end and a start: until ready, and until a client saw what had changed meanwhile.
    pub(crate) ready_again: Option<f64>,
    pub(crate) caught_up: Option<f64>,
}

/// What a contestant used while nothing happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Idle {
    pub(crate) contestant: Contestant,
    /// Processor time, in seconds, and how long that was.
    pub(crate) cpu: f64,
    pub(crate) seconds: f64,
    /// Bytes that came to its node.
    pub(crate) received: f64,
    pub(crate) memory: Memory,
}

/// Who measures whom.
pub(crate) struct Match<'a> {
    pub(crate) site: &'a Site,
    pub(crate) plan: &'a Plan,
    /// The side that the slice which changes is on now.
    pub(crate) side: Side,
}

impl Match<'_> {
    /// One contestant's part of a round.
    pub(crate) fn play(&mut self, contestant: Contestant) -> Result<Sample> {
        clean_up(self.site, contestant)?;
        if contestant.balances() {
            self.site.wait_unserved(contestant)?;
        }
        let (running, mut sample) = self.first_start(contestant)?;
        thread::sleep(self.plan.settling);
        sample.memory = Memory::of(running.process().pid())?;
        if contestant.balances() {
            for _ in 0..self.plan.changes {
                sample.changes.push(self.change(contestant)?);
            }
        }
        running.stop()?;
        if contestant.balances() {
            self.second_start(contestant, &mut sample)?;
        }
        Ok(sample)
    }

    fn first_start(&self, contestant: Contestant) -> Result<(Running, Sample)> {
        let (site, host) = (self.site, self.site.node(contestant).host());
        let client = contestant.balances().then(|| site.watch_last(contestant)).transpose()?;
        let before = (Spent::at(host)?, Spent::at(site.control.place())?);
        let began = clock::monotonic()?;
        let running = Running::start(site, contestant)?;
        running.wait_ready()?;
        let ready = (clock::monotonic()? - began).as_secs_f64();
        let is_ours = matches!(running, Running::Ours(_));
        let answered = client.map(Watcher::seen).transpose()?;
        let (own, control) = (Spent::at(host)?.since(before.0), Spent::at(site.control.place())?.since(before.1));
        if contestant.balances() {
            ensure!(site.is_served(contestant)?, "the last Service is not served");
        }
        let sample = Sample {
            contestant,
            ready: is_ours.then_some(ready),
            answered: answered.map(|at| at.saturating_sub(began).as_secs_f64()),
            cpu: own.seconds,
            control_cpu: control.seconds,
            received: own.received / f64::from(1 << 20),
            peak: u32::try_from(running.process().pid()).ok().and_then(peak_memory).context("no peak of its memory")?,
            memory: Memory::default(),
            changes: Vec::new(),
            ready_again: None,
            caught_up: None,
        };
        Ok((running, sample))
    }

    /// An edit of a slice under a running contestant.
    fn change(&mut self, contestant: Contestant) -> Result<f64> {
        let side = self.side.other();
        let client = self.site.watch_change(contestant, side)?;
        client.wait_watching()?;
        let done = self.site.change(side)?;
        self.side = side;
        // Whoever follows may be there before the answer is.
        Ok(client.seen()?.saturating_sub(done).as_secs_f64())
    }

    /// An edit while nothing runs, and the start after it.
    fn second_start(&mut self, contestant: Contestant, sample: &mut Sample) -> Result<()> {
        let side = self.side.other();
        let client = self.site.watch_change(contestant, side)?;
        client.wait_watching()?;
        self.site.change(side)?;
        self.side = side;
        let began = clock::monotonic()?;
        let running = Running::start(self.site, contestant)?;
        running.wait_ready()?;
        if matches!(running, Running::Ours(_)) {
            sample.ready_again = Some((clock::monotonic()? - began).as_secs_f64());
        }
        sample.caught_up = Some(client.seen()?.saturating_sub(began).as_secs_f64());
        running.stop()
    }

    /// Waits for whoever started over what it had programmed and may still be at it: until all have seen what is, and a change.
    fn catch_up(&mut self) -> Result<()> {
        let balancing = || self.plan.contestants.iter().copied().filter(|one| one.balances());
        for contestant in balancing() {
            self.site.watch_change(contestant, self.side)?.seen()?;
        }
        let side = self.side.other();
        let clients = balancing().map(|contestant| self.site.watch_change(contestant, side));
        let clients = clients.collect::<Result<Vec<_>>>()?;
        clients.iter().try_for_each(Watcher::wait_watching)?;
        self.site.change(side)?;
        clients.into_iter().try_for_each(|client| client.seen().map(drop))?;
        self.side = side;
        Ok(())
    }

    /// All of them, side by side in a cluster in which nothing happens.
    pub(crate) fn idle(&mut self) -> Result<Vec<Idle>> {
        let mut all = Vec::new();
        for contestant in &self.plan.contestants {
            let client = contestant.balances().then(|| self.site.watch_last(*contestant)).transpose()?;
            let running = Running::start(self.site, *contestant)?;
            running.wait_ready()?;
            client.map(Watcher::seen).transpose()?;
            all.push((*contestant, running));
        }
        self.catch_up()?;
        thread::sleep(self.plan.settling * 2);
        let spent = |contestant: Contestant| Spent::at(self.site.node(contestant).host());
        let before = all.iter().map(|(contestant, _)| spent(*contestant)).collect::<Result<Vec<_>>>()?;
        let began = Instant::now();
        progress(&format!("everybody runs, and nothing happens for {} s", self.plan.idle.as_secs()));
        thread::sleep(self.plan.idle);
        let seconds = began.elapsed().as_secs_f64();
        let mut idle = Vec::new();
        for ((contestant, running), before) in all.into_iter().zip(before) {
            let Spent { seconds: cpu, received } = spent(contestant)?.since(before);
            let memory = Memory::of(running.process().pid())?;
            idle.push(Idle { contestant, cpu, seconds, received, memory });
            running.stop()?;
        }
        Ok(idle)
    }
}

/// Goes through all rounds, from another contestant on in each.
pub(crate) fn run(game: &mut Match<'_>, samples: &mut Vec<Sample>) -> Result<()> {
    let Plan { rounds, contestants, .. } = game.plan;
    for round in 0..*rounds {
        let count = contestants.len();
        for contestant in contestants.iter().cycle().skip(round % count.max(1)).take(count) {
            let sample = game.play(*contestant).with_context(|| contestant.name().to_owned())?;
            progress(&format!("round {} of {rounds}: {}", round + 1, told(&sample)));
            samples.push(sample);
        }
    }
    Ok(())
}

/// A word on a round for who waits.
fn told(sample: &Sample) -> String {
    let until = sample.answered.or(sample.ready).unwrap_or_default();
    let memory = number(sample.memory.proportional);
    format!("{} after {}, {memory} MiB, {} of CPU", sample.contestant.name(), time(until), time(sample.cpu))
}
