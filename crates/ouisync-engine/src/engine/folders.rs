//! Folders coming and going: founding, joining, opening at start, forgetting.

use std::{sync::Arc, time::Duration};

use ouisync_crypto::{
    identity::MemberIdentity,
    invitation::{InvitationLink, InvitationSecret},
    keys::FolderKeys,
    roster::{Roster, statement::RosterEntry},
    secret::{EpochSecret, ReadSecret, StoreSecret},
};
use ouisync_model::id::FolderId;
use ouisync_store::store::{Store, StoreOptions};
use tracing::{error, info};

use super::{BrokenFolder, Engine, blocking};
use crate::{
    error::EngineError,
    folder::{RunningFolder, Start},
    keys::{BlindRecord, JoiningRecord, OpenRecord, SafeRecord},
    retention::Limits,
    shared::{JoinState, Shared},
    status::{EngineEvent, FolderSummary, Role},
};

/// Greatest length of a folder's name in characters.
const MAX_NAME: usize = 64;

/// The parts of a reading record.
pub(super) fn opened(record: &OpenRecord) -> Result<(MemberIdentity, FolderKeys), EngineError> {
    let mut keys = FolderKeys::new();
    for (epoch, generation, secret) in &record.epochs {
        keys.insert(
            *epoch,
            *generation,
            EpochSecret::Read(ReadSecret::from_bytes(*secret)),
        );
    }
    Ok((identity(&record.identity)?, keys))
}

fn identity(bytes: &[u8]) -> Result<MemberIdentity, EngineError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| EngineError::internal("a member key has the wrong length"))?;
    Ok(MemberIdentity::from_bytes(bytes))
}

/// Reads a link.
pub(super) fn parse_link(link: &str) -> Result<InvitationLink, EngineError> {
    InvitationLink::parse(link.trim()).map_err(|error| EngineError::Invitation(error.to_string()))
}

/// The name of a folder that isn't to be, or can't be, called by its own: the same for safes and locked folders.
fn blind_name(folder: &FolderId) -> String {
    format!("safe-{}", &folder.to_string()[..8])
}

impl Engine {
    /// Founds a folder; this device is its owner. The caller attaches a view.
    pub async fn create_folder(&self, name: &str) -> Result<FolderSummary, EngineError> {
        let name = self.check_name(name)?;
        self.inner.keys.check_unlocked()?;
        let engine = self.clone();
        blocking(move || {
            let mut rng = engine.inner.surroundings.rng();
            let identity = MemberIdentity::generate(&mut rng);
            let device = engine.inner.keys.device();
            let founded = Roster::found(&identity, &device.name, &mut rng)
                .map_err(|error| EngineError::internal(error.to_string()))?;
            let id = founded.roster.folder();
            let store = engine.open_store(&id)?;
            store.put_roster_entries(&[founded.entry.as_bytes().to_vec()])?;
            let (mut blind, mut open) = (Vec::new(), Vec::new());
            for (epoch, keys) in founded.keys.epochs() {
                blind.push((
                    *epoch,
                    keys.generation,
                    *keys.secret.store_secret().expose(),
                ));
                if let Some(secret) = keys.secret.read_secret() {
                    open.push((*epoch, keys.generation, *secret.expose()));
                }
            }
            let identity_bytes = identity.to_bytes().to_vec();
            let record = OpenRecord {
                folder: id,
                name: name.clone(),
                identity: identity_bytes,
                epochs: open,
                setting: None,
            };
            // The reading secrets first: without them the folder would be of no use.
            engine.inner.keys.put_open(record)?;
            engine.inner.keys.put_blind(
                id,
                BlindRecord {
                    epochs: blind,
                    blind_key: *identity.blind().expose(),
                    safe: None,
                    joining: None,
                    paused: false,
                    limits: Limits::default(),
                },
            )?;
            engine.start_folder(
                id,
                store,
                founded.roster,
                founded.keys,
                Some(identity),
                None,
                name,
                false,
            )?;
            info!(folder = %id, "founded a folder");
            let folder = engine.folder(&id)?;
            Ok(engine.summary(&folder))
        })
        .await
    }

