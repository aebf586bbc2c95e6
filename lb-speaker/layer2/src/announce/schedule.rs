//! When an address is announced: in a burst when its ownership begins, and then now and then, never too many at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// After the start of an ownership: at once, soon again for what was lost, and past the second for which old clients
/// lock an entry (metallb#172).
const BURST: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(500),
    Duration::from_millis(1100),
    Duration::from_millis(2200),
    Duration::from_millis(3300),
];

/// Then for as long as the address is owned, so that switches do not forget the port (metallb#259, #1761).
pub const REFRESH: Duration = Duration::from_mins(1);

/// Announcements at once, and the pause after so many: 32,000 in a second, below what switches hold for a broadcast
/// storm, and five thousand addresses that move are announced once within 160 ms.
const AT_ONCE: usize = 32;
const PAUSE: Duration = Duration::from_millis(1);

/// Announcements to come, by what is announced: an address, or an address on an interface with its hardware address.
#[derive(Clone, Debug)]
pub struct Schedule<K> {
    entries: BTreeMap<K, Entry>,
    /// What comes next, in this order.
    queue: BTreeSet<(Turn, Duration, K)>,
    refresh: Option<Duration>,
    paused_until: Duration,
}

/// First announcements go before repetitions: clients wait for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    First,
    Later,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    started: Duration,
    next: Option<(Turn, Duration)>,
}

impl<K: Ord + Clone> Schedule<K> {
    /// Nothing to announce. Without `refresh` an address is announced in the burst alone.
    #[must_use]
    pub fn new(refresh: Option<Duration>) -> Self {
        Self { entries: BTreeMap::new(), queue: BTreeSet::new(), refresh, paused_until: Duration::ZERO }
    }

    /// Sets what is owned: what is new starts now, what is gone stops, what stays goes on undisturbed.
    pub fn own(&mut self, now: Duration, owned: &BTreeSet<K>) {
        let gone: Vec<K> = self.entries.keys().filter(|key| !owned.contains(*key)).cloned().collect();
        for key in gone {
            self.put(&key, None);
        }
        let new: Vec<K> = owned.iter().filter(|key| !self.entries.contains_key(*key)).cloned().collect();
        new.iter().for_each(|key| self.start(key, now));
    }

    /// Starts everything anew: after a partition clients may have learnt the rival.
    pub fn restart(&mut self, now: Duration) {
        let all: Vec<K> = self.entries.keys().cloned().collect();
        all.iter().for_each(|key| self.start(key, now));
    }

    /// Announces once, now, what is owned; the rest stays as it was planned.
    pub fn again(&mut self, now: Duration, key: &K) {
        let Some(entry) = self.entries.get(key).copied() else { return };
        if entry.next.is_none_or(|(_, at)| at > now) {
            self.put(key, Some(Entry { next: Some((Turn::Later, now)), ..entry }));
        }
    }

    /// What is to be announced now, a bounded number. Moments that were missed are made up for by one announcement.
    pub fn due(&mut self, now: Duration) -> Vec<K> {
        if now < self.paused_until {
            return Vec::new();
        }
        let ready = self.queue.iter().filter(|(_, at, _)| *at <= now).take(AT_ONCE);
        let due: Vec<K> = ready.map(|(_, _, key)| key.clone()).collect();
        for key in &due {
            let Some(entry) = self.entries.get(key).copied() else { continue };
            let next = entry.after(now, self.refresh).map(|at| (Turn::Later, at));
            self.put(key, Some(Entry { next, ..entry }));
        }
        if due.len() == AT_ONCE {
            self.paused_until = now + PAUSE;
        }
        due
    }

    /// The moment of the next announcement.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        // A first announcement has been due since its start, so it is the earliest as well.
        self.queue.first().map(|(_, at, _)| self.paused_until.max(*at))
    }

    fn start(&mut self, key: &K, now: Duration) {
        self.put(key, Some(Entry { started: now, next: Some((Turn::First, now)) }));
    }

    fn put(&mut self, key: &K, entry: Option<Entry>) {
        let old = match entry {
            Some(entry) => self.entries.insert(key.clone(), entry),
            None => self.entries.remove(key),
        };
        if let Some((turn, at)) = old.and_then(|old| old.next) {
            self.queue.remove(&(turn, at, key.clone()));
        }
        if let Some((turn, at)) = entry.and_then(|entry| entry.next) {
            self.queue.insert((turn, at, key.clone()));
        }
    }
}

