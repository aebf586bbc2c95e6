//! roadstead-ingress: the proxy that serves Ingress.
//!
//! On the packet's way: `listen` and `edge` take connections and find out whose they are (`intake`, `proxy_protocol`), `tls`
//! and `certificates` decrypt them unless they are passed through (`passthrough`), `head` judges what comes as raw bytes, hyper
//! parses it, `field_names` and `forwarded` decide what of a head is believed, `handler` asks `roadstead-routes` and changes
//! fields (`fields`), `upstream` picks an endpoint and streams both bodies, `tunnel` carries what was upgraded, `socket` writes.
//! `policy` holds what decides who may come and how often: `passwords`, `authorize` (another service is asked), `limiter`. On the
//! configuration's way: `control` makes each snapshot of `sources` into the routes, pools, certificates and edge of the
//! moment. A library beside the binary, so that tests drive it.

#![forbid(unsafe_code)]

pub mod answer;
pub mod authorize;
pub mod certificates;
pub mod cli;
pub mod control;
pub mod edge;
pub mod events;
pub mod field_names;
pub mod fields;
pub mod forwarded;
pub mod handler;
pub mod head;
pub mod intake;
pub mod limiter;
pub mod listen;
pub mod metrics;
mod pace;
mod passthrough;
pub mod passwords;
pub mod policy;
pub mod proxy_protocol;
pub mod record;
pub mod route_command;
pub mod run;
pub mod server;
mod socket;
pub mod tls;
pub mod trusted;
pub mod tunnel;
pub mod upstream;
