//! Responses that go on: server-sent events.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use hyper::body::Frame;
use ouisync_api::{
    data::CheckUpdate,
    error::ErrorBody,
    event::Event,
    history::{Phase, Update},
};
use serde::Serialize;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::routes::{Api, answer};
use crate::service::{Content, WorkWatch};

/// Silence after which a comment shows that the stream lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events that a reader may be behind, beside the broadcast's own.
const BACKLOG: usize = 16;

/// A body that others write into; an error in it breaks the connection, so that nobody takes what came for all.
struct Channel<E>(mpsc::Receiver<Result<Bytes, E>>);

impl<E> hyper::body::Body for Channel<E> {
    type Data = Bytes;
    type Error = E;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(context)
            .map(|bytes| bytes.map(|bytes| bytes.map(Frame::data)))
    }
}

/// Where messages are written.
struct Messages(mpsc::Sender<Result<Bytes, std::convert::Infallible>>);

impl Messages {
    /// False when the reader is gone.
    async fn send(&self, message: Bytes) -> bool {
        self.0.send(Ok(message)).await.is_ok()
    }

    async fn closed(&self) {
        self.0.closed().await;
    }
}

fn open() -> (Messages, Response) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let sender = Messages(sender);
    let mut response = Body::new(Channel(receiver)).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (sender, response)
}

fn message(data: &impl Serialize) -> Bytes {
    // Plain data of this program's own types always has a JSON form.
    let json = serde_json::to_string(data).unwrap_or_default();
    Bytes::from(format!("data: {json}\n\n"))
}

/// The daemon's events until the reader goes or the daemon stops.
pub(super) fn events(api: Api) -> Response {
    let (sender, response) = open();
    let mut events = api.service.events();
    tokio::spawn(async move {
        // At once, so that the reader knows that nothing is missed from here on.
        let mut next = Bytes::from_static(b": here\n\n");
        while sender.send(next).await {
            next = tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => message(&event),
                    Err(broadcast::error::RecvError::Lagged(_)) => message(&Event::Lagged),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                () = tokio::time::sleep(KEEP_ALIVE) => Bytes::from_static(b": still here\n\n"),
                () = sender.closed() => return,
                () = api.stopping.cancelled() => {
                    // The reader may be gone; then nobody needs to know.
                    let _ = sender.send(message(&Event::Stopping)).await;
                    return;
                }
            };
        }
    });
    response
}

/// A check's progress and outcome; the check stops when the reader goes.
pub(super) fn check(api: Api, folder: Option<String>) -> Response {
    let (sender, response) = open();
    tokio::spawn(async move {
        let (progress, mut seen) = watch::channel((0, 0));
        let mut check = api.service.verify(folder, progress);
        let last = loop {
            let update = tokio::select! {
                outcome = &mut check => break match outcome {
                    Ok(outcome) => CheckUpdate::Outcome(outcome),
                    Err(error) => CheckUpdate::Failed(error),
                },
                changed = seen.changed() => match changed {
                    Ok(()) => {
                        let (done, total) = *seen.borrow_and_update();
                        message(&CheckUpdate::Progress { done, total })
                    }
                    // The check is about to end.
                    Err(_) => break match (&mut check).await {
                        Ok(outcome) => CheckUpdate::Outcome(outcome),
                        Err(error) => CheckUpdate::Failed(error),
                    },
                },
                () = sender.closed() => return,
                () = api.stopping.cancelled() => return,
            };
            if !sender.send(update).await {
                return;
            }
        };
        // The reader may be gone; then nobody needs to know.
        if *seen.borrow() != (0, 0) {
            // The check may have ended before its last progress was passed on.
            let (done, total) = *seen.borrow();
            let _ = sender
                .send(message(&CheckUpdate::Progress { done, total }))
                .await;
        }
        let _ = sender.send(message(&last)).await;
    });
    response
}

/// Whether the client wants updates and the outcome as events, rather than the outcome alone.
fn wants_events(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/event-stream"))
}

/// Work's outcome, with its progress before it if the client wants events; the work stops when the reader goes.
pub(super) async fn work<T, W>(
    api: Api,
    headers: HeaderMap,
    start: impl FnOnce(Api, WorkWatch) -> W,
) -> Response
where
    T: Serialize + Send + 'static,
    W: Future<Output = Result<T, ErrorBody>> + Send + 'static,
{
    // Work is cancelled once nobody sees its progress, so `seen` stays until the outcome.
    let (progress, seen) = watch::channel((Phase::Looking, 0, 0));
    let stopping = api.stopping.clone();
    let work = start(api, progress);
    match wants_events(&headers) {
        true => updates(work, seen, stopping),
        false => answer(work.await).into_response(),
    }
}

fn updates<T, W>(
    work: W,
    mut seen: watch::Receiver<(Phase, u64, u64)>,
    stopping: CancellationToken,
) -> Response
where
    T: Serialize + Send + 'static,
    W: Future<Output = Result<T, ErrorBody>> + Send + 'static,
{
    let (sender, response) = open();
    tokio::spawn(async move {
        let mut work = std::pin::pin!(work);
        let last = |outcome| match outcome {
            Ok(outcome) => Update::Outcome { outcome },
            Err(error) => Update::Failed { error },
        };
        let last = loop {
            let update = tokio::select! {
                outcome = &mut work => break last(outcome),
                changed = seen.changed() => match changed {
                    Ok(()) => {
                        let (phase, done, total) = *seen.borrow_and_update();
                        message(&Update::<T>::Progress { phase, done, total })
                    }
                    // The work is about to end.
                    Err(_) => break last((&mut work).await),
                },
                () = tokio::time::sleep(KEEP_ALIVE) => Bytes::from_static(b": still here\n\n"),
                () = sender.closed() => return,
                () = stopping.cancelled() => return,
            };
            if !sender.send(update).await {
                return;
            }
        };
        // The reader may be gone; then nobody needs to know.
        let _ = sender.send(message(&last)).await;
    });
    response
}

/// Bytes as they are.
pub(super) fn content(content: Content) -> Response {
    let mut response = Body::new(Channel(content)).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
