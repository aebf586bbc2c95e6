//! The demo's manifests, built into the program so that it runs from anywhere.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::Lab;

/// Name and text of each file of the directory that the daemons read.
pub const FILES: &[(&str, &str)] = &[
    ("addresses.yaml", include_str!("../../demo/addresses.yaml")),
    ("api.yaml", include_str!("../../demo/api.yaml")),
    ("idle.yaml", include_str!("../../demo/idle.yaml")),
    ("ingress.yaml", include_str!("../../demo/ingress.yaml")),
    ("namespaces.yaml", include_str!("../../demo/namespaces.yaml")),
    ("nodes.yaml", include_str!("../../demo/nodes.yaml")),
    ("pod-api-1.yaml", include_str!("../../demo/pod-api-1.yaml")),
    ("pod-web-1.yaml", include_str!("../../demo/pod-web-1.yaml")),
    ("pod-web-2.yaml", include_str!("../../demo/pod-web-2.yaml")),
    ("pod-web-3.yaml", include_str!("../../demo/pod-web-3.yaml")),
    ("shop-tls.yaml", include_str!("../../demo/shop-tls.yaml")),
    ("shop.yaml", include_str!("../../demo/shop.yaml")),
    ("web.yaml", include_str!("../../demo/web.yaml")),
];

/// The pod that the demo adds and removes.
pub(super) const WEB_4: (&str, &str) = ("pod-web-4.yaml", include_str!("../../demo/edits/pod-web-4.yaml"));

/// The authority that signed the demo's certificate (PEM).
pub const CA: &str = include_str!("../../demo/ca.crt");

/// A file that no YAML parser takes: its third line breaks off.
pub(super) const BROKEN: (&str, &str) = ("broken.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: [broken\n");

/// Puts all manifests into the lab's directory.
pub(super) fn apply(lab: &Lab) -> Result<()> {
    FILES.iter().try_for_each(|(file, text)| lab.apply(file, text))
}

/// Changes one text in a file of the lab's directory, as an editor would.
pub(super) fn edit(lab: &Lab, file: &str, from: &str, to: &str) -> Result<()> {
    let path = lab.manifests().join(file);
    let text = std::fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    let changed = text.replace(from, to);
    anyhow::ensure!(changed != text, "{file} does not hold \"{from}\"");
    lab.apply(file, &changed)
}

/// The addresses that the speaker of a node has written to a Service's status.
///
/// The status file is read line by line: a YAML parser is the business of `roadstead-sources` alone, which writes it.
pub(super) fn addresses(state_dir: &Path, namespace: &str, name: &str) -> Vec<std::net::IpAddr> {
    let text = std::fs::read_to_string(state_dir.join("status/services.yaml")).unwrap_or_default();
    status_addresses(&text, namespace, name)
}

fn status_addresses(text: &str, namespace: &str, name: &str) -> Vec<std::net::IpAddr> {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_manifest_of_the_folder_is_built_in() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let there: BTreeSet<String> = entries.filter(|name| name.ends_with(".yaml")).collect();
        let built_in: BTreeSet<String> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(there, built_in);
    }

    #[test]
    fn addresses_are_read_from_status() {
        let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: shop\nstatus:\n  loadBalancer:\n    \
                    ingress:\n    - ip: 192.168.77.200\n    - ip: \"fd77::200\"\n---\nmetadata:\n  namespace: shop\n  \
                    name: other\nstatus:\n  loadBalancer:\n    ingress:\n    - ip: 192.168.77.201\n";
        let expected: Vec<std::net::IpAddr> = vec!["192.168.77.200".parse().unwrap(), "fd77::200".parse().unwrap()];
        let cases = [("shop", "web", expected), ("roadstead", "web", vec![]), ("shop", "none", vec![])];
        for (namespace, name, expected) in cases {
            assert_eq!(status_addresses(text, namespace, name), expected, "{namespace}/{name}");
        }
    }
}
