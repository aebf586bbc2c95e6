//! The devices towards the network and towards pods, and the node's own addresses.
//!
//! A look reads all of it from the kernel ([`crate::netlink`]); which device is what is decided here, on that list alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Context as _, bail};

use crate::netlink::{Kernel, Link};

/// The node's devices as they are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    /// By number.
    links: BTreeMap<u32, Link>,
    /// Addresses by device, loopback and link-local ones left out.
    addresses: BTreeMap<String, Vec<IpAddr>>,
    /// Devices with a default route; not looked for where the uplinks are named.
    default_routes: BTreeSet<String>,
}

/// Kinds of Ethernet devices that no packet of a pod of this node enters by: ports and members are looked at in the place
/// of bridges and bonds, pods of other nodes are behind overlays, and the rest is stacked on other devices or a dead end.
/// Tunnels such as ipip and WireGuard's carry no Ethernet frames to begin with.
const NOT_OF_PODS: [&str; 15] = [
    "bridge",
    "openvswitch",
    "bond",
    "team",
    "vlan",
    "vrf",
    "vxlan",
    "geneve",
    "gretap",
    "ip6gretap",
    "erspan",
    "ip6erspan",
    "macsec",
    "dummy",
    "ifb",
];

/// The kernel nests no deeper (`MAX_NEST_DEV`).
const NESTED: usize = 8;

impl Devices {
    /// Looks at the network namespace of this process.
    ///
    /// # Errors
    /// When the kernel does not list its devices.
    pub(crate) fn look(named: &[String]) -> anyhow::Result<Self> {
        let mut kernel = Kernel::open().context("cannot ask for devices")?;
        let links = kernel.links().context("cannot list devices")?;
        let addresses = kernel.addresses().context("cannot list addresses")?;
        let default_routes = match named {
            [] => kernel.default_routes().context("cannot list routes")?,
            _ => Vec::new(),
        };
        Ok(Self::new(links, addresses, &default_routes))
    }

    pub(crate) fn new(links: Vec<Link>, addresses: Vec<(u32, IpAddr)>, default_routes: &[u32]) -> Self {
        let links: BTreeMap<_, _> = links.into_iter().map(|link| (link.index, link)).collect();
        let name = |index: &u32| links.get(index).map(|link: &Link| link.name.clone());
        let mut by_device: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for (index, ip) in addresses.into_iter().filter(|(_, ip)| is_global(ip)) {
            // What has come since the devices were listed, the next look will tell.
            if let Some(name) = name(&index) {
                by_device.entry(name).or_default().push(ip);
            }
        }
        let default_routes = default_routes.iter().filter_map(name).collect();
        Self { links, addresses: by_device, default_routes }
    }

    /// The devices that face the network: the named ones, else those with one of the node's addresses or a default
    /// route, if they carry Ethernet frames.
    ///
    /// # Errors
    /// When a named device carries others: its packets would be misread.
    pub(crate) fn uplinks(&self, named: &[String], node: &[IpAddr]) -> anyhow::Result<BTreeSet<String>> {
        if !named.is_empty() {
            // A device that is not there may come.
            if let Some(other) = self.links.values().find(|link| !link.ethernet && named.contains(&link.name)) {
                bail!("the device {} carries no Ethernet frames, and others are not supported", other.name);
            }
            return Ok(named.iter().cloned().collect());
        }
        let has_node_address = |name: &String| {
            let mut ips = self.addresses.get(name).into_iter().flatten();
            ips.any(|ip| node.contains(ip))
        };
        let ethernet = self.links.values().filter(|link| link.ethernet).map(|link| &link.name);
        let facing = ethernet.filter(|name| has_node_address(name) || self.default_routes.contains(*name));
        Ok(facing.cloned().collect())
    }

    /// The devices that packets of this node's pods come in by, name by number: Ethernet devices that are up and neither
    /// an uplink, nor a port or member of one, nor of a kind that holds no pods.
    pub(crate) fn pods(&self, uplinks: &BTreeSet<String>) -> BTreeMap<u32, String> {
        let is_pods = |link: &&Link| {
            link.ethernet
                && link.up
                && !NOT_OF_PODS.contains(&link.kind.as_str())
                && !self.with_masters(link).any(|link| uplinks.contains(&link.name))
        };
        self.links.values().filter(is_pods).map(|link| (link.index, link.name.clone())).collect()
    }

