//! What a member tells of a large file while it still reads it.

use std::{
    io::{self, Read},
    sync::{Arc, mpsc},
    time::Duration,
};

use ouisync_engine::{
    status::Role,
    view::{DraftStep, ViewControl, ViewEvent},
};
use ouisync_model::operation::{ChunkRef, FileContent, FileData};

use crate::device::{Device, View, noise};

/// A view that does nothing by itself.
struct Still;

impl ViewControl for Still {
    fn rescan(&self) {}
}

/// Gives so many bytes, and the rest when it is told to.
struct Waiting {
    rest: io::Cursor<Vec<u8>>,
    until: u64,
    go_on: mpsc::Receiver<()>,
}

impl Read for Waiting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let before = self.until.saturating_sub(self.rest.position()) as usize;
        if before > 0 {
            let length = buffer.len().min(before);
            return self.rest.read(&mut buffer[..length]);
        }
        if self.until > 0 {
            self.until = 0;
            let told = self.go_on.recv_timeout(Duration::from_secs(60));
            told.map_err(io::Error::other)?;
        }
        self.rest.read(buffer)
    }
}

/// Adds what is heard to the chunks that are known; tells whether the draft ended.
fn follow(chunks: &mut Vec<ChunkRef>, event: &ViewEvent) -> bool {
    let ViewEvent::Drafts(steps) = event else {
        return false;
    };
    for DraftStep { part, .. } in steps {
        let Some(part) = part else { continue };
        let end: u64 = chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        assert_eq!(part.offset, end, "parts follow each other");
        chunks.extend_from_slice(&part.chunks);
    }
    steps.iter().any(|step| step.ends)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_beginning_of_a_large_file_is_readable_before_it_is_committed() {
    const READ_FIRST: u64 = 90 << 20;
    let (alice, bob) = (Device::start("alice").await, Device::start("bob").await);
    let folder = alice.create().await;
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    bob.wait(folder).await;
    let (one, other) = (alice.view(folder), bob.view(folder));
    let mut events = other.0.attach(Arc::new(Still)).unwrap();
    let bytes = noise(98 << 20);
    let (tell, go_on) = mpsc::channel();
    let mut source = Waiting {
        rest: io::Cursor::new(bytes.clone()),
        until: READ_FIRST,
        go_on,
    };
    let size = bytes.len() as u64;
    let writing = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        runtime.block_on(async { one.write_from("large", &mut source, size).unwrap() })
    });

    let mut chunks = Vec::new();
    let mut ended = false;
    let mut readable = Vec::new();
    while readable.len() < 16 << 20 {
        let event = tokio::time::timeout(Duration::from_secs(60), events.recv()).await;
        ended |= follow(&mut chunks, &event.expect("in time").unwrap());
        readable = read(&other, &chunks);
    }
    assert!(!ended);
    assert!(bytes.starts_with(&readable));
    assert_eq!(other.names(), Vec::<String>::new());

    tell.send(()).unwrap();
    let content = writing.join().unwrap();
    while !ended {
        let event = tokio::time::timeout(Duration::from_secs(60), events.recv()).await;
        ended |= follow(&mut chunks, &event.expect("in time").unwrap());
    }
    assert_eq!(
        content.data,
        FileData::Chunks(chunks),
        "the whole file was told"
    );
    bob.sees(folder, "large", &bytes).await;

    // What is small is not told ahead.
    let small = noise(1 << 20);
    alice.write(folder, "small", &small);
    bob.sees(folder, "small", &small).await;
    while let Some(event) = events.try_recv() {
        if let ViewEvent::Drafts(steps) = event {
            assert!(steps.iter().all(|step| step.part.is_none()), "{steps:?}");
        }
    }
}

/// What can be read of the chunks, from the first on.
fn read(view: &View, chunks: &[ChunkRef]) -> Vec<u8> {
    let content = FileContent {
        size: chunks.iter().map(|chunk| u64::from(chunk.length)).sum(),
        level: 0,
        data: FileData::Chunks(chunks.to_vec()),
    };
    tokio::task::block_in_place(|| {
        let mut bytes = Vec::new();
        let mut stream = view.0.open(&content).unwrap();
        while let Ok(Some((_, chunk))) = stream.next_chunk() {
            bytes.extend_from_slice(&chunk);
        }
        bytes
    })
}
