//! Accepts connections and runs HTTP/1 on them, a bounded number at a time.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Connections at once, streams of events included.
const MAX_CONNECTIONS: usize = 256;
/// Time for a request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, such as for want of file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Something that accepts connections.
pub(crate) trait Listen: Send + 'static {
    /// What it accepts.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    /// The next one.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listen for TcpListener {
    type Stream = tokio::net::TcpStream;
    async fn accept(&self) -> io::Result<Self::Stream> {
        let (stream, _) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Listen for UnixListener {
    type Stream = tokio::net::UnixStream;
    async fn accept(&self) -> io::Result<Self::Stream> {
        UnixListener::accept(self).await.map(|(stream, _)| stream)
    }
}

/// The running interface.
#[derive(Clone)]
pub(crate) struct Connections {
    router: Router,
    stopping: CancellationToken,
    tasks: TaskTracker,
    places: Arc<Semaphore>,
}

impl Connections {
    pub(crate) fn new(router: Router, stopping: CancellationToken) -> Self {
        Self {
            router,
            stopping,
            tasks: TaskTracker::new(),
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }
    }

    /// Accepts until the daemon stops.
    pub(crate) fn listen(&self, listener: impl Listen) {
        let this = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = this.stopping.cancelled() => {}
                () = this.accept(listener) => {}
            }
        });
    }

    /// Waits for the end of all connections, for `limit` at most; says whether all ended.
    pub(crate) async fn finish(&self, limit: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(limit, self.tasks.wait()).await.is_ok()
    }

    async fn accept(&self, listener: impl Listen) {
        loop {
            let Ok(place) = self.places.clone().acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok(stream) => {
                    let (router, stopping) = (self.router.clone(), self.stopping.clone());
                    self.tasks.spawn(async move {
                        converse(stream, router, stopping).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection to the API was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    router: Router,
    stopping: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the API ended early");
    }
}
