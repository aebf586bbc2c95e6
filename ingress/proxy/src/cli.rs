//! The command line: `run` serves, `route` tells what would serve.

use std::{
    env, fmt,
    net::{IpAddr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    process::ExitCode,
    str::FromStr,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use prometheus::IntCounter;
use roadstead_model::ObjectName;
use roadstead_routes::{CONTROLLER, ClassChoice, Controller};
use roadstead_sources::{NamespaceFlag, SourceFlags};
use roadstead_telemetry::TelemetryFlags;

use crate::{
    control::Publish,
    edge::{EdgeFlags, ProxyProtocol},
    metrics::{Detail, MetricsOptions},
    record::log::{AccessLog, LineStyle, LogTarget, LogWriter},
    route_command, run,
    server::ServerOptions,
    trusted::Network,
};

/// Serves Kubernetes Ingress from a directory of YAML.
#[derive(Debug, Parser)]
#[command(name = "roadstead-ingress", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve Ingresses
    Run(Box<RunFlags>),
    /// Tell the Ingress, rule, backend and endpoints that would take a request; needs no running proxy
    Route(Box<RouteFlags>),
}

impl Cli {
    /// Does what was asked for.
    ///
    /// # Errors
    /// What stops the program, for a person to read.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(flags) => run::run(&flags).map(|()| ExitCode::SUCCESS),
            Command::Route(flags) => route_command::route(&flags),
        }
    }
}

/// Flags of `run`.
#[derive(Args, Debug)]
pub struct RunFlags {
    /// Where objects come from.
    #[command(flatten)]
    pub source: SourceFlags,
    /// Where its own objects are in a cluster.
    #[command(flatten)]
    pub namespace: NamespaceFlag,
    /// Logs and metrics.
    #[command(flatten)]
    pub telemetry: TelemetryFlags,
    /// Which Ingresses are served.
    #[command(flatten)]
    pub classes: ClassFlags,
    /// Listen in the clear on this address (repeatable)
    #[arg(long, value_name = "ADDR", env = "ROADSTEAD_INGRESS_HTTP", value_delimiter = ',', default_value = "[::]:80")]
    pub http: Vec<SocketAddr>,
    /// Listen for TLS on this address (repeatable)
    #[arg(
        long,
        value_name = "ADDR",
        env = "ROADSTEAD_INGRESS_HTTPS",
        value_delimiter = ',',
        default_value = "[::]:443"
    )]
    pub https: Vec<SocketAddr>,
    /// Threads, each with listeners and upstream connections of its own (default: one per core)
    #[arg(long, value_name = "N", env = "ROADSTEAD_INGRESS_THREADS")]
    pub threads: Option<NonZeroUsize>,
    /// Connections that one address takes at once; more of them wait in the kernel
    #[arg(long, value_name = "N", env = "ROADSTEAD_INGRESS_MAX_CONNECTIONS", default_value = "16384")]
    pub max_connections: NonZeroUsize,
    /// Where the access log goes: stdout, off, or the path of a file
    #[arg(long, value_name = "TARGET", env = "ROADSTEAD_INGRESS_ACCESS_LOG", value_parser = log_target, default_value = "stdout")]
    pub access_log: LogTarget,
    /// How it looks, unless the ConfigMap has a log-format-upstream
    #[arg(long, value_name = "STYLE", env = "ROADSTEAD_INGRESS_ACCESS_LOG_FORMAT", value_enum, default_value_t)]
    pub access_log_format: LineStyle,
    /// How finely metrics tell requests apart
    #[arg(long, value_name = "DETAIL", env = "ROADSTEAD_INGRESS_METRICS_DETAIL", value_enum, default_value_t)]
    pub metrics_detail: Detail,
    /// Connections that one client has at once; more of them are closed. Trusted proxies have no such limit
    #[arg(long, value_name = "N", env = "ROADSTEAD_INGRESS_MAX_CONNECTIONS_PER_CLIENT", default_value = "4096")]
    pub max_connections_per_client: NonZeroU32,
    /// Who is believed about clients and how TLS is answered.
    #[command(flatten)]
    pub edge: EdgeArguments,
    /// Write this address to the status of the Ingresses that are served (repeatable)
    #[arg(long, value_name = "IP", env = "ROADSTEAD_INGRESS_PUBLISH_ADDRESS", value_delimiter = ',')]
    pub publish_address: Vec<IpAddr>,
    /// Write the addresses of this Service instead
    #[arg(long, value_name = "NAMESPACE/NAME", env = "ROADSTEAD_INGRESS_PUBLISH_SERVICE")]
    pub publish_service: Option<NamespacedName>,
}

impl RunFlags {
    /// Where to listen.
    #[must_use]
    pub fn server(&self) -> ServerOptions {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        ServerOptions {
            http: self.http.clone(),
            https: self.https.clone(),
            threads: self.threads.map_or_else(cores, NonZeroUsize::get),
            max_connections: self.max_connections.get(),
            max_connections_per_client: self.max_connections_per_client.get(),
        }
    }

