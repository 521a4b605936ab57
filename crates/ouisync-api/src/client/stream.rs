//! Responses that go on: events, and a check's progress.

use std::collections::VecDeque;

use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::{
    ClientError,
    transport::{Streaming, broken},
};
use crate::{
    data::{CheckUpdate, Verification},
    error::ApiError,
    event::Event,
    sse::Parser,
};

pub(super) struct Messages {
    streaming: Streaming,
    parser: Parser,
    ready: VecDeque<Vec<u8>>,
}

impl Messages {
    pub(super) fn new(streaming: Streaming) -> Self {
        Self {
            streaming,
            parser: Parser::default(),
            ready: VecDeque::new(),
        }
    }

    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                let message = serde_json::from_slice(&message)
                    .map_err(|error| ClientError::Answer(error.to_string()))?;
                return Ok(Some(message));
            }
            let Some(frame) = self.streaming.body.frame().await else {
                return Ok(None);
            };
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                let events = self
                    .parser
                    .push(&data)
                    .map_err(|error| ClientError::Answer(error.to_string()))?;
                self.ready.extend(events);
            }
        }
    }
}

/// The daemon's events as they happen.
pub struct Events(Messages);

impl Events {
    pub(super) fn new(streaming: Streaming) -> Self {
        Self(Messages::new(streaming))
    }

    /// The next event; `None` when the daemon ends the stream. Safe to cancel.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        self.0.next().await
    }
}

/// A check that is running; dropping it stops the check.
pub struct Checking(Messages);

impl Checking {
    pub(super) fn new(streaming: Streaming) -> Self {
        Self(Messages::new(streaming))
    }

    /// Waits for the outcome, telling the bytes done and in all meanwhile.
    pub async fn outcome(
        mut self,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Verification, ClientError> {
        while let Some(update) = self.0.next().await? {
            match update {
                CheckUpdate::Progress { done, total } => progress(done, total),
                CheckUpdate::Outcome(outcome) => return Ok(outcome),
                CheckUpdate::Failed(error) => return Err(ClientError::Refused(ApiError { error })),
            }
        }
        Err(ClientError::Answer(
            "the check ended without an outcome".to_owned(),
        ))
    }
}
