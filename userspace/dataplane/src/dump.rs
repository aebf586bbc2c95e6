//! What the pinned maps hold, as text: for `roadstead status`, and for whoever looks into a failed test.

use std::{fmt, net::IpAddr};

use roadstead_abi::{CtEntry, CtKey, SlotRange, SvcKey, SvcValue, ct_flags, kind, proto, scope};

use crate::{
    addresses::from_map,
    maps::{FlowMaps, KernelMaps, MapError, Maps},
};

/// A frontend and the endpoints of its sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpedFrontend {
    /// Key in the map.
    pub key: SvcKey,
    /// Value in the map.
    pub value: SvcValue,
    /// `address:port` of the endpoints under policy Cluster.
    pub cluster: Vec<String>,
    /// Those under policy Local.
    pub local: Vec<String>,
}

/// All frontends, in the order of their keys.
///
/// # Errors
/// When a map cannot be read.
pub fn frontends(maps: &KernelMaps) -> Result<Vec<DumpedFrontend>, MapError> {
    let mut services = maps.services()?;
    services.sort_by_key(|(key, _)| *key);
    services
        .into_iter()
        .map(|(key, value)| {
            Ok(DumpedFrontend {
                key,
                value,
                cluster: endpoints(maps, value.cluster.members)?,
                local: endpoints(maps, value.local.members)?,
            })
        })
        .collect()
}

fn endpoints(maps: &KernelMaps, range: SlotRange) -> Result<Vec<String>, MapError> {
    let ids = maps.slots(range)?;
    ids.into_iter()
        .map(|id| maps.backend(id).map(|backend| socket(from_map(&backend.addr), backend.port.get())))
        .collect()
}

/// All conntrack entries, a line each, in no order.
///
/// # Errors
/// When the map cannot be read.
pub fn flows(flows: &FlowMaps) -> Result<Vec<String>, MapError> {
    let failed =
        |source| MapError { map: roadstead_abi::map_names::CONNTRACK, operation: "read", source: Box::new(source) };
    flows
        .conntrack
        .iter()
        .map(|element| element.map(|(key, entry)| Flow(key, entry).to_string()).map_err(failed))
        .collect()
}

struct Flow(CtKey, CtEntry);

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(key, entry) = self;
        let direction = if entry.flags & ct_flags::REPLY == 0 { "forward" } else { "reply" };
        let mut states = [(ct_flags::SEEN, "seen"), (ct_flags::FIN, "fin"), (ct_flags::RST, "rst")]
            .into_iter()
            .filter(|(flag, _)| entry.flags & flag != 0)
            .map(|(_, name)| name)
            .collect::<Vec<_>>();
        states.insert(0, direction);
        write!(
            f,
            "{} {} -> {} becomes {} -> {} device {} {}",
            protocol(key.proto),
            socket(from_map(&key.src), key.sport.get()),
            socket(from_map(&key.dst), key.dport.get()),
            socket(from_map(&entry.src), entry.sport.get()),
            socket(from_map(&entry.dst), entry.dport.get()),
            entry.ifindex,
            states.join(" ")
        )
    }
}

impl fmt::Display for DumpedFrontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.key.port.get();
        let address = match self.key.scope {
            scope::NODE_PORT_V4 => format!("IPv4:{port}"),
            scope::NODE_PORT_V6 => format!("IPv6:{port}"),
            _ => socket(from_map(&self.key.addr), port),
        };
        let kind = match self.value.kind {
            kind::NODE_PORT => "NodePort",
            kind::LOAD_BALANCER => "LoadBalancer",
            kind::EXTERNAL_IP => "ExternalIP",
            kind::TOMBSTONE => "gone endpoint",
            _ => "ClusterIP",
        };
        write!(f, "{} {address} {kind} port-id {} ", protocol(self.key.proto), self.value.service)?;
        write!(f, "cluster [{}] local [{}]", self.cluster.join(" "), self.local.join(" "))
    }
}

fn socket(ip: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(ip, port).to_string()
}

fn protocol(number: u8) -> &'static str {
    match number {
        proto::TCP => "TCP",
        proto::UDP => "UDP",
        _ => "other",
    }
}
