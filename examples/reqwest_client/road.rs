//! A road on which requests and replies get lost: a proxy that breaks connections where it is told to.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What happens to one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mishap {
    /// The server never sees it.
    RequestLost,
    /// The server has done its work; the client never learns of it.
    ReplyLost,
}

pub(crate) struct Road {
    pub(crate) address: SocketAddr,
    trips: Arc<AtomicUsize>,
}

impl Road {
    /// A road to `server`. The first connections meet the `mishaps`, one each; the others nothing.
    pub(crate) async fn to(server: SocketAddr, mishaps: Vec<Mishap>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let trips = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&trips);
        let mishaps = Mutex::new(VecDeque::from(mishaps));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let mishap = mishaps.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                tokio::spawn(travel(client, server, mishap));
            }
        });
        Ok(Self { address, trips })
    }

    /// How many connections there were.
    pub(crate) fn trips(&self) -> usize {
        self.trips.load(Ordering::SeqCst)
    }
}

async fn travel(
    mut client: TcpStream,
    server: SocketAddr,
    mishap: Option<Mishap>,
) -> io::Result<()> {
    match mishap {
        None => {
            let mut server = TcpStream::connect(server).await?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await?;
        }
        Some(Mishap::RequestLost) => {
            // Taken, and lost.
            client.read_u8().await?;
        }
        Some(Mishap::ReplyLost) => {
            let mut server = TcpStream::connect(server).await?;
            let mut request = [0; 4096];
            let len = client.read(&mut request).await?;
            server.write_all(&request[..len]).await?;
            // The reply has come this far, and no farther.
            server.read_u8().await?;
        }
    }
    Ok(())
}
