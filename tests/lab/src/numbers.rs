//! The numbers of a node's pods, of which their addresses are made. One that was given back is the last to be taken again,
//! so that an address does not change its owner while others may remember it.

/// How many pods a node has at most.
const MOST: u16 = 200;

/// Which numbers are taken.
#[derive(Debug)]
pub(crate) struct Numbers {
    first: u16,
    next: u16,
    taken: Vec<u16>,
}

impl Numbers {
    pub(crate) fn new(first: u16) -> Self {
        Self { first, next: 0, taken: Vec::new() }
    }

    /// The next free number in turn; `None` where all are taken.
    pub(crate) fn take(&mut self) -> Option<u16> {
        let turn = (0..MOST).map(|step| (self.next + step) % MOST);
        let free = turn.map(|offset| self.first + offset).find(|number| !self.taken.contains(number))?;
        self.next = (free - self.first + 1) % MOST;
        self.taken.push(free);
        Some(free)
    }

    pub(crate) fn give_back(&mut self, number: u16) {
        self.taken.retain(|taken| *taken != number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_was_given_back_is_taken_last() {
        let mut numbers = Numbers::new(11);
        assert_eq!((numbers.take(), numbers.take()), (Some(11), Some(12)));
        numbers.give_back(11);
        let rest: Vec<u16> = std::iter::from_fn(|| numbers.take()).collect();
        assert_eq!((rest.len(), rest.first(), rest.last()), (199, Some(&13), Some(&11)));
        numbers.give_back(50);
        assert_eq!((numbers.take(), numbers.take()), (Some(50), None));
    }
}
