//! How requests travel to endpoints and answers back: each annotation by its effect on real requests, and by its wrong value.

mod answers;
mod bodies;
mod buffering;
mod grpc;
mod keepalive;
mod limits;
mod tls;

use std::net::SocketAddr;

use roadstead_model::Snapshot;

use crate::{
    objects::{annotate, empty, ingress, service},
    proxy::Proxy,
};

/// Host `a` leads to these endpoints under these annotations.
fn snapshot(endpoints: &[SocketAddr], annotations: &[(&str, &str)]) -> Snapshot {
    let mut snapshot = empty();
    service(&mut snapshot, "web", endpoints);
    ingress(&mut snapshot, "web", &[("a", "/", "web")], &[]);
    annotate(&mut snapshot, "web", annotations);
    snapshot
}

fn proxy(endpoints: &[SocketAddr], annotations: &[(&str, &str)]) -> Proxy {
    Proxy::start(snapshot(endpoints, annotations))
}

/// How many problems the configuration has.
fn problems(proxy: &Proxy) -> String {
    let of = |severity: &str| {
        let count = proxy.metric(&format!("roadstead_ingress_config_problems{{severity=\"{severity}\"}}"));
        count.unwrap().parse::<u32>().unwrap()
    };
    format!("{} warnings, {} errors", of("warning"), of("error"))
}
