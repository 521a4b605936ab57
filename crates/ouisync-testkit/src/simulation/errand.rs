//! Work that goes on beside a device's folders: on a thread, as it may wait, but only while the world does nothing else.

use std::{
    cell::RefCell,
    fmt,
    panic::resume_unwind,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use ouisync_engine::surroundings::{Begun, Work};

thread_local! {
    /// Of the errand that this thread is.
    static ENDS: RefCell<Option<(Sender<Duration>, Receiver<()>)>> = const { RefCell::new(None) };
}

/// Waits, if this thread is an errand that nobody is in a hurry to see ended; the world goes on meanwhile.
pub(super) fn pause(duration: Duration) -> bool {
    ENDS.with_borrow(|ends| match ends {
        Some((pauses, go_on)) => pauses.send(duration).is_ok() && go_on.recv().is_ok(),
        None => false,
    })
}

/// Work, begun or not; clones are the same.
#[derive(Clone)]
pub(super) struct Errand(Arc<Mutex<State>>);

impl fmt::Debug for Errand {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Errand")
    }
}

enum State {
    Waits(Work),
    Pauses(Thread),
    /// Somebody has taken it, or it is done.
    Elsewhere,
}

struct Thread {
    go_on: Sender<()>,
    pauses: Receiver<Duration>,
    thread: JoinHandle<()>,
}

impl Errand {
    pub(super) fn new(work: Work) -> Self {
        Self(Arc::new(Mutex::new(State::Waits(work))))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with it until it pauses, and tells for how long, or ends.
    pub(super) fn go_on(&self) -> Option<Duration> {
        let state = std::mem::replace(&mut *self.state(), State::Elsewhere);
        let running = match state {
            State::Waits(work) => Thread::begin(work),
            State::Pauses(thread) => {
                // It ended when this fails; that shows below.
                let _ = thread.go_on.send(());
                thread
            }
            State::Elsewhere => return None,
        };
        match running.pauses.recv() {
            Ok(duration) => {
                *self.state() = State::Pauses(running);
                Some(duration)
            }
            Err(_) => {
                running.end();
                None
            }
        }
    }
}

impl Errand {
    /// Nobody waits for it any more: what has begun ends soon, without pauses; the rest doesn't begin.
    pub(super) fn give_up(&self) {
        let state = std::mem::replace(&mut *self.state(), State::Elsewhere);
        if let State::Pauses(thread) = state {
            thread.end();
        }
    }
}

impl Thread {
    fn begin(work: Work) -> Self {
        let (pauses, paused) = channel();
        let (go_on, goes_on) = channel();
        let thread = thread::spawn(move || {
            ENDS.set(Some((pauses, goes_on)));
            work();
            ENDS.set(None);
        });
        Self {
            go_on,
            pauses: paused,
            thread,
        }
    }

    /// Lets it pause no more, and waits for its end.
    fn end(self) {
        drop((self.go_on, self.pauses));
        if let Err(panic) = self.thread.join() {
            resume_unwind(panic);
        }
    }
}

impl Begun for Errand {
    fn is_finished(&self) -> bool {
        matches!(*self.state(), State::Elsewhere)
    }

    fn join(self: Box<Self>) {
        let state = std::mem::replace(&mut *self.state(), State::Elsewhere);
        match state {
            State::Waits(work) => work(),
            State::Pauses(thread) => thread.end(),
            State::Elsewhere => {}
        }
    }
}
