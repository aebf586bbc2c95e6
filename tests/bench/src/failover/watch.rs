//! What is seen of a contestant from outside: a client's datagrams to both addresses, and a bystander's questions who has
//! them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use roadstead_lab::{Review, Vigil, wait_until};

use super::site;
use super::team::Team;

/// How long everything must have been answered by the owner alone before something is done to it. Longer than the
/// second in which Linux holds on to a neighbour entry that has just changed (`locktime`).
const STEADY: Duration = Duration::from_millis(1_100);
/// The pace of the client in its contestant's turn, and between two turns.
const PACES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(10)];
/// How long that may take to begin.
const WARM: Duration = Duration::from_secs(10);
/// Questions at the quick pace before something is done.
const WARM_UP: usize = 30;
/// The same for the bystander, and for the client after something was done.
const SETTLED: Duration = Duration::from_millis(300);

/// The vigils over a contestant.
pub(crate) struct Watch {
    families: Vec<Family>,
}

struct Family {
    name: &'static str,
    datagrams: Vigil,
    neighbours: Vigil,
}

/// What was seen of one family in one round.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) family: &'static str,
    /// The client's datagrams.
    pub(crate) datagrams: Review,
    /// The bystander's questions.
    pub(crate) neighbours: Review,
}

impl Watch {
    /// Begins.
    pub(crate) fn start(team: &Team) -> Result<Self> {
        let family = |to: std::net::SocketAddr| {
            let name = if matches!(to.ip(), IpAddr::V4(_)) { "IPv4" } else { "IPv6" };
            let datagrams = Vigil::datagrams(team.lab.client(), to)?;
            let neighbours = Vigil::neighbours(&team.lab, &team.bystander, to.ip())?;
            Ok(Family { name, datagrams, neighbours })
        };
        Ok(Self { families: site::targets().into_iter().map(family).collect::<Result<_>>()? })
    }

    /// Who alone has everything for long enough that something may be done to it.
    pub(crate) fn owner(&self) -> Option<Arc<str>> {
        let mut owners = self
            .families
            .iter()
            .flat_map(|family| [family.datagrams.steady(STEADY), family.neighbours.steady(SETTLED)]);
        let first = owners.next()??;
        owners.all(|other| other.as_ref() == Some(&first)).then_some(first)
    }

    /// Whether another than this one has all of the client's datagrams again, and answers the bystander.
    pub(crate) fn has_moved_from(&self, owner: &str, since: Instant) -> bool {
        self.families.iter().all(|family| {
            let new = family.datagrams.steady(SETTLED).filter(|new| &**new != owner);
            let answers = |new: Arc<str>| family.neighbours.look(|log| log.first_answer(&new, since)).is_some();
            new.is_some_and(answers)
        })
    }

    /// What was seen between two moments.
    pub(crate) fn review(&self, from: Instant, to: Instant) -> Vec<Seen> {
        let family = |family: &Family| Seen {
            family: family.name,
            datagrams: family.datagrams.review(from, to),
            neighbours: family.neighbours.review(from, to),
        };
        self.families.iter().map(family).collect()
    }

    /// Lets the client send at its quick pace; when this returns it does.
    pub(crate) fn hurry(&self) -> Result<()> {
        let [quick, _] = PACES;
        self.families.iter().for_each(|family| family.datagrams.pace(quick));
        let started = Instant::now();
        // The review leaves out the youngest questions, so this takes a moment longer than they do.
        let is_quick = |family: &Family| family.datagrams.review(started, Instant::now()).asked >= WARM_UP;
        wait_until(WARM, "the client sends", || self.families.iter().all(is_quick)).map(drop)
    }

    /// Lets the client send now and then only.
    pub(crate) fn idle(&self) {
        let [_, slow] = PACES;
        self.families.iter().for_each(|family| family.datagrams.pace(slow));
    }

    /// Forgets what was before that moment.
    pub(crate) fn forget(&self, before: Instant) {
        for family in &self.families {
            family.datagrams.forget(before);
            family.neighbours.forget(before);
        }
    }

    /// Who answers, in a word, for an error.
    pub(crate) fn tell(&self) -> String {
        let now = Instant::now();
        let since = now.checked_sub(STEADY).unwrap_or(now);
        format!("{:?}", self.review(since, now))
    }
}
