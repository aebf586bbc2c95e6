//! The pair of conntrack entries of a new flow.

use roadstead_abi::{Addr, Backend, Be16, CtEntry, CtKey, ct_flags};

/// A flow about to be created: the packet that begins it and what was decided about it. It borrows, and writes its
/// entries in place, because a BPF program has 512 bytes of stack.
#[derive(Clone, Copy, Debug)]
pub struct NewFlow<'a> {
    /// The first packet's tuple.
    pub key: &'a CtKey,
    /// The backend that was picked.
    pub backend: &'a Backend,
    /// Its id.
    pub backend_id: u32,
    /// Id of the Service's port.
    pub service: u32,
    /// The node's address that the backend shall see; `None` keeps the client's.
    pub snat: Option<&'a Addr>,
    /// Device of packets to the backend; 0 leaves them to the stack.
    pub forward_ifindex: u32,
    /// Device of answers; 0 leaves them to the stack.
    pub reply_ifindex: u32,
    /// [`ct_flags`] of the forward entry besides its state.
    pub forward_flags: u32,
    /// Those of the reply entry.
    pub reply_flags: u32,
    /// Time of the programs' clock.
    pub now: u32,
}

impl NewFlow<'_> {
    /// Writes the entry for packets from the client, with this source port towards the backend.
    #[inline(always)]
    pub fn write_forward(&self, sport: Be16, entry: &mut CtEntry) {
        entry.check = self.key.check();
        entry.src = match self.snat {
            Some(node) => *node,
            None => self.key.src,
        };
        entry.ifindex = self.forward_ifindex;
        entry.dst = self.backend.addr;
        entry.sport = sport;
        entry.dport = self.backend.port;
        entry.flags = ct_flags::SEEN | self.forward_flags;
        self.write_common(entry);
    }

    /// Writes the entry for packets from the backend: what the client sent, turned round. Its check word waits for the
    /// key, which has the source port.
    #[inline(always)]
    pub fn write_reply(&self, entry: &mut CtEntry) {
        entry.check = 0;
        entry.ifindex = self.reply_ifindex;
        entry.src = self.key.dst;
        entry.dst = self.key.src;
        entry.sport = self.key.dport;
        entry.dport = self.key.sport;
        entry.flags = ct_flags::REPLY | self.reply_flags;
        self.write_common(entry);
    }

    #[inline(always)]
    fn write_common(&self, entry: &mut CtEntry) {
        entry.service = self.service;
        entry.backend = self.backend_id;
        entry.last_seen = self.now;
    }

    /// Whether the client's own source port may be kept: for flows with the node's address, ports are taken from a range
    /// of their own.
    #[inline(always)]
    #[must_use]
    pub fn keeps_source_port(&self) -> bool {
        self.snat.is_none()
    }
}

#[cfg(test)]
mod tests {
    use roadstead_abi::proto;

    use super::*;

    const KEY: CtKey = CtKey {
        src: Addr::v4([192, 168, 77, 100]),
        dst: Addr::v4([192, 168, 77, 200]),
        sport: Be16::new(40_000),
        dport: Be16::new(80),
        proto: proto::TCP,
        reserved: [0; 3],
    };
    const BACKEND: Backend = Backend { addr: Addr::v4([10, 244, 1, 5]), port: Be16::new(8_080), reserved: 0 };
    const NODE: Addr = Addr::v4([192, 168, 77, 11]);

    fn pair(snat: Option<&Addr>, devices: (u32, u32), sport: u16) -> (CtEntry, CtEntry) {
        let (forward_ifindex, reply_ifindex) = devices;
        let flow = NewFlow {
            key: &KEY,
            backend: &BACKEND,
            backend_id: 7,
            service: 3,
            snat,
            forward_ifindex,
            reply_ifindex,
            forward_flags: 0,
            reply_flags: if snat.is_none() { ct_flags::AT_EGRESS } else { 0 },
            now: 1_000,
        };
        let (mut forward, mut reply) = (CtEntry::default(), CtEntry::default());
        flow.write_forward(Be16::new(sport), &mut forward);
        flow.write_reply(&mut reply);
        (forward, reply)
    }

    #[test]
    fn the_entries_of_a_pair_name_each_other() {
        for snat in [None, Some(&NODE)] {
            let (forward, reply) = pair(snat, (4, 2), 61_234);
            let mut reply_key = CtKey::default();
            forward.write_reverse_key(proto::TCP, &mut reply_key);
            assert_eq!(reply_key, forward.reverse_key(proto::TCP), "{snat:?}");
            assert_eq!(reply.reverse_key(proto::TCP), KEY, "{snat:?}");
            assert_eq!((reply_key.src, reply_key.sport), (BACKEND.addr, BACKEND.port), "{snat:?}");
            assert_eq!(reply_key.dport, Be16::new(61_234), "{snat:?}");
            assert_eq!((forward.backend, reply.service, reply.last_seen), (7, 3, 1_000), "{snat:?}");
            assert_eq!(forward.check, KEY.check(), "{snat:?}");
        }
    }

    #[test]
    fn the_backend_sees_the_client_or_the_node() {
        let (kept, reply) = pair(None, (0, 0), 40_000);
        assert_eq!((kept.src, kept.ifindex, reply.flags), (KEY.src, 0, ct_flags::REPLY | ct_flags::AT_EGRESS));
        let (masked, reply) = pair(Some(&NODE), (4, 2), 61_000);
        assert_eq!((masked.src, masked.ifindex, reply.ifindex, reply.flags), (NODE, 4, 2, ct_flags::REPLY));
    }
}
