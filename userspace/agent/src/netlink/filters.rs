//! Netlink's messages about nftables, as far as `doctor` reads them: where a chain is and what it is called.
//!
//! Layouts and numbers are those of include/uapi/linux/netfilter/nfnetlink.h and nf_tables.h.

use super::messages::{attributes, text};

/// The upper byte of a message's kind is the part of netfilter, `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u16 = 10 << 8;
/// `NFT_MSG_NEWCHAIN`, `NFT_MSG_GETCHAIN`.
pub(super) const NEW_CHAIN: u16 = NFTABLES | 3;
pub(super) const GET_CHAIN: u16 = NFTABLES | 4;
/// The length of `struct nfgenmsg`: family, version, resource.
pub(super) const BODY: usize = 4;

const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;

/// A chain of a packet filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The family as nft writes it.
    pub(crate) family: String,
    pub(crate) table: String,
    pub(crate) name: String,
}

/// The chain of an NFT_MSG_NEWCHAIN.
pub(super) fn chain(body: &[u8]) -> Option<Chain> {
    let mut chain = Chain { family: family(*body.first()?).to_owned(), ..Chain::default() };
    for (kind, value) in attributes(body.get(BODY..)?) {
        match kind {
            NFTA_CHAIN_TABLE => chain.table = text(value),
            NFTA_CHAIN_NAME => chain.name = text(value),
            _ => {}
        }
    }
    (!chain.name.is_empty()).then_some(chain)
}

/// `NFPROTO_*` (include/uapi/linux/netfilter.h).
fn family(number: u8) -> &'static str {
    match number {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::messages::push_attribute;

    #[test]
    fn a_chains_place_and_name_are_read() {
        let mut body = vec![2, 0, 0, 0];
        push_attribute(&mut body, NFTA_CHAIN_TABLE, b"nat\0");
        push_attribute(&mut body, 2, &[0; 8]);
        push_attribute(&mut body, NFTA_CHAIN_NAME, b"KUBE-SERVICES\0");
        let expected = Chain { family: "ip".to_owned(), table: "nat".to_owned(), name: "KUBE-SERVICES".to_owned() };
        assert_eq!(chain(&body), Some(expected));
        assert_eq!(chain(&[2, 0, 0, 0]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = chain(&bytes);
        }
    }
}
