//! The answer of `explain`, for people and for scripts; the JSON fields are an interface and only ever grow.

use std::io::{self, Write};

use roadstead_abi::{Backend, kind};
use roadstead_dataplane::{
    addresses::from_map,
    explain::{Explanation, Hook},
};
use serde_json::json;

use super::Met;
use crate::desired::PortName;

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    verdict: &'static str,
    name: Option<PortName>,
    kind: Option<&'static str>,
    endpoints: Vec<String>,
    masquerade: bool,
    affinity: bool,
    rule: String,
    met: Met,
}

impl Answer {
    /// A Service that no manifest names is called by its number.
    pub(super) fn new(explained: &Explanation, met: Met, name: Option<PortName>) -> Self {
        let unnamed = || PortName { service: format!("#{}", explained.service), port: String::new() };
        let mut backends: Vec<Backend> = explained
            .candidates
            .iter()
            .filter(|candidate| candidate.entry.is_ok())
            .map(|candidate| candidate.backend)
            .collect();
        backends.sort_unstable();
        let socket = |backend: Backend| std::net::SocketAddr::new(from_map(&backend.addr), backend.port.get());
        Self {
            verdict: explained.verdict.as_str(),
            name: name.or_else(|| (explained.service != 0).then(unnamed)),
            kind: explained.frontend.and_then(|frontend| kind_name(frontend.kind)),
            endpoints: backends.into_iter().map(|backend| socket(backend).to_string()).collect(),
            masquerade: explained.masquerade(),
            affinity: explained.affinity(),
            rule: explained.rule.to_string(),
            met,
        }
    }

    /// One object.
    pub(super) fn json(&self) -> serde_json::Value {
        let name = self.name.as_ref();
        json!({
            "verdict": self.verdict,
            "service": name.map(|name| &name.service),
            "port": name.map(|name| &name.port).filter(|port| !port.is_empty()),
            "kind": self.kind,
            "endpoints": self.endpoints,
            "masquerade": self.masquerade,
            "affinity": self.affinity,
            "rule": self.rule,
        })
    }

    pub(super) fn print_json(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{:#}", self.json())
    }

    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let word = |yes: bool| if yes { "yes" } else { "no" };
        writeln!(out, "{}", self.verdict)?;
        writeln!(out, "rule:        {}", self.rule)?;
        if let Some(name) = &self.name {
            let port = if name.port.is_empty() { String::new() } else { format!(" port {}", name.port) };
            let kind = self.kind.map_or_else(String::new, |kind| format!(" ({kind})"));
            writeln!(out, "service:     {}{port}{kind}", name.service)?;
        }
        if self.kind.is_some() {
            let endpoints = if self.endpoints.is_empty() { "none".to_owned() } else { self.endpoints.join(" ") };
            writeln!(out, "endpoints:   {endpoints}")?;
            writeln!(out, "masquerade:  {}", word(self.masquerade))?;
            writeln!(out, "affinity:    {}", word(self.affinity))?;
        }
        writeln!(out, "met:         {}", met(self.met))
    }
}

fn kind_name(kind: u8) -> Option<&'static str> {
    match kind {
        kind::CLUSTER_IP => Some("ClusterIP"),
        kind::NODE_PORT => Some("NodePort"),
        kind::LOAD_BALANCER => Some("LoadBalancer"),
        kind::EXTERNAL_IP => Some("ExternalIP"),
        _ => None,
    }
}

fn met(met: Met) -> &'static str {
    match met {
        Met::Socket => "at connect(2)",
        Met::Packet(Hook::UplinkIn) => "where it comes in on an uplink",
        Met::Packet(Hook::UplinkOut) => "where it leaves through an uplink",
        Met::Packet(Hook::IntIn) => "where it leaves its pod or the node's loopback device",
        Met::Packet(Hook::IntOut) => "where it reaches a pod",
        Met::Nowhere => "by no program",
    }
}
