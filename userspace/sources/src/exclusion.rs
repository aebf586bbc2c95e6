//! The ConfigMap `metallb-excludel2`: expressions for the interfaces that nothing is announced on.

use std::sync::Arc;

use roadstead_model::{ConfigMap, L2Exclusion};
use serde::Deserialize;

use crate::{
    bounds,
    document::Origin,
    findings::Findings,
    object::{Key, Kind, Object, Parsed},
    parse::{ParsedFile, found},
};

/// The name under which MetalLB's speaker mounts it.
const NAME: &str = "metallb-excludel2";
const ENTRY: &str = "excludel2.yaml";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Exclusion {
    announced_interfaces_to_exclude: Vec<String>,
}

/// What the ConfigMap excludes, where it is that one. A bad expression spoils all of it, so that the last good ones stay:
/// to announce on an interface that was to be left alone does more harm than the other way round.
pub(crate) fn config_map(key: &Key, config: &ConfigMap, origin: &Origin) -> ParsedFile {
    let mut read = ParsedFile::default();
    let (true, Some(text)) = (*key.name.name == *NAME, config.data.get(ENTRY)) else { return read };
    let own = Key { kind: Kind::L2Exclusion, name: key.name.clone() };
    let mut findings = Findings::default();
    let field = format!("data[{ENTRY}]");
    let parsed = bounds::check(text).map_err(|(_, reason)| reason);
    match parsed.and_then(|()| serde_yaml::from_str::<Exclusion>(text).map_err(|error| error.to_string())) {
        Ok(exclusion) => {
            for pattern in &exclusion.announced_interfaces_to_exclude {
                if regex::bytes::RegexBuilder::new(pattern).unicode(false).build().is_err() {
                    findings.error(&field, format!("{pattern:?} is no regular expression"));
                }
            }
            if !findings.has_errors() {
                let exclusion = L2Exclusion { patterns: exclusion.announced_interfaces_to_exclude };
                let object = Object::L2Exclusion(Arc::new(exclusion));
                read.objects.push(Parsed { key: own.clone(), origin: origin.clone(), object });
            }
        }
        Err(reason) => findings.error(&field, reason),
    }
    if findings.has_errors() {
        read.broken.push(own);
    }
    read.problems.extend(findings.0.iter().map(|finding| found(key, origin, finding)));
    read
}

#[cfg(test)]
#[path = "exclusion_tests.rs"]
mod tests;
