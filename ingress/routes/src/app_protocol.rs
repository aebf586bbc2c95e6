//! What a Service's port says that it speaks (`appProtocol`, KEP-3726), for Ingresses that do not say it themselves.

use roadstead_model::Snapshot;

use crate::{Backend, Protocol, endpoints::service_port};

/// The protocol that the port's `appProtocol` names; `None`: nothing is said, or nothing that changes how requests are sent.
#[must_use]
pub fn app_protocol(snapshot: &Snapshot, backend: &Backend) -> Option<Protocol> {
    let service = snapshot.services.get(&backend.service)?;
    match service_port(service, &backend.port)?.app_protocol.as_deref()? {
        "kubernetes.io/h2c" => Some(Protocol::Grpc),
        "kubernetes.io/wss" | "https" => Some(Protocol::Https),
        // Upgrades are let through wherever they are asked for, so kubernetes.io/ws says nothing new.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Reach, fixture};

    #[test]
    fn the_port_s_word_is_taken() {
        for (word, expected) in [
            (None, None),
            (Some("http"), None),
            (Some("kubernetes.io/ws"), None),
            (Some("kubernetes.io/wss"), Some(Protocol::Https)),
            (Some("https"), Some(Protocol::Https)),
            (Some("kubernetes.io/h2c"), Some(Protocol::Grpc)),
            (Some("example.com/other"), None),
        ] {
            let mut snapshot = Snapshot::default();
            fixture::service(&mut snapshot, "default/web", "http", 80);
            let service = snapshot.services.get_mut(&fixture::name("default/web")).unwrap();
            for port in &mut Arc::make_mut(service).ports {
                port.app_protocol = word.map(str::to_owned);
            }
            let backend =
                Backend { service: fixture::name("default/web"), port: fixture::port(80), reach: Reach::Endpoints };
            assert_eq!(app_protocol(&snapshot, &backend), expected, "{word:?}");
        }
        let gone = Backend { service: fixture::name("default/gone"), port: fixture::port(80), reach: Reach::Endpoints };
        assert_eq!(app_protocol(&Snapshot::default(), &gone), None);
    }
}
