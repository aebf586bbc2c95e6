//! Which Ingresses are ours: by class name, by the class's controller, or by the default class.
//!
//! The order is ingress-nginx's: `spec.ingressClassName` (or the old annotation, which `model` holds in the same field)
//! first, then the default class.

use roadstead_model::{Ingress, Snapshot};

/// The controller that an IngressClass names to be served by Roadstead.
pub const CONTROLLER: &str = "roadstead.dev/ingress";

/// The class name that needs no IngressClass object.
pub const DEFAULT_CLASS: &str = "roadstead";

/// Which classes an instance serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassChoice {
    /// Serve these names and no others, whatever controller their IngressClass names; empty serves every class whose
    /// controller is [`CONTROLLER`], and the name [`DEFAULT_CLASS`].
    pub names: Vec<String>,
}

/// What became of an Ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// This instance serves it.
    Ours,
    /// Another controller's.
    Theirs,
    /// It names no class and no class is the default one: nobody serves it, which is seldom meant.
    Nobodys,
}

impl ClassChoice {
    /// Whether an Ingress is for this instance.
    pub(crate) fn claim(&self, ingress: &Ingress, snapshot: &Snapshot) -> Claim {
        match &ingress.class {
            Some(name) if self.serves(name, snapshot) => Claim::Ours,
            Some(_) => Claim::Theirs,
            None => self.claim_classless(snapshot),
        }
    }

    fn serves(&self, name: &str, snapshot: &Snapshot) -> bool {
        if !self.names.is_empty() {
            return self.names.iter().any(|ours| ours == name);
        }
        snapshot.ingress_classes.get(name).map_or(name == DEFAULT_CLASS, |class| class.controller == CONTROLLER)
    }

    fn claim_classless(&self, snapshot: &Snapshot) -> Claim {
        let mut defaults = snapshot.ingress_classes.values().filter(|class| class.is_default).peekable();
        if defaults.peek().is_some() {
            let ours = defaults.any(|class| self.serves(&class.name, snapshot));
            return if ours { Claim::Ours } else { Claim::Theirs };
        }
        // A directory of YAML that knows no classes at all has nobody else who could be meant.
        if self.names.is_empty() && snapshot.ingress_classes.is_empty() { Claim::Ours } else { Claim::Nobodys }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn check(names: &[&str], classes: &[(&str, &str, bool)], class: Option<&str>, expected: Claim) {
        let mut snapshot = Snapshot::default();
        for (name, controller, is_default) in classes {
            fixture::class(&mut snapshot, name, controller, *is_default);
        }
        let choice = ClassChoice { names: names.iter().map(|name| (*name).to_owned()).collect() };
        let mut ingress = fixture::ingress("default/web");
        ingress.class = class.map(str::to_owned);
        assert_eq!(choice.claim(&ingress, &snapshot), expected, "{names:?} {classes:?} {class:?}");
    }

    #[test]
    fn classes_are_claimed_by_name_controller_and_default() {
        let nginx = ("nginx", "k8s.io/ingress-nginx", false);
        check(&[], &[("edge", CONTROLLER, false)], Some("edge"), Claim::Ours);
        check(&[], &[nginx], Some("nginx"), Claim::Theirs);
        check(&["nginx"], &[nginx], Some("nginx"), Claim::Ours);
        check(&["nginx"], &[], Some("nginx"), Claim::Ours);
        check(&["nginx"], &[("edge", CONTROLLER, false)], Some("edge"), Claim::Theirs);
        check(&[], &[], Some("roadstead"), Claim::Ours);
        check(&[], &[("roadstead", "example.com/other", false)], Some("roadstead"), Claim::Theirs);
        check(&[], &[], Some("unknown"), Claim::Theirs);
    }

    #[test]
    fn classless_ingresses_follow_the_default_class() {
        let nginx_default = ("nginx", "k8s.io/ingress-nginx", true);
        check(&[], &[], None, Claim::Ours);
        check(&[], &[("edge", CONTROLLER, true)], None, Claim::Ours);
        check(&[], &[("edge", CONTROLLER, false)], None, Claim::Nobodys);
        check(&[], &[nginx_default], None, Claim::Theirs);
        check(&["nginx"], &[nginx_default], None, Claim::Ours);
        check(&["nginx"], &[], None, Claim::Nobodys);
    }
}
