//! The Services of a measurement: what the manifests and the peers' rules say alike.
//!
//! Most of them are only there: five endpoints each that nobody ever asks. The last one is the target, with five
//! addresses that answer. Three more stand at the front of every list: one that the stream goes to, one whose endpoint
//! is exchanged, and one that a watcher asks while its only endpoint is exchanged.

use std::net::Ipv4Addr;

/// The namespace of all objects.
pub(crate) const NAMESPACE: &str = "bench";
/// Pods have their addresses here; kube-proxy's `--cluster-cidr`.
pub(crate) const POD_CIDR: &str = "10.244.0.0/16";
/// Cluster addresses; kube-proxy's ServiceCIDR.
pub(crate) const SERVICE_CIDR: &str = "10.96.0.0/12";
/// The port of every Service.
pub(crate) const PORT: u16 = 80;
/// Where the endpoints answer requests.
pub(crate) const TARGET_PORT: u16 = 8080;
/// Where the endpoints swallow streams.
pub(crate) const SINK_PORT: u16 = 8081;
/// Endpoints of a Service.
const ENDPOINTS: u32 = 5;
/// Every so many Services one has a node port, as long as the range of node ports has some.
const NODE_PORT_EVERY: u32 = 10;
const FIRST_NODE_PORT: u16 = 30_010;
const LAST_FREE_NODE_PORT: u16 = 32_700;
/// The node ports of the target and of the sink, outside those that are counted up.
pub(crate) const TARGET_NODE_PORT: u16 = 32_767;
pub(crate) const SINK_NODE_PORT: u16 = 32_766;
/// The node port of the Service with one endpoint.
pub(crate) const FLIP_NODE_PORT: u16 = 32_765;
/// The cluster addresses of the Services at the front.
pub(crate) const FLIP: Ipv4Addr = Ipv4Addr::new(10, 111, 0, 1);
const SINK: Ipv4Addr = Ipv4Addr::new(10, 111, 0, 2);
const CHANGE: Ipv4Addr = Ipv4Addr::new(10, 111, 0, 3);

/// A Service with one TCP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) vip: Ipv4Addr,
    pub(crate) node_port: Option<u16>,
    pub(crate) target_port: u16,
    pub(crate) endpoints: Vec<Ipv4Addr>,
}

/// All Services of one measurement.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// How many, those at the front not counted.
    pub(crate) count: u32,
    /// The five addresses of the pod that answers.
    pub(crate) pod: Vec<Ipv4Addr>,
}

/// Which of its two endpoints a Service has that changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The one of the start.
    First,
    /// The other.
    Second,
}

impl Side {
    /// The other one.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

impl State {
    /// The cluster address of the target.
    pub(crate) fn target(&self) -> Ipv4Addr {
        vip(self.count.saturating_sub(1))
    }

    /// The Services that never change, in the order in which peers list them: the target is the last.
    pub(crate) fn lasting(&self) -> Vec<Service> {
        let sink = Service {
            name: "sink".to_owned(),
            vip: SINK,
            node_port: Some(SINK_NODE_PORT),
            target_port: SINK_PORT,
            endpoints: self.pod.clone(),
        };
        [sink].into_iter().chain((0..self.count).map(|index| self.numbered(index))).collect()
    }

    /// All Services at the start.
    pub(crate) fn all(&self) -> Vec<Service> {
        let changing = [self.change(Side::First), self.flip(Side::First)];
        changing.into_iter().chain(self.lasting()).collect()
    }

    /// The Service of which one endpoint of five is exchanged.
    pub(crate) fn change(&self, side: Side) -> Service {
        let moving = if side == Side::First { 1 } else { 2 };
        let endpoints = [moving, 3, 4, 5, 6].map(|host| Ipv4Addr::new(10, 127, 0, host));
        Service { vip: CHANGE, ..self.small("change", endpoints.to_vec()) }
    }

    /// The Service whose only endpoint is exchanged.
    pub(crate) fn flip(&self, side: Side) -> Service {
        let endpoints = vec![self.flip_endpoint(side)];
        Service { node_port: Some(FLIP_NODE_PORT), ..self.small("flip", endpoints) }
    }

    /// The address that answers for [`State::flip`].
    pub(crate) fn flip_endpoint(&self, side: Side) -> Ipv4Addr {
        let found = if side == Side::First { self.pod.first() } else { self.pod.last() };
        found.copied().unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    fn small(&self, name: &str, endpoints: Vec<Ipv4Addr>) -> Service {
        Service { name: name.to_owned(), vip: FLIP, node_port: None, target_port: TARGET_PORT, endpoints }
    }

    fn numbered(&self, index: u32) -> Service {
        let is_target = index + 1 == self.count;
        let filler = (0..ENDPOINTS).map(|endpoint| filler(index * ENDPOINTS + endpoint));
        Service {
            name: format!("web-{index}"),
            vip: vip(index),
            node_port: if is_target { Some(TARGET_NODE_PORT) } else { node_port(index) },
            target_port: TARGET_PORT,
            endpoints: if is_target { self.pod.clone() } else { filler.collect() },
        }
    }
}

/// Cluster addresses from 10.96.1.0 on.
fn vip(index: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 1, 0).to_bits() + index)
}

/// Addresses of pods on other nodes, from 10.128.0.0 on. Nobody asks them.
fn filler(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 128, 0, 0).to_bits() + number)
}

fn node_port(index: u32) -> Option<u16> {
    let port = FIRST_NODE_PORT.checked_add(u16::try_from(index / NODE_PORT_EVERY).ok()?)?;
    (index.is_multiple_of(NODE_PORT_EVERY) && port < LAST_FREE_NODE_PORT).then_some(port)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_target_is_the_last_and_nothing_is_there_twice() {
        for count in [1, 1_000, 10_000, 50_000] {
            let state = State { count, pod: vec![Ipv4Addr::new(10, 244, 1, 11); 5] };
            let all = state.all();
            assert_eq!(all.len(), count as usize + 3);
            let target = all.last().unwrap();
            assert_eq!((target.vip, target.node_port), (state.target(), Some(TARGET_NODE_PORT)));
            let vips: BTreeSet<_> = all.iter().map(|service| service.vip).collect();
            let ports: Vec<_> = all.iter().filter_map(|service| service.node_port).collect();
            let names: BTreeSet<_> = all.iter().map(|service| &service.name).collect();
            assert_eq!((vips.len(), names.len()), (all.len(), all.len()));
            assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
            assert!(all.iter().all(|service| (service.vip.to_bits() >> 20) == (10 << 4 | 6)), "in the Service CIDR");
        }
    }
}
