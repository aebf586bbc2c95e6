//! The client: configuration from a kubeconfig or from the pod, one HTTP/2 connection, and what notices that it is dead.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt as _},
    config::{KubeConfigOptions, Kubeconfig},
};
use rustls_pki_types::ServerName;
use tower::{BoxError, ServiceBuilder};

use super::failure::Failure;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection that nothing came on for this long is asked whether it lives,
const PING: Duration = Duration::from_secs(10);
/// and is dead if it does not answer for this long: after 15 s at most a watch knows that it is cut off.
const PONG: Duration = Duration::from_secs(5);

/// Where the configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// A kubeconfig with its current context.
    Kubeconfig(PathBuf),
    /// What a pod is given.
    InCluster,
}

impl Access {
    /// Makes a client. Reads the configuration anew each time: certificates and tokens in it may have changed. A token in a
    /// file of its own is read again once a minute by the client itself.
    ///
    /// # Errors
    /// The configuration cannot be read or used.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        let wrong = |error: kube::Error| Failure::Configuration(Box::new(error));
        let config = match self {
            Self::Kubeconfig(path) => from_file(path).await?,
            Self::InCluster => Config::incluster().map_err(|error| Failure::Configuration(Box::new(error)))?,
        };
        if let Some(proxy) = &config.proxy_url {
            tracing::warn!(%proxy, "the API server is asked directly, not through a proxy");
        }
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT));
        // For connections in HTTP/1, which has no pings.
        http.set_keepalive(Some(PING));
        http.set_keepalive_interval(Some(PONG));
        http.set_keepalive_retries(Some(1));
        http.set_tcp_user_timeout(Some(PING + PONG));
        let tls = config.rustls_client_config().map_err(wrong)?;
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let https = match &config.tls_server_name {
            Some(name) => https.with_server_name_resolver(FixedServerNameResolver::new(server_name(name)?)),
            None => https,
        };
        let https = https.enable_all_versions().wrap_connector(http);
        let hyper = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_keep_alive_interval(PING)
            .http2_keep_alive_timeout(PONG)
            .http2_keep_alive_while_idle(true)
            .build::<_, Body>(https);
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer().map_err(wrong)?)
            .layer(config.extra_headers_layer().map_err(wrong)?)
            .map_err(BoxError::from)
            .service(hyper);
        Ok(Client::new(service, config.default_namespace))
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, Failure> {
    ServerName::try_from(name.to_owned()).map_err(|error| Failure::Configuration(Box::new(error)))
}

async fn from_file(path: &Path) -> Result<Config, Failure> {
    let wrong = |error| Failure::Configuration(Box::new(error));
    let kubeconfig = Kubeconfig::read_from(path).map_err(wrong)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(wrong)
}

/// The namespace that this pod runs in, where it is one.
pub(crate) fn own_namespace() -> Option<String> {
    const FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
    Some(std::fs::read_to_string(FILE).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}
