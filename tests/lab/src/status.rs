//! The addresses that Services have got, as the daemons are told of them.

use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;

/// The addresses that the speaker of a node has written to a Service's status.
///
/// The status file is read line by line: a YAML parser is the business of `roadstead-sources` alone, which writes it.
pub(crate) fn addresses(state_dir: &Path, namespace: &str, name: &str) -> Vec<IpAddr> {
    let text = std::fs::read_to_string(state_dir.join("status/services.yaml")).unwrap_or_default();
    status_addresses(&text, namespace, name)
}

fn status_addresses(text: &str, namespace: &str, name: &str) -> Vec<IpAddr> {
    let field = |line: &str, key: &str| {
        let rest = line.trim_start_matches([' ', '-']).strip_prefix(key)?.strip_prefix(':')?;
        Some(rest.trim().trim_matches(['"', '\'']).to_owned())
    };
    let of_service = |document: &&str| {
        let is = |key, value: &str| document.lines().any(|line| field(line, key).is_some_and(|found| found == value));
        is("namespace", namespace) && is("name", name)
    };
    let documents = text.split("\n---");
    let lines = documents.filter(of_service).flat_map(str::lines);
    lines.filter_map(|line| field(line, "ip")?.parse().ok()).collect()
}

/// The addresses in the status of a Service of an API server.
pub(crate) fn of_object(service: &Value) -> Vec<IpAddr> {
    let ingress = service.pointer("/status/loadBalancer/ingress").and_then(Value::as_array).into_iter().flatten();
    ingress.filter_map(|one| one.get("ip")?.as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_status() {
        let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: shop\nstatus:\n  loadBalancer:\n    \
                    ingress:\n    - ip: 192.168.77.200\n    - ip: \"fd77::200\"\n---\nmetadata:\n  namespace: shop\n  \
                    name: other\nstatus:\n  loadBalancer:\n    ingress:\n    - ip: 192.168.77.201\n";
        let expected: Vec<IpAddr> = vec!["192.168.77.200".parse().unwrap(), "fd77::200".parse().unwrap()];
        let cases = [("shop", "web", expected), ("roadstead", "web", vec![]), ("shop", "none", vec![])];
        for (namespace, name, expected) in cases {
            assert_eq!(status_addresses(text, namespace, name), expected, "{namespace}/{name}");
        }
    }
}
