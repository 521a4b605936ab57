//! Announcing new packs to others, before and with the commit that needs them.

use std::sync::{Arc, Mutex};

use ouisync_model::operation::{DraftPart, PackSize, PackTable};
use ouisync_store::store::Store;

use super::on_folder;
use crate::{
    command::{Command, FolderSender},
    drafts::Drafting,
    error::EngineError,
    flush::Flushed,
    folder::parts::Part,
    shared::lock,
};

/// Bytes of new packs after which they are announced before the file that they belong to is complete.
pub(super) const ANNOUNCE_BYTES: u64 = 48 << 20;

/// New packs that no commit has announced yet.
#[derive(Default)]
pub(super) struct Unannounced {
    pub(super) packs: Vec<(PackTable, PackSize)>,
    pub(super) bytes: u64,
    /// Of the file that is being read or was read last, if it is large.
    pub(super) draft: Option<Drafting>,
}

/// Makes new packs durable and announces them.
pub(super) struct Announcer {
    pub(super) store: Arc<Store>,
    pub(super) sender: FolderSender,
    pub(super) unannounced: Mutex<Unannounced>,
    /// Held while packs are taken, made durable and committed, so that a later commit comes after.
    pub(super) announcing: Mutex<()>,
}

impl Announcer {
    /// Takes the packs, and the part of the draft that goes with them.
    fn take(&self) -> (Vec<(PackTable, PackSize)>, Option<DraftPart>) {
        let mut unannounced = lock(&self.unannounced);
        unannounced.bytes = 0;
        let packs = std::mem::take(&mut unannounced.packs);
        let draft = match &mut unannounced.draft {
            Some(draft) if !packs.is_empty() => draft.take(),
            _ => None,
        };
        (packs, draft)
    }

    /// Takes the packs for the commit of all that was read, which ends the draft.
    pub(super) fn take_last(&self) -> (Vec<(PackTable, PackSize)>, Option<DraftPart>) {
        let mut unannounced = lock(&self.unannounced);
        let last = std::mem::take(&mut *unannounced);
        let begun = last.draft.filter(Drafting::has_begun);
        (last.packs, begun.and_then(|mut draft| draft.take()))
    }

    /// Makes everything written durable.
    pub(super) fn sync(&self) -> Result<(), EngineError> {
        let durable = self.store.sync_packs()?;
        self.sender.send(Command::Flushed(Flushed(Ok(durable))));
        Ok(())
    }

    /// Announces what is there, ahead of the operations that need it.
    pub(super) fn announce(&self) -> Result<(), EngineError> {
        let _announcing = lock(&self.announcing);
        let (packs, draft) = self.take();
        if packs.is_empty() {
            return Ok(());
        }
        let announced = Part {
            packs: packs.clone(),
            draft,
            ..Part::default()
        };
        let result = self.sync().and_then(|()| {
            on_folder(&self.sender, move |folder| {
                folder.commit_all(announced, |_| Ok(()))
            })
        });
        if result.is_err() {
            // Content that was ingested before refers to them: the commit of that announces them.
            let mut unannounced = lock(&self.unannounced);
            unannounced.packs.extend(packs);
            unannounced.draft = None;
        }
        result.map(drop)
    }
}
