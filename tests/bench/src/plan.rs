//! How much is measured: sizes and rounds, by the flags.

use std::path::PathBuf;

use clap::Args;

/// The flags of `roadstead-bench service`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServiceFlags {
    /// A smoke test: few Services, few rounds, no figure to quote
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Also what takes minutes: 10,000 Services in one nft transaction, 50,000 Services in the maps
    #[arg(long)]
    full: bool,
    /// Where service.txt and service.json are written
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
    /// What was typed, for the header
    #[arg(long, hide = true, default_value = "cargo xtask bench service")]
    pub(crate) command: String,
}

/// The figures that the flags stand for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Numbers of Services that every mode is measured with.
    pub(crate) sizes: Vec<u32>,
    /// Times that all modes are gone through with each size.
    pub(crate) rounds: usize,
    /// Connections of one mode in one round on one path.
    pub(crate) connections: usize,
    /// Rounds of the stream.
    pub(crate) streams: usize,
    /// How long one stream lasts, in milliseconds.
    pub(crate) stream_millis: u64,
    /// Changes of one endpoint in each mode.
    pub(crate) changes: usize,
    /// Starts of the agent with each size.
    pub(crate) starts: usize,
    /// Packets of one measurement of a program.
    pub(crate) packets: u32,
    /// Rounds of these measurements.
    pub(crate) packet_rounds: usize,
    /// A number of Services that only the agent is measured with.
    pub(crate) beyond: Option<u32>,
    /// Whether nft gets the largest size in one transaction.
    pub(crate) whole_nft: bool,
}

impl Plan {
    /// The plan of these flags.
    pub(crate) fn of(flags: &ServiceFlags) -> Self {
        let usual = Self {
            sizes: vec![1, 1_000, 10_000],
            rounds: 7,
            connections: 800,
            streams: 5,
            stream_millis: 1_000,
            changes: 7,
            starts: 3,
            packets: 20_000,
            packet_rounds: 15,
            beyond: None,
            whole_nft: false,
        };
        match (flags.quick, flags.full) {
            (true, _) => Self {
                sizes: vec![1, 200],
                rounds: 2,
                connections: 200,
                streams: 1,
                stream_millis: 300,
                changes: 2,
                starts: 1,
                packet_rounds: 3,
                ..usual
            },
            (_, true) => Self { whole_nft: true, rounds: 11, beyond: Some(50_000), ..usual },
            _ => usual,
        }
    }

    /// All numbers of Services that the agent is measured with.
    pub(crate) fn all_sizes(&self) -> Vec<u32> {
        self.sizes.iter().copied().chain(self.beyond).collect()
    }

    /// Full loads of the peers with this many Services: the large ones take seconds.
    pub(crate) fn loads(&self, services: u32) -> usize {
        if services > 1_000 { 1 } else { self.starts }
    }

    /// Whether nft takes this many in one transaction; its time grows faster than the number.
    pub(crate) fn is_one_transaction(&self, services: u32) -> bool {
        services <= 1_000 || self.whole_nft
    }
}
