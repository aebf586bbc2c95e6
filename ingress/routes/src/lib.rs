//! The Ingress route table: which Ingress, rule, backend and certificate take a request.
//!
//! On the configuration's way this crate stands between `model` and the proxy: [`compile`] makes an immutable [`Table`]
//! of a snapshot. On the packet's way [`route`] answers one request from it. Endpoints are left outside the table
//! ([`endpoints_of`]), so that pods may come and go without touching a route. There is no async, clock, file or socket
//! here, and no HTTP library: the proxy and the offline command `roadstead-ingress route` ask the same function.

#![forbid(unsafe_code)]

mod app_protocol;
mod canary;
mod class;
mod compile;
mod controller;
mod endpoints;
mod fuzz;
mod host;
mod network;
mod path;
mod pattern;
mod redirect;
mod references;
mod rewrite;
mod route;
mod settings;
mod snippet;
mod table;
mod template;
mod tls;

#[cfg(test)]
mod fixture;

pub use app_protocol::app_protocol;
pub use canary::RouteCanary;
pub use class::{CONTROLLER, ClassChoice, DEFAULT_CLASS};
pub use compile::{Compiled, compile, compile_after, same_inputs};
pub use controller::Controller;
pub use endpoints::{Endpoints, EndpointsError, endpoints_of, unserved};
pub use fuzz::{fuzz_annotations, fuzz_rewrite, fuzz_template};
pub use host::request_host;
pub use network::Networks;
pub use path::{BadPath, normalise};
pub use pattern::{Case, Pattern, PatternError};
pub use redirect::{Redirect, redirect};
pub use references::references;
pub use rewrite::rewritten;
pub use route::{Outcome, Scheme, route};
pub use settings::*;
pub use snippet::{Change, Effects, Program, SnippetAnswer};
pub use table::{Authentication, Backend, BackendId, Route, Table, Target};
pub use template::{Facts, Template, TemplateError, Variable};
pub use tls::{CertificateIndex, CertificateRef, HostTls};
