//! One HTTP request over one connection to the daemon.

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};

use super::{ClientError, refusal};
use crate::endpoint::{self, SocketPath};

/// Most bytes of a response that is not a stream.
const MAX_RESPONSE: usize = 64 << 20;

#[derive(Clone)]
pub(super) struct Transport {
    place: Place,
    token: String,
}

#[derive(Clone, Debug)]
enum Place {
    Home(PathBuf),
    Address(SocketAddr),
}

impl fmt::Debug for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Transport")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// A response whose body is still coming; the connection ends with it.
pub(super) struct Streaming {
    pub(super) body: Incoming,
    _connection: Connection,
}

struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Transport {
    pub(super) fn home(home: &Path, token: String) -> Self {
        Self {
            place: Place::Home(home.to_owned()),
            token,
        }
    }

    pub(super) fn address(address: SocketAddr, token: String) -> Self {
        Self {
            place: Place::Address(address),
            token,
        }
    }

    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Reply, ClientError> {
        let (response, _connection) = self
            .exchange(method, path, body, "application/json")
            .await?;
        let status = response.status();
        let body = collect(response.into_body()).await?;
        Ok(Reply { status, body })
    }

    pub(super) async fn stream(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Streaming, ClientError> {
        let (response, connection) = self
            .exchange(method, path, body, "text/event-stream")
            .await?;
        let status = response.status();
        let body = response.into_body();
        if !status.is_success() {
            return Err(refusal(status, &collect(body).await?));
        }
        Ok(Streaming {
            body,
            _connection: connection,
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        accept: &'static str,
    ) -> Result<(Response<Incoming>, Connection), ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::ACCEPT, accept)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(broken)?;
        let (mut sender, connection) = self.dial().await?;
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok((response, connection))
    }

    async fn dial(&self) -> Result<(http1::SendRequest<Full<Bytes>>, Connection), ClientError> {
        match &self.place {
            Place::Address(address) => match TcpStream::connect(address).await {
                Ok(stream) => handshake(stream).await,
                Err(error) => Err(broken(error)),
            },
            Place::Home(home) => {
                if let Ok(stream) = connect_socket(home).await {
                    return handshake(stream).await;
                }
                match connect_address(home).await {
                    Ok(stream) => handshake(stream).await,
                    Err(_) => Err(ClientError::NotRunning { home: home.clone() }),
                }
            }
        }
    }
}

async fn connect_socket(home: &Path) -> io::Result<UnixStream> {
    let socket = SocketPath::of(home)?;
    UnixStream::connect(socket.path()).await
}

/// Used where a socket's path is too long for the system.
async fn connect_address(home: &Path) -> io::Result<TcpStream> {
    let address: SocketAddr = tokio::fs::read_to_string(endpoint::address(home))
        .await?
        .trim()
        .parse()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    if !address.ip().is_loopback() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a loopback address",
        ));
    }
    TcpStream::connect(address).await
}

async fn handshake<T>(
    stream: T,
) -> Result<(http1::SendRequest<Full<Bytes>>, Connection), ClientError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let task = tokio::spawn(async move {
        // Its error also reaches the request that waits on it.
        let _ = connection.await;
    });
    Ok((sender, Connection(task)))
}

async fn collect(body: Incoming) -> Result<Bytes, ClientError> {
    Limited::new(body, MAX_RESPONSE)
        .collect()
        .await
        .map(|collected| collected.to_bytes())
        .map_err(ClientError::Connection)
}

pub(super) fn broken(error: impl std::error::Error + Send + Sync + 'static) -> ClientError {
    ClientError::Connection(Box::new(error))
}
