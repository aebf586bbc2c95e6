//! Upstreams: which endpoint takes a request, over which connection, and what is tried when it fails.
//!
//! pingora-pool was looked at for the idle connections: it puts a watching task and a lock-free queue around raw streams
//! that any thread may take. Here every thread has a runtime of its own, and hyper's connection task watches the stream
//! already, so a map of the thread is all there is to keep.

mod body;
mod connection;
mod pool;
mod send;
mod trail;

pub use body::{Progress, RequestBody, UpstreamBody};
pub use connection::sweep_idle;
pub use pool::Pool;
pub use send::{Failure, send};
pub use trail::{Step, Trail};

use std::time::Duration;

/// nginx's proxy_connect_timeout.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// nginx's proxy_read_timeout and proxy_send_timeout: the longest silence, not the longest answer.
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
