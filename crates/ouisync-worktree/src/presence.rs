//! Whether the root is there, and is the one that was attached. While it is not, nothing is scanned or applied: an unplugged disk
//! is no deletion.

use std::time::{Duration, Instant};

use crate::{
    disk::Root,
    error::StepError,
    record::{self, Meta},
    runner::{Runner, staging_name},
};

/// Pause between looks for a root that is away.
pub(crate) const ROOT_POLL: Duration = Duration::from_secs(2);

/// Why nothing is scanned or applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// The root is not there.
    Missing(String),
    /// Another directory is in its place.
    Replaced,
    /// Everything in it is gone.
    Emptied,
}

impl Runner {
    /// Opens the root if it is the recorded one.
    pub(crate) fn check_root(&mut self) -> Result<Option<Root>, StepError> {
        let was = self.held.take();
        let held = match Root::open(&self.path) {
            Err(error) => Held::Missing(error.to_string()),
            Ok(root) => {
                let identity = root.stat.fingerprint.identity;
                if identity != self.meta.root && self.is_marked(&root) {
                    // The same directory on a file system that numbers its files anew, or a whole copy of it.
                    self.meta.root = identity;
                    self.save_meta()?;
                }
                if identity == self.meta.root {
                    if was.is_some() {
                        self.full_scan = true;
                        self.clear_staging()?;
                        for slot in self.tree.all().collect::<Vec<_>>() {
                            self.tree.set_watched(slot, false);
                        }
                    }
                    self.mark_root(&root);
                    self.problems.set_general("root", None);
                    return Ok(Some(root));
                }
                Held::Replaced
            }
        };
        let path = self.path.display();
        let message = match &held {
            Held::Missing(error) => format!(
                "{path} is not there ({error}). Nothing is deleted anywhere; sync goes on when it is back, for example when its disk is mounted."
            ),
            _ => format!(
                "Another directory is at {path}. Nothing is deleted anywhere; put the old one back, or confirm that this one is to take its place."
            ),
        };
        self.problems.set_general("root", Some(message));
        self.discard_transfer();
        self.held = Some(held);
        self.retry_at = Instant::now() + self.options.retry_interval.min(ROOT_POLL);
        Ok(None)
    }

    /// Takes over whatever directory is at the path now, as at first attaching.
    pub(crate) fn adopt_root(&mut self) -> Result<(), StepError> {
        let root = Root::open(&self.path).map_err(|source| StepError::Disk {
            step: "opening the directory",
            source,
        })?;
        let mut writes = Vec::new();
        for slot in self.tree.all().collect::<Vec<_>>() {
            let Some(group) = self.tree.get(slot).map(|directory| directory.group) else {
                continue;
            };
            for (name, _) in self.view.records(group)? {
                writes.push((record::key(group, &name), None));
            }
        }
        self.meta = Meta {
            root: root.stat.fingerprint.identity,
            staging: staging_name(),
        };
        writes.push((record::meta_key(), Some(record::encode(&self.meta)?)));
        self.view.update(writes, &[])?;
        self.root_marked = false;
        self.brake.importing = true;
        self.held = None;
        self.full_scan = true;
        self.load()
    }

    fn save_meta(&mut self) -> Result<(), StepError> {
        let bytes = record::encode(&self.meta)?;
        Ok(self
            .view
            .update(vec![(record::meta_key(), Some(bytes))], &[])?)
    }
}
