//! The demo's manifests, built into the program so that it runs from anywhere.

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
    let text = lab.text(file).with_context(|| format!("{file} is not there"))?;
    let changed = text.replace(from, to);
    anyhow::ensure!(changed != text, "{file} does not hold \"{from}\"");
    lab.apply(file, &changed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_manifest_of_the_folder_is_built_in() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let there: BTreeSet<String> = entries.filter(|name| name.ends_with(".yaml")).collect();
        let built_in: BTreeSet<String> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(there, built_in);
    }
}