    /// Joins by an invitation's link; waits until a member let this device in (or `timeout`, after which it goes on trying
    /// in the background).
    pub async fn join(
        &self,
        link: &str,
        name: Option<&str>,
        timeout: Duration,
    ) -> Result<FolderSummary, EngineError> {
        let link = parse_link(link)?;
        let id = link.folder;
        if self.folder(&id).is_ok() {
            return Err(EngineError::AlreadyMember(id));
        }
        let role = Role::from(link.role);
        if role != Role::Safe {
            self.inner.keys.check_unlocked()?;
        }
        let name = match name {
            Some(name) => self.check_name(name)?,
            None => self.free_name(&link.name, &id, role),
        };
        // Kept before anything else: whoever joins and loses power must know whom to ask.
        for contact in &link.contacts {
            self.inner
                .network
                .learned(contact.device, Some(id), &contact.addresses);
        }
        self.save_book().await;
        let engine = self.clone();
        let folder = blocking(move || {
            let store = engine.open_store(&id)?;
            let identity = MemberIdentity::generate(&mut engine.inner.surroundings.rng());
            let bytes = identity.to_bytes().to_vec();
            let joining = JoiningRecord {
                secret: *link.secret.expose(),
                role: link.role,
            };
            let safe = (role == Role::Safe).then(|| SafeRecord {
                identity: bytes.clone(),
                name: name.clone(),
            });
            if role != Role::Safe {
                let record = OpenRecord {
                    folder: id,
                    name: name.clone(),
                    identity: bytes,
                    epochs: Vec::new(),
                    setting: None,
                };
                engine.inner.keys.put_open(record)?;
            }
            let record = BlindRecord {
                epochs: Vec::new(),
                blind_key: *identity.blind().expose(),
                safe,
                joining: Some(joining),
                paused: false,
                limits: Limits::default(),
            };
            engine.inner.keys.put_blind(id, record)?;
            let roster = load_roster(id, &store)?;
            let secret = InvitationSecret::from_bytes(*link.secret.expose());
            engine.start_folder(
                id,
                store,
                roster,
                FolderKeys::new(),
                Some(identity),
                Some(secret),
                name,
                false,
            )?;
            engine.folder(&id)
        })
        .await
        .inspect_err(|_| self.inner.network.forget_folder(&id))?;
        let mut changes = folder.shared.join_state();
        let decided = async {
            let state = changes.wait_for(|state| *state != JoinState::Waiting).await;
            state.map_or(JoinState::Waiting, |state| state.clone())
        };
        let state = tokio::time::timeout(timeout, decided)
            .await
            .unwrap_or(JoinState::Waiting);
        if let JoinState::Refused(reason) = state {
            self.forget_folder(id).await?;
            return Err(EngineError::Invitation(reason.to_owned()));
        }
        let mut summary = self.summary(&folder);
        summary.role = Some(role);
        Ok(summary)
    }

    /// Stops and forgets a folder on this device: its store is deleted, plain files stay.
    pub async fn forget_folder(&self, folder: FolderId) -> Result<(), EngineError> {
        let running = self.lock_folders().remove(&folder);
        // One that can't be opened can be forgotten, too.
        if running.is_none() && self.lock_broken().remove(&folder).is_none() {
            return Err(EngineError::UnknownFolder(folder.to_string()));
        }
        let engine = self.clone();
        blocking(move || {
            if let Some(running) = running {
                running.stop();
            }
            engine.inner.network.forget_folder(&folder);
            // From here on it is forgotten whatever happens: the next start ends what a crash leaves.
            engine.inner.home.set_aside_folder(&folder)?;
            engine.inner.keys.remove(&folder)?;
            engine.inner.home.delete_set_aside(&folder)?;
            engine.inner.home.delete_folder(&folder)
        })
        .await?;
        let _ = self.inner.events.send(EngineEvent::FoldersChanged);
        Ok(())
    }

    /// Ends the forgetting of folders that a crash interrupted.
    pub(super) fn end_forgetting(&self) -> Result<(), EngineError> {
        let (home, keys) = (&self.inner.home, &self.inner.keys);
        for id in keys.folders() {
            if home.is_set_aside(&id) {
                info!(folder = %id, "forgetting a folder, as was begun before");
                keys.remove(&id)?;
            }
        }
        home.delete_all_set_aside()
    }

    /// Opens all folders of the home.
    pub(super) fn open_folders(&self) {
        if let Err(error) = self.end_forgetting() {
            error!(%error, "can't delete what is left of a forgotten folder");
        }
        for id in self.inner.keys.folders() {
            if let Err(error) = self.open_folder(id) {
                // The others go on; this one is reported and left as it is.
                error!(folder = %id, %error, "can't open a folder");
                let record = self.inner.keys.open_record(&id);
                let name = record.map_or_else(|| blind_name(&id), |record| record.name.clone());
                let safe = self
                    .inner
                    .keys
                    .blind(&id)
                    .is_some_and(|blind| blind.safe.is_some());
                let role = safe.then_some(Role::Safe);
                let summary = FolderSummary {
                    folder: id,
                    name,
                    role,
                };
                let broken = BrokenFolder {
                    summary,
                    message: error.to_string(),
                    kind: error.kind(),
                };
                self.lock_broken().insert(id, broken);
            }
        }
    }

