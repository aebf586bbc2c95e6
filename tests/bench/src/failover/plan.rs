//! What is measured and how often, by the flags.

use std::path::PathBuf;

use clap::Args;

/// The flags of `roadstead-bench failover`.
#[derive(Args, Clone, Debug)]
pub(crate) struct FailoverFlags {
    /// A smoke test: three rounds, no figure to quote
    #[arg(long)]
    quick: bool,
    /// Only these cases (default: all)
    #[arg(long, value_name = "CASE", value_delimiter = ',', value_enum)]
    only: Vec<Fault>,
    /// Only these contestants (default: all)
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_enum)]
    contestants: Vec<Contestant>,
    /// Rounds of each case
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Deaths of a whole node that Roadstead goes through, most of them alone
    #[arg(long, value_name = "N")]
    kills: Option<usize>,
    /// Nodes that may have the address
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=5))]
    nodes: u8,
    /// Where failover.txt and failover.json are written
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
    /// What was typed, for the header
    #[arg(long, hide = true, default_value = "cargo xtask bench failover")]
    pub(crate) command: String,
}

/// What happens to the node that has the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Fault {
    /// Its announcing daemon is killed with -9.
    Kill,
    /// All its processes are killed and its cable is cut.
    Node,
    /// Its announcing daemon gets SIGTERM.
    Drain,
    /// Its cable is cut.
    Link,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Contestant {
    /// The speakers alone, as they come; the nodes serve the address by a local route.
    Speaker,
    /// Speakers and agents, with a Service in front of a pod on each node.
    Service,
    /// keepalived with an advertisement every 40 ms, as often as the speakers' heartbeats.
    Tuned,
    /// keepalived with an advertisement every second, its default.
    Keepalived,
}

/// The figures that the flags stand for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) faults: Vec<Fault>,
    pub(crate) contestants: Vec<Contestant>,
    rounds: usize,
    kills: usize,
    pub(crate) nodes: usize,
}

impl Fault {
    const ALL: [Self; 4] = [Self::Node, Self::Link, Self::Kill, Self::Drain];

    /// For titles.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 of the owner's daemon",
            Self::Node => "death of the owner: all its processes killed, its cable cut",
            Self::Drain => "SIGTERM to the owner's daemon",
            Self::Link => "the owner's cable cut",
        }
    }

    /// For progress and raw figures.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Node => "node",
            Self::Drain => "drain",
            Self::Link => "link",
        }
    }
}

impl Contestant {
    const ALL: [Self; 4] = [Self::Speaker, Self::Service, Self::Tuned, Self::Keepalived];

    /// For tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Speaker => "roadstead",
            Self::Service => "roadstead, Service",
            Self::Tuned => "keepalived, 40 ms",
            Self::Keepalived => "keepalived, 1 s",
        }
    }

    /// Whether it is Roadstead's.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Speaker | Self::Service)
    }

    /// Whether it takes seconds to notice: what others do meanwhile does not disturb it.
    pub(crate) fn is_slow(self) -> bool {
        self == Self::Keepalived
    }
}

impl Plan {
    /// The plan of these flags.
    pub(crate) fn of(flags: &FailoverFlags) -> Self {
        let (rounds, kills) = if flags.quick { (3, 3) } else { (50, 200) };
        Self {
            faults: Fault::ALL
                .into_iter()
                .filter(|fault| flags.only.is_empty() || flags.only.contains(fault))
                .collect(),
            contestants: Contestant::ALL
                .into_iter()
                .filter(|one| flags.contestants.is_empty() || flags.contestants.contains(one))
                .collect(),
            rounds: flags.rounds.unwrap_or(rounds),
            kills: flags.kills.or(flags.rounds).unwrap_or(kills),
            nodes: usize::from(flags.nodes),
        }
    }

    /// Rounds of a case for a contestant.
    pub(crate) fn rounds(&self, fault: Fault, contestant: Contestant) -> usize {
        match (fault, contestant) {
            (Fault::Node, Contestant::Speaker) => self.kills.max(self.rounds),
            _ => self.rounds,
        }
    }
}
