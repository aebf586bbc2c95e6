//! A server of the API `external.metrics.k8s.io`, as adapters of monitoring systems are: one metric, of the value that a test
//! sets, so that the real HorizontalPodAutoscaler has something to follow.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use super::ControlPlane;

/// Beside the API server's.
const PORT: u16 = 6444;
const GROUP: &str = "external.metrics.k8s.io/v1beta1";

/// The metric `requests`; it is served until the control plane ends.
#[derive(Clone, Debug, Default)]
pub struct Metric(Arc<AtomicU64>);

impl Metric {
    /// What it shall be from now on.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl ControlPlane {
    /// Serves the external metric `requests`, and registers its server with the API server.
    ///
    /// # Errors
    ///
    /// Where the API server refuses the registration.
    pub fn serve_metric(&self) -> Result<Metric> {
        let metric = Metric::default();
        let pair = self.authority.issue("metrics", "", &[self.place.v4().to_string()])?;
        let certificates = CertificateDer::pem_file_iter(&pair.certificate)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&pair.key)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = builder.with_no_client_auth().with_single_cert(certificates, key)?;
        let address = (self.place.v4(), PORT);
        let listener = self.place.run(|| TcpListener::bind(address))?.context("the port of metrics is in use")?;
        listener.set_nonblocking(true)?;
        let (acceptor, served) = (TlsAcceptor::from(Arc::new(config)), metric.clone());
        self.runtime().spawn(async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(acceptor.clone(), stream, served.clone()));
            }
        });
        self.apply(&registration(&self.place.v4().to_string()))?;
        Ok(metric)
    }
}

async fn connection(acceptor: TlsAcceptor, stream: tokio::net::TcpStream, metric: Metric) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(request.uri().path(), &metric);
        async move { Ok::<_, Infallible>(response(answer)) }
    });
    // A connection that fails is its client's to notice.
    let _closed = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

fn response(answer: Option<Value>) -> Response<Full<Bytes>> {
    let status = if answer.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let mut response =
        Response::new(Full::new(Bytes::from(answer.map(|answer| answer.to_string()).unwrap_or_default())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What is served at a path: what there is, and the metric in any namespace.
fn answer(path: &str, metric: &Metric) -> Option<Value> {
    let rest = path.strip_prefix("/apis/external.metrics.k8s.io/v1beta1")?;
    if rest.is_empty() {
        let resource = json!({"name": "requests", "singularName": "", "namespaced": true, "kind": "ExternalMetricValueList", "verbs": ["get"]});
        return Some(
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP, "resources": [resource]}),
        );
    }
    rest.strip_prefix("/namespaces/")?.strip_suffix("/requests")?;
    let value = metric.0.load(Ordering::Relaxed).to_string();
    let item =
        json!({"metricName": "requests", "metricLabels": {}, "timestamp": crate::kubelet::now(), "value": value});
    Some(json!({"kind": "ExternalMetricValueList", "apiVersion": GROUP, "metadata": {}, "items": [item]}))
}

fn registration(address: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: metrics, namespace: kube-system}}
spec: {{ports: [{{port: 443, targetPort: {PORT}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: metrics, namespace: kube-system, labels: {{kubernetes.io/service-name: metrics}}}}
addressType: IPv4
ports: [{{port: {PORT}}}]
endpoints: [{{addresses: [{address}], conditions: {{ready: true}}}}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: v1beta1.external.metrics.k8s.io}}
spec:
  group: external.metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {{name: metrics, namespace: kube-system, port: 443}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metric_has_its_value() {
        let metric = Metric::default();
        metric.set(42);
        let found = answer("/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/requests", &metric).unwrap();
        assert_eq!(found.pointer("/items/0/value"), Some(&json!("42")));
        assert!(answer("/apis/external.metrics.k8s.io/v1beta1", &metric).is_some());
        assert!(answer("/openapi/v2", &metric).is_none());
    }
}
