//! A client that is two routers away from the segment, with a narrow link between the routers: neither end of a
//! connection learns from its own devices how large a packet may be.
//!
//! ```text
//!   segment ── router ══ 1280 ══ gate ── far
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};

use crate::ip;
use crate::lab::{Lab, SegmentPort};
use crate::namespace::Namespace;
use crate::place::{Parts, Place};
use crate::topology;

/// The router's number on the segment.
const ROUTER: u16 = 101;
/// The network behind the gate.
const NETWORKS: [&str; 2] = ["172.31.0.0/24", "fd31::/64"];

/// The far client and what lies between it and the segment.
#[derive(Debug)]
pub struct Far {
    /// The client.
    pub client: Place,
    /// The router on the segment, which meets packets that are too large for the link behind it.
    pub router: Place,
    /// The router beside the client.
    pub gate: Place,
}

impl Lab {
    /// Makes a far client behind a link of this MTU. The nodes get a route to it; it reaches the segment, and whatever
    /// the router is given routes to.
    ///
    /// # Errors
    ///
    /// Where it has been made before.
    pub fn add_far(&self, mtu: u16) -> Result<Far> {
        let id = self.id();
        let [router, gate, client] = ["router", "gate", "far"].map(|place| id.namespace(place));
        let made: Vec<String> = [&router, &gate, &client].map(|name| format!("netns add {name}")).into();
        ip::batch(None, &made)?;
        for (name, forwards) in [(&router, true), (&gate, true), (&client, false)] {
            let namespace = Namespace::open(name)?;
            namespace.set_parameters(topology::PARAMETERS)?;
            if forwards {
                namespace.set_parameters(topology::NODE_PARAMETERS)?;
            }
        }
        self.join_segment(SegmentPort { place: "router", number: ROUTER })?;
        let links = [
            format!("link add wan netns {router} mtu {mtu} type veth peer name wan netns {gate} mtu {mtu}"),
            format!("link add lan netns {gate} type veth peer name eth0 netns {client}"),
        ];
        ip::batch(None, &links)?;
        ip::batch(Some(&router), &on_router())?;
        ip::batch(Some(&gate), &on_gate())?;
        ip::batch(Some(&client), &on_client())?;
        Namespace::open(&router)?.wait_running(&["eth0", "wan"])?;
        Namespace::open(&gate)?.wait_running(&["lan", "wan"])?;
        for node in self.nodes() {
            let via = [topology::number_v4(ROUTER).to_string(), topology::number_v6(ROUTER).to_string()];
            let routes = NETWORKS.iter().zip(via).map(|(network, via)| format!("route add {network} via {via}"));
            node.host().ip(&routes.collect::<Vec<_>>())?;
        }
        let place = |name: &str, v4: Ipv4Addr, v6: Ipv6Addr| self.far_place(name, v4, v6);
        Ok(Far {
            client: place("far", Ipv4Addr::new(172, 31, 0, 100), "fd31::100".parse()?)?,
            router: place("router", topology::number_v4(ROUTER), topology::number_v6(ROUTER))?,
            gate: place("gate", Ipv4Addr::new(172, 31, 0, 1), "fd31::1".parse()?)?,
        })
    }

    fn far_place(&self, name: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<Place> {
        let cgroup = self.cgroup().join(name);
        std::fs::create_dir_all(&cgroup).with_context(|| format!("could not make {}", cgroup.display()))?;
        Ok(Place::new(Parts {
            name: name.to_owned(),
            namespace: Namespace::open(&self.id().namespace(name))?,
            cgroup,
            v4,
            v6,
            folder: self.folder().to_owned(),
            evidence: self.evidence(),
        }))
    }
}

fn on_router() -> Vec<String> {
    let mut lines = up("wan", ["172.30.0.1/30", "fd30::1/64"]);
    let via = ["172.30.0.2", "fd30::2"];
    lines.extend(NETWORKS.iter().zip(via).map(|(network, via)| format!("route add {network} via {via}")));
    lines
}

fn on_gate() -> Vec<String> {
    let mut lines = up("wan", ["172.30.0.2/30", "fd30::2/64"]);
    lines.extend(up("lan", ["172.31.0.1/24", "fd31::1/64"]));
    lines.extend(["172.30.0.1", "fd30::1"].map(|via| format!("route add default via {via}")));
    lines
}

fn on_client() -> Vec<String> {
    let mut lines = vec!["link set lo up".to_owned()];
    lines.extend(up("eth0", ["172.31.0.100/24", "fd31::100/64"]));
    lines.extend(["172.31.0.1", "fd31::1"].map(|via| format!("route add default via {via}")));
    lines
}

fn up(device: &str, [v4, v6]: [&str; 2]) -> Vec<String> {
    vec![
        format!("link set {device} up"),
        format!("addr add {v4} dev {device}"),
        format!("addr add {v6} dev {device} nodad"),
    ]
}
