//! The model of the verdict against the programs: random maps and random packets go through `explain` and through
//! BPF_PROG_TEST_RUN, and must get the same verdict, endpoint, tuple and counter.
//!
//! `ROADSTEAD_DIFFERENTIAL_SEED` repeats a run, `…_STATES` and `…_PACKETS` make it longer. Needs root and a BPF file
//! system; says so and passes where it has neither.

#![forbid(unsafe_code)]

#[cfg(test)]
mod differential {
    pub(crate) mod compare;
    pub(crate) mod frames;
    pub(crate) mod ground;
    pub(crate) mod packets;
    pub(crate) mod random;
    pub(crate) mod sockets;
    pub(crate) mod state;
}

use std::{collections::BTreeMap, thread, time::Instant};

use differential::{
    compare::{Run, Seen},
    ground::Ground,
    packets::Packets,
    random::Random,
    sockets, state,
};

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The seed of this run, and the number of states and of packets of each.
fn settings() -> (u64, u64, u64) {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = setting("ROADSTEAD_DIFFERENTIAL_SEED", clock.map_or(0, |since| since.subsec_nanos().into()));
    let states = setting("ROADSTEAD_DIFFERENTIAL_STATES", 200);
    let packets = setting("ROADSTEAD_DIFFERENTIAL_PACKETS", 200);
    println!("seed {seed}: {states} states of {packets} packets or calls");
    (seed, states, packets)
}

fn is_root() -> bool {
    let is_root = nix::unistd::Uid::effective().is_root();
    if !is_root {
        eprintln!("skipped: loading BPF programs needs root");
    }
    is_root
}

#[test]
fn the_model_says_what_the_programs_do() {
    if is_root() {
        // The thread that enters a namespace ends with the test.
        thread::spawn(compare_all).join().unwrap();
    }
}

#[test]
fn the_model_says_what_connect_does() {
    if !is_root() {
        return;
    }
    match sockets::in_a_group("the_model_says_what_connect_does") {
        Some(succeeded) => assert!(succeeded),
        None => {
            let compare = || {
                let (seed, states, calls) = settings();
                sockets::compare(seed, states, calls);
            };
            thread::spawn(compare).join().unwrap();
        }
    }
}

fn compare_all() {
    let (seed, states, packets) = settings();
    let started = Instant::now();
    let mut ground = Ground::new("packets");
    let mut seen = BTreeMap::<Seen, u32>::new();
    for number in 0..states {
        let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let state = state::random(&mut random, ground.now());
        ground.fill(&state);
        let mut source = Packets::new(&state);
        let mut run = Run::new(&mut ground);
        for step in 0..packets {
            let sent = source.next(&mut random, run.devices());
            let label = format!("seed {seed} state {number} packet {step}: {sent:?}");
            let (outcome, entry) = run.compare(&sent, &label);
            source.learn(&sent, entry);
            *seen.entry(outcome).or_default() += 1;
        }
    }
    for (outcome, count) in &seen {
        println!("{count:6} {outcome}");
    }
    println!("{} packets in {:?}", states * packets, started.elapsed());
    assert_variety(&seen, states * packets);
}

/// A comparison that never meets a rule says nothing about it.
fn assert_variety(seen: &BTreeMap<Seen, u32>, packets: u64) {
    if packets < 20_000 {
        return;
    }
    for part in [
        "forward",
        "reject",
        "pass",
        "drop: source range",
        "policy Local",
        "short cut",
        "no endpoint on this node",
        "unallocated",
        "established flow",
        "gone: another",
        "no route",
        "masqueraded",
        "Maglev",
        "affinity",
        "ICMP error",
        "fragment",
        "hop limit",
    ] {
        let met = seen.keys().any(|outcome| outcome.to_string().contains(part));
        assert!(met, "no packet met {part:?}");
    }
}
