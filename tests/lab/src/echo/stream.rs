//! TCP: a greeting of one line, then every byte back.

use std::net::SocketAddr;

use anyhow::Result;
use serde_json::json;
use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};

pub(super) async fn serve(listener: TcpListener, name: String) {
    loop {
        match listener.accept().await {
            // A connection that fails is its client's to notice.
            Ok((stream, peer)) => drop(tokio::spawn(greet(stream, peer, name.clone()))),
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

async fn greet(mut stream: TcpStream, peer: SocketAddr, name: String) -> Result<()> {
    let local = stream.local_addr()?;
    let greeting = json!({"name": name, "peer": super::plain(peer), "local": super::plain(local)});
    stream.set_nodelay(true)?;
    stream.write_all(format!("{greeting}\n").as_bytes()).await?;
    let (mut read, mut write) = stream.split();
    copy(&mut read, &mut write).await?;
    write.shutdown().await?;
    Ok(())
}
