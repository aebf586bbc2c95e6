//! `roadstead status`: what is attached, what the maps hold and what Services have carried, read from the pins; needs no
//! running agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use roadstead_abi::Counters;
use roadstead_dataplane::{
    counters::{self, DropCount},
    dump, fill,
    load::SOCKET_PROGRAMS,
    maps::{KernelMaps, Maps as _},
    pins::Pins,
    traffic::TrafficMaps,
};
use roadstead_sources::SourceFlags;

use crate::{
    desired::{self, PortName, device_name},
    flags::DEFAULT_BPFFS,
    table::Table,
};

/// What `status` takes.
#[derive(Args, Debug)]
pub(crate) struct StatusFlags {
    /// Where the agent's pins are
    #[arg(long, env = "ROADSTEAD_BPFFS", value_name = "DIR", default_value = DEFAULT_BPFFS)]
    bpffs: PathBuf,
    /// Every frontend with its endpoints, and every flow
    #[arg(long)]
    maps: bool,
    /// What each Service has carried and refused; --manifests names them
    #[arg(long)]
    services: bool,
    #[command(flatten)]
    from: SourceFlags,
}

/// Prints the state; exit status 1 where no agent has ever run.
pub(crate) fn run(flags: &StatusFlags) -> anyhow::Result<ExitCode> {
    let pins = Pins::at(&flags.bpffs);
    if !pins.maps().exists() {
        println!(
            "nothing is pinned in {}: no agent has run here, or cleanup has taken everything away",
            flags.bpffs.display()
        );
        return Ok(ExitCode::FAILURE);
    }
    let mut out = io::stdout().lock();
    if flags.services { services(flags, &pins, &mut out) } else { print(&pins, flags.maps, &mut out) }
        .context("cannot show the state")?;
    Ok(ExitCode::SUCCESS)
}

fn print(pins: &Pins, entries: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let (maps, flows) = KernelMaps::open(pins)?;
    let mut links: Vec<String> = std::fs::read_dir(pins.links())?
        .filter_map(Result::ok)
        .map(|entry| attached(&entry.file_name().to_string_lossy()))
        .collect();
    links.sort();
    writeln!(out, "attached:   {}", if links.is_empty() { "nothing".to_owned() } else { links.join(" ") })?;
    let mut refused: BTreeMap<&str, u64> = BTreeMap::new();
    for drop in counters::drops(&flows)? {
        *refused.entry(drop.reason.as_str()).or_default() += drop.count;
    }
    let refused: Vec<String> = refused.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    writeln!(out, "refused:    {}", if refused.is_empty() { "none".to_owned() } else { refused.join(", ") })?;
    let mut table = Table::new(["MAP", "ENTRIES", "MOST", "FULL"]);
    for fill in fill::fill(pins)? {
        let percent = fill.entries * 100 / (fill.most.max(1) as usize);
        table.row([fill.map.to_owned(), fill.entries.to_string(), fill.most.to_string(), format!("{percent}%")]);
    }
    table.print(out)?;
    if entries {
        dump::frontends(&maps)?.iter().try_for_each(|frontend| writeln!(out, "{frontend}"))?;
        dump::flows(&flows)?.iter().try_for_each(|flow| writeln!(out, "{flow}"))?;
    }
    Ok(())
}

/// A link by its pin: program and device, or program alone where it is on the cgroup.
fn attached(pin: &str) -> String {
    match pin.rsplit_once('-') {
        Some((program, _)) if SOCKET_PROGRAMS.contains(&program) => program.to_owned(),
        Some((program, index)) => {
            let name = index.parse().ok().and_then(device_name);
            format!("{program}@{}", name.unwrap_or_else(|| index.to_owned()))
        }
        None => pin.to_owned(),
    }
}

fn services(flags: &StatusFlags, pins: &Pins, out: &mut impl Write) -> anyhow::Result<()> {
    let (maps, flows) = KernelMaps::open(pins)?;
    let mut ids: BTreeSet<u32> = maps.services()?.iter().map(|(_, value)| value.service).collect();
    let drops = counters::drops(&flows)?;
    ids.extend(drops.iter().map(|drop| drop.service));
    let end = ids.last().map_or(0, |last| last.saturating_add(1));
    let counters = TrafficMaps::open(pins)?.services(end)?;
    table(&ids, &counters, &drops, &desired::names(&flags.from, pins)?).print(out)?;
    Ok(())
}

fn table(ids: &BTreeSet<u32>, counters: &[Counters], drops: &[DropCount], names: &BTreeMap<u32, PortName>) -> Table {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    for id in ids {
        let name = match names.get(id) {
            Some(name) => name.to_string(),
            None if *id == 0 => "(no Service)".to_owned(),
            None => format!("#{id}"),
        };
        let of = counters.get(*id as usize).copied().unwrap_or_default();
        let refused: u64 = drops.iter().filter(|drop| drop.service == *id).map(|drop| drop.count).sum();
        let numbers = [of.connections, of.in_packets, of.in_bytes, of.out_packets, of.out_bytes, refused];
        rows.push((name, numbers.map(|number| number.to_string()).into()));
    }
    rows.sort();
    let mut table =
        Table::new(["SERVICE", "CONNECTIONS", "PACKETS IN", "BYTES IN", "PACKETS OUT", "BYTES OUT", "REFUSED"]);
    rows.into_iter().for_each(|(name, numbers)| table.row([name].into_iter().chain(numbers)));
    table
}

#[cfg(test)]
mod tests {
    use roadstead_abi::DropReason;

    use super::*;

    #[test]
    fn services_are_shown_by_name_or_number() {
        let counters = [1, 2, 3].map(|connections| Counters { connections, ..Counters::default() });
        let drop = |service, count| DropCount { reason: DropReason::NoEndpoints, service, count };
        let names = BTreeMap::from([(2, PortName { service: "shop/web".to_owned(), port: "http".to_owned() })]);
        let mut out = Vec::new();
        let ids = BTreeSet::from([0, 1, 2]);
        table(&ids, &counters, &[drop(2, 7), drop(2, 1), drop(0, 4)], &names).print(&mut out).unwrap();
        let lines: Vec<String> = String::from_utf8(out).unwrap().lines().map(str::to_owned).collect();
        let cells = |line: &String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let rows: Vec<_> = lines.iter().skip(1).map(cells).collect();
        assert_eq!(rows[0], ["#1", "2", "0", "0", "0", "0", "0"]);
        assert_eq!(rows[1], ["(no", "Service)", "1", "0", "0", "0", "0", "4"]);
        assert_eq!(rows[2], ["shop/web:http", "3", "0", "0", "0", "0", "8"]);
    }

    #[test]
    fn links_are_told_by_program_and_device() {
        assert_eq!(attached("sock_connect4-17"), "sock_connect4");
        assert_eq!(attached("uplink_in-1"), "uplink_in@lo");
        assert_eq!(attached("uplink_in-4000000"), "uplink_in@4000000");
    }
}
