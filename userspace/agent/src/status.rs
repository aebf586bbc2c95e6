//! `roadstead status`: what is attached and what the maps hold, read from the pins; needs no running agent.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;
use roadstead_dataplane::{counters, dump, maps::KernelMaps, pins::Pins};

/// Prints the state; exit status 1 where no agent has ever run.
pub(crate) fn run(bpffs: &Path, maps: bool) -> anyhow::Result<ExitCode> {
    let pins = Pins::at(bpffs);
    if !pins.maps().exists() {
        println!(
            "nothing is pinned in {}: no agent has run here, or cleanup has taken everything away",
            bpffs.display()
        );
        return Ok(ExitCode::FAILURE);
    }
    let mut out = io::stdout().lock();
    print(&pins, maps, &mut out).context("cannot show the state")?;
    Ok(ExitCode::SUCCESS)
}

fn print(pins: &Pins, entries: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let (maps, flows) = KernelMaps::open(pins)?;
    let frontends = dump::frontends(&maps)?;
    let conntrack = dump::flows(&flows)?;
    let mut links: Vec<String> = std::fs::read_dir(pins.links())?
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    links.sort();
    writeln!(out, "attached:   {}", if links.is_empty() { "nothing".to_owned() } else { links.join(" ") })?;
    writeln!(out, "frontends:  {}", frontends.len())?;
    writeln!(out, "conntrack:  {} entries, two a flow", conntrack.len())?;
    let mut refused: BTreeMap<&str, u64> = BTreeMap::new();
    for drop in counters::drops(&flows)? {
        *refused.entry(drop.reason.as_str()).or_default() += drop.count;
    }
    let refused: Vec<String> = refused.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    writeln!(out, "refused:    {}", if refused.is_empty() { "none".to_owned() } else { refused.join(", ") })?;
    if entries {
        frontends.iter().try_for_each(|frontend| writeln!(out, "{frontend}"))?;
        conntrack.iter().try_for_each(|flow| writeln!(out, "{flow}"))?;
    }
    Ok(())
}
