//! The filter: a bitmap that tells the programs with one look that an address is of no interest to them.
//!
//! A bit too many costs a packet a lookup, a bit too few costs a flow its translation. So bits are set before what they
//! stand for becomes visible, and cleared only by a rebuild that knows the flows as well, and only if the rebuild before
//! it did not want them either: a flow may begin while the flows are read.

use roadstead_abi::{
    Addr, Be16,
    check::{filter_bit, salt},
    limits,
};

use crate::{
    frontends::EndpointAddress,
    maps::{MapError, Maps},
};

/// Words of the bitmap.
pub(crate) const WORDS: usize = limits::FILTER_BITS as usize / 64;

/// The bitmap as the map holds it, but for the words that wait to be written.
pub(crate) struct Filter {
    bits: Bits,
    /// What the last rebuild wanted.
    wanted: Bits,
    /// Words that differ from the map's, once each.
    unwritten: Vec<u32>,
    is_unwritten: Vec<bool>,
}

impl Filter {
    /// What a map holds.
    pub(crate) fn recovered(words: &[u64]) -> Self {
        let mut bits = Bits::default();
        bits.0.iter_mut().zip(words).for_each(|(to, from)| *to = *from);
        Self { wanted: bits.clone(), bits, unwritten: Vec::new(), is_unwritten: vec![false; WORDS] }
    }

    /// An address with frontends becomes visible next.
    pub(crate) fn add_frontend(&mut self, addr: &Addr) {
        self.add(frontend(addr));
    }

    /// An address of this node does.
    pub(crate) fn add_node(&mut self, addr: &Addr) {
        self.add(node(addr));
    }

    /// A backend does.
    pub(crate) fn add_backend(&mut self, endpoint: &EndpointAddress) {
        self.add(backend(endpoint));
    }

    fn add(&mut self, bit: u32) {
        if self.bits.set(bit) {
            self.differs(bit / 64);
        }
        self.wanted.set(bit);
    }

    fn differs(&mut self, word: u32) {
        if let Some(is_unwritten) = self.is_unwritten.get_mut(word as usize).filter(|already| !**already) {
            *is_unwritten = true;
            self.unwritten.push(word);
        }
    }

    /// Writes what has changed. What cannot be written is tried again the next time.
    pub(crate) fn write(&mut self, maps: &mut impl Maps) -> Result<(), MapError> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let word = |index: &u32| Some((*index, *self.bits.0.get(*index as usize)?));
        let words: Vec<_> = self.unwritten.iter().filter_map(word).collect();
        maps.put_filter(&words)?;
        for word in self.unwritten.drain(..) {
            self.is_unwritten.get_mut(word as usize).into_iter().for_each(|is_unwritten| *is_unwritten = false);
        }
        Ok(())
    }

    /// Clears what neither this wish nor the one before it holds.
    pub(crate) fn rebuild(&mut self, wanted: Bits) {
        let union: Vec<u64> = wanted.0.iter().zip(&self.wanted.0).map(|(new, old)| new | old).collect();
        let words = (0..).zip(self.bits.0.iter().zip(&union));
        let changed: Vec<u32> = words.filter(|(_, (is, shall))| is != shall).map(|(index, _)| index).collect();
        changed.into_iter().for_each(|word| self.differs(word));
        self.bits = Bits(union);
        self.wanted = wanted;
    }
}

/// A bitmap of the filter's size.
#[derive(Clone)]
pub(crate) struct Bits(Vec<u64>);

impl Default for Bits {
    fn default() -> Self {
        Self(vec![0; WORDS])
    }
}

impl Bits {
    /// Whether the bit was not set before.
    pub(crate) fn set(&mut self, bit: u32) -> bool {
        let Some(word) = self.0.get_mut(bit as usize / 64) else { return false };
        let before = *word;
        *word |= 1 << (bit % 64);
        *word != before
    }
}

/// The bit of an address with frontends, or with flows that came by one.
pub(crate) fn frontend(addr: &Addr) -> u32 {
    filter_bit(salt::FRONTEND, addr, Be16(0))
}

/// The bit of an address of this node.
pub(crate) fn node(addr: &Addr) -> u32 {
    filter_bit(salt::NODE, addr, Be16(0))
}

/// The bit of a backend.
pub(crate) fn backend(endpoint: &EndpointAddress) -> u32 {
    filter_bit(salt::BACKEND, &endpoint.0, endpoint.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_is_cleared_by_the_second_rebuild_that_does_not_want_it() {
        let addr = Addr::v4([10, 96, 0, 1]);
        let mut filter = Filter::recovered(&[]);
        filter.add_frontend(&addr);
        let holds = |filter: &Filter| !filter.bits.clone().set(frontend(&addr));
        assert!(holds(&filter));
        filter.rebuild(Bits::default());
        assert!(holds(&filter), "a flow may have begun meanwhile");
        filter.rebuild(Bits::default());
        assert!(!holds(&filter));
        assert_eq!(filter.unwritten.len(), 1);
    }
}
