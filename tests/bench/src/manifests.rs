//! The Services as Kubernetes objects: the files that the agent reads.
//!
//! A hundred Services a file, as a directory that somebody keeps has them; the ones that change have files of their own.

use std::fmt::Write as _;

use crate::state::{NAMESPACE, PORT, Service, State};

/// Services in one file.
const PER_FILE: usize = 100;

/// The node that the agent runs on.
pub(crate) fn node(name: &str, address: std::net::Ipv4Addr) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{podCIDRs: [10.244.1.0/24]}}\n\
         status:\n  addresses: [{{type: InternalIP, address: {address}}}]\n"
    )
}

/// The files of the Services that do not change, by name.
pub(crate) fn lasting(state: &State) -> Vec<(String, String)> {
    let services = state.lasting();
    let files = services.chunks(PER_FILE).enumerate();
    files.map(|(number, chunk)| (format!("services-{number:04}.yaml"), file(chunk))).collect()
}

/// A Service with its slice, as a file.
pub(crate) fn file(services: &[Service]) -> String {
    let mut text = String::new();
    for service in services {
        // Writing to a String cannot fail.
        let _ = write_service(&mut text, service);
    }
    text
}

fn write_service(text: &mut String, service: &Service) -> std::fmt::Result {
    let Service { name, vip, target_port, .. } = service;
    let (kind, node_port) = match service.node_port {
        Some(port) => ("NodePort", format!(", nodePort: {port}")),
        None => ("ClusterIP", String::new()),
    };
    writeln!(
        text,
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec:\n  type: {kind}\n  \
         clusterIP: {vip}\n  ports: [{{port: {PORT}, targetPort: {target_port}{node_port}}}]\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-1\n  namespace: {NAMESPACE}\n  \
         labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\nports: [{{port: {target_port}}}]\nendpoints:"
    )?;
    service.endpoints.iter().try_for_each(|address| writeln!(text, "  - addresses: [{address}]"))
}