impl<K: Ord + Clone> Default for Schedule<K> {
    fn default() -> Self {
        Self::new(Some(REFRESH))
    }
}

impl Entry {
    fn after(&self, now: Duration, refresh: Option<Duration>) -> Option<Duration> {
        let age = now.saturating_sub(self.started);
        let burst = BURST.into_iter().find(|offset| *offset > age);
        burst.map(|offset| self.started + offset).or_else(|| refresh.map(|refresh| now + refresh))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// All moments until `end` at which the schedule announces, going by its own `next`.
    fn moments(schedule: &mut Schedule<u8>, end: Duration) -> Vec<u128> {
        let mut moments = Vec::new();
        while let Some(next) = schedule.next().filter(|next| *next <= end) {
            assert!(!schedule.due(next).is_empty());
            moments.push(next.as_millis());
        }
        moments
    }

    #[test]
    fn an_owned_address_is_announced_in_a_burst_and_then_every_so_often() {
        let burst = [1000, 1050, 1150, 1500, 2100, 3200, 4300];
        let cases = [(Some(REFRESH), &[64_300, 124_300][..]), (Some(ms(50_000)), &[54_300, 104_300]), (None, &[])];
        for (refresh, then) in cases {
            let mut schedule = Schedule::new(refresh);
            schedule.own(ms(1000), &BTreeSet::from([1]));
            assert_eq!(moments(&mut schedule, ms(130_000)), [&burst, then].concat());
        }
    }

    #[test]
    fn unrelated_changes_do_not_restart_it_and_loss_ends_it() {
        let mut schedule = Schedule::new(Some(REFRESH));
        schedule.own(ms(0), &BTreeSet::from([1]));
        assert_eq!(schedule.due(ms(0)), [1]);
        schedule.own(ms(10), &BTreeSet::from([1, 2]));
        assert_eq!(schedule.due(ms(10)), [2]);
        assert_eq!(schedule.due(ms(49)), [0_u8; 0]);
        // Stalled over three moments: announced once, and on with the rest.
        assert_eq!(schedule.due(ms(600)), [1, 2]);
        assert_eq!(schedule.next(), Some(ms(1100)));
        schedule.own(ms(700), &BTreeSet::from([2]));
        assert_eq!(schedule.due(ms(5000)), [2]);
        schedule.restart(ms(6000));
        assert_eq!(schedule.due(ms(6000)), [2]);
        schedule.own(ms(6001), &BTreeSet::new());
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn once_more_is_once_and_only_for_what_is_owned() {
        let mut schedule = Schedule::new(None);
        schedule.own(ms(0), &BTreeSet::from([1]));
        assert_eq!(moments(&mut schedule, ms(10_000)).len(), 7);
        schedule.again(ms(20_000), &1);
        schedule.again(ms(20_000), &1);
        schedule.again(ms(20_000), &2);
        assert_eq!(schedule.due(ms(20_000)), [1]);
        assert_eq!(schedule.next(), None);
        schedule.restart(ms(30_000));
        assert_eq!(schedule.due(ms(30_000)), [1]);
        schedule.again(ms(30_010), &1);
        assert_eq!(moments(&mut schedule, ms(30_100)), [30_010, 30_050], "the burst goes on as planned");
    }

    #[test]
    fn thousands_begin_in_portions_first_ones_before_repetitions() {
        let mut schedule = Schedule::new(Some(REFRESH));
        let old: BTreeSet<u32> = (0..2_000).collect();
        schedule.own(ms(0), &old);
        let mut now = ms(0);
        while schedule.next().is_some_and(|next| next < ms(60_000)) {
            now = schedule.next().unwrap();
            assert!(schedule.due(now).len() <= AT_ONCE);
        }
        // All repetitions are due, and five thousand come in.
        now = now.max(ms(120_000));
        let all: BTreeSet<u32> = (0..7_000).collect();
        schedule.own(now, &all);
        let begin = now;
        let mut told = BTreeSet::new();
        while told.len() < 5_000 {
            let due = schedule.due(now);
            assert!(due.len() <= AT_ONCE);
            for key in due {
                assert!(told.len() == 5_000 || !old.contains(&key), "a repetition went before");
                assert!(old.contains(&key) || told.insert(key), "{key} was announced twice");
            }
            let next = schedule.next().unwrap();
            assert!(next > now, "the thread must come to its heartbeats");
            now = next;
        }
        assert!(now - begin <= ms(160), "{:?}", now - begin);
    }
}
