//! The peers: rule sets in the shape in which kube-proxy writes them, and the programs that load them.

pub(crate) mod iptables;
pub(crate) mod nftables;

use crate::state::Service;

/// As kube-proxy names its chains: a part that no two Services share, short enough for iptables.
fn suffix(parts: &[&str], length: usize) -> String {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut text = String::with_capacity(length);
    // FNV-1a, and one more round for every five bits taken.
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        hash = step(hash, byte);
    }
    while text.len() < length {
        hash = step(hash, 1);
        let digit = DIGITS.get((hash >> 59) as usize).copied().unwrap_or(b'A');
        text.push(char::from(digit));
    }
    text
}

/// A Service before and after one of its endpoints was exchanged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change<'a> {
    pub(crate) before: &'a Service,
    pub(crate) after: &'a Service,
}

impl Change<'_> {
    /// Endpoints that are new, and endpoints that are gone.
    fn endpoints(&self) -> (Vec<std::net::Ipv4Addr>, Vec<std::net::Ipv4Addr>) {
        let less = |some: &Service, other: &Service| {
            some.endpoints.iter().filter(|address| !other.endpoints.contains(address)).copied().collect()
        };
        (less(self.after, self.before), less(self.before, self.after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_chains_differ() {
        let names: std::collections::BTreeSet<_> =
            (0..60_000).map(|number: u32| suffix(&["bench", &number.to_string()], 16)).collect();
        assert_eq!(names.len(), 60_000);
        assert!(names.iter().all(|name| name.len() == 16));
    }
}
