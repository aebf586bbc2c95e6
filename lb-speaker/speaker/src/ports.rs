//! The interfaces that addresses are announced on: one packet socket each, and the multicast groups for IPv6.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv6Addr},
};

use anyhow::Context as _;
use roadstead_layer2::{
    responder::Station,
    wire::{Mac, solicited_node},
};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::{debug, info, warn};

use crate::{
    links::{self, Link},
    plan::Owned,
    socket::PacketSocket,
};

/// One interface in use.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) station: Station,
    pub(crate) socket: PacketSocket,
    pub(crate) announced: BTreeSet<IpAddr>,
    groups: Groups,
}

/// Solicited-node groups joined on an interface: the kernel then tells switches that snoop on MLD, and lets the card
/// pass the frames. Closing the socket leaves them all.
#[derive(Debug)]
struct Groups {
    socket: Option<Socket>,
    joined: BTreeSet<Ipv6Addr>,
    /// Told about once, tried again with every scan.
    refused: BTreeSet<Ipv6Addr>,
}

/// An address on an interface. With another hardware address it is another one: clients must be told anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Announced {
    pub(crate) interface: u32,
    pub(crate) mac: Mac,
    pub(crate) ip: IpAddr,
}

/// All interfaces in use, by their index.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    selected: Vec<String>,
    ports: BTreeMap<u32, Port>,
    links: Vec<Link>,
    local: BTreeSet<IpAddr>,
    conflicts: BTreeSet<IpAddr>,
}

impl Ports {
    /// Nothing is open before the first [`Self::rescan`]. With no name given the default choice holds.
    pub(crate) fn new(selected: Vec<String>) -> Self {
        Self { selected, ..Self::default() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Port)> {
        self.ports.iter().map(|(index, port)| (*index, port))
    }

    pub(crate) fn port(&self, index: u32) -> Option<&Port> {
        self.ports.get(&index)
    }

    /// Follows the interfaces as they are now; true if [`Self::announce`] must be called again.
    ///
    /// # Errors
    /// When the list cannot be read, or an interface cannot be opened for want of a privilege.
    pub(crate) fn rescan(&mut self) -> anyhow::Result<bool> {
        let mut links = links::scan().context("cannot list the network interfaces")?;
        links.sort_by_key(|link| link.index);
        let complete = self.wanted(&links).all(|link| self.ports.contains_key(&link.index));
        let refused = self.ports.values().any(|port| !port.groups.refused.is_empty());
        if links == self.links && complete && !refused {
            return Ok(false);
        }
        let wanted: Vec<Link> = self.wanted(&links).cloned().collect();
        let stays = |index: &u32, port: &Port| {
            wanted.iter().any(|link| link.index == *index && link.station() == port.station && link.name == port.name)
        };
        self.ports.retain(|index, port| {
            let stays = stays(index, port);
            if !stays {
                info!(interface = %port.name, "left the interface");
            }
            stays
        });
        self.local = links.iter().flat_map(|link| link.addresses.iter().copied()).collect();
        self.links = links;
        for link in wanted {
            if self.ports.contains_key(&link.index) {
                continue;
            }
            match Port::open(&link) {
                Ok(port) => {
                    info!(interface = %link.name, mac = %link.mac, "uses the interface");
                    self.ports.insert(link.index, port);
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(error).with_context(|| format!("cannot open {}: CAP_NET_RAW is needed", link.name));
                }
                Err(error) => warn!(interface = %link.name, %error, "cannot open the interface, will retry"),
            }
        }
        Ok(true)
    }

    fn wanted<'a>(&'a self, links: &'a [Link]) -> impl Iterator<Item = &'a Link> {
        links.iter().filter(|link| match self.selected.is_empty() {
            true => link.is_default(),
            false => link.usable && self.selected.contains(&link.name),
        })
    }

    /// Sets what is announced where, and gives it back. An address that a local interface has is left to the kernel.
    pub(crate) fn announce(&mut self, owned: &BTreeMap<IpAddr, Owned>) -> BTreeSet<Announced> {
        let conflicts: BTreeSet<IpAddr> = owned.keys().filter(|ip| self.local.contains(ip)).copied().collect();
        for ip in conflicts.difference(&self.conflicts) {
            warn!(%ip, "not announced: a local interface has the address, so the kernel answers for it");
        }
        self.conflicts = conflicts;
        let mut all = BTreeSet::new();
        for (index, port) in &mut self.ports {
            let here = owned
                .iter()
                .filter(|(ip, owned)| owned.interfaces.contains(&port.name) && !self.conflicts.contains(ip));
            port.announced = here.map(|(ip, _)| *ip).collect();
            port.groups.follow(&port.announced, *index, &port.name);
            let (interface, mac) = (*index, port.station.mac);
            all.extend(port.announced.iter().map(|ip| Announced { interface, mac, ip: *ip }));
        }
        all
    }
}

impl Port {
    fn open(link: &Link) -> io::Result<Self> {
        let socket = PacketSocket::open(link.index)?;
        // On a host without IPv6 there is nothing to join.
        let groups = Socket::new(Domain::IPV6, Type::DGRAM.cloexec(), Some(Protocol::UDP)).ok();
        let groups = Groups { socket: groups, joined: BTreeSet::new(), refused: BTreeSet::new() };
        let (name, station) = (link.name.clone(), link.station());
        Ok(Self { name, station, socket, announced: BTreeSet::new(), groups })
    }
}

impl Groups {
    fn follow(&mut self, announced: &BTreeSet<IpAddr>, interface: u32, name: &str) {
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
