//! The interfaces that addresses are announced on: one packet socket each, and the multicast groups for IPv6.
//!
//! An interface without carrier is none of them. Its return is a new beginning: a socket and groups of its own, and every
//! address announced anew, as nobody knows which segment the cable leads to now.

use std::{
    collections::{BTreeMap, BTreeSet},
    io, mem,
    net::IpAddr,
};

use anyhow::Context as _;
use roadstead_layer2::{responder::Station, wire::Mac};
use tracing::{info, warn};

use crate::{groups::Groups, links::Link, local::Local, plan::Owned, selection::Selection, socket::PacketSocket};

/// One interface in use.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) station: Station,
    pub(crate) socket: PacketSocket,
    pub(crate) announced: BTreeSet<IpAddr>,
    groups: Groups,
    /// Whether IPv6 works here.
    v6: bool,
}

/// An address on an interface. With another hardware address it is another one: clients must be told anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Announced {
    pub(crate) interface: u32,
    pub(crate) mac: Mac,
    pub(crate) ip: IpAddr,
}

/// All interfaces in use, by their index.
#[derive(Debug)]
pub(crate) struct Ports {
    selection: Selection,
    ports: BTreeMap<u32, Port>,
    links: Vec<Link>,
    local: Local,
    /// Ports whose socket hears nothing any more.
    broken: BTreeSet<u32>,
    /// Interfaces that flags name and that are not used, and why, as was told.
    missing: BTreeMap<String, String>,
}

impl Ports {
    /// Nothing is open before the first [`Self::rescan`].
    pub(crate) fn new(selection: Selection) -> Self {
        let (ports, links, local) = (BTreeMap::new(), Vec::new(), Local::default());
        Self { selection, ports, links, local, broken: BTreeSet::new(), missing: BTreeMap::new() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Port)> {
        self.ports.iter().map(|(index, port)| (*index, port))
    }

    /// Shows the interfaces in use, and all that there are.
    pub(crate) fn show(&self, look: impl FnOnce(&[(u32, &str)], &[Link])) {
        let ports: Vec<_> = self.ports.iter().map(|(index, port)| (*index, port.name.as_str())).collect();
        look(&ports, &self.links);
    }

    pub(crate) fn port(&self, index: u32) -> Option<&Port> {
        self.ports.get(&index)
    }

    /// Whether an interface of this host has the hardware address, in use or not.
    pub(crate) fn is_ours(&self, mac: Mac) -> bool {
        self.links.iter().any(|link| link.mac == mac)
    }

    /// Takes the patterns of excluded interfaces; true if [`Self::rescan`] must follow.
    pub(crate) fn exclude(&mut self, patterns: Option<&[String]>) -> bool {
        self.selection.exclude(patterns)
    }

    /// The next [`Self::rescan`] opens the interface anew.
    pub(crate) fn reopen(&mut self, interface: u32) {
        self.broken.insert(interface);
    }

    /// Follows the interfaces as they are now; true if [`Self::announce`] must be called again. Of the numbers in `gone`
    /// another interface may have become.
    ///
    /// # Errors
    /// When an interface cannot be opened for want of a privilege.
    pub(crate) fn rescan(&mut self, links: Vec<Link>, gone: BTreeSet<u32>) -> anyhow::Result<bool> {
        self.broken.extend(gone);
        let wanted: BTreeMap<u32, &Link> =
            links.iter().filter(|link| self.selection.selects(link)).map(|link| (link.index, link)).collect();
        let as_before = links == self.links && wanted.keys().eq(self.ports.keys()) && self.broken.is_empty();
        if as_before && !self.ports.values().any(|port| port.groups.lacks_some()) {
            return Ok(false);
        }
        let broken = mem::take(&mut self.broken);
        self.ports.retain(|index, port| {
            let stays = !broken.contains(index) && wanted.get(index).is_some_and(|link| port.follow(link));
            if !stays {
                let why = match links.iter().find(|link| link.index == *index).map(|link| &link.lack) {
                    None => "it is gone".to_owned(),
                    Some(Some(lack)) => lack.to_string(),
                    Some(None) if wanted.contains_key(index) => "it is another one now".to_owned(),
                    Some(None) => "it is not selected".to_owned(),
                };
                info!(interface = %port.name, why, "left the interface");
            }
            stays
        });
        let opened = wanted.into_iter().try_for_each(|(index, link)| open(&mut self.ports, index, link));
        self.local.follow(&links);
        self.links = links;
        self.tell_missing();
        opened.map(|()| true)
    }

    /// Sets what is announced where, and gives it back. An address that an interface has itself is left to the kernel
    /// there.
    pub(crate) fn announce(&mut self, owned: &BTreeMap<IpAddr, Owned>) -> BTreeSet<Announced> {
        let mut all = BTreeSet::new();
        for (index, port) in &mut self.ports {
            let here = owned
                .iter()
                .filter(|(ip, owned)| owned.interfaces.contains(&port.name) && !self.local.is_on(**ip, *index));
            port.announced = here.map(|(ip, _)| *ip).collect();
            port.groups.follow(&port.announced, *index, &port.name);
            let (interface, mac) = (*index, port.station.mac);
            all.extend(port.announced.iter().map(|ip| Announced { interface, mac, ip: *ip }));
        }
        all
    }

    /// Warns of assigned addresses that the kernel of this host answers for.
    pub(crate) fn warn_of_local(&mut self, assigned: impl IntoIterator<Item = IpAddr>) {
        let ports = self.ports.iter().map(|(index, port)| (*index, port.name.as_str())).collect();
        self.local.warn(assigned, &ports);
    }

    /// Whoever names an interface is told why it is not used.
    fn tell_missing(&mut self) {
        let why = |name: &String| match self.links.iter().find(|link| link.name == *name) {
            None => Some((name.clone(), "there is none".to_owned())),
            Some(link) => link.lack.as_ref().map(|lack| (name.clone(), lack.to_string())),
        };
        let missing: BTreeMap<String, String> = self.selection.named().iter().filter_map(why).collect();
        for (interface, why) in missing.iter().filter(|(name, why)| self.missing.get(*name) != Some(*why)) {
            warn!(interface, why, "nothing is announced on the interface");
        }
        self.missing = missing;
    }
}

impl Port {
    fn open(link: &Link) -> io::Result<Self> {
        let socket = PacketSocket::open(link.index)?;
        let (name, station, v6) = (link.name.clone(), link.station(), link.link_local.is_some());
        Ok(Self { name, station, socket, announced: BTreeSet::new(), groups: Groups::new(), v6 })
    }

    /// Takes what the link has become; false if it is not the one that was opened.
    fn follow(&mut self, link: &Link) -> bool {
        if self.name != link.name || self.station.mac != link.mac {
            return false;
        }
        // Where there was no link-local address IPv6 may have been off, and with it went every group.
        if !self.v6 && link.link_local.is_some() {
            self.groups = Groups::new();
        }
        self.v6 = link.link_local.is_some();
        true
    }
}

/// Opens what is not open; an interface that cannot be opened now is tried again with the next scan.
fn open(ports: &mut BTreeMap<u32, Port>, index: u32, link: &Link) -> anyhow::Result<()> {
    if ports.contains_key(&index) {
        return Ok(());
    }
    match Port::open(link) {
        Ok(port) => {
            info!(interface = %link.name, mac = %link.mac, "uses the interface");
            ports.insert(index, port);
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(error).with_context(|| format!("cannot open {}: CAP_NET_RAW is needed", link.name));
        }
        Err(error) => warn!(interface = %link.name, %error, "cannot open the interface, will retry"),
    }
    Ok(())
}
