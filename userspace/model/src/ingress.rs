//! Ingresses, their classes, Secrets and ConfigMaps.
//!
//! Source: <https://kubernetes.io/docs/reference/kubernetes-api/service-resources/ingress-v1/>.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use crate::{Metadata, ObjectName, Port};

/// One Ingress (networking.k8s.io/v1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// Name, labels, annotations, age.
    pub meta: Metadata,
    /// `spec.ingressClassName`, else the annotation `kubernetes.io/ingress.class`.
    pub class: Option<String>,
    /// `spec.defaultBackend`.
    pub default_backend: Option<IngressBackend>,
    /// `spec.tls`.
    pub tls: Vec<IngressTls>,
    /// `spec.rules`.
    pub rules: Vec<IngressRule>,
    /// What the proxy says of it.
    pub status: IngressStatus,
}

/// The annotation that holds [`IngressStatus::conflicts`], a line each, for the API has no field for them. A proxy writes it, and
/// nobody reads it as a setting.
pub const CONFLICTS_ANNOTATION: &str = "roadstead.dev/conflicts";

/// What a proxy says of an Ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngressStatus {
    /// `status.loadBalancer.ingress[].ip`: where it is served.
    pub addresses: Vec<IpAddr>,
    /// Parts of it that are not served because another Ingress has them, each a sentence with the field in front.
    pub conflicts: Vec<String>,
}

impl Ingress {
    /// Whether requests cannot tell this version from the other: all but the status is the same.
    #[must_use]
    pub fn is_served_as(&self, other: &Self) -> bool {
        let Self { meta, class, default_backend, tls, rules, status: _ } = self;
        *meta == other.meta
            && *class == other.class
            && *default_backend == other.default_backend
            && *tls == other.tls
            && *rules == other.rules
    }
}

/// One entry of `spec.rules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressRule {
    /// `host`; `None` matches every host.
    pub host: Option<Host>,
    /// `http.paths`.
    pub paths: Vec<IngressPath>,
}

/// A host of a rule or a TLS entry, lower case, without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A DNS name.
    Exact(String),
    /// `*.rest`, held as `rest`: matches exactly one more label.
    Wildcard(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(rest) => write!(f, "*.{rest}"),
        }
    }
}

/// One path of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressPath {
    /// Starts with `/` unless the type is implementation specific.
    pub path: String,
    /// How it is matched.
    pub path_type: PathType,
    /// Where requests go.
    pub backend: IngressBackend,
}

/// `pathType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathType {
    /// The path, byte for byte.
    Exact,
    /// The path by its elements between slashes.
    Prefix,
    /// Ours: as ingress-nginx's raw string prefix.
    ImplementationSpecific,
}

impl fmt::Display for PathType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "Exact",
            Self::Prefix => "Prefix",
            Self::ImplementationSpecific => "ImplementationSpecific",
        })
    }
}

/// Where an Ingress sends requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IngressBackend {
    /// A Service's port, in the Ingress's namespace.
    Service {
        /// The Service.
        service: ObjectName,
        /// Its port.
        port: BackendPort,
    },
    /// Another object, which nothing here serves: 503.
    Resource {
        /// `kind` of the object.
        kind: String,
        /// `name` of the object.
        name: String,
    },
}

/// A Service's port by number or by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendPort {
    /// `port.number`.
    Number(Port),
    /// `port.name`.
    Name(String),
}

impl fmt::Display for BackendPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// One entry of `spec.tls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressTls {
    /// Hosts of the certificate; empty means the hosts of the Ingress's rules.
    pub hosts: Vec<Host>,
    /// The Secret of type `kubernetes.io/tls`; without one the default certificate serves.
    pub secret: Option<ObjectName>,
}

/// One IngressClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressClass {
    /// `metadata.name`.
    pub name: String,
    /// `spec.controller`, such as `roadstead.dev/ingress`.
    pub controller: String,
    /// The annotation `ingressclass.kubernetes.io/is-default-class` is `true`.
    pub is_default: bool,
}

/// One Secret; its values never show in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Name, labels, annotations.
    pub meta: Metadata,
    /// `type`, such as `kubernetes.io/tls`.
    pub kind: String,
    /// `data` decoded, with `stringData` over it.
    pub data: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.data.keys().collect();
        f.debug_struct("Secret").field("name", &self.meta.name).field("kind", &self.kind).field("keys", &keys).finish()
    }
}

/// One ConfigMap: proxy options, or MetalLB's old configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMap {
    /// Name, labels, annotations.
    pub meta: Metadata,
    /// `data`.
    pub data: BTreeMap<String, String>,
}