    /// The access log that is asked for.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn access_log(&self, lost: IntCounter) -> anyhow::Result<Option<AccessLog>> {
        let writer = LogWriter::start(&self.access_log, lost)?;
        Ok(writer.map(|writer| AccessLog::new(writer, self.access_log_format)))
    }

    /// What to count, with the labels that tell this controller from others: those of ingress-nginx, which takes the pod's
    /// from the same variables.
    #[must_use]
    pub fn metrics(&self) -> MetricsOptions {
        let variable = |name| env::var(name).unwrap_or_default();
        let constant = vec![
            ("controller_class", self.classes.names.first().map_or(CONTROLLER, String::as_str).to_owned()),
            ("controller_namespace", variable("POD_NAMESPACE")),
            ("controller_pod", variable("POD_NAME")),
        ];
        MetricsOptions { detail: self.metrics_detail, constant }
    }

    /// What to write to the status of Ingresses.
    #[must_use]
    pub fn publish(&self) -> Publish {
        let service = self.publish_service.as_ref().map(|name| name.0.clone());
        Publish { addresses: self.publish_address.clone(), service }
    }
}

fn log_target(text: &str) -> Result<LogTarget, String> {
    match text {
        "" => Err("expected stdout, off or a path".to_owned()),
        "stdout" | "-" => Ok(LogTarget::Stdout),
        "off" => Ok(LogTarget::Off),
        path => Ok(LogTarget::File(path.into())),
    }
}

/// Flags of the edge.
#[derive(Args, Debug)]
pub struct EdgeArguments {
    /// Believe what peers of this network say about clients, by the PROXY protocol or in X-Forwarded-* (repeatable)
    #[arg(long, value_name = "CIDR", env = "ROADSTEAD_INGRESS_TRUSTED_PROXY", value_delimiter = ',')]
    trusted_proxy: Vec<Network>,
    /// Every connection begins with a header of the PROXY protocol, version 1 or 2; only trusted proxies' are believed
    #[arg(long, env = "ROADSTEAD_INGRESS_USE_PROXY_PROTOCOL")]
    use_proxy_protocol: bool,
    /// The Secret whose certificate serves hosts that have none of their own
    #[arg(long, value_name = "NAMESPACE/NAME", env = "ROADSTEAD_INGRESS_DEFAULT_SSL_CERTIFICATE")]
    default_ssl_certificate: Option<NamespacedName>,
}

impl EdgeArguments {
    /// As the edge takes them.
    #[must_use]
    pub fn flags(&self) -> EdgeFlags {
        EdgeFlags {
            trusted: self.trusted_proxy.clone(),
            proxy_protocol: if self.use_proxy_protocol { ProxyProtocol::Required } else { ProxyProtocol::Off },
            default_certificate: self.default_ssl_certificate.as_ref().map(|name| name.0.clone()),
        }
    }
}

/// Which Ingresses are served.
#[derive(Args, Debug)]
pub struct ClassFlags {
    /// Serve this class and no other but those named (repeatable; default: classes of controller roadstead.dev/ingress)
    #[arg(long = "ingress-class", value_name = "NAME", env = "ROADSTEAD_INGRESS_CLASS", value_delimiter = ',')]
    names: Vec<String>,
    /// ConfigMap with controller options under ingress-nginx's keys (default: ingress-nginx/ingress-nginx-controller where class
    /// nginx is served)
    #[arg(long = "configmap", value_name = "NAMESPACE/NAME", env = "ROADSTEAD_INGRESS_CONFIGMAP")]
    config_map: Option<NamespacedName>,
    /// Service for what no Ingress takes and, where custom-http-errors says so, for errors; its first port
    #[arg(long, value_name = "NAMESPACE/NAME", env = "ROADSTEAD_INGRESS_DEFAULT_BACKEND_SERVICE")]
    default_backend_service: Option<NamespacedName>,
}

impl ClassFlags {
    /// As `roadstead-routes` takes it.
    #[must_use]
    pub fn controller(&self) -> Controller {
        let config_map = self.config_map.as_ref().map(|name| name.0.clone());
        let default_backend = self.default_backend_service.as_ref().map(|name| name.0.clone());
        Controller { classes: ClassChoice { names: self.names.clone() }, config_map, default_backend, node: None }
    }
}

/// Flags of `route`.
#[derive(Args, Debug)]
pub struct RouteFlags {
    /// Where objects come from.
    #[command(flatten)]
    pub source: SourceFlags,
    /// Which Ingresses are served.
    #[command(flatten)]
    pub classes: ClassFlags,
    /// The request comes over TLS
    #[arg(long)]
    pub https: bool,
    /// The request's host
    pub host: String,
    /// The request's path, with its query if it has one
    pub path: String,
    /// Form of the answer
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: Output,
}

/// `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object, whose fields only grow.
    Json,
}

/// `namespace/name` on the command line.
#[derive(Clone, Debug)]
pub struct NamespacedName(ObjectName);

/// The text was no `namespace/name`.
#[derive(Debug)]
pub struct NamespacedNameError;

impl fmt::Display for NamespacedNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected namespace/name")
    }
}

impl std::error::Error for NamespacedNameError {}

impl FromStr for NamespacedName {
    type Err = NamespacedNameError;

    fn from_str(text: &str) -> Result<Self, NamespacedNameError> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self(ObjectName::new(namespace, name)))
            }
            _ => Err(NamespacedNameError),
        }
    }
}
