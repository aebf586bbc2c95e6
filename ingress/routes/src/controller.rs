//! What an instance is told on its command line that decides what it serves and how.

use roadstead_model::{ConfigMap, Ingress, ObjectName, Snapshot};

use crate::{ClassChoice, settings::Profile};

/// The class that ingress-nginx serves unless it is told otherwise, and the controller that its IngressClass names.
const NGINX_CLASS: &str = "nginx";
const NGINX_CONTROLLER: &str = "k8s.io/ingress-nginx";

/// Which Ingresses an instance serves, and where its options are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Controller {
    /// The Ingresses.
    pub classes: ClassChoice,
    /// The ConfigMap of options under ingress-nginx's keys; `None` takes `ingress-nginx/ingress-nginx-controller` where
    /// class `nginx` is served.
    pub config_map: Option<ObjectName>,
    /// The Service that takes what no Ingress takes and answers for errors; its first port.
    pub default_backend: Option<ObjectName>,
    /// The node that it runs on: where a Service asks for it, endpoints near that node are preferred.
    pub node: Option<String>,
}

impl Controller {
    /// The ConfigMap of options, where there is one.
    #[must_use]
    pub fn config_map<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s std::sync::Arc<ConfigMap>> {
        snapshot.config_maps.get(&self.config_map_name()?)
    }

    /// The name of the ConfigMap of options.
    pub(crate) fn config_map_name(&self) -> Option<ObjectName> {
        let serves_nginx = || self.classes.names.iter().any(|name| name == NGINX_CLASS);
        let default = || serves_nginx().then(|| ObjectName::new("ingress-nginx", "ingress-nginx-controller"));
        self.config_map.clone().or_else(default)
    }

    /// Whose habits an Ingress expects: ingress-nginx's where it is of class `nginx` by name or by the class's controller.
    pub(crate) fn profile(&self, ingress: &Ingress, snapshot: &Snapshot) -> Profile {
        let default = || snapshot.ingress_classes.values().find(|class| class.is_default).map(|class| &class.name);
        let Some(name) = ingress.class.as_ref().or_else(default) else { return Profile::Standard };
        let controller = snapshot.ingress_classes.get(name).map(|class| class.controller.as_str());
        let is_nginx = controller.map_or(name == NGINX_CLASS, |controller| controller == NGINX_CONTROLLER);
        if is_nginx { Profile::Nginx } else { Profile::Standard }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CONTROLLER, fixture};

    #[test]
    fn class_nginx_has_nginx_s_habits() {
        let mut snapshot = Snapshot::default();
        fixture::class(&mut snapshot, "legacy", NGINX_CONTROLLER, false);
        fixture::class(&mut snapshot, "edge", CONTROLLER, false);
        let check = |class: Option<&str>, expected| {
            let mut ingress = fixture::ingress("default/web");
            ingress.class = class.map(str::to_owned);
            assert_eq!(Controller::default().profile(&ingress, &snapshot), expected, "{class:?}");
        };
        check(Some("legacy"), Profile::Nginx);
        check(Some("nginx"), Profile::Nginx);
        check(Some("edge"), Profile::Standard);
        check(Some("roadstead"), Profile::Standard);
        check(None, Profile::Standard);
    }
}
