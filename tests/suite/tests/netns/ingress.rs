//! A proxy that is killed and started again serves the same.

use roadstead_lab::{Program, demo::Cluster};

use super::fixture::{WEB, assert_answered, at, https, lab};

#[test]
fn a_killed_proxy_serves_the_same_after_its_start() {
    let Some(lab) = lab("ingress") else { return };
    let cluster = Cluster::start(&lab).unwrap();
    let node = lab.node("node-a");
    let serves = || {
        for address in at(node.host(), 443) {
            assert_answered(lab.client(), &https(&cluster, "/", address), &WEB);
            assert_answered(lab.client(), &https(&cluster, "/api/orders", address), &["api-1"]);
        }
    };
    serves();
    cluster.kill(node, Program::Ingress).unwrap();
    let [address, _] = at(node.host(), 443);
    let dead = lab.client().probe_once(&https(&cluster, "/", address)).unwrap();
    assert_eq!(dead.error.as_deref(), Some("ECONNREFUSED"), "nobody else listens there");
    cluster.restart(node, Program::Ingress).unwrap();
    serves();
}
