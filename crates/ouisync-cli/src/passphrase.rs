//! Secrets from standard input: never from the command line, never echoed.

use std::{
    io::{self, BufRead, IsTerminal, Read, Write},
    time::Duration,
};

use ouisync_api::error::ErrorBody;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use tokio::sync::oneshot;

use crate::context::{failure, usage};

/// Most bytes of a secret's line.
const MAX_LINE: u64 = 16 << 10;

/// A person is at standard input.
pub(crate) fn at_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Asks a person without echo, or reads a line of standard input.
pub(crate) async fn read(prompt: &str) -> Result<String, ErrorBody> {
    if at_terminal() {
        ask(prompt).await
    } else {
        line(None).await?.ok_or_else(missing)
    }
}

/// A new passphrase: a person types it twice.
pub(crate) async fn read_new(prompt: &str) -> Result<String, ErrorBody> {
    if !at_terminal() {
        return line(None).await?.ok_or_else(missing);
    }
    let first = ask(prompt).await?;
    if first != ask("The same again: ").await? {
        return Err(usage(
            "the two are not the same",
            "Try again; nothing was changed.",
        ));
    }
    Ok(first)
}

/// A line of standard input; `None` at its end, or when nothing comes within `limit`.
pub(crate) async fn line(limit: Option<Duration>) -> Result<Option<String>, ErrorBody> {
    let (sender, receiver) = oneshot::channel();
    // A thread, since a read can't be given up: it ends with the process, and Ctrl-C is heard meanwhile.
    std::thread::spawn(move || {
        let mut line = Vec::new();
        let outcome = io::stdin()
            .lock()
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .map(|_| line);
        // Nobody waits any more after the limit.
        let _ = sender.send(outcome);
    });
    let received = match limit {
        Some(limit) => tokio::time::timeout(limit, receiver)
            .await
            .ok()
            .and_then(Result::ok),
        None => receiver.await.ok(),
    };
    let Some(outcome) = received else {
        return Ok(None);
    };
    let mut line =
        outcome.map_err(|error| failure(format!("standard input can't be read: {error}")))?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    String::from_utf8(line)
        .map(Some)
        .map_err(|_| usage("standard input is not UTF-8", "Use a passphrase in UTF-8."))
}

fn missing() -> ErrorBody {
    usage(
        "no passphrase came on standard input",
        "Give it as one line on standard input, or run this at a terminal.",
    )
}

/// Turns the terminal's echo off while it lives.
struct Silence(rustix::termios::Termios);

impl Silence {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

async fn ask(prompt: &str) -> Result<String, ErrorBody> {
    let broken = |error: io::Error| failure(format!("the terminal can't be used: {error}"));
    let mut stderr = io::stderr();
    write!(stderr, "{prompt}")
        .and_then(|()| stderr.flush())
        .map_err(broken)?;
    let _silence = Silence::new().map_err(broken)?;
    line(None).await?.ok_or_else(missing)
}
