//! What the rows of the table demand.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::table::Shown;
use crate::lab::Lab;
use crate::neighbour::{Mac, who_has};
use crate::place::Place;
use crate::probe::{Answer, Probe};

/// How many attempts are made at once.
const BATCH: u32 = 20;
/// After so many batches a backend that never answered is held to be left out: of three, each misses 100 attempts
/// once in 10^17 runs.
const BATCHES: usize = 5;
/// How long answers to "who has" are listened to where exactly one must come.
const WINDOW: Duration = Duration::from_millis(250);

/// Every one of the expected echo servers answers, and nobody else.
pub(super) fn balanced(place: &Place, probe: &Probe, expected: &[&str]) -> Result<Shown> {
    let (mut counts, mut times) = (BTreeMap::<String, u32>::new(), Vec::new());
    for _ in 0..BATCHES {
        for answer in place.probe(&probe.clone().count(BATCH))? {
            ensure!(answer.ok, "no answer: {}", answer.outcome());
            let name = answer.name().with_context(|| format!("not an echo server: {}", answer.outcome()))?;
            ensure!(expected.contains(&name), "{name} answered");
            times.push(answer.elapsed());
            *counts.entry(name.to_owned()).or_default() += 1;
        }
        if counts.len() == expected.len() {
            break;
        }
    }
    let answered: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}x")).collect();
    ensure!(counts.len() == expected.len(), "only {} answered", answered.join(", "));
    Ok(Shown { answered: answered.join("  "), took: median(times) })
}

/// Like [`balanced`], and the client is told the address that it asked for, not the pod's.
pub(super) fn translated(place: &Place, probe: &Probe, asked: SocketAddr, expected: &[&str]) -> Result<Shown> {
    for answer in place.probe(&probe.clone().count(3))? {
        ensure!(answer.ok, "no answer: {}", answer.outcome());
        for told in [answer.peer, answer.source].into_iter().flatten() {
            ensure!(told == asked, "the client is told that {told} answered");
        }
    }
    balanced(place, probe, expected)
}

/// Nobody is there, and the client learns it at once.
pub(super) fn refused(place: &Place, probe: &Probe) -> Result<Shown> {
    let answers = place.probe(&probe.clone().count(3))?;
    for answer in &answers {
        ensure!(answer.error.as_deref() == Some("ECONNREFUSED"), "not refused: {}", answer.outcome());
    }
    Ok(Shown { answered: "ECONNREFUSED".to_owned(), took: median(answers.iter().map(Answer::elapsed).collect()) })
}

/// Exactly one node answers for an address.
pub(super) fn announced(lab: &Lab, address: IpAddr) -> Result<Shown> {
    let (node, took) = answerer(lab, address, WINDOW)?;
    Ok(Shown { answered: format!("{node}, alone"), took })
}

/// The name of the only node that answers for an address.
pub(super) fn owner(lab: &Lab, address: IpAddr, window: Duration) -> Result<String> {
    answerer(lab, address, window).map(|(name, _)| name)
}

fn answerer(lab: &Lab, address: IpAddr, window: Duration) -> Result<(String, Duration)> {
    let answers = who_has(lab.client(), address, window)?;
    let name = |mac: &Mac| lab.node_of(*mac).map_or_else(|| mac.to_string(), |node| node.name().to_owned());
    let names: Vec<String> = answers.keys().map(name).collect();
    match (names.as_slice(), answers.values().next()) {
        ([only], Some(took)) => Ok((only.clone(), *took)),
        ([], _) => bail!("nobody answers for {address}"),
        (several, _) => bail!("{} answer for {address}", several.join(" and ")),
    }
}

/// A request is sent elsewhere.
pub(super) fn redirected(place: &Place, probe: &Probe, expected: &str) -> Result<Shown> {
    let answer = place.probe_once(probe)?;
    ensure!(answer.ok && answer.status == Some(308), "not redirected: {}", answer.outcome());
    let location = answer.headers.get("location").context("a redirect without a location")?;
    ensure!(location == expected, "redirected to {location}");
    Ok(Shown { answered: "308 to https".to_owned(), took: answer.elapsed() })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
