//! The life of a daemon: from an empty process to `ready`, and from a signal to a clean end.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ouisync_api::endpoint::{self, SocketPath};
use ouisync_engine::{
    engine::{Engine, EngineOptions},
    error::EngineError,
};
use thiserror::Error;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use crate::{
    device::Device,
    home::{Home, HomeError},
    http::{
        connections::Connections,
        routes::{self, Api},
    },
    key_ring::SecretService,
    upkeep::{self, UpkeepError},
};

/// Time for a clean end, after which the process ends anyway: what was acknowledged is durable already.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Time of it that open requests get.
const REQUESTS_LIMIT: Duration = Duration::from_secs(2);

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The home directory; made when missing.
    pub home: PathBuf,
    /// UDP address for other devices; `None`: all interfaces on a port that is chosen once and kept.
    pub listen: Option<SocketAddr>,
    /// Find devices on the local network.
    pub lan: bool,
    /// This device's name, kept for later starts; `None`: the kept one or the machine's.
    pub device_name: Option<String>,
}

/// Why a daemon could not start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The home can't be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The host's settings can't be used.
    #[error(transparent)]
    Settings(#[from] UpkeepError),
    /// The engine can't start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The API can't be offered.
    #[error("the API can't listen at {place}: {source}")]
    Listen {
        /// The socket or address.
        place: String,
        /// The failure.
        source: io::Error,
    },
    /// Signals can't be handled.
    #[error("signals can't be handled: {0}")]
    Signals(#[source] io::Error),
    /// Nobody can be told that it is ready.
    #[error("standard output can't be written: {0}")]
    Output(#[source] io::Error),
}

/// Serves until SIGTERM or SIGINT. Prints `ready` on standard output once the API answers.
pub async fn run(options: ServeOptions) -> Result<(), ServeError> {
    // First, so that a signal during the start ends it cleanly too.
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    let home = Home::open(&options.home)?;
    let token = home.token()?;
    let engine_options = EngineOptions {
        home: home.path().to_owned(),
        listen: options.listen,
        lan: options.lan,
        device_name: home.device_name(options.device_name.as_deref())?,
        key_ring: Some(Arc::new(SecretService::new(home.path()))),
        housekeeping: upkeep::settings(home.path())?,
    };
    let engine = tokio::select! {
        engine = Engine::start(engine_options) => engine?,
        () = signals.next() => return Ok(()),
    };
    let stopping = CancellationToken::new();
    let device = Device::start(engine, home.path().to_owned(), stopping.clone()).await;
    let api = Api {
        service: Arc::new(device.clone()),
        token,
        stopping: stopping.clone(),
    };
    let connections = Connections::new(routes::router(api).0, stopping.clone());
    let served = offer(&home, &connections).await.and_then(|()| announce());
    if served.is_ok() {
        tracing::info!(home = %home.path().display(), "ready");
        signals.next().await;
        tracing::info!("stopping");
    }
    stopping.cancel();
    let ending = async {
        if !connections.finish(REQUESTS_LIMIT).await {
            tracing::warn!("requests were still open and were cut off");
        }
        device.shutdown().await;
    };
    tokio::select! {
        ended = tokio::time::timeout(STOP_LIMIT, ending) => match ended {
            Ok(()) => tracing::info!("stopped"),
            Err(_) => tracing::warn!("stopped before all was closed; what was acknowledged is safe"),
        },
        () = signals.next() => tracing::warn!("stopped at once by a second signal; what was acknowledged is safe"),
    }
    home.withdraw();
    served
}

/// Offers the API on the home's socket and on a loopback address.
async fn offer(home: &Home, connections: &Connections) -> Result<(), ServeError> {
    let socket = endpoint::socket(home.path());
    match bind_socket(home) {
        Ok(listener) => connections.listen(listener),
        // The loopback address serves as well.
        Err(error) if error.kind() == io::ErrorKind::InvalidFilename => {
            tracing::warn!(
                "the home's path is too long for a socket; clients use the loopback address"
            );
        }
        Err(source) => {
            return Err(ServeError::Listen {
                place: socket.display().to_string(),
                source,
            });
        }
    }
    let refused = |source| ServeError::Listen {
        place: Ipv4Addr::LOCALHOST.to_string(),
        source,
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .map_err(refused)?;
    home.publish_address(listener.local_addr().map_err(refused)?)?;
    connections.listen(listener);
    Ok(())
}

/// The home's lock is held, so a socket that is there is a leftover.
fn bind_socket(home: &Home) -> io::Result<UnixListener> {
    let path = SocketPath::of(home.path())?;
    match std::fs::remove_file(path.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The home is for the user only, so nobody else can reach the socket before its mode is set.
    let listener = UnixListener::bind(path.path())?;
    std::fs::set_permissions(path.path(), std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn announce() -> Result<(), ServeError> {
    let mut output = io::stdout().lock();
    writeln!(output, "ready")
        .and_then(|()| output.flush())
        .map_err(ServeError::Output)
}

/// The signals that end a daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