    /// The bridges that this node reaches pods by, name by number: those that are up and no uplink.
    pub(crate) fn bridges(&self, uplinks: &BTreeSet<String>) -> BTreeMap<u32, String> {
        let is_bridge =
            |link: &&Link| link.ethernet && link.up && link.kind == "bridge" && !uplinks.contains(&link.name);
        self.links.values().filter(is_bridge).map(|link| (link.index, link.name.clone())).collect()
    }

    /// Those bridges that have a port which is up and neither a pod's device nor an uplink, such as an overlay's.
    pub(crate) fn mixed(
        &self,
        bridges: &BTreeMap<u32, String>,
        pods: &BTreeMap<u32, String>,
        uplinks: &BTreeSet<String>,
    ) -> BTreeMap<u32, String> {
        let others = self.links.values().filter(|link| link.up && !uplinks.contains(&link.name));
        let others = others.filter(|link| !pods.contains_key(&link.index));
        let masters: BTreeSet<u32> = others.filter_map(|link| link.master).collect();
        bridges.iter().filter(|(index, _)| masters.contains(index)).map(|(i, name)| (*i, name.clone())).collect()
    }

    /// The device, the bridge or bond that it is a port of, and so on.
    fn with_masters<'a>(&'a self, link: &'a Link) -> impl Iterator<Item = &'a Link> {
        let master = |link: &&Link| link.master.and_then(|index| self.links.get(&index));
        std::iter::successors(Some(link), master).take(1 + NESTED)
    }

    /// Whether there is a device of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.links.values().any(|link| link.name == name)
    }

    /// All addresses of the node's devices.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.values().flatten().copied()
    }

    /// Addresses of the given devices, or where none is given of those with a default route, in order.
    pub(crate) fn addresses_of(&self, named: &[String]) -> Vec<IpAddr> {
        let faces =
            |name: &String| if named.is_empty() { self.default_routes.contains(name) } else { named.contains(name) };
        self.addresses.iter().filter(|(name, _)| faces(name)).flat_map(|(_, ips)| ips.iter().copied()).collect()
    }

    /// Whether two looks found the same addresses at the same places. Pods' devices come and go without them.
    pub(crate) fn has_addresses_of(&self, other: &Self) -> bool {
        self.addresses == other.addresses && self.default_routes == other.default_routes
    }
}

