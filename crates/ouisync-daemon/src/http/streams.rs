//! Responses that go on: server-sent events.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use hyper::body::Frame;
use ouisync_api::{data::CheckUpdate, event::Event};
use serde::Serialize;
use tokio::sync::{broadcast, mpsc, watch};

use super::routes::Api;

/// Silence after which a comment shows that the stream lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events that a reader may be behind, beside the broadcast's own.
const BACKLOG: usize = 16;

/// A body that others write into.
struct Channel(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Channel {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(context)
            .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

fn open() -> (mpsc::Sender<Bytes>, Response) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
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
        while sender.send(next).await.is_ok() {
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
            if sender.send(update).await.is_err() {
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
