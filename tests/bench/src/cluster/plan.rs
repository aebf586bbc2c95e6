//! How much is measured: numbers, rounds and who takes part, by the flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// The flags of `roadstead-bench cluster`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClusterFlags {
    /// A smoke test: few Services, two rounds, no figure to quote
    #[arg(long)]
    quick: bool,
    /// Services in the API server, of five endpoints each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    services: Option<u32>,
    /// Rounds, in each of which everybody starts once
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Only these contestants (default: all)
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_enum)]
    contestants: Vec<Contestant>,
    /// How long the cluster is left alone, in seconds
    #[arg(long, value_name = "SECONDS")]
    idle: Option<u64>,
    /// Where cluster.txt and cluster.json are written
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
    /// What was typed, for the header
    #[arg(long, hide = true, default_value = "cargo xtask bench cluster")]
    pub(crate) command: String,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Contestant {
    /// The node agent.
    Agent,
    /// kube-proxy of the cluster's own release, in its mode nftables.
    KubeProxy,
    /// The proxy: no Ingress is there, so what it holds are the Services and endpoints.
    Ingress,
    /// The speaker: no Service is of type LoadBalancer, so what it holds are the Services and endpoints.
    Speaker,
}

impl Contestant {
    pub(crate) const ALL: [Self; 4] = [Self::Agent, Self::KubeProxy, Self::Ingress, Self::Speaker];

    /// For tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Agent => "roadstead",
            Self::KubeProxy => "kube-proxy, nftables",
            Self::Ingress => "roadstead-ingress",
            Self::Speaker => "roadstead-speaker",
        }
    }

    /// Whether it leads connections to endpoints, so that a client sees what it does.
    pub(crate) fn balances(self) -> bool {
        matches!(self, Self::Agent | Self::KubeProxy)
    }
}

/// The figures that the flags stand for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) contestants: Vec<Contestant>,
    /// Services, those at the front not counted.
    pub(crate) services: u32,
    pub(crate) rounds: usize,
    /// Changes of one slice, in each round of each contestant.
    pub(crate) changes: usize,
    /// From readiness to the look at the memory: what was needed for the start alone is free by then.
    pub(crate) settling: Duration,
    /// How long the cluster is left alone.
    pub(crate) idle: Duration,
}

impl Plan {
    /// The plan of these flags.
    pub(crate) fn of(flags: &ClusterFlags) -> Self {
        let (services, rounds, idle) = if flags.quick { (500, 2, 10) } else { (10_000, 3, 60) };
        let takes_part = |one: &Contestant| flags.contestants.is_empty() || flags.contestants.contains(one);
        Self {
            contestants: Contestant::ALL.into_iter().filter(takes_part).collect(),
            services: flags.services.unwrap_or(services),
            rounds: flags.rounds.unwrap_or(rounds).max(1),
            changes: 3,
            settling: Duration::from_secs(6),
            idle: Duration::from_secs(flags.idle.unwrap_or(idle)),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        flags: ClusterFlags,
    }

    fn plan(words: &str) -> Plan {
        Plan::of(&Line::try_parse_from(format!("bench {words}").split_whitespace()).unwrap().flags)
    }

    #[test]
    fn a_plain_run_is_what_the_readme_states() {
        let usual = plan("");
        assert_eq!((usual.services, usual.contestants.len(), usual.idle), (10_000, 4, Duration::from_secs(60)));
        let chosen = plan("--quick --contestants speaker,agent --services 7 --rounds 0");
        assert_eq!(chosen.contestants, [Contestant::Agent, Contestant::Speaker], "in the order of the tables");
        assert_eq!((chosen.services, chosen.rounds), (7, 1));
    }
}
