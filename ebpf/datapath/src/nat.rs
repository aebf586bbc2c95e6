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
    /// Where the backend is reached.
    pub way: Way<'a>,
    /// Seconds of the monotonic clock.
    pub now: u32,
}

/// How packets reach the backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way<'a> {
    /// It is on this node: the stack delivers, replies come back through the uplink's egress.
    Local,
    /// It is on another node: packets leave and replies come back through uplinks, with the node as the source.
    Remote {
        /// The node's own address of the flow's family.
        node: &'a Addr,
        /// Device towards the backend.
        ifindex: u32,
        /// Device towards the client.
        client_ifindex: u32,
    },
}

impl NewFlow<'_> {
    /// Writes the entry for packets from the client, with this source port towards the backend.
    #[inline(always)]
    pub fn write_forward(&self, sport: Be16, entry: &mut CtEntry) {
        match self.way {
            Way::Local => {
                entry.src = self.key.src;
                entry.ifindex = 0;
            }
            Way::Remote { node, ifindex, .. } => {
                entry.src = *node;
                entry.ifindex = ifindex;
            }
        }
        entry.dst = self.backend.addr;
        entry.sport = sport;
        entry.dport = self.backend.port;
        entry.flags = ct_flags::SEEN;
        self.write_common(entry);
    }

    /// Writes the entry for packets from the backend: what the client sent, turned round.
    #[inline(always)]
    pub fn write_reply(&self, entry: &mut CtEntry) {
        entry.ifindex = match self.way {
            Way::Local => 0,
            Way::Remote { client_ifindex, .. } => client_ifindex,
        };
        entry.src = self.key.dst;
        entry.dst = self.key.src;
        entry.sport = self.key.dport;
        entry.dport = self.key.sport;
        entry.flags = ct_flags::REPLY;
        self.write_common(entry);
    }

    #[inline(always)]
    fn write_common(&self, entry: &mut CtEntry) {
        entry.service = self.service;
        entry.backend = self.backend_id;
        entry.last_seen = self.now;
    }

    /// Whether the client's own source port may be kept: a remote backend sees the node's address, where ports are
    /// taken from a range of their own.
    #[inline(always)]
    #[must_use]
    pub fn keeps_source_port(&self) -> bool {
        matches!(self.way, Way::Local)
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
    const REMOTE: Way<'_> = Way::Remote { node: &NODE, ifindex: 4, client_ifindex: 2 };

    fn pair(way: Way<'_>, sport: u16) -> (CtEntry, CtEntry) {
        let flow = NewFlow { key: &KEY, backend: &BACKEND, backend_id: 7, service: 3, way, now: 1_000 };
        let (mut forward, mut reply) = (CtEntry::default(), CtEntry::default());
        flow.write_forward(Be16::new(sport), &mut forward);
        flow.write_reply(&mut reply);
        (forward, reply)
    }

    #[test]
    fn the_entries_of_a_pair_name_each_other() {
        for way in [Way::Local, REMOTE] {
            let (forward, reply) = pair(way, 61_234);
            let mut reply_key = CtKey::default();
            forward.write_reverse_key(proto::TCP, &mut reply_key);
            assert_eq!(reply_key, forward.reverse_key(proto::TCP), "{way:?}");
            assert_eq!(reply.reverse_key(proto::TCP), KEY, "{way:?}");
            assert_eq!((reply_key.src, reply_key.sport), (BACKEND.addr, BACKEND.port), "{way:?}");
            assert_eq!(reply_key.dport, Be16::new(61_234), "{way:?}");
            assert_eq!((forward.backend, reply.service, reply.last_seen), (7, 3, 1_000), "{way:?}");
        }
    }

    #[test]
    fn only_a_remote_backend_sees_the_node_as_the_client() {
        let (local, _) = pair(Way::Local, 40_000);
        let (remote, reply) = pair(REMOTE, 61_000);
        assert_eq!((local.src, local.ifindex), (KEY.src, 0));
        assert_eq!((remote.src, remote.ifindex, reply.ifindex), (NODE, 4, 2));
    }
}
