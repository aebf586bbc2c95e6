//! What the pods of the daemons run as: their processes have the user and the capabilities that their spec asks for, and no
//! other; and they go on with new tokens.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::fixture::{Cluster, text};
use super::install::SYSTEM;

/// The capabilities that our pods ask for, with their numbers in `linux/capability.h`.
const NUMBERS: [(&str, u32); 5] =
    [("NET_BIND_SERVICE", 10), ("NET_ADMIN", 12), ("NET_RAW", 13), ("PERFMON", 38), ("BPF", 39)];

/// Every daemon's process has exactly what its pod asks for, effective and at most.
#[track_caller]
pub(crate) fn assert_exact_rights(cluster: &Cluster) {
    let pods = cluster.list(&format!("/api/v1/namespaces/{SYSTEM}/pods"));
    assert_eq!(pods.len(), 6);
    for pod in &pods {
        let name = text(pod, "/metadata/name");
        let context = pod.pointer("/spec/containers/0/securityContext").unwrap();
        assert_eq!(context.pointer("/capabilities/drop"), Some(&serde_json::json!(["ALL"])), "{name}");
        let added = context.pointer("/capabilities/add").and_then(Value::as_array).unwrap();
        let number = |added: &Value| NUMBERS.iter().find(|(known, _)| added == known).unwrap().1;
        let expected = added.iter().fold(0_u64, |bits, one| bits | 1 << number(one));
        let process = only_process(cluster, pod);
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let bits = |name: &str| u64::from_str_radix(&field(name), 16).unwrap();
        for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
            assert_eq!(bits(set), expected, "{name}: {set} is {:x}", bits(set));
        }
        assert_eq!((bits("CapInh:"), bits("CapAmb:")), (0, 0), "{name}");
        let user = context.get("runAsUser").and_then(Value::as_u64).unwrap().to_string();
        assert!(field("Uid:").split_whitespace().all(|id| id == user), "{name}: {}", field("Uid:"));
        assert_eq!(field("NoNewPrivs:"), "1", "{name}");
        let mounts = fs::read_to_string(format!("/proc/{process}/mounts")).unwrap();
        let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).unwrap();
        assert!(root.split(' ').nth(3).unwrap().split(',').any(|option| option == "ro"), "{name}: {root}");
    }
}

/// The number of a pod's only process.
fn only_process(cluster: &Cluster, pod: &Value) -> String {
    let members = fs::read_to_string(cluster.place(pod).cgroup().join("cgroup.procs")).unwrap();
    let numbers: Vec<&str> = members.lines().collect();
    assert_eq!(numbers.len(), 1, "{}: {numbers:?}", text(pod, "/metadata/name"));
    numbers[0].to_owned()
}

/// The identity of the token that each pod of ours used last, by the pod's name.
pub(crate) fn tokens_in_use(cluster: &Cluster) -> BTreeMap<String, String> {
    let first = |event: &Value, field: &str| {
        let values = event.pointer(&format!("/user/extra/authentication.kubernetes.io~1{field}"))?;
        Some(values.get(0)?.as_str()?.to_owned())
    };
    let events = cluster.control.audit().unwrap();
    events.iter().filter_map(|event| Some((first(event, "pod-name")?, first(event, "credential-id")?))).collect()
}