fn is_global(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// An Ethernet device that is up.
    fn link(index: u32, name: &str, kind: &str) -> Link {
        Link { index, name: name.to_owned(), ethernet: true, up: true, master: None, kind: kind.to_owned() }
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn uplinks_are_named_or_have_a_node_address_or_a_default_route() {
        let tunnel = Link { ethernet: false, ..link(5, "tun0", "tun") };
        let links = vec![link(2, "eth0", ""), link(3, "eth1", ""), link(4, "cni0", "bridge"), tunnel];
        let addresses = ["192.0.2.1", "10.0.0.1", "10.244.0.1", "198.51.100.1"].map(ip);
        let addresses = (2..).zip(addresses).collect();
        let devices = Devices::new(links, addresses, &[2, 5]);
        let uplinks = |named: &[&str], node: &[IpAddr]| {
            devices.uplinks(&named.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), node)
        };
        assert_eq!(uplinks(&[], &[ip("10.0.0.1")]).unwrap(), names(&["eth0", "eth1"]));
        assert_eq!(uplinks(&["cni0"], &[ip("10.0.0.1")]).unwrap(), names(&["cni0"]));
        assert_eq!(uplinks(&["eth9"], &[]).unwrap(), names(&["eth9"]));
        assert!(uplinks(&["tun0"], &[]).is_err());
        assert_eq!(devices.addresses_of(&["eth1".to_owned()]), [ip("10.0.0.1")]);
        assert_eq!(devices.addresses_of(&[]), ["192.0.2.1", "198.51.100.1"].map(ip));
    }

    #[test]
    fn addresses_that_mean_nothing_elsewhere_are_left_out() {
        let addresses = ["127.0.0.1", "::1", "169.254.1.1", "fe80::1", "10.0.0.1", "fd00::1"].map(|text| (2, ip(text)));
        let unknown = [(7, ip("10.0.0.7"))];
        let devices = Devices::new(vec![link(2, "eth0", "")], addresses.into_iter().chain(unknown).collect(), &[2, 7]);
        assert_eq!(devices.addresses().collect::<Vec<_>>(), ["10.0.0.1", "fd00::1"].map(ip));
        assert_eq!(devices.default_routes, names(&["eth0"]));
    }

    #[test]
    fn devices_of_pods_are_told_from_all_others() {
        let down = |link| Link { up: false, ..link };
        let other = |link| Link { ethernet: false, ..link };
        let under = |master, link| Link { master: Some(master), ..link };
        // eth0 is an uplink; br0 is one on bond0, which eth1 and eth2 are members of.
        let uplinks = names(&["eth0", "br0"]);
        let cases = [
            (link(1, "lo", ""), false),
            (link(2, "eth0", ""), false),
            (link(3, "br0", "bridge"), false),
            (under(3, link(4, "bond0", "bond")), false),
            (under(4, link(5, "eth1", "")), false),
            (under(3, link(6, "vnet0", "tun")), false),
            (link(7, "eth3", ""), true),
            (link(8, "veth1", "veth"), true),
            (link(9, "cni0", "bridge"), false),
            (under(9, link(10, "veth2", "veth")), true),
            (link(11, "tap0", "tun"), true),
            (other(link(12, "tun0", "tun")), false),
            (link(13, "macvtap0", "macvtap"), true),
            (down(link(14, "veth3", "veth")), false),
            (link(15, "flannel.1", "vxlan"), false),
            (link(16, "genev_sys_6081", "geneve"), false),
            (other(link(17, "tunl0", "ipip")), false),
            (other(link(18, "wg0", "wireguard")), false),
            (link(19, "dummy0", "dummy"), false),
            (link(20, "ifb0", "ifb"), false),
            (link(21, "bond1", "bond"), false),
            (link(22, "eth0.7", "vlan"), false),
            (link(23, "ovs-system", "openvswitch"), false),
            // A master that has gone since.
            (under(99, link(24, "veth4", "veth")), true),
            // No kernel lists it, but it must not be walked for ever.
            (under(25, link(25, "loop", "veth")), true),
        ];
        let mut links: Vec<_> = cases.iter().map(|(link, _)| link.clone()).collect();
        links[0].ethernet = false;
        let expected: BTreeMap<_, _> =
            cases.into_iter().filter(|(_, is)| *is).map(|(link, _)| (link.index, link.name)).collect();
        assert_eq!(Devices::new(links, Vec::new(), &[]).pods(&uplinks), expected);
    }

    #[test]
    fn bridges_with_ports_of_other_kinds_are_mixed() {
        let port = |master, link| Link { master: Some(master), ..link };
        let down = |link| Link { up: false, ..link };
        let links = vec![
            link(2, "eth0", ""),
            link(3, "cni0", "bridge"),
            port(3, link(4, "veth1", "veth")),
            port(3, down(link(5, "vxlan1", "vxlan"))),
            link(6, "br1", "bridge"),
            port(6, link(7, "veth2", "veth")),
            port(6, link(8, "vxlan2", "vxlan")),
            link(9, "br2", "bridge"),
            port(9, link(10, "eth1", "")),
        ];
        let (devices, uplinks) = (Devices::new(links, Vec::new(), &[]), names(&["eth0", "eth1"]));
        let (bridges, pods) = (devices.bridges(&uplinks), devices.pods(&uplinks));
        assert_eq!(bridges.keys().copied().collect::<Vec<_>>(), [3, 6, 9]);
        assert_eq!(devices.mixed(&bridges, &pods, &uplinks), [(6, "br1".to_owned())].into());
    }

    #[test]
    fn a_pods_device_changes_no_addresses() {
        let before = Devices::new(vec![link(2, "eth0", "")], vec![(2, ip("10.0.0.1"))], &[2]);
        let links = vec![link(2, "eth0", ""), link(3, "veth1", "veth")];
        let after = Devices::new(links.clone(), vec![(2, ip("10.0.0.1"))], &[2]);
        assert!(after.has_addresses_of(&before) && after != before);
        let moved = Devices::new(links, vec![(2, ip("10.0.0.2"))], &[2]);
        assert!(!moved.has_addresses_of(&before));
    }
}
