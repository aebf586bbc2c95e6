//! What is asked of the API server: one feed is one list and the watch that follows it, of one kind, as far as it is needed.

use std::fmt;

use super::interest::{Interest, Nodes};
use crate::object::Kind;

/// One list and watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Feed {
    pub(crate) kind: Kind,
    /// Only this namespace.
    namespace: Option<String>,
    /// `fieldSelector`.
    fields: Option<String>,
    pub(crate) form: Form,
    pub(crate) purpose: Purpose,
}

/// How much of each object comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    /// `PartialObjectMetadata` of meta.k8s.io/v1.
    Metadata,
}

/// What the objects are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Each is read.
    Objects,
    /// They tell which there are, in which version; those that are named somewhere are fetched one by one.
    References,
}

impl Feed {
    fn all(kind: Kind) -> Self {
        Self { kind, namespace: None, fields: None, form: Form::Whole, purpose: Purpose::Objects }
    }

    fn of(kind: Kind, fields: impl Into<String>) -> Self {
        Self { fields: Some(fields.into()), ..Self::all(kind) }
    }

    /// Those that an interest comes to.
    pub(crate) fn of_interest(interest: &Interest, node: Option<&str>) -> Vec<Self> {
        let mut feeds: Vec<Self> = interest.kinds.iter().copied().map(Self::all).collect();
        for feed in &mut feeds {
            match feed.kind {
                // A Namespace is its labels.
                Kind::Namespace => feed.form = Form::Metadata,
                Kind::Node if interest.nodes == Nodes::Own => {
                    feed.fields = node.map(|node| format!("metadata.name={node}"));
                }
                _ => {}
            }
        }
        for (namespace, name) in &interest.config_maps {
            let feed = Self::of(Kind::ConfigMap, format!("metadata.name={name}"));
            feeds.push(Self { namespace: Some(namespace.clone()), ..feed });
        }
        if interest.references.is_some() {
            feeds.push(Self::of(Kind::Secret, "type=kubernetes.io/tls"));
            // Tokens and the records of Helm are never named, and there are many of them.
            let others = "type!=kubernetes.io/tls,type!=kubernetes.io/service-account-token,type!=helm.sh/release.v1";
            let references = |kind, fields: &str| Self {
                form: Form::Metadata,
                purpose: Purpose::References,
                ..Self::of(kind, fields)
            };
            feeds.push(references(Kind::Secret, others));
            feeds.push(references(Kind::ConfigMap, "metadata.name!=kube-root-ca.crt"));
        }
        feeds
    }

    /// The name under which the API serves the kind.
    pub(crate) fn resource(&self) -> &'static str {
        match self.kind {
            Kind::Service => "services",
            Kind::EndpointSlice => "endpointslices",
            Kind::Endpoints => "endpoints",
            Kind::Pod => "pods",
            Kind::Node => "nodes",
            Kind::Namespace => "namespaces",
            Kind::Ingress => "ingresses",
            Kind::IngressClass => "ingressclasses",
            Kind::Secret => "secrets",
            Kind::ConfigMap | Kind::L2Exclusion => "configmaps",
            Kind::IpAddressPool => "ipaddresspools",
            Kind::L2Advertisement => "l2advertisements",
            Kind::AddressPool => "addresspools",
        }
    }

    /// Kinds that a cluster may lack.
    pub(crate) fn is_custom(&self) -> bool {
        matches!(self.kind, Kind::IpAddressPool | Kind::L2Advertisement | Kind::AddressPool)
    }

    fn collection(&self, namespace: Option<&str>) -> String {
        let version = Kind::named(self.kind.as_str()).map_or("v1", |(_, version)| version);
        let root = if version.contains('/') { "/apis" } else { "/api" };
        let namespace = namespace.map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
        format!("{root}/{version}{namespace}/{}", self.resource())
    }

    /// The address of one object of the kind.
    pub(crate) fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.collection(Some(namespace).filter(|text| !text.is_empty())))
    }

    /// The address of the collection, with what is asked of it.
    pub(crate) fn address(&self, query: &[(&str, &str)]) -> String {
        let mut address = self.collection(self.namespace.as_deref());
        let fields = self.fields.as_deref().map(|fields| ("fieldSelector", fields));
        for (index, (key, value)) in fields.iter().chain(query).enumerate() {
            address.push(if index == 0 { '?' } else { '&' });
            address.push_str(key);
            address.push('=');
            encode(value, &mut address);
        }
        address
    }
}

/// `services`, or `configmaps metadata.name=config in metallb-system`: for logs and problems.
impl fmt::Display for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource())?;
        if let Some(fields) = &self.fields {
            write!(f, " {fields}")?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, " in {namespace}")?;
        }
        Ok(())
    }
}

/// Percent-encodes all that is not unreserved (RFC 3986, 2.3).
pub(crate) fn encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(interest: &Interest) -> Vec<String> {
        Feed::of_interest(interest, Some("n1")).iter().map(|feed| feed.address(&[])).collect()
    }

    #[test]
    fn the_agent_asks_for_three_kinds_and_no_secret() {
        let asked = addresses(&Interest::agent());
        assert_eq!(asked, ["/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices", "/api/v1/nodes"]);
    }

    #[test]
    fn the_speaker_asks_for_config_maps_by_name() {
        let interest = Interest::speaker("roadstead-system");
        let asked = addresses(&interest);
        let by_name: Vec<_> = asked.iter().filter(|address| address.contains("configmaps")).collect();
        assert_eq!(
            by_name,
            [
                "/api/v1/namespaces/metallb-system/configmaps?fieldSelector=metadata.name%3Dconfig",
                "/api/v1/namespaces/metallb-system/configmaps?fieldSelector=metadata.name%3Dmetallb-excludel2",
                "/api/v1/namespaces/roadstead-system/configmaps?fieldSelector=metadata.name%3Dconfig",
                "/api/v1/namespaces/roadstead-system/configmaps?fieldSelector=metadata.name%3Dmetallb-excludel2",
            ]
        );
        assert!(!asked.iter().any(|address| address.contains("secrets")), "{asked:?}");
        let namespaces = Feed::of_interest(&interest, None).into_iter().find(|feed| feed.kind == Kind::Namespace);
        assert_eq!(namespaces.unwrap().form, Form::Metadata);
    }

    #[test]
    fn the_proxy_reads_certificates_whole_and_the_rest_as_metadata() {
        let interest = Interest::proxy(|_| roadstead_model::References::default());
        let feeds = Feed::of_interest(&interest, Some("n1"));
        let secrets: Vec<_> =
            feeds.iter().filter(|feed| feed.kind == Kind::Secret).map(|feed| (feed.form, feed.purpose)).collect();
        assert_eq!(secrets, [(Form::Whole, Purpose::Objects), (Form::Metadata, Purpose::References)]);
        let nodes = feeds.iter().find(|feed| feed.kind == Kind::Node).unwrap();
        assert_eq!(nodes.address(&[]), "/api/v1/nodes?fieldSelector=metadata.name%3Dn1");
        let one = feeds.iter().find(|feed| feed.kind == Kind::Secret).unwrap();
        assert_eq!(one.object("shop", "tls"), "/api/v1/namespaces/shop/secrets/tls");
        assert_eq!(one.to_string(), "secrets type=kubernetes.io/tls");
    }

    #[test]
    fn queries_are_encoded() {
        let feed = Feed::all(Kind::Service);
        let address = feed.address(&[("limit", "250"), ("continue", "eyJ2IjoibWV0YS8=")]);
        assert_eq!(address, "/api/v1/services?limit=250&continue=eyJ2IjoibWV0YS8%3D");
    }
}
