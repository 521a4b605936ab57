//! The events of a view on their way: at most one of each kind waits, so that a view that is stuck costs no memory to speak of.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ouisync_model::id::PackId;
use tokio::sync::Notify;

use super::{DraftStep, ViewEvent};

/// Chunks of drafts that wait at most (2 MiB); more are dropped, and the drafts with them.
const DRAFTED: usize = 64 * 1024;

/// What was not taken yet.
#[derive(Debug, Default)]
struct Pending {
    paused: Option<bool>,
    tree_changed: bool,
    drafts: Vec<DraftStep>,
    packs: Vec<PackId>,
    closed: bool,
    /// One of the ends is gone.
    abandoned: bool,
}

#[derive(Debug, Default)]
struct Queue {
    pending: Mutex<Pending>,
    news: Notify,
}

impl Queue {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of whoever tells; dropping it ends the events.
#[derive(Debug)]
pub struct ViewEventSender {
    queue: Arc<Queue>,
}

/// The end of the view.
#[derive(Debug)]
pub struct ViewEvents {
    queue: Arc<Queue>,
}

/// Both ends of a view's events.
pub fn view_events() -> (ViewEventSender, ViewEvents) {
    let queue = Arc::new(Queue::default());
    (
        ViewEventSender {
            queue: queue.clone(),
        },
        ViewEvents { queue },
    )
}

impl ViewEventSender {
    /// Adds an event, or unites it with one of its kind that was not taken yet; tells whether it is one more to take.
    pub fn send(&self, event: ViewEvent) -> bool {
        let mut pending = self.queue.pending();
        if pending.abandoned {
            return false;
        }
        let more = match event {
            ViewEvent::TreeChanged => !std::mem::replace(&mut pending.tree_changed, true),
            ViewEvent::Paused(paused) => pending.paused.replace(paused).is_none(),
            ViewEvent::Closed => !std::mem::replace(&mut pending.closed, true),
            ViewEvent::Drafts(mut steps) => {
                let first = pending.drafts.is_empty() && !steps.is_empty();
                pending.drafts.append(&mut steps);
                let parts = pending.drafts.iter().filter_map(|step| step.part.as_ref());
                if parts.map(|part| part.chunks.len()).sum::<usize>() > DRAFTED {
                    // What comes after a gap belongs to nothing. One step stays at least: it was told.
                    for step in &mut pending.drafts {
                        step.part = None;
                    }
                    pending.drafts.dedup();
                }
                first
            }
            ViewEvent::PacksArrived(mut packs) => {
                let first = pending.packs.is_empty() && !packs.is_empty();
                pending.packs.append(&mut packs);
                first
            }
        };
        drop(pending);
        self.queue.news.notify_one();
        more
    }

    /// The view is gone.
    pub fn is_closed(&self) -> bool {
        self.queue.pending().abandoned
    }
}

impl Drop for ViewEventSender {
    fn drop(&mut self) {
        self.queue.pending().abandoned = true;
        self.queue.news.notify_one();
    }
}

impl Drop for ViewEvents {
    fn drop(&mut self) {
        self.queue.pending().abandoned = true;
    }
}

impl ViewEvents {
    /// The next event; `None` once there will be none. Cancel safe.
    pub async fn recv(&mut self) -> Option<ViewEvent> {
        loop {
            if let Some(event) = self.try_recv() {
                return Some(event);
            }
            if self.is_closed() {
                return None;
            }
            self.queue.news.notified().await;
        }
    }

    /// The next event, if one waits.
    pub fn try_recv(&mut self) -> Option<ViewEvent> {
        let mut pending = self.queue.pending();
        if let Some(paused) = pending.paused.take() {
            return Some(ViewEvent::Paused(paused));
        }
        if std::mem::take(&mut pending.tree_changed) {
            return Some(ViewEvent::TreeChanged);
        }
        if !pending.drafts.is_empty() {
            return Some(ViewEvent::Drafts(std::mem::take(&mut pending.drafts)));
        }
        if !pending.packs.is_empty() {
            return Some(ViewEvent::PacksArrived(std::mem::take(&mut pending.packs)));
        }
        std::mem::take(&mut pending.closed).then_some(ViewEvent::Closed)
    }

    /// The folder was paused, and that was not taken yet.
    pub fn pauses(&self) -> bool {
        self.queue.pending().paused == Some(true)
    }

    /// Nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        let pending = self.queue.pending();
        pending.paused.is_none()
            && !pending.tree_changed
            && pending.drafts.is_empty()
            && pending.packs.is_empty()
            && !pending.closed
    }

    /// Nothing waits, and nothing will come.
    pub fn is_closed(&self) -> bool {
        self.queue.pending().abandoned && self.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use ouisync_model::{
        id::{ChunkId, MemberId},
        operation::{ChunkRef, DraftPart},
    };

    use super::*;

    #[tokio::test]
    async fn what_a_stuck_view_does_not_take_is_united() {
        let (sender, mut events) = view_events();
        let pack = |byte| PackId::from_bytes([byte; 32]);
        assert!(sender.send(ViewEvent::TreeChanged));
        assert!(sender.send(ViewEvent::PacksArrived(vec![pack(1)])));
        assert!(sender.send(ViewEvent::Paused(true)));
        for _ in 0..1000 {
            assert!(!sender.send(ViewEvent::TreeChanged));
        }
        assert!(!sender.send(ViewEvent::PacksArrived(vec![pack(2)])));
        assert!(!sender.send(ViewEvent::Paused(false)));
        assert!(sender.send(ViewEvent::Closed));
        drop(sender);
        let mut heard = Vec::new();
        while let Some(event) = events.recv().await {
            heard.push(event);
        }
        assert_eq!(
            heard,
            [
                ViewEvent::Paused(false),
                ViewEvent::TreeChanged,
                ViewEvent::PacksArrived(vec![pack(1), pack(2)]),
                ViewEvent::Closed
            ]
        );
    }

    #[test]
    fn drafts_that_a_stuck_view_does_not_take_are_dropped() {
        let (sender, mut events) = view_events();
        let author = MemberId::from_bytes([1; 32]);
        let chunk = ChunkRef {
            chunk: ChunkId::from_bytes([2; 32]),
            length: 10,
        };
        let part = |offset| DraftPart {
            offset,
            chunks: vec![chunk; DRAFTED / 4],
        };
        let step = |part, ends| DraftStep { author, part, ends };
        let told: usize = (0..100)
            .map(|number| ViewEvent::Drafts(vec![step(Some(part(number)), false)]))
            .filter(|event| sender.send(event.clone()))
            .count();
        assert_eq!(told, 1);
        let Some(ViewEvent::Drafts(steps)) = events.try_recv() else {
            panic!("what was told is heard");
        };
        let chunks = steps.iter().filter_map(|step| step.part.as_ref());
        assert!(chunks.map(|part| part.chunks.len()).sum::<usize>() <= DRAFTED);
        assert!(steps.len() < 10, "{}", steps.len());
        assert!(events.is_empty());
    }

    #[test]
    fn a_view_that_is_gone_hears_nothing() {
        let (sender, events) = view_events();
        drop(events);
        assert!(sender.is_closed());
        assert!(!sender.send(ViewEvent::TreeChanged));
    }
}
