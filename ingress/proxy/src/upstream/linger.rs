//! What a client still sends of a request that has had its answer: read and thrown away for a while, as nginx's lingering close.
//!
//! Closing a connection with unread bytes makes the kernel reset it, and a client that is still writing loses the answer. HTTP/2
//! has a frame for this, so there a body is just dropped.

use std::{pin::Pin, time::Duration};

use hyper::body::{Body, Incoming};
use tokio::{
    runtime::Handle,
    time::{Instant, timeout_at},
};

/// nginx's lingering_time.
const WHOLE: Duration = Duration::from_secs(30);
/// nginx's lingering_timeout.
const PAUSE: Duration = Duration::from_secs(5);

/// Whether a body that nobody wants is read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linger {
    /// It is, for a time.
    Read,
    /// It is, if the client was told to send it (RFC 9110, section 10.1.1); else it sends nothing.
    ReadIfBegun,
    /// It is not: HTTP/2 resets the stream.
    Drop,
}

impl Linger {
    /// Takes care of the rest of a body.
    pub(super) fn discard(self, body: Incoming, begun: bool) {
        let wanted = self == Self::Read || (self == Self::ReadIfBegun && begun);
        if !wanted || body.is_end_stream() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(read(body));
        }
    }
}

async fn read(mut body: Incoming) {
    let end = Instant::now() + WHOLE;
    let next = async |body: &mut Incoming| std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
    while let Ok(Some(Ok(_))) = timeout_at(end.min(Instant::now() + PAUSE), next(&mut body)).await {}
}
