//! Manifests in few words: what a test does not care about is written here once.

use std::net::SocketAddr;

use super::pod::Pod;

/// Where an endpoint is.
pub(super) trait At {
    fn at(&self) -> SocketAddr;
}

impl At for &Pod {
    fn at(&self) -> SocketAddr {
        self.address
    }
}

impl At for SocketAddr {
    fn at(&self) -> SocketAddr {
        *self
    }
}

/// A Service with the port 8080 of name `http`. Each pod has a slice of its own, since slices have one port for all.
pub(super) fn service<A: At>(name: &str, pods: &[A]) -> String {
    let mut text = format!(
        r#"---
apiVersion: v1
kind: Service
metadata: {{ name: {name} }}
spec:
  ports: [{{ name: http, port: 8080 }}]
"#
    );
    for (index, pod) in pods.iter().enumerate() {
        let (ip, port) = (pod.at().ip(), pod.at().port());
        text.push_str(&format!(
            r#"---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-{index}
  labels: {{ kubernetes.io/service-name: {name} }}
addressType: IPv4
ports: [{{ name: http, port: {port} }}]
endpoints: [{{ addresses: ["{ip}"] }}]
"#
        ));
    }
    text
}

/// One path of an Ingress: `pathType`, path, Service.
pub(super) type Path<'a> = (&'a str, &'a str, &'a str);

/// An Ingress with these paths for one host; the host "" stands for all.
pub(super) fn ingress(name: &str, host: &str, paths: &[Path<'_>]) -> String {
    annotated(name, host, paths, &[])
}

/// The same with annotations.
pub(super) fn annotated(name: &str, host: &str, paths: &[Path<'_>], annotations: &[(&str, &str)]) -> String {
    let annotations: Vec<String> = annotations.iter().map(|(key, value)| format!("{key}: {value:?}")).collect();
    let host = if host.is_empty() { String::new() } else { format!("host: {host:?}\n    ") };
    let mut text = format!(
        r#"---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{ name: {name}, annotations: {{ {} }} }}
spec:
  rules:
  - {host}http:
      paths:
"#,
        annotations.join(", ")
    );
    for (kind, path, service) in paths {
        text.push_str(&format!(
            r#"      - {{ path: "{path}", pathType: {kind}, backend: {{ service: {{ name: {service}, port: {{ number: 8080 }} }} }} }}
"#
        ));
    }
    text
}

/// A Secret of type kubernetes.io/tls, from PEM.
pub(super) fn secret(name: &str, certificate: &str, key: &str) -> String {
    let indented = |pem: &str| pem.replace('\n', "\n    ");
    format!(
        r#"---
apiVersion: v1
kind: Secret
metadata: {{ name: {name} }}
type: kubernetes.io/tls
stringData:
  tls.crt: |
    {}
  tls.key: |
    {}
"#,
        indented(certificate.trim_end()),
        indented(key.trim_end())
    )
}
