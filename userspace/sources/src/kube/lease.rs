//! Who leads: the rules of a Kubernetes Lease as client-go has them, without a clock and without sockets.
//!
//! Time is this process's own. What the record says of times is another machine's clock: a leader counts as alive as long as its
//! record changes, and as dead when it has stayed the same for its duration.

use std::time::Duration;

/// How long a leader's word holds for the others.
pub(crate) const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for this long leads no more: sooner than the others may take over.
pub(crate) const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between two renewals, and between two looks at a record that is about to end.
pub(crate) const RETRY: Duration = Duration::from_secs(2);

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Empty where it was given back.
    pub(crate) holder: String,
    pub(crate) duration: Duration,
    /// `renewTime` as written; only whether it changes counts.
    pub(crate) renewed: String,
    pub(crate) transitions: i32,
}

/// What to do about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Create,
    /// Become its holder.
    Take {
        transitions: i32,
    },
    Renew {
        transitions: i32,
    },
    /// Another leads.
    Wait,
}

/// One candidate.
#[derive(Debug)]
pub(crate) struct Candidate {
    identity: String,
    /// What was seen last, and since when.
    seen: Option<(Record, Duration)>,
    /// When the last request that renewed was sent.
    renewed: Option<Duration>,
}

impl Candidate {
    pub(crate) fn new(identity: String) -> Self {
        Self { identity, seen: None, renewed: None }
    }

    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// What follows from the Lease as it is now.
    pub(crate) fn judge(&mut self, now: Duration, record: Option<&Record>) -> Step {
        let Some(record) = record else {
            self.seen = None;
            return Step::Create;
        };
        let since = match &self.seen {
            Some((seen, since)) if seen == record => *since,
            _ => now,
        };
        self.seen = Some((record.clone(), since));
        let transitions = record.transitions;
        if record.holder == self.identity {
            return Step::Renew { transitions };
        }
        self.renewed = None;
        if record.holder.is_empty() || now >= since + record.duration {
            return Step::Take { transitions: transitions.saturating_add(1) };
        }
        Step::Wait
    }

    /// A request that was sent then has made or kept this one the holder.
    pub(crate) fn renewed(&mut self, sent: Duration) {
        self.renewed = Some(sent);
    }

    /// Another was faster.
    pub(crate) fn lost(&mut self) {
        self.renewed = None;
    }

    /// Whether this one leads.
    pub(crate) fn leads(&self, now: Duration) -> bool {
        self.left(now).is_some()
    }

    /// How long this one leads still, without another renewal; nothing where it does not.
    pub(crate) fn left(&self, now: Duration) -> Option<Duration> {
        self.renewed.map(|renewed| (renewed + RENEW_DEADLINE).saturating_sub(now)).filter(|left| !left.is_zero())
    }

    /// How long to wait before the next look, by chance from 0 to 1. Who waits for a leader that lives looks more seldom: of ten
    /// thousand candidates each look is a request.
    pub(crate) fn pause(&self, now: Duration, chance: f64) -> Duration {
        let retry = RETRY.mul_f64(0.8 + 0.4 * chance);
        match &self.seen {
            Some((record, since)) if self.renewed.is_none() && !record.holder.is_empty() => {
                let left = (*since + record.duration).saturating_sub(now);
                retry.max(left.min(DURATION).mul_f64(0.2 + 0.3 * chance))
            }
            _ => retry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn record(holder: &str, renewed: &str) -> Record {
        Record { holder: holder.to_owned(), duration: DURATION, renewed: renewed.to_owned(), transitions: 4 }
    }

    #[test]
    fn a_lease_that_nobody_has_is_taken() {
        let mut candidate = Candidate::new("a".to_owned());
        assert_eq!(candidate.judge(at(0), None), Step::Create);
        assert_eq!(candidate.judge(at(0), Some(&record("", "x"))), Step::Take { transitions: 5 });
        assert!(!candidate.leads(at(0)), "before the answer it does not lead");
        candidate.renewed(at(0));
        assert!(candidate.leads(at(9)) && !candidate.leads(at(10)), "without renewal it stands down before others may");
        assert_eq!(candidate.judge(at(2), Some(&record("a", "y"))), Step::Renew { transitions: 4 });
    }

    #[test]
    fn a_leader_is_dead_when_its_record_stays_the_same() {
        let mut candidate = Candidate::new("a".to_owned());
        assert_eq!(candidate.judge(at(0), Some(&record("b", "1"))), Step::Wait);
        assert_eq!(candidate.judge(at(14), Some(&record("b", "1"))), Step::Wait);
        assert_eq!(candidate.judge(at(14), Some(&record("b", "2"))), Step::Wait, "it has renewed");
        assert_eq!(candidate.judge(at(28), Some(&record("b", "2"))), Step::Wait);
        assert_eq!(candidate.judge(at(29), Some(&record("b", "2"))), Step::Take { transitions: 5 });
    }

    #[test]
    fn who_finds_another_holder_leads_no_more() {
        let mut candidate = Candidate::new("a".to_owned());
        candidate.renewed(at(0));
        assert_eq!(candidate.judge(at(1), Some(&record("b", "1"))), Step::Wait);
        assert!(!candidate.leads(at(1)));
        candidate.renewed(at(1));
        candidate.lost();
        assert!(!candidate.leads(at(1)));
    }

    #[test]
    fn who_waits_for_a_living_leader_asks_seldom() {
        let mut candidate = Candidate::new("a".to_owned());
        candidate.judge(at(0), Some(&record("b", "1")));
        for chance in [0.0, 0.5, 1.0] {
            let pause = candidate.pause(at(0), chance);
            assert!((at(3)..at(8)).contains(&pause), "{pause:?}");
            assert!(candidate.pause(at(14), chance) < at(3), "and often when it may be dead");
        }
        candidate.renewed(at(0));
        assert!(candidate.pause(at(0), 1.0) < at(3));
    }
}