    fn open_folder(&self, id: FolderId) -> Result<(), EngineError> {
        let Some(blind) = self.inner.keys.blind(&id) else {
            return Ok(());
        };
        let store = self.open_store(&id)?;
        let roster = load_roster(id, &store)?;
        let mut keys = FolderKeys::new();
        for (epoch, generation, secret) in &blind.epochs {
            keys.insert(
                *epoch,
                *generation,
                EpochSecret::Store(StoreSecret::from_bytes(*secret)),
            );
        }
        let (mut own, mut name) = (None, blind_name(&id));
        if let Some(safe) = &blind.safe {
            own = Some(identity(&safe.identity)?);
            name.clone_from(&safe.name);
        } else if let Some(record) = self.inner.keys.open_record(&id) {
            let (identity, read) = opened(&record)?;
            for (epoch, known) in read.epochs() {
                keys.insert(*epoch, known.generation, known.secret.clone());
            }
            own = Some(identity);
            name.clone_from(&record.name);
        }
        let joining = blind
            .joining
            .as_ref()
            .map(|joining| InvitationSecret::from_bytes(joining.secret));
        self.start_folder(id, store, roster, keys, own, joining, name, blind.paused)
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "each is a different part of one folder's start"
    )]
    fn start_folder(
        &self,
        id: FolderId,
        store: Arc<Store>,
        roster: Roster,
        keys: FolderKeys,
        identity: Option<MemberIdentity>,
        joining: Option<InvitationSecret>,
        name: String,
        paused: bool,
    ) -> Result<(), EngineError> {
        let directory = self.inner.home.folder(&id);
        let join = if joining.is_some() {
            JoinState::Waiting
        } else {
            JoinState::Joined
        };
        let shared = Arc::new(Shared::new(
            id,
            self.inner.surroundings.clone(),
            directory,
            name,
            join,
            self.inner.events.clone(),
        ));
        let start = Start {
            id,
            store,
            roster,
            keys,
            identity,
            joining,
            home: self.inner.home.clone(),
            key_store: self.inner.keys.clone(),
            network: self.inner.network.clone(),
            housekeeping: self.inner.housekeeping.clone(),
            surroundings: self.inner.surroundings.clone(),
            shared,
            paused,
        };
        let running = Arc::new(RunningFolder::start(start)?);
        self.lock_folders().insert(id, running);
        let _ = self.inner.events.send(EngineEvent::FoldersChanged);
        Ok(())
    }

    fn open_store(&self, id: &FolderId) -> Result<Arc<Store>, EngineError> {
        let directory = self.inner.home.folder(id);
        let fail = |source| EngineError::Io {
            path: directory.clone(),
            source,
        };
        std::fs::create_dir_all(&directory).map_err(fail)?;
        let housekeeping = &self.inner.housekeeping;
        let (reserve, clock) = (housekeeping.reserve, housekeeping.clock.clone());
        let options = StoreOptions {
            reserve,
            clock,
            ..StoreOptions::default()
        };
        let store = self.inner.surroundings.open_store(&directory, options)?;
        Ok(Arc::new(store))
    }

    fn check_name(&self, name: &str) -> Result<String, EngineError> {
        let length = name.chars().count();
        let bad = |character: char| character.is_control() || character == '/';
        if length == 0 || length > MAX_NAME || name.chars().any(bad) || name.trim() != name {
            return Err(EngineError::BadName(name.to_owned()));
        }
        if self.find_folder(name).is_ok() {
            return Err(EngineError::NameTaken(name.to_owned()));
        }
        Ok(name.to_owned())
    }

    /// A name for a joined folder: the inviter's, unless it is taken here.
    fn free_name(&self, wanted: &str, id: &FolderId, role: Role) -> String {
        let wanted = if role == Role::Safe || wanted.is_empty() {
            blind_name(id)
        } else {
            wanted.to_owned()
        };
        let candidates =
            std::iter::once(wanted.clone()).chain((2..).map(|number| format!("{wanted} {number}")));
        candidates
            .into_iter()
            .find(|name| self.check_name(name).is_ok())
            .unwrap_or_else(|| id.to_string())
    }

    pub(super) fn summary(&self, folder: &RunningFolder) -> FolderSummary {
        let id = folder.shared.id;
        let joining = self
            .inner
            .keys
            .blind(&id)
            .and_then(|blind| blind.joining.clone());
        let is_safe = self
            .inner
            .keys
            .blind(&id)
            .is_some_and(|blind| blind.safe.is_some());
        let role = folder.shared.snapshot().role;
        let role = role.or(joining.map(|joining| Role::from(joining.role)));
        let role = role.or(is_safe.then_some(Role::Safe));
        FolderSummary {
            folder: id,
            name: folder.shared.name(),
            role,
        }
    }
}

/// The roster from its stored entries.
fn load_roster(id: FolderId, store: &Store) -> Result<Roster, EngineError> {
    let mut roster = Roster::new(id);
    for (entry, bytes) in store.roster_entries()? {
        let entry = RosterEntry::decode(bytes)
            .map_err(|error| EngineError::internal(format!("roster entry {entry}: {error}")))?;
        roster
            .add(entry)
            .map_err(|error| EngineError::internal(error.to_string()))?;
    }
    Ok(roster)
}
