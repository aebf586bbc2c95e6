//! An endpoint without manners: reads and writes raw bytes as a test says, connection by connection.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// Ends when it is dropped.
pub(crate) struct ScriptedEndpoint {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl ScriptedEndpoint {
    /// Each connection is handed to `script` with its number, from 0.
    pub(crate) async fn start<F, S>(script: S) -> Self
    where
        S: Fn(usize, TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut scripts = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                scripts.spawn(script(count.fetch_add(1, Ordering::SeqCst), stream));
            }
        });
        Self { address, connections, task }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for ScriptedEndpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}
