//! The Grafana dashboard of `deploy/monitoring` asks for metrics that running daemons tell, and for no others.

use std::{collections::BTreeSet, net::SocketAddr};

use roadstead_lab::{Probe, Program, demo::Cluster, wait_until};
use serde_json::Value;

use super::fixture::{LATE, WEB, assert_answered, at, https, lab};

const DASHBOARD: &str = include_str!("../../../../deploy/monitoring/dashboard.json");

/// Metrics that are told only once something is amiss, with the source that makes them.
const ONLY_WHEN_AMISS: [(&str, &str); 2] =
    [("roadstead_speaker_rivals_total", SPEAKER_METRICS), ("roadstead_speaker_peer_files_differ", SPEAKER_METRICS)];
const SPEAKER_METRICS: &str = include_str!("../../../../lb-speaker/speaker/src/metrics.rs");

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let Some(lab) = lab("dashboard") else { return };
    let asked = asked();
    assert!(asked.len() > 15, "{asked:?}");
    let cluster = Cluster::start(&lab).unwrap();
    let node = lab.node("node-a");
    let [node_port, _] = at(node.host(), 30900);
    assert_answered(lab.client(), &Probe::tcp(node_port), &WEB);
    let [idle, _] = at(node.host(), 30999);
    assert!(!lab.client().probe_once(&Probe::tcp(idle)).unwrap().ok, "nobody serves it");
    let ingress = cluster.ingress.map(|ip| SocketAddr::new(ip, 443));
    // Either node may have the address; its proxy then has a series.
    for address in ingress {
        assert_answered(lab.client(), &https(&cluster, "/", address), &WEB);
    }
    let mut missing = asked.clone();
    wait_until(LATE, "all metrics of the dashboard", || {
        let told = told(&cluster);
        missing.retain(|name| !told.contains(name));
        missing.is_empty()
    })
    .unwrap_or_else(|error| panic!("{error}: nobody tells {missing:?}"));
}

/// The names of metrics in the dashboard's expressions.
fn asked() -> BTreeSet<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expressions: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    let words = expressions.iter().flat_map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '_'));
    let ours = words.filter(|word| ["roadstead_", "nginx_", "metallb_"].iter().any(|start| word.starts_with(start)));
    ours.map(str::to_owned).collect()
}

/// The names of all that the daemons tell, those of a histogram's parts too.
fn told(cluster: &Cluster<'_>) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for node in cluster.lab.nodes() {
        for program in Program::ALL {
            let (status, text) = cluster.get(node, program, "/metrics").unwrap();
            assert_eq!(status, 200);
            let samples = text.lines().filter(|line| !line.starts_with('#'));
            names.extend(samples.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned));
        }
    }
    for (name, source) in ONLY_WHEN_AMISS {
        assert!(source.contains(&format!("\"{name}\"")), "{name} is no longer made there");
        names.insert(name.to_owned());
    }
    names
}
