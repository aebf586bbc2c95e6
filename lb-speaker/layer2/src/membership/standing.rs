//! What a node says of itself beyond being alive: where it can announce, and what it announces.
//!
//! The bytes are: a number that rises with every change, so that no digest comes back (8 bytes); the digest of the files it
//! read (8 bytes); the number of interfaces and their names, each after its length; then the claims, each an address after
//! its family, its term (8 bytes) and its flags.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::document::{ip, read_chunk, read_ip, read_text, text};

const HELD: u8 = 1;
const QUORATE: u8 = 2;

/// A node's word that it announces an address. Of two the greater counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The node may answer; else it waits for the majority that its policy asks for, or for the word of peers.
    pub held: bool,
    /// The node counted a majority of the configured members when it made the claim.
    pub quorate: bool,
    /// Higher than that of every claim to the address that the node knew of.
    pub term: u64,
}

/// A node's standing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Digest of the files that the node read; 0 for not known.
    pub files: u64,
    /// The interfaces on which it can announce.
    pub interfaces: BTreeSet<String>,
    /// What it announces.
    pub claims: BTreeMap<IpAddr, Claim>,
}

impl Standing {
    pub(super) fn write(&self, version: u64) -> Vec<u8> {
        let mut bytes = [version.to_be_bytes(), self.files.to_be_bytes()].concat();
        let interfaces = self.interfaces.iter().take(usize::from(u8::MAX));
        bytes.push(u8::try_from(interfaces.len()).unwrap_or(u8::MAX));
        interfaces.for_each(|name| text(&mut bytes, name));
        for (address, claim) in &self.claims {
            ip(&mut bytes, *address);
            bytes.extend(claim.term.to_be_bytes());
            bytes.push(if claim.held { HELD } else { 0 } | if claim.quorate { QUORATE } else { 0 });
        }
        bytes
    }

    pub(super) fn read(mut bytes: &[u8]) -> Option<Self> {
        let _version: [u8; 8] = read_chunk(&mut bytes)?;
        let files = u64::from_be_bytes(read_chunk(&mut bytes)?);
        let [count] = read_chunk(&mut bytes)?;
        let names = (0..count).map(|_| read_text(&mut bytes).map(str::to_owned));
        let interfaces = names.collect::<Option<BTreeSet<String>>>()?;
        let mut claims = BTreeMap::new();
        while !bytes.is_empty() {
            let address = read_ip(&mut bytes)?;
            let term = u64::from_be_bytes(read_chunk(&mut bytes)?);
            let [flags] = read_chunk(&mut bytes)?;
            claims.insert(address, Claim { held: flags & HELD != 0, quorate: flags & QUORATE != 0, term });
        }
        Some(Self { files, interfaces, claims })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_is_read_back_and_no_version_looks_like_another() {
        let claim = |held, quorate, term| Claim { held, quorate, term };
        let standing = Standing {
            files: 5,
            interfaces: ["eth0", "eth1"].map(str::to_owned).into(),
            claims: [("192.0.2.1", claim(true, false, 7)), ("2001:db8::1", claim(false, true, 8))]
                .map(|(ip, claim)| (ip.parse().unwrap(), claim))
                .into(),
        };
        let bytes = standing.write(1);
        assert_eq!(Standing::read(&bytes), Some(standing.clone()));
        assert_ne!(standing.write(2), bytes);
        assert_eq!(Standing::read(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Standing::read(&Standing::default().write(0)), Some(Standing::default()));
    }

    #[test]
    fn held_goes_before_a_majority_and_that_before_the_term() {
        let claim = |held, quorate, term| Claim { held, quorate, term };
        let rising = [claim(false, true, 9), claim(true, false, 8), claim(true, true, 1), claim(true, true, 2)];
        assert!(rising.is_sorted());
    }
}
