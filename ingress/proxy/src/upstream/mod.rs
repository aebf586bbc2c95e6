//! Upstreams: which endpoint takes a request, over which connection, and what is tried when it fails.
//!
//! pingora-pool was looked at for the idle connections: it puts a watching task and a lock-free queue around raw streams
//! that any thread may take. Here every thread has a runtime of its own, so a map of the thread is all there is to keep.

mod alarm;
mod attempt;
mod body;
mod connection;
mod head_copy;
mod http1;
mod http2;
mod linger;
mod names;
mod pool;
mod read_ahead;
mod request_body;
mod send;
mod tls;
mod tls_verify;
mod trail;
mod transport;

pub use body::UpstreamBody;
pub use connection::sweep_idle;
pub use linger::Linger;
pub use names::{Named, keep_resolved};
pub use pool::{Census, Needs, Pool};
pub(crate) use pool::{InUse, Outcome, Selection, Session};
pub use request_body::{BodyFault, BodyRules, Progress, RequestBody};
pub use send::Failure;
pub(crate) use send::send;
pub use tls::{PolicyName, TlsError, TlsPolicies, TlsPolicy};
pub use trail::{Step, Trail};
pub use transport::{TlsTransport, Transport, Wire};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
