//! Follows a source as a daemon does, and tells what it gets and what that takes: a line for each snapshot.
//!
//!     cargo run --release -p roadstead-sources --example follow -- --kubeconfig FILE --interest agent

use std::{fs, time::Instant};

use clap::{Parser, ValueEnum};
use roadstead_model::References;
use roadstead_sources::{Interest, SourceFlags};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    source: SourceFlags,
    /// Whose interest to have
    #[arg(long, default_value = "agent")]
    interest: Whose,
}

#[derive(Clone, Copy, ValueEnum)]
enum Whose {
    Agent,
    Proxy,
    Speaker,
    Overview,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let flags = Flags::parse();
    let interest = match flags.interest {
        Whose::Agent => Interest::agent(),
        Whose::Proxy => Interest::proxy(|_| References::default()),
        Whose::Speaker => Interest::speaker("roadstead-system"),
        Whose::Overview => Interest::overview(),
    };
    let begun = Instant::now();
    let source = roadstead_sources::start(&flags.source, interest)?;
    let mut snapshots = source.snapshots();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        loop {
            let now = snapshots.borrow_and_update().clone();
            println!(
                "{:.3} s: generation {}, synced {}, services {}, slices {}, nodes {}, ingresses {}, secrets {}, pools {}, problems {}, {} KiB",
                begun.elapsed().as_secs_f64(),
                now.generation,
                now.synced,
                now.services.len(),
                now.slices.len(),
                now.nodes.len(),
                now.ingresses.len(),
                now.secrets.len(),
                now.pools.len(),
                now.problems.len(),
                resident(),
            );
            for problem in &now.problems {
                println!("  {problem}");
            }
            drop(now);
            if snapshots.changed().await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Memory of this process, in KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
