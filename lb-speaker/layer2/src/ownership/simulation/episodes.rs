//! What happens to the nodes, their cables and the network between them, each time with its end.

use super::*;

impl World {
    pub(super) fn mend(&mut self) {
        self.note("mend");
        let loss = std::mem::take(&mut self.loss);
        self.cut.clear();
        for index in 0..self.nodes.len() {
            self.resume(index);
            if self.nodes[index].core.is_none() {
                self.start(index);
            }
            if !self.nodes[index].has_interface {
                self.carrier(index, true);
            }
        }
        self.run(REST + 1_000);
        self.check_rest("at rest");
        self.check_announced();
        self.loss = loss;
    }

    fn resume(&mut self, index: usize) {
        if std::mem::take(&mut self.nodes[index].still) {
            self.note(&format!("resume {}", NAMES[index]));
            self.speaks_again(index);
            // Before it does anything, it answers what has queued up: if it may.
            self.look();
        }
    }

    /// One disturbance, its time, and its end.
    pub(super) fn episode(&mut self) {
        let count = self.nodes.len() as u64;
        let index = usize::try_from(self.random.below(count)).unwrap();
        let other = (index + 1 + usize::try_from(self.random.below(count - 1)).unwrap()) % self.nodes.len();
        let lasts = self.random.between(20, 900);
        match self.random.below(9) {
            0 => {
                let side: Vec<bool> = self.nodes.iter().map(|_| self.random.percent(50)).collect();
                self.note(&format!("cut {side:?} for {lasts}"));
                let pairs = (0..self.nodes.len()).flat_map(|from| (0..side.len()).map(move |to| (from, to)));
                self.cut.extend(pairs.filter(|(from, to)| side[*from] != side[*to]));
                self.run(lasts);
                self.cut.clear();
            }
            1 => {
                self.note(&format!("cut {} to {} for {lasts}", NAMES[index], NAMES[other]));
                self.cut.insert((index, other));
                if self.random.percent(50) {
                    self.cut.insert((other, index));
                }
                self.run(lasts);
                self.cut.clear();
            }
            2 => {
                self.note(&format!("stop {} for {lasts}", NAMES[index]));
                self.nodes[index].still = true;
                self.run(lasts);
                self.resume(index);
            }
            3 => {
                self.kill(index);
                self.run(lasts);
                self.start(index);
            }
            4 => self.drained(index),
            5 => {
                self.carrier(index, false);
                self.run(lasts);
                self.carrier(index, true);
            }
            6 => self.removed(index),
            7 => self.unplug(index, lasts),
            _ => {
                self.exclude(Some(index));
                self.run(lasts);
                self.exclude(None);
            }
        }
        let rest = self.random.between(0, 800);
        self.run(rest);
    }

    /// The cable of a node is out: it knows, and when it is back neither knows at first who has what.
    fn unplug(&mut self, index: usize, lasts: u64) {
        self.carrier(index, false);
        let others = (0..self.nodes.len()).filter(|other| *other != index);
        self.cut.extend(others.flat_map(|other| [(index, other), (other, index)]));
        self.run(lasts);
        self.cut.clear();
        self.carrier(index, true);
        self.speaks_again(index);
    }

    /// Each node reads in its own time that one of them may announce nothing, or that all may.
    fn exclude(&mut self, excluded: Option<usize>) {
        let lags: Vec<u64> = self.nodes.iter().map(|_| self.random.below(200)).collect();
        self.note(&format!("exclude {excluded:?}, read after {lags:?}"));
        for passed in 0..=200 {
            for (node, lag) in self.nodes.iter_mut().zip(&lags) {
                if *lag == passed {
                    (node.excluded, node.generation, node.decided) = (excluded, node.generation + 1, false);
                }
            }
            self.run(1);
        }
    }

    /// Invariants 9 and 6: a node that comes back takes nothing where owners keep.
    fn drained(&mut self, index: usize) {
        if !self.is_whole() || self.rules.partition == Partition::Strict && self.nodes.len() < 3 {
            return;
        }
        self.run(REST + 500);
        self.check_rest("before a drain");
        self.drain(index);
        self.run_without_a_break(400, "a drain");
        assert!(self.nodes[index].core.is_none(), "it has not left{}", self.told());
        let owners = self.check_rest("after a drain");
        self.start(index);
        self.run_without_a_break(REST, "a return");
        let later = self.check_rest("after its return");
        assert!(
            self.rules.election == Election::Metallb || owners == later,
            "a return moved {owners:?} to {later:?}{}",
            self.told()
        );
    }

    /// Invariant 6: the death of a node moves its own addresses alone.
    fn removed(&mut self, index: usize) {
        if !self.is_whole() || self.rules.partition == Partition::Strict && self.nodes.len() < 3 {
            return;
        }
        self.run(REST + 500);
        let before = self.check_rest("before a death");
        self.kill(index);
        self.run(500);
        let after = self.check_rest("after a death");
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || *before == index, "a death moved another's address{}", self.told());
        }
        self.start(index);
        self.run(REST);
        let later = self.check_rest("after its return");
        match self.rules.election {
            Election::Metallb => assert_eq!(later, before, "each address has its winner again{}", self.told()),
            Election::Sticky => assert_eq!(later, after, "a return moves nothing{}", self.told()),
        }
    }
}
