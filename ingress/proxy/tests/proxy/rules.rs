//! Redirects, rewriting, canaries, errors and snippets: what annotations make of real requests.

mod canary;
mod errors;
mod passing;
mod redirects;
mod rewriting;
mod snippets;

use roadstead_model::{PathType, Snapshot};
use roadstead_routes::{ClassChoice, Controller};

use crate::{
    client::{exchange, get},
    endpoint::TestEndpoint,
    objects::{annotate, edit, empty, ingress, service},
    proxy::Proxy,
};

/// One endpoint, and a snapshot whose Ingresses lead to it.
pub(crate) struct Scene {
    pub(crate) web: TestEndpoint,
    pub(crate) snapshot: Snapshot,
}

impl Scene {
    /// A Service `web` with one endpoint, and no Ingress.
    pub(crate) async fn new() -> Self {
        let web = TestEndpoint::start("web").await;
        let mut snapshot = empty();
        service(&mut snapshot, "web", &[web.address]);
        Self { web, snapshot }
    }

    /// Adds an Ingress of a class that sends these prefixes of `host` to `web`.
    pub(crate) fn add(&mut self, class: &str, name: &str, host: &str, paths: &[&str], annotations: &[(&str, &str)]) {
        let paths: Vec<_> = paths.iter().map(|path| (host, *path, "web")).collect();
        ingress(&mut self.snapshot, name, &paths, &[]);
        annotate(&mut self.snapshot, name, annotations);
        edit(&mut self.snapshot, name, |object| object.class = Some(class.to_owned()));
    }

    /// Makes every path of an Ingress `ImplementationSpecific`.
    pub(crate) fn raw_paths(&mut self, name: &str) {
        edit(&mut self.snapshot, name, |object| {
            for path in object.rules.iter_mut().flat_map(|rule| &mut rule.paths) {
                path.path_type = PathType::ImplementationSpecific;
            }
        });
    }

    /// A proxy that took over from ingress-nginx: it serves class `nginx`, and `roadstead` beside it.
    pub(crate) fn start(&self) -> Proxy {
        Proxy::controlled(self.snapshot.clone(), controller(), 100)
    }
}

/// Of both classes.
pub(crate) fn controller() -> Controller {
    let names = ["nginx", "roadstead"].map(str::to_owned).to_vec();
    Controller { classes: ClassChoice { names }, ..Controller::default() }
}

/// The whole answer to a GET.
pub(crate) async fn ask(proxy: &Proxy, host: &str, target: &str) -> String {
    exchange(proxy.http, get(host, target)).await
}

/// A field of an answer.
pub(crate) fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    head.lines().find_map(|line| line.split_once(": ").filter(|(found, _)| *found == name)).map(|(_, value)| value)
}

/// How many warnings about the configuration there are.
pub(crate) fn warnings(proxy: &Proxy) -> Option<String> {
    proxy.metric("roadstead_ingress_config_problems{severity=\"warning\"}")
}
