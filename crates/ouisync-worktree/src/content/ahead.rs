//! Reading content ahead: a thread opens the next chunks of a large file while the ones before are written.

use std::{
    sync::mpsc::{Receiver, sync_channel},
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use ouisync_engine::{error::EngineError, view::ContentStream};

/// Chunks that wait to be written; a chunk is 4 MiB at most.
const WAITING: usize = 4;

type Next = Result<Option<(u64, Bytes)>, EngineError>;

/// Where content comes from, chunk by chunk.
pub(crate) enum Source {
    Here(Box<dyn ContentStream>),
    Ahead(Ahead),
}

/// The thread; ends when this is dropped.
pub(crate) struct Ahead {
    chunks: Option<Receiver<Next>>,
    thread: Option<JoinHandle<()>>,
}

impl Source {
    pub(crate) fn new(stream: Box<dyn ContentStream>) -> Self {
        Self::Here(stream)
    }

    /// Reads ahead; nothing can be skipped then.
    pub(crate) fn ahead(stream: Box<dyn ContentStream>) -> Self {
        let (send, chunks) = sync_channel(WAITING);
        // The stream follows by a channel: a thread that can't be had must not take it along.
        let (give, take) = sync_channel::<Box<dyn ContentStream>>(1);
        let thread = thread::Builder::new()
            .name("ouisync-open".to_owned())
            .spawn(move || {
                let Ok(mut stream) = take.recv() else { return };
                loop {
                    let next = stream.next_chunk();
                    let last = !matches!(next, Ok(Some(_)));
                    if send.send(next).is_err() || last {
                        return;
                    }
                }
            });
        let Ok(thread) = thread else {
            return Self::Here(stream);
        };
        // There is room for one, and the thread waits for it.
        let _ = give.send(stream);
        Self::Ahead(Ahead {
            chunks: Some(chunks),
            thread: Some(thread),
        })
    }

    /// The next chunk with its offset in the file; `None` at the end.
    pub(crate) fn next_chunk(&mut self) -> Next {
        match self {
            Self::Here(stream) => stream.next_chunk(),
            Self::Ahead(ahead) => match ahead.chunks.as_ref().map(Receiver::recv) {
                Some(Ok(next)) => next,
                _ => Err(EngineError::Stopping),
            },
        }
    }

    /// Passes over the next chunk.
    pub(crate) fn skip_chunk(&mut self) -> Result<(), EngineError> {
        match self {
            Self::Here(stream) => stream.skip_chunk(),
            Self::Ahead(_) => self.next_chunk().map(drop),
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.chunks = None;
        // The folder may be closed right after: nothing may read in it then.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that reads content ahead ended by a panic");
        }
    }
}
