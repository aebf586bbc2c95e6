//! The demo: a small cluster in the lab, every path of a request through it, and what a change of the YAML does.
//!
//! It is written against the daemons' command lines and the manifests of `tests/lab/demo`, nothing else: what it shows,
//! anybody can do.

mod checks;
mod cluster;
mod edits;
mod failover;
mod manifests;
mod picture;
mod rows;
mod table;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Args;

pub use self::cluster::Cluster;
pub use self::manifests::{CA, FILES};
use self::table::Table;
use crate::Lab;

/// The flags of `roadstead-lab demo`.
#[derive(Args, Clone, Copy, Debug)]
pub struct DemoFlags {
    /// Leave the lab running at the end, until Ctrl-C, and tell how to step in
    #[arg(long)]
    keep: bool,
}

/// Runs the demo; success only where every row of its table holds.
///
/// # Errors
///
/// Where the lab or a daemon does not come up.
pub fn run(flags: DemoFlags) -> Result<ExitCode> {
    let started = Instant::now();
    let lab = Lab::new("demo")?;
    let shown = show(&lab);
    if crate::interrupt::requested() {
        // Whatever failed, failed because the lab is being removed.
        crate::interrupt::wait();
    }
    let holds = matches!(&shown, Ok((table, _)) if table.failed().is_empty());
    if !holds {
        lab.keep_evidence();
    }
    let (table, cluster) = shown?;
    println!("\n{}", table.summary(started.elapsed()));
    if flags.keep {
        println!("\n{}", picture::stepping_in(&cluster));
        lab.run_until_interrupted(u8::from(!holds));
    }
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(lab: &Lab) -> Result<(Table, Cluster<'_>)> {
    let cluster = Cluster::start(lab)?;
    println!("{}", picture::lab(&cluster));
    let mut table = Table::default();
    rows::show(&cluster, &mut table)?;
    edits::show(&cluster, &mut table);
    failover::show(&cluster, &mut table);
    Ok((table, cluster))
}
