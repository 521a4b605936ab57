//! Fetching packs that are not live and commits without bytes, for the past: what is asked of peers, and how far it is.

use std::collections::BTreeSet;

use bytes::Bytes;
use ouisync_crypto::commit::Commit;
use ouisync_model::{
    id::{CommitId, MemberId, PackId},
    operation::PackSize,
};
use ouisync_store::store::packs::PackState;
use tracing::warn;

use super::Folder;
use crate::error::EngineError;

/// How far the fetching of packs is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fetching {
    /// Bytes of them that are not here yet.
    pub(crate) missing: u64,
    /// Packs that are not here and that some connected peer may have.
    pub(crate) coming: Vec<PackId>,
    /// Packs that are not here and that no connected peer has.
    pub(crate) nowhere: Vec<PackId>,
    /// Members that are connected.
    pub(crate) connected: BTreeSet<MemberId>,
    /// Connected peers, members or not.
    pub(crate) peers: usize,
    /// The folder is paused.
    pub(crate) paused: bool,
}

/// Packs that weren't here when they were wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Begun {
    /// Those that are not live.
    pub(crate) past: Vec<PackId>,
    /// Those that this device had given up.
    pub(crate) offloaded: Vec<PackId>,
}

/// How far asking for commits of the past is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asking {
    /// Commits that some connected peer may still send.
    pub(crate) coming: usize,
    /// Peers that can be asked.
    pub(crate) exchanged: usize,
    /// Members that are connected.
    pub(crate) connected: BTreeSet<MemberId>,
    /// The folder is paused.
    pub(crate) paused: bool,
}

impl Folder {
    /// Asks every peer for the bytes of these commits, and for no others any more.
    pub(crate) fn ask_past(&mut self, commits: Vec<CommitId>) -> Result<(), EngineError> {
        self.sync.want_past(commits);
        Ok(())
    }

    /// How far it is.
    pub(crate) fn asking_past(&self) -> Asking {
        let status = |peer| self.sync.peer_status(peer);
        let exchanged = self.sync.peers().filter_map(status);
        let members = self.peers.values().filter_map(|peer| peer.member);
        Asking {
            coming: self.sync.past_coming(),
            exchanged: exchanged.filter(|status| status.exchanged).count(),
            connected: members.collect(),
            paused: self.paused,
        }
    }

    /// Bytes of a commit that was asked for have come; they have its id.
    pub(super) fn keep_past(&self, id: CommitId, bytes: &Bytes) {
        let commit = Commit::verified(bytes.to_vec()).map_err(|error| error.to_string());
        let kept = commit.and_then(|commit| {
            let kept = self.store.keep_past(&commit);
            kept.map_err(|error| error.to_string())
        });
        if let Err(error) = kept {
            warn!(folder = %self.id, commit = %id, %error, "can't keep a commit of the past");
        }
    }

    /// Begins to fetch packs, live or not.
    pub(crate) fn want(&mut self, packs: &[(PackId, PackSize)]) -> Result<Begun, EngineError> {
        let ids: Vec<PackId> = packs.iter().map(|(pack, _)| *pack).collect();
        let offloaded = self.take_back(&ids)?;
        let (mut missing, mut past) = (Vec::new(), Vec::new());
        for (pack, size) in packs {
            if self.store.want_pack(*pack, *size)? {
                missing.push((*pack, *size));
                if !self.store.is_live(*pack)? {
                    past.push(*pack);
                }
            }
        }
        self.sync.packs_wanted(&missing, true);
        Ok(Begun { past, offloaded })
    }

    /// Lets packs go that came because they were wanted; what became live stays.
    pub(crate) fn let_go(&mut self, packs: &[PackId]) -> Result<(), EngineError> {
        let mut gone = Vec::new();
        for pack in packs {
            if self.store.drop_wanted_pack(*pack)? {
                gone.push(*pack);
            }
        }
        self.sync.packs_unwanted(&gone);
        Ok(())
    }

    /// Ends it; what has come stays for a while. What has not come of the `offloaded` ones is given up again.
    pub(crate) fn unwant(
        &mut self,
        packs: &[(PackId, PackSize)],
        offloaded: &[PackId],
    ) -> Result<(), EngineError> {
        let absent = self.store.offload_absent(offloaded)?;
        self.sync.packs_offloaded(&absent);
        let mut past = Vec::new();
        for (pack, _) in packs {
            if !self.store.is_live(*pack)? {
                past.push(*pack);
            }
        }
        self.sync.packs_unwanted(&past);
        for pack in past {
            self.store.unwant_pack(pack)?;
        }
        Ok(())
    }

    /// How far it is.
    pub(crate) fn fetching(
        &mut self,
        packs: &[(PackId, PackSize)],
    ) -> Result<Fetching, EngineError> {
        let members = self.peers.values().filter_map(|peer| peer.member);
        let mut fetching = Fetching {
            connected: members.collect(),
            peers: self.peers.len(),
            paused: self.paused,
            ..Fetching::default()
        };
        let mut again = Vec::new();
        for (pack, size) in packs {
            let state = self.store.pack(*pack)?.map(|info| info.state);
            match state {
                Some(PackState::Pending | PackState::Stored | PackState::Released { .. }) => {
                    continue;
                }
                Some(PackState::Partial) => {
                    let frames = self.store.missing_frames(*pack)?.into_iter();
                    let frames: u64 = frames.map(|run| u64::from(run.end - run.start)).sum();
                    fetching.missing += frames * PackSize::FRAME;
                }
                Some(PackState::Missing) => fetching.missing += size.bytes(),
                // It came and was damaged, or something let go of it.
                None | Some(PackState::Damaged | PackState::Offloaded { .. }) => {
                    self.store.want_pack(*pack, *size)?;
                    fetching.missing += size.bytes();
                }
            }
            again.push((*pack, *size));
            if self.sync.sources(pack).next().is_some() {
                fetching.coming.push(*pack);
            } else {
                fetching.nowhere.push(*pack);
            }
        }
        self.sync.packs_wanted(&again, false);
        Ok(fetching)
    }
}
