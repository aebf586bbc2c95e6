//! Multicast groups of IPv6 addresses on one interface: solicitations are sent to them.
//!
//! The packet socket would see such a frame without; but the kernel's reports (MLD) let it through switches that snoop,
//! and open the card's filter.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use roadstead_layer2::wire::solicited_node;
use socket2::{Domain, Protocol, Socket, Type};
use tracing::{debug, warn};

/// Solicited-node groups joined on an interface. Closing the socket leaves them all.
#[derive(Debug)]
pub(crate) struct Groups {
    /// `None` on a host without IPv6, where there is nothing to join.
    socket: Option<Socket>,
    joined: BTreeSet<Ipv6Addr>,
    /// Told about once, tried again with every scan.
    refused: BTreeSet<Ipv6Addr>,
}

impl Groups {
    /// None joined. A membership does not survive that IPv6 is taken off the interface: then begin with this again.
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM.cloexec(), Some(Protocol::UDP)).ok();
        Self { socket, joined: BTreeSet::new(), refused: BTreeSet::new() }
    }

    /// Whether some group could not be joined.
    pub(crate) fn lacks_some(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Joins and leaves so that the groups of these addresses are joined, and no others.
    pub(crate) fn follow(&mut self, announced: &BTreeSet<IpAddr>, interface: u32, name: &str) {
        let Some(socket) = &self.socket else { return };
        let of = |ip: &IpAddr| match ip {
            IpAddr::V6(ip) => Some(solicited_node(*ip)),
            IpAddr::V4(_) => None,
        };
        let wanted: BTreeSet<Ipv6Addr> = announced.iter().filter_map(of).collect();
        for group in self.joined.difference(&wanted) {
            if let Err(error) = socket.leave_multicast_v6(group, interface) {
                debug!(%group, interface = name, %error, "cannot leave the group");
            }
        }
        self.joined.retain(|group| wanted.contains(group));
        self.refused.retain(|group| wanted.contains(group));
        for group in wanted {
            if self.joined.contains(&group) {
                continue;
            }
            match socket.join_multicast_v6(&group, interface) {
                Ok(()) => {
                    self.refused.remove(&group);
                    self.joined.insert(group);
                }
                Err(error) if self.refused.insert(group) => {
                    warn!(%group, interface = name, %error, "cannot join the group, so NDP may not reach this node");
                }
                Err(_) => {}
            }
        }
    }
}
