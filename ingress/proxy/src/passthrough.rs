//! TLS that is not ended here: the client's stream and an endpoint's are joined, byte for byte.
//!
//! ingress-nginx hands such a stream to the Service's cluster address; here it goes to an endpoint of the Service's port, as
//! requests do. The drain waits for these streams as it does for requests.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use crate::{
    tunnel::carry,
    upstream::{InUse, Outcome, Pool, Selection},
};

/// The time that a request's connection to an endpoint may take unless its Ingress says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// As for requests: how many endpoints are tried before the client's connection is closed.
const MAX_ENDPOINTS: usize = 3;

/// Joins a client's stream with an endpoint, until both are done or neither has said anything for `silence`.
pub(crate) async fn pass(client: impl AsyncRead + AsyncWrite + Unpin, pool: Arc<Pool>, silence: Duration) {
    let Some((in_use, upstream)) = connect(pool).await else {
        tracing::debug!("no endpoint takes a passed-through connection");
        return;
    };
    if let Err(error) = carry(client, upstream, silence).await {
        tracing::debug!(endpoint = %in_use.address(), %error, "passed-through stream broke");
    }
}

/// The Ingress's settings are void here, so endpoints are taken in turn.
async fn connect(pool: Arc<Pool>) -> Option<(InUse, TcpStream)> {
    let mut selection = Selection::new(pool, Arc::default());
    for _ in 0..MAX_ENDPOINTS {
        let mut in_use = selection.next()?;
        match connect_to(in_use.address()).await {
            Ok(stream) => {
                selection.note(&mut in_use, Outcome::Answered);
                return Some((in_use, stream));
            }
            Err(error) => {
                tracing::debug!(endpoint = %in_use.address(), %error, "endpoint cannot be connected to");
                selection.note(&mut in_use, Outcome::Unreachable);
                selection.leave(&in_use);
            }
        }
    }
    None
}

async fn connect_to(endpoint: SocketAddr) -> io::Result<TcpStream> {
    let stream =
        timeout(CONNECT_TIMEOUT, TcpStream::connect(endpoint)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
