//! Connections between two requests.
//!
//! Nobody drives them meanwhile: one that its endpoint closes is found out when it is wanted, or at the next sweep.

use std::{cell::RefCell, collections::HashMap, time::Instant};

use super::Link;
use crate::upstream::transport::Key;

thread_local! {
    static IDLE: RefCell<Idle> = RefCell::default();
}

#[derive(Default)]
struct Idle {
    by_key: HashMap<Key, Vec<Waiting>>,
    count: usize,
}

struct Waiting {
    link: Box<Link>,
    until: Instant,
}

impl Waiting {
    fn is_good(&mut self, now: Instant) -> bool {
        now < self.until && self.link.is_good()
    }
}

/// The one used last first.
pub(super) fn take(key: &Key) -> Option<Box<Link>> {
    IDLE.with_borrow_mut(|idle| {
        let waiting = idle.by_key.get_mut(key)?;
        let now = Instant::now();
        while let Some(mut candidate) = waiting.pop() {
            idle.count -= 1;
            if candidate.is_good(now) {
                return Some(candidate.link);
            }
        }
        None
    })
}

/// Keeps a connection, if there is room.
pub(super) fn keep(link: Box<Link>, now: Instant) {
    IDLE.with_borrow_mut(|idle| {
        if idle.count < usize::try_from(link.keepalive.connections).unwrap_or(usize::MAX) {
            idle.count += 1;
            let until = (now + link.keepalive.timeout).min(link.born + link.keepalive.time);
            match idle.by_key.get_mut(&link.key) {
                Some(waiting) => waiting.push(Waiting { link, until }),
                None => drop(idle.by_key.insert(link.key.clone(), vec![Waiting { link, until }])),
            }
        }
    });
}

/// Closes those that are over their time or closed by their endpoint.
pub(in crate::upstream) fn sweep() {
    let now = Instant::now();
    IDLE.with_borrow_mut(|idle| {
        for waiting in idle.by_key.values_mut() {
            waiting.retain_mut(|candidate| candidate.is_good(now));
        }
        idle.by_key.retain(|_, waiting| !waiting.is_empty());
        idle.count = idle.by_key.values().map(Vec::len).sum();
    });
}
