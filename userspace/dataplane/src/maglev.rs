//! Maglev tables: which endpoint a hash falls to, equal on every node, and hardly changed when an endpoint comes or goes.
//!
//! The method is that of Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016),
//! section 3.4. An endpoint's order of preference over the slots comes from its address and port alone, never from an id
//! that another node may have given differently.

use roadstead_abi::check::{SEED, mix};

use crate::frontends::EndpointAddress;

/// Sizes of tables, primes, so that every order of preference visits all slots. They stand a factor of four apart: a
/// table of another size is another table altogether, so the size must not follow every endpoint that comes or goes.
const SIZES: [u32; 5] = [251, 1_021, 4_093, 16_381, 65_537];
/// The fewest slots an endpoint, below the largest size: with a hundred, shares differ by a hundredth, and the loss of one
/// endpoint moves hardly any slot of the others.
const SLOTS_EACH: usize = 100;

/// The number of slots for so many endpoints.
#[must_use]
pub(crate) fn size(endpoints: usize) -> u32 {
    let fits = |size: &u32| *size as usize >= endpoints.saturating_mul(SLOTS_EACH);
    SIZES.into_iter().find(fits).unwrap_or(65_537)
}

/// For each slot the index of its endpoint in the list. The order of the list makes no difference.
#[must_use]
pub(crate) fn table(endpoints: &[EndpointAddress]) -> Vec<u32> {
    let size = size(endpoints.len());
    let mut turns: Vec<Preference> = (0..).zip(endpoints).map(|(index, at)| Preference::of(index, at, size)).collect();
    // The first to choose is not the first in the list, but everywhere the same.
    turns.sort_unstable_by_key(|turn| turn.rank);
    let mut slots = vec![FREE; size as usize];
    let mut left = slots.len();
    while left > 0 && !turns.is_empty() {
        for turn in turns.iter_mut().take(left) {
            turn.choose(&mut slots, size);
            left -= 1;
        }
    }
    slots
}

const FREE: u32 = u32::MAX;

/// An endpoint's order of preference: every slot once, from `next` on in steps of `step`.
struct Preference {
    index: u32,
    rank: (u64, EndpointAddress),
    next: u32,
    step: u32,
}

impl Preference {
    fn of(index: u32, endpoint: &EndpointAddress, size: u32) -> Self {
        let [a, b, c, d] = endpoint.0.words().map(|word| u64::from(u32::from_be(word)));
        let hash = mix(mix(mix(SEED, a << 32 | b), c << 32 | d), u64::from(endpoint.1.get()));
        let (high, low) = ((hash >> 32) as u32, hash as u32);
        Self { index, rank: (mix(hash, 1), *endpoint), next: high % size, step: low % (size - 1) + 1 }
    }

    /// Takes the first free slot of the order; there is one, because a prime's multiples visit every slot.
    fn choose(&mut self, slots: &mut [u32], size: u32) {
        for _ in 0..size {
            let slot = slots.get_mut(self.next as usize);
            self.next = (self.next + self.step) % size;
            if let Some(slot) = slot.filter(|slot| **slot == FREE) {
                *slot = self.index;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use roadstead_abi::{Addr, Be16};

    use super::*;

    fn endpoints(count: u32) -> Vec<EndpointAddress> {
        (0..count).map(|host| (Addr::v4((0x0af4_0000 + host).to_be_bytes()), Be16::new(8_080))).collect()
    }

    fn owners(list: &[EndpointAddress]) -> Vec<EndpointAddress> {
        table(list).into_iter().map(|index| list[index as usize]).collect()
    }

    #[test]
    fn every_endpoint_has_a_hundred_slots_up_to_the_largest_size() {
        for (endpoints, expected) in [(1, 251), (3, 1_021), (10, 1_021), (40, 4_093), (100, 16_381), (9_999, 65_537)] {
            assert_eq!(size(endpoints), expected, "{endpoints}");
        }
        for size in SIZES {
            assert!((2..).take_while(|d| d * d <= size).all(|divisor| size % divisor != 0), "{size} is no prime");
        }
    }

    #[test]
    fn slots_are_spread_evenly() {
        for count in [2, 5, 100, 600] {
            let table = table(&endpoints(count));
            let mut shares = vec![0_usize; count as usize];
            table.iter().for_each(|index| shares[*index as usize] += 1);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            println!("{count} endpoints: {} slots, {least} to {most} each", table.len());
            assert!(most - least <= 1, "{count}: {least} to {most}");
        }
    }

    #[test]
    fn the_loss_of_one_endpoint_in_a_hundred_moves_hardly_any_slot_of_the_others() {
        let all = endpoints(100);
        let before = owners(&all);
        let mut worst = 0.0_f64;
        for lost in &all {
            let rest: Vec<_> = all.iter().filter(|endpoint| *endpoint != lost).copied().collect();
            let after = owners(&rest);
            let moved = before.iter().zip(&after).filter(|(old, new)| *old != lost && old != new).count();
            worst = worst.max(moved as f64 / before.len() as f64);
        }
        println!("one of 100 endpoints lost: at most {:.2} % of the others' slots moved", worst * 100.0);
        assert!(worst <= 0.02, "{worst}");
    }

    proptest! {
        #[test]
        fn the_order_of_the_list_makes_no_difference(
            list in Just(endpoints(40)).prop_shuffle(),
        ) {
            prop_assert_eq!(owners(&list), owners(&endpoints(40)));
        }
    }
}
