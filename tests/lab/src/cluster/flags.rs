//! The command lines of the control plane's parts: what they have everywhere, and what makes a lab's start in seconds.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use super::credentials::Pair;

/// The networks of Services, as on the demo's nodes.
pub(super) const SERVICE_CIDRS: &str = "10.96.0.0/12,fd00:10:96::/108";
/// The first of them, which is the API server's own Service.
pub(crate) const API_SERVICE: &str = "10.96.0.1";
/// The networks of all nodes' pods.
const POD_CIDRS: &str = "10.244.0.0/16,fd00:10:244::/56";
/// Who issues tokens, and the only audience.
const ISSUER: &str = "https://kubernetes.default.svc";
/// Where etcd is, in the control plane's own namespace.
const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEERS: &str = "http://127.0.0.1:2380";

/// What is written down of each request: who, what, and by which rule. Only of those that a test judges.
pub(super) const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, userGroups: ['system:serviceaccounts:roadstead-system']}
- {level: None}
";

/// How the API server sends lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lists {
    /// As a watch that begins with all there is (KEP-3157).
    Streamed,
    /// In pages alone, as older ones do.
    Paged,
}

/// The files that the parts share.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) authority: PathBuf,
    pub(super) token_key: PathBuf,
    pub(super) token_public_key: PathBuf,
    pub(super) server: Pair,
    pub(super) front_proxy: Pair,
    pub(super) audit_policy: PathBuf,
    pub(super) audit_log: PathBuf,
}

/// etcd without waiting for the disk: what is written survives the process, which is what tests end. From etcd 3.5 on.
pub(super) const NO_SYNC: &str = "--unsafe-no-fsync";

pub(super) fn etcd(data: &Path) -> Vec<String> {
    vec![
        flag("data-dir", data.display()),
        flag("listen-client-urls", ETCD),
        flag("advertise-client-urls", ETCD),
        flag("listen-peer-urls", ETCD_PEERS),
        flag("log-level", "warn"),
    ]
}

pub(super) fn api_server(address: Ipv4Addr, port: u16, files: &Files, lists: Lists) -> Vec<String> {
    let path = |path: &Path| path.display().to_string();
    vec![
        flag("etcd-servers", ETCD),
        flag("bind-address", "0.0.0.0"),
        flag("advertise-address", address),
        flag("secure-port", port),
        flag("feature-gates", format_args!("WatchList={}", lists == Lists::Streamed)),
        flag("service-cluster-ip-range", SERVICE_CIDRS),
        flag("tls-cert-file", path(&files.server.certificate)),
        flag("tls-private-key-file", path(&files.server.key)),
        flag("client-ca-file", path(&files.authority)),
        flag("service-account-issuer", ISSUER),
        flag("service-account-key-file", path(&files.token_public_key)),
        flag("service-account-signing-key-file", path(&files.token_key)),
        flag("authorization-mode", "Node,RBAC"),
        flag("enable-admission-plugins", "NodeRestriction"),
        flag("allow-privileged", true),
        // Extension servers (metrics for autoscalers) are reached at their endpoints, as the control plane runs no agent.
        flag("enable-aggregator-routing", true),
        flag("requestheader-client-ca-file", path(&files.authority)),
        flag("requestheader-allowed-names", "front-proxy"),
        flag("requestheader-username-headers", "X-Remote-User"),
        flag("requestheader-group-headers", "X-Remote-Group"),
        flag("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
        flag("proxy-client-cert-file", path(&files.front_proxy.certificate)),
        flag("proxy-client-key-file", path(&files.front_proxy.key)),
        flag("audit-policy-file", path(&files.audit_policy)),
        flag("audit-log-path", path(&files.audit_log)),
        flag("audit-log-mode", "blocking"),
    ]
}

pub(super) fn controllers(kubeconfig: &Path, files: &Files) -> Vec<String> {
    let mut flags = scheduler(kubeconfig);
    flags.extend([
        flag("cluster-cidr", POD_CIDRS),
        flag("service-account-private-key-file", files.token_key.display()),
        flag("root-ca-file", files.authority.display()),
        flag("use-service-account-credentials", true),
        flag("kube-api-qps", 200),
        flag("kube-api-burst", 400),
        // A change of what it counts is followed within seconds in place of minutes.
        flag("horizontal-pod-autoscaler-sync-period", "1s"),
        flag("horizontal-pod-autoscaler-downscale-stabilization", "1s"),
    ]);
    flags
}

/// All that the scheduler needs, and the controllers too: how to reach the API server, by themselves.
pub(super) fn scheduler(kubeconfig: &Path) -> Vec<String> {
    let kubeconfig = kubeconfig.display();
    vec![
        flag("kubeconfig", &kubeconfig),
        flag("authentication-kubeconfig", &kubeconfig),
        flag("authorization-kubeconfig", &kubeconfig),
        flag("bind-address", Ipv4Addr::LOCALHOST),
        flag("leader-elect", false),
    ]
}

/// The limits of the kernel's connection tracking are the machine's, not a node's: they stay as they are.
pub(super) fn kube_proxy(kubeconfig: &Path, node: &str, mode: &str) -> Vec<String> {
    vec![
        flag("kubeconfig", kubeconfig.display()),
        flag("hostname-override", node),
        flag("proxy-mode", mode),
        flag("cluster-cidr", POD_CIDRS),
        flag("conntrack-max-per-core", 0),
        flag("conntrack-tcp-timeout-established", "0s"),
        flag("conntrack-tcp-timeout-close-wait", "0s"),
    ]
}

/// The names and addresses in the API server's certificate.
pub(super) fn server_names(addresses: &[IpAddr]) -> Vec<String> {
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1", API_SERVICE];
    addresses.iter().map(ToString::to_string).chain(names.map(str::to_owned)).collect()
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}
