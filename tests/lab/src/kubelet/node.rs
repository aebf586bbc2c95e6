//! The Node object and its lease.

use std::time::Duration;

use anyhow::Result;
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Shared, moment, status};
use crate::cluster::{JSON, MERGE, STRATEGIC_MERGE, refused};

/// As the kubelet's own defaults: a lease of 40 s, renewed four times within.
const LEASE_SECONDS: u32 = 40;
const RENEW: Duration = Duration::from_secs(10);
/// After a failure; the node shall be seen soon after an outage.
const RETRY: Duration = Duration::from_millis(300);

/// Registers the node and renews its lease for ever.
pub(super) async fn register_and_renew(shared: &Shared) {
    loop {
        sleep(match beat(shared).await {
            Ok(()) => RENEW,
            Err(_) => RETRY,
        })
        .await;
    }
}

/// One heartbeat: the Node is there and ready, and the lease is renewed.
async fn beat(shared: &Shared) -> Result<()> {
    let name = shared.node.name();
    let path = format!("/api/v1/nodes/{name}");
    match shared.api.get(&path).await {
        Ok(node) if status::is_ready(&node) => {}
        // The node life-cycle controller has missed us.
        Ok(_) => {
            let patch = json!({"status": node_status(shared)});
            shared.api.call(Method::PATCH, &format!("{path}/status"), STRATEGIC_MERGE, Some(&patch)).await?;
        }
        Err(error) if refused(&error) == Some(404) => {
            shared.api.call(Method::POST, "/api/v1/nodes", JSON, Some(&object(shared))).await?;
        }
        Err(error) => return Err(error),
    }
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let renew = json!({"spec": {"renewTime": moment::now_micro()}});
    let renewed = shared.api.call(Method::PATCH, &format!("{leases}/{name}"), MERGE, Some(&renew)).await;
    match renewed {
        Err(error) if refused(&error) == Some(404) => {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": "kube-node-lease"},
                "spec": {
                    "holderIdentity": name,
                    "leaseDurationSeconds": LEASE_SECONDS,
                    "renewTime": moment::now_micro(),
                },
            });
            shared.api.call(Method::POST, leases, JSON, Some(&lease)).await.map(drop)
        }
        renewed => renewed.map(drop),
    }
}

fn object(shared: &Shared) -> Value {
    let (name, cidrs) = (shared.node.name(), shared.node.pod_cidrs());
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": architecture(),
            },
        },
        "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs},
        "status": node_status(shared),
    })
}

fn node_status(shared: &Shared) -> Value {
    let (host, now) = (shared.node.host(), moment::now());
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": "Lab", "message": "the lab's kubelet says so",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    let room = json!({"cpu": "64", "memory": "64Gi", "pods": "200", "ephemeral-storage": "64Gi"});
    json!({
        "addresses": [
            {"type": "InternalIP", "address": host.v4()},
            {"type": "InternalIP", "address": host.v6()},
            {"type": "Hostname", "address": shared.node.name()},
        ],
        "capacity": room,
        "allocatable": room,
        "conditions": [
            condition("Ready", "True"),
            condition("MemoryPressure", "False"),
            condition("DiskPressure", "False"),
            condition("PIDPressure", "False"),
        ],
        "nodeInfo": {
            "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "", "kubeProxyVersion": "",
            "containerRuntimeVersion": "roadstead-lab://1", "kubeletVersion": "v1.36.0",
            "operatingSystem": "linux", "architecture": architecture(),
        },
    })
}

/// As Go calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
