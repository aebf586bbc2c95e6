//! How much is measured: rounds, lengths and numbers, by the flags.

use std::path::PathBuf;

use clap::Args;

/// The flags of `roadstead-bench ingress`.
#[derive(Args, Clone, Debug)]
pub(crate) struct IngressFlags {
    /// A smoke test: few rounds, few routes, no figure to quote
    #[arg(long)]
    quick: bool,
    /// Only these parts: load, rate, routes, idle, updates (default: all)
    #[arg(long, value_name = "PART", value_delimiter = ',', value_enum)]
    only: Vec<Part>,
    /// Where ingress.txt and ingress.json are written
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
    /// The program of Envoy, where there is one
    #[arg(long, value_name = "FILE")]
    pub(crate) envoy: Option<PathBuf>,
    /// What was typed, for the header
    #[arg(long, hide = true, default_value = "cargo xtask bench ingress")]
    pub(crate) command: String,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// As much as one core can do.
    Load,
    /// Times at a fixed rate.
    Rate,
    /// Many routes.
    Routes,
    /// Idle connections.
    Idle,
    /// Changes of the configuration.
    Updates,
}

impl Part {
    const ALL: [Self; 5] = [Self::Load, Self::Rate, Self::Routes, Self::Idle, Self::Updates];
}

/// The figures that the flags stand for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) parts: Vec<Part>,
    /// Times that all proxies are gone through in each case.
    pub(crate) rounds: usize,
    /// How long one sample lasts, in seconds: wrk knows no parts of them.
    pub(crate) seconds: u64,
    /// The longest wait for a quiet machine before a sample, in milliseconds.
    pub(crate) quiet_millis: u64,
    /// Requests a second of the open loop.
    pub(crate) rate: u32,
    /// Ingresses, or their like, of three paths each.
    pub(crate) routes: u32,
    /// Idle connections in the clear.
    pub(crate) idle: usize,
    /// Idle connections over TLS.
    pub(crate) idle_tls: usize,
    /// Changes of one route.
    pub(crate) edits: usize,
}

impl Plan {
    /// The plan of these flags.
    pub(crate) fn of(flags: &IngressFlags) -> Self {
        let parts = if flags.only.is_empty() { Part::ALL.to_vec() } else { flags.only.clone() };
        let usual = Self {
            parts,
            rounds: 5,
            seconds: 2,
            quiet_millis: 500,
            rate: 3_000,
            routes: 10_000,
            idle: 10_000,
            idle_tls: 2_000,
            edits: 25,
        };
        if !flags.quick {
            return usual;
        }
        Self { rounds: 2, seconds: 1, quiet_millis: 300, routes: 2_000, idle: 2_000, idle_tls: 500, edits: 8, ..usual }
    }

    /// Whether this is measured.
    pub(crate) fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }
}
