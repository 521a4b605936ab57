//! Local changes: what differs between the disk and the records becomes operations.
//!
//! A pass first lists directories and sorts what it finds; then it recognises renames over the whole pass; then it records,
//! in batches, so that others get the first files early. What can't be read is reported and never taken for deleted.

mod burst;
mod newcomers;
mod pass;
mod recognise;
mod recording;

use std::collections::{BTreeMap, BTreeSet};

use ouisync_model::name::Name;

use crate::{directories::Slot, disk::Root, error::StepError, runner::Runner};

pub(crate) use recording::Reading;

/// What to look at in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// These names.
    Names(BTreeSet<Name>),
    /// Everything; `deep`: also what is inside its directories.
    All { deep: bool },
}

impl Scope {
    pub(crate) fn widen(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Names(names), Self::Names(more)) => {
                names.extend(more);
                if names.len() > 1024 {
                    *self = Self::All { deep: false };
                }
            }
            (Self::Names(_), all @ Self::All { .. }) => *self = all,
            (Self::All { deep }, Self::All { deep: more }) => *deep |= more,
            (Self::All { .. }, Self::Names(_)) => {}
        }
    }
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// Everything is gone from the root: nothing was recorded.
    pub(crate) emptied: bool,
    /// Deletions were left for later.
    pub(crate) deferred: bool,
    /// It was part of a burst: nothing was recorded.
    pub(crate) braked: bool,
}

impl Runner {
    /// Records what changed in `scopes`. `defer`: changes are still coming, so what is missing may yet turn up elsewhere.
    pub(crate) fn scan(
        &mut self,
        root: &Root,
        scopes: BTreeMap<Slot, Scope>,
        defer: bool,
    ) -> Result<Outcome, StepError> {
        let mut pass = pass::Pass::new(scopes);
        let writable = self.view.writable();
        self.list_all(root, &mut pass)?;
        for _ in 0..3 {
            if pass.is_settled() {
                break;
            }
            // Both halves of a rename may not have been heard of yet.
            self.drain();
            let mut more = self.old_places(&pass)?;
            more.retain(|(slot, scope)| pass.wants(*slot, scope));
            for (slot, scope) in std::mem::take(&mut self.to_scan) {
                let (now, later) = pass.split(slot, scope);
                more.extend(now.map(|scope| (slot, scope)));
                // It was looked at already, perhaps before what was heard.
                if let Some(scope) = later {
                    self.scan_soon(slot, scope);
                }
            }
            if more.is_empty() {
                break;
            }
            pass.extend(more);
            self.list_all(root, &mut pass)?;
        }
        if !writable {
            self.forget_read_only(pass)?;
            self.flush(&[])?;
            return Ok(Outcome::default());
        }
        let mut recognised = self.recognise(&mut pass)?;
        let deferred = defer && (!pass.limbo.is_empty() || !recognised.deleted.is_empty());
        if deferred {
            self.put_back(&mut pass, &mut recognised)?;
        } else {
            self.sink_limbo(&mut pass, &mut recognised)?;
            if self.is_emptied(&recognised)? {
                return Ok(Outcome {
                    emptied: true,
                    ..Outcome::default()
                });
            }
        }
        if self.brake.undoes() {
            self.put_back_burst(root, &mut recognised)?;
        } else if self.holds_back(root, &recognised)? {
            return Ok(Outcome {
                braked: true,
                ..Outcome::default()
            });
        }
        self.record(root, recognised)?;
        Ok(Outcome {
            deferred,
            ..Outcome::default()
        })
    }
}
