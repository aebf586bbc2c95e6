//! Which Services are this speaker's to serve, by `spec.loadBalancerClass`.

use roadstead_model::{Service, ServiceKind};

/// The `loadBalancerClass` that this speaker serves whatever it is told.
pub const LOAD_BALANCER_CLASS: &str = "roadstead.dev/speaker";

/// The classes served. As with MetalLB, a class that the operator names takes the place of Services without one: two
/// controllers beside each other must not both serve those.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    named: Option<String>,
}

impl Classes {
    /// Services of this class; with `None`, those without a class.
    #[must_use]
    pub fn new(named: Option<String>) -> Self {
        Self { named: named.filter(|class| !class.is_empty()) }
    }

    /// Whether the Service is of type LoadBalancer and of one of the classes.
    #[must_use]
    pub fn serve(&self, service: &Service) -> bool {
        let class = service.load_balancer.class.as_deref();
        let ours = class == Some(LOAD_BALANCER_CLASS) || class == self.named.as_deref();
        service.kind == ServiceKind::LoadBalancer && ours
    }
}
