//! The status of a Pod as the lab's kubelet reports it. Pure.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::moment;
use super::spec::Pod;

/// What is known of a running pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) host: Vec<IpAddr>,
    pub(super) ips: Vec<IpAddr>,
    pub(super) ready: bool,
    pub(super) restarts: u64,
    /// When it was started, and when it became ready or unready.
    pub(super) started: String,
    pub(super) turned: String,
}

impl Report {
    /// The patch of the status; it touches no other pod that has taken the name.
    pub(super) fn patch(&self, pod: &Pod) -> Value {
        let list = |ips: &[IpAddr]| ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>();
        let containers: Vec<Value> = pod.containers().iter().map(|container| self.container(container)).collect();
        let conditions = [
            ("PodReadyToStartContainers", true, &self.started),
            ("Initialized", true, &self.started),
            ("ContainersReady", self.ready, &self.turned),
            ("Ready", self.ready, &self.turned),
        ];
        let conditions: Vec<Value> = conditions
            .into_iter()
            .map(|(kind, holds, since)| {
                let status = if holds { "True" } else { "False" };
                json!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": since})
            })
            .collect();
        json!({
            "metadata": {"uid": pod.uid()},
            "status": {
                "phase": "Running",
                "hostIP": self.host.first(),
                "hostIPs": list(&self.host),
                "podIP": self.ips.first(),
                "podIPs": list(&self.ips),
                "startTime": self.started,
                "conditions": conditions,
                "containerStatuses": containers,
            },
        })
    }

    fn container(&self, container: &Value) -> Value {
        let field = |name: &str| container.get(name).cloned().unwrap_or_default();
        json!({
            "name": field("name"),
            "image": field("image"),
            "imageID": "",
            "containerID": "roadstead-lab://1",
            "ready": self.ready,
            "started": true,
            "restartCount": self.restarts,
            "state": {"running": {"startedAt": self.started}},
        })
    }

    /// Notes whether it is ready, and when that changed.
    pub(super) fn turn(&mut self, ready: bool) {
        if self.ready != ready {
            self.ready = ready;
            self.turned = moment::now();
        }
    }
}

/// Whether a Node's or Pod's condition `Ready` holds.
pub(super) fn is_ready(object: &Value) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let text = |condition: &Value, field: &str| condition.get(field).and_then(Value::as_str).map(str::to_owned);
    conditions.into_iter().any(|condition| {
        text(condition, "type").as_deref() == Some("Ready") && text(condition, "status").as_deref() == Some("True")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_seen_in_conditions() {
        let pod = Pod(json!({"metadata": {"uid": "1"}, "spec": {"containers": [{"name": "web", "image": "echo"}]}}));
        let mut report = Report {
            host: vec!["192.168.77.11".parse().unwrap()],
            ips: vec!["10.244.1.11".parse().unwrap(), "fd00:10:244:1::11".parse().unwrap()],
            ready: false,
            restarts: 0,
            started: "then".to_owned(),
            turned: "then".to_owned(),
        };
        assert!(!is_ready(&report.patch(&pod)));
        report.turn(true);
        let patch = report.patch(&pod);
        assert!(is_ready(&patch) && report.turned != "then");
        assert_eq!(patch.pointer("/status/podIPs/1/ip").and_then(Value::as_str), Some("fd00:10:244:1::11"));
        assert_eq!(patch.pointer("/status/containerStatuses/0/name").and_then(Value::as_str), Some("web"));
    }
}
