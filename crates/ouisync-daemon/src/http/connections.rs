//! Accepts connections and runs HTTP/1 on them, a bounded number at a time.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use ouisync_api::error::{ApiError, ErrorBody, ErrorKind};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Connections at once, streams of events included.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// Time for a request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Connections that are turned away at a time.
const MAX_REFUSALS: usize = 64;
/// Time for one that is turned away to ask and to take its answer.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);
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
    refusals: Arc<Semaphore>,
}

impl Connections {
    pub(crate) fn new(router: Router, stopping: CancellationToken) -> Self {
        Self {
            router,
            stopping,
            tasks: TaskTracker::new(),
            places: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
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
            match listener.accept().await {
                Ok(stream) => {
                    let Ok(place) = self.places.clone().try_acquire_owned() else {
                        // Where even those who are turned away are too many, the system's own queue lets them wait.
                        let Ok(place) = self.refusals.clone().acquire_owned().await else {
                            return;
                        };
                        self.tasks.spawn(async move {
                            turn_away(stream).await;
                            drop(place);
                        });
                        continue;
                    };
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

/// Says that there are too many connections, whatever the request is.
async fn turn_away(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let body = ApiError::from(ErrorBody::new(
        ErrorKind::Unavailable,
        format!("{MAX_CONNECTIONS} programs talk to the daemon already"),
        "End some of them, or try again in some seconds.",
    ));
    let Ok(body) = serde_json::to_string(&body) else {
        return;
    };
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\nRetry-After: 10\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let answering = async {
        // A client takes no answer before it has asked; and closing with a request unread would take the answer back.
        let mut request = [0; 1024];
        if stream.read(&mut request).await? == 0 {
            return Ok(());
        }
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        while stream.read(&mut request).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    let _ = tokio::time::timeout(REFUSAL_LIMIT, answering).await;
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
