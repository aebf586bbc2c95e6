//! A Pod as the API tells it, read for what the lab runs of it. Pure: it starts nothing.
//!
//! A container is an echo server. It listens at the ports of its spec: HTTP where the port's name begins with `http`, UDP
//! where its protocol says so, TCP elsewhere. It answers under the value of its variable `ECHO_NAME`, else the pod's name.

use std::time::Duration;

use serde_json::Value;

/// A pod of this node.
#[derive(Clone, Debug)]
pub(super) struct Pod(pub(super) Value);

/// How the kubelet asks whether a container is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) port: u16,
    /// The path of an HTTP probe; `None` for one that connects only.
    pub(super) path: Option<String>,
    pub(super) initial_delay: Duration,
    pub(super) period: Duration,
    pub(super) timeout: Duration,
    pub(super) failure_threshold: u64,
    pub(super) success_threshold: u64,
}

impl Pod {
    pub(super) fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    pub(super) fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    pub(super) fn uid(&self) -> &str {
        self.text("/metadata/uid")
    }

    /// The path of the object.
    pub(super) fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods/{}", self.namespace(), self.name())
    }

    /// Whether it is to end, and how long it may take, in seconds.
    pub(super) fn grace(&self) -> Option<Duration> {
        self.0.pointer("/metadata/deletionTimestamp")?;
        let seconds = self.0.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_u64);
        Some(Duration::from_secs(seconds.unwrap_or(30)))
    }

    pub(super) fn containers(&self) -> &[Value] {
        self.0.pointer("/spec/containers").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The flags of one echo server for all containers: they share the network anyway.
    pub(super) fn echo_flags(&self) -> Vec<String> {
        let mut flags = vec!["--name".to_owned(), self.echo_name()];
        for port in self.containers().iter().flat_map(ports) {
            let named = port.get("name").and_then(Value::as_str).unwrap_or_default();
            let flag = match port.get("protocol").and_then(Value::as_str) {
                Some("UDP") => "--udp",
                _ if named.starts_with("http") => "--http",
                _ => "--tcp",
            };
            if let Some(number) = port.get("containerPort").and_then(Value::as_u64) {
                flags.extend([flag.to_owned(), number.to_string()]);
            }
        }
        flags
    }

    fn echo_name(&self) -> String {
        let variables = self.containers().iter().flat_map(|container| list(container, "env"));
        let named = variables.filter(|one| one.get("name").and_then(Value::as_str) == Some("ECHO_NAME"));
        let value = named.filter_map(|one| one.get("value").and_then(Value::as_str)).next();
        value.unwrap_or(self.name()).to_owned()
    }

    /// How long containers go on after they were told of their end: the longest `preStop` hook that sleeps.
    pub(super) fn pre_stop(&self) -> Duration {
        let sleep = |container: &Value| container.pointer("/lifecycle/preStop/sleep/seconds").and_then(Value::as_u64);
        Duration::from_secs(self.containers().iter().filter_map(sleep).max().unwrap_or_default())
    }

    /// The readiness probes of all containers.
    pub(super) fn readiness(&self) -> Vec<Probe> {
        let all = self.containers();
        all.iter().filter_map(|container| probe(container.get("readinessProbe")?, container)).collect()
    }
}

pub(super) fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn ports(container: &Value) -> impl Iterator<Item = &Value> {
    list(container, "ports")
}

fn probe(probe: &Value, container: &Value) -> Option<Probe> {
    let number = |field: &str, default: u64| probe.get(field).and_then(Value::as_u64).unwrap_or(default);
    let (action, path) = match probe.get("httpGet") {
        Some(get) => (get, Some(get.get("path").and_then(Value::as_str).unwrap_or("/").to_owned())),
        None => (probe.get("tcpSocket")?, None),
    };
    Some(Probe {
        port: port(action.get("port")?, container)?,
        path,
        initial_delay: Duration::from_secs(number("initialDelaySeconds", 0)),
        period: Duration::from_secs(number("periodSeconds", 10)),
        timeout: Duration::from_secs(number("timeoutSeconds", 1)),
        failure_threshold: number("failureThreshold", 3),
        success_threshold: number("successThreshold", 1),
    })
}

/// A port by its number or its name.
fn port(port: &Value, container: &Value) -> Option<u16> {
    let number = match port.as_str() {
        None => port.as_u64(),
        Some(name) => ports(container)
            .find(|port| port.get("name").and_then(Value::as_str) == Some(name))
            .and_then(|port| port.get("containerPort")?.as_u64()),
    };
    number.and_then(|number| u16::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(container: &Value) -> Pod {
        Pod(
            json!({"metadata": {"name": "web-x", "namespace": "shop", "uid": "1"}, "spec": {"containers": [container]}}),
        )
    }

    #[test]
    fn ports_decide_what_the_echo_server_speaks() {
        let ports = json!([
            {"name": "http", "containerPort": 8080, "protocol": "TCP"},
            {"containerPort": 9000},
            {"name": "dns", "containerPort": 5353, "protocol": "UDP"},
        ]);
        let flags = ["--name", "web-x", "--http", "8080", "--tcp", "9000", "--udp", "5353"];
        assert_eq!(pod(&json!({"ports": ports})).echo_flags(), flags);
        let named = json!({"env": [{"name": "OTHER", "value": "no"}, {"name": "ECHO_NAME", "value": "v2"}]});
        assert_eq!(pod(&named).echo_flags(), ["--name", "v2"]);
    }

    #[test]
    fn probes_are_read_with_their_defaults() {
        let ports = json!([{"name": "http", "containerPort": 8080}]);
        let container = |probe: Value| pod(&json!({"ports": ports, "readinessProbe": probe})).readiness();
        let http = container(json!({"httpGet": {"port": "http", "path": "/ready"}, "periodSeconds": 1}));
        assert_eq!((http[0].port, http[0].path.as_deref(), http[0].period.as_secs()), (8080, Some("/ready"), 1));
        let tcp = container(json!({"tcpSocket": {"port": 9000}}));
        assert_eq!(
            (tcp[0].port, &tcp[0].path, tcp[0].period.as_secs(), tcp[0].failure_threshold),
            (9000, &None, 10, 3)
        );
        for nothing in [json!({"exec": {"command": ["true"]}}), json!({"tcpSocket": {"port": "none"}})] {
            assert_eq!(container(nothing), []);
        }
    }

    #[test]
    fn an_end_has_its_time() {
        let mut ending = pod(&json!({"lifecycle": {"preStop": {"sleep": {"seconds": 2}}}}));
        assert_eq!((ending.grace(), ending.pre_stop()), (None, Duration::from_secs(2)));
        ending.0["metadata"]["deletionTimestamp"] = json!("2000-01-01T00:00:00Z");
        ending.0["metadata"]["deletionGracePeriodSeconds"] = json!(5);
        assert_eq!(ending.grace(), Some(Duration::from_secs(5)));
    }
}
