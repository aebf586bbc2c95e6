//! Which Secrets and ConfigMaps the Ingresses that are served name, and the options: for a source that has to fetch each.
//!
//! More may be named than is used in the end; what an Ingress may use is decided where its settings are read.

use roadstead_model::{Ingress, ObjectName, References, Snapshot};

use crate::{
    class::Claim,
    controller::Controller,
    settings::{annotation_values, named_object},
};

/// Annotations that name a Secret.
const SECRETS: [&str; 3] = ["auth-secret", "auth-tls-secret", "proxy-ssl-secret"];
/// Annotations that name a ConfigMap.
const CONFIG_MAPS: [&str; 2] = ["auth-proxy-set-headers", "custom-headers"];
/// Options that name a ConfigMap.
const OPTIONS: [&str; 2] = ["add-headers", "proxy-set-headers"];

/// What is named in a snapshot.
#[must_use]
pub fn references(snapshot: &Snapshot, controller: &Controller) -> References {
    let mut references = References::default();
    let ours = |ingress: &&Ingress| controller.classes.claim(ingress, snapshot) == Claim::Ours;
    for ingress in snapshot.ingresses.values().map(AsRef::as_ref).filter(ours) {
        let named = |keys: &'static [&'static str]| {
            let values = keys.iter().flat_map(|key| annotation_values(ingress, key));
            values.filter_map(|text| named_object(text, &ingress.meta.name.namespace))
        };
        references.secrets.extend(named(&SECRETS));
        references.secrets.extend(ingress.tls.iter().filter_map(|tls| tls.secret.clone()));
        references.config_maps.extend(named(&CONFIG_MAPS));
    }
    references.config_maps.extend(controller.config_map_name());
    if let Some(options) = controller.config_map(snapshot) {
        let values = OPTIONS.iter().filter_map(|key| options.data.get(*key));
        let named = values.filter_map(|text| named_object(text, &options.meta.name.namespace));
        references.config_maps.extend(named.collect::<Vec<ObjectName>>());
    }
    references
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fixture;

    #[test]
    fn what_served_ingresses_and_the_options_name() {
        let mut snapshot = Snapshot::default();
        let annotations = [
            ("auth-secret", "users"),
            ("auth-tls-secret", "ca/bundle"),
            ("proxy-ssl-secret", "NO NAME"),
            ("custom-headers", "headers"),
        ];
        let mut ingress = fixture::annotated("shop/web", &annotations);
        ingress.class = Some("roadstead".to_owned());
        let mut theirs = fixture::annotated("shop/theirs", &[("auth-secret", "hidden")]);
        theirs.class = Some("other".to_owned());
        for ingress in [ingress, theirs] {
            snapshot.ingresses.insert(ingress.meta.name.clone(), Arc::new(ingress));
        }
        let options =
            fixture::config_map("edge/options", &[("add-headers", "edge/added"), ("proxy-set-headers", "up")]);
        snapshot.config_maps.insert(options.meta.name.clone(), Arc::new(options));
        let controller = Controller { config_map: Some(fixture::name("edge/options")), ..Controller::default() };
        let found = references(&snapshot, &controller);
        let texts = |names: &std::collections::BTreeSet<ObjectName>| {
            names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(texts(&found.secrets), "ca/bundle shop/users");
        assert_eq!(texts(&found.config_maps), "edge/added edge/options edge/up shop/headers");
    }
}
