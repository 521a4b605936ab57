//! What the engine tells of its folders: status, waiting for rest, checking.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ouisync_model::id::FolderId;

use super::{CheckProgress, Engine, blocking};
use crate::{
    error::EngineError,
    folder::RunningFolder,
    shared::{JoinState, Snapshot},
    status::{FolderState, FolderStatus, PeerStatus, Problem, Role, VerifyOutcome},
};

impl Engine {
    /// A folder's condition.
    pub async fn status(&self, folder: FolderId) -> Result<FolderStatus, EngineError> {
        if let Some(status) = self.status_of_broken(&folder) {
            return Ok(status);
        }
        let running = self.folder(&folder)?;
        let engine = self.clone();
        blocking(move || Ok(engine.status_of(&running))).await
    }

    /// The condition of a folder that could not be opened: why, and that nothing of it was changed.
    fn status_of_broken(&self, folder: &FolderId) -> Option<FolderStatus> {
        let broken = self.lock_broken();
        let broken = broken.get(folder)?;
        let message = format!(
            "it could not be opened: {}; nothing of it was changed; see the log, and restart when the cause is gone",
            broken.message
        );
        Some(FolderStatus {
            folder: *folder,
            name: broken.summary.name.clone(),
            role: broken.summary.role,
            state: FolderState::Error,
            files: 0,
            bytes: 0,
            missing_bytes: 0,
            stored_bytes: 0,
            live_bytes: 0,
            offloaded_bytes: 0,
            missing_history_bytes: 0,
            quota_bytes: None,
            refused_bytes: 0,
            conflicts: 0,
            problems: vec![Problem {
                path: None,
                message,
            }],
            peers: Vec::new(),
            download_rate: 0,
            upload_rate: 0,
        })
    }

    fn status_of(&self, running: &RunningFolder) -> FolderStatus {
        let shared = &running.shared;
        let summary = self.summary(running);
        let snapshot = shared.snapshot();
        let totals = shared
            .readable()
            .map(|readable| readable.index.totals())
            .unwrap_or_default();
        let mut problems = problems(running, &snapshot);
        if snapshot.locked
            && let Some(trouble) = self.inner.keys.ring_trouble()
        {
            let message = format!(
                "{trouble}; the folder syncs blind until 'ouisync unlock' finds the key ring open"
            );
            problems.push(Problem {
                path: None,
                message,
            });
        }
        let (upload_rate, download_rate) = shared.rates();
        let names = shared.names();
        let mut peers: Vec<PeerStatus> = Vec::new();
        for row in &snapshot.peers {
            let role = row.member.and_then(|member| {
                snapshot
                    .members
                    .iter()
                    .find(|(known, _)| *known == member)
                    .map(|(_, role)| *role)
            });
            peers.push(PeerStatus {
                member: row.member,
                name: row.member.and_then(|member| names.get(&member).cloned()),
                role,
                connected: true,
                missing_bytes: row.missing_bytes,
            });
        }
        // While this device's own seat is sealed, it may be any of those that aren't connected: none of them is named.
        let others = snapshot.own_member.is_some() || !snapshot.locked;
        for (member, role) in snapshot.members.iter().filter(|_| others) {
            let connected = peers.iter().any(|peer| peer.member == Some(*member));
            if !connected && Some(*member) != snapshot.own_member {
                peers.push(PeerStatus {
                    member: Some(*member),
                    name: names.get(member).cloned(),
                    role: Some(*role),
                    connected: false,
                    missing_bytes: 0,
                });
            }
        }
        FolderStatus {
            folder: summary.folder,
            name: summary.name,
            role: summary.role,
            state: state(running, &snapshot, summary.role),
            files: totals.files,
            bytes: totals.bytes,
            missing_bytes: snapshot.missing_bytes,
            stored_bytes: snapshot.stored_bytes,
            live_bytes: snapshot.live_bytes,
            offloaded_bytes: snapshot.offloaded_bytes,
            missing_history_bytes: snapshot.missing_history_bytes,
            quota_bytes: snapshot.quota.map(|quota| quota.bytes),
            refused_bytes: refused(&snapshot),
            conflicts: shared.conflicts(),
            problems,
            peers,
            download_rate,
            upload_rate,
        }
    }

    /// Waits until this device has recorded its view, has all that its connected peers announce, has applied it, and at
    /// least one connected peer has all of its own. `Paused` at once while the folder is paused.
    pub async fn wait(
        &self,
        folder: FolderId,
        timeout: Option<Duration>,
    ) -> Result<(), EngineError> {
        let running = self.folder(&folder)?;
        let mut changed = running.shared.subscribe();
        running.shared.rescan();
        let rest = async {
            // From here on the snapshot shows everything that was done before this call.
            running.run(|_| Ok(())).await?;
            loop {
                changed.borrow_and_update();
                if running.shared.snapshot().paused {
                    return Err(EngineError::Paused);
                }
                if lacking(&running).is_none() {
                    return Ok(());
                }
                tokio::select! {
                    changed = changed.changed() => changed.map_err(|_| EngineError::Stopping)?,
                    // A view clears its marks without telling.
                    () = tokio::time::sleep(Duration::from_millis(100)) => {}
                    () = self.inner.stopping.cancelled() => return Err(EngineError::Stopping),
                }
            }
        };
        match timeout {
            None => rest.await,
            Some(limit) => match tokio::time::timeout(limit, rest).await {
                Ok(result) => result,
                Err(_) => {
                    let why = lacking(&running).unwrap_or("it has only just finished".into());
                    Err(EngineError::TimedOut(limit, why.into_owned()))
                }
            },
        }
    }

    /// Checks a folder's store; blocking work runs elsewhere.
    pub async fn verify(
        &self,
        folder: FolderId,
        mut progress: Box<dyn CheckProgress>,
    ) -> Result<VerifyOutcome, EngineError> {
        let running = self.folder(&folder)?;
        let (store, stopping) = (running.store.clone(), self.inner.stopping.clone());
        blocking(move || {
            let cancel = AtomicBool::new(false);
            let report = store.verify(
                |at| {
                    if !progress.progress(at.bytes, at.total_bytes) || stopping.is_cancelled() {
                        cancel.store(true, Ordering::Relaxed);
                    }
                },
                &cancel,
            )?;
            Ok(VerifyOutcome {
                ok: report.problems.is_empty(),
                packs: report.packs,
                bytes: report.bytes,
                problems: report.problems.iter().map(ToString::to_string).collect(),
            })
        })
        .await
    }

    /// Sets damaged packs aside so that they are fetched again, and rebuilds the index.
    pub async fn repair(&self, folder: FolderId) -> Result<VerifyOutcome, EngineError> {
        let running = self.folder(&folder)?;
        let store = running.store.clone();
        let lost = blocking(move || Ok(store.repair()?)).await?;
        running
            .run(move |folder| {
                folder.packs_lost(&lost);
                folder.rebuild_readable()
            })
            .await?;
        struct Silent;
        impl CheckProgress for Silent {
            fn progress(&mut self, _done: u64, _total: u64) -> bool {
                true
            }
        }
        self.verify(folder, Box::new(Silent)).await
    }
}

/// What `wait` still waits for.
pub(super) fn lacking(running: &Arc<RunningFolder>) -> Option<Cow<'static, str>> {
    let shared = &running.shared;
    let snapshot = shared.snapshot();
    if *shared.join_state().borrow() != JoinState::Joined {
        return Some("no member that can let this device in was reached yet".into());
    }
    if snapshot.removed {
        return Some("this device was removed from the folder".into());
    }
    if snapshot.outside {
        return Some("this device is not a member of the folder".into());
    }
    if !shared.is_view_settled() {
        let view = shared.view_status();
        let stopped = view.failed.then(|| view.problems.into_iter().next());
        return Some(match view.held_up.or(stopped.flatten()) {
            Some(Problem {
                path: Some(path),
                message,
            }) => format!("'{path}' is held up: {message}").into(),
            Some(problem) => problem.message.into(),
            None => "changes are still being recorded or applied".into(),
        });
    }
    if shared.is_merging() {
        return Some("edits that were made apart are being merged".into());
    }
    if snapshot.peers.is_empty() {
        return Some("no other member is connected".into());
    }
    if !snapshot.we_have_all {
        let missing = "something that peers announced is still missing here";
        return Some(match shared.trouble() {
            Some(trouble) => format!("{missing}: {trouble}").into(),
            None => missing.into(),
        });
    }
    if !snapshot.peers.iter().any(|peer| peer.has_all) {
        return Some("no connected peer has everything of this device yet".into());
    }
    None
}

fn state(running: &RunningFolder, snapshot: &Snapshot, role: Option<Role>) -> FolderState {
    let shared = &running.shared;
    let stopped = shared.trouble().is_some() || shared.view_status().failed;
    if snapshot.removed || snapshot.outside || stopped || refused(snapshot) > 0 {
        return FolderState::Error;
    }
    if snapshot.paused {
        return FolderState::Paused;
    }
    if snapshot.locked {
        return FolderState::Locked;
    }
    let settled = shared.is_view_settled() && !shared.is_merging();
    let alone = snapshot.members.len() <= 1 && role != Some(Role::Safe);
    if settled && snapshot.missing_bytes == 0 && (alone || snapshot.delivered) {
        return FolderState::Synced;
    }
    if snapshot.peers.is_empty() && settled {
        return FolderState::Waiting;
    }
    FolderState::Syncing
}

/// Bytes that a safe's quota leaves no room for.
fn refused(snapshot: &Snapshot) -> u64 {
    snapshot.quota.map_or(0, |quota| quota.refused)
}

fn problems(running: &RunningFolder, snapshot: &Snapshot) -> Vec<Problem> {
    let shared = &running.shared;
    let mut problems = shared.view_status().problems;
    let mut add = |message: String| {
        problems.push(Problem {
            path: None,
            message,
        })
    };
    if let Some(trouble) = shared.trouble() {
        add(trouble);
    }
    if let Some(quota) = snapshot.quota.filter(|quota| quota.refused > 0) {
        add(format!(
            "the quota of {} bytes is used up: {} bytes that the folder needs now are not taken in, and its members see that they are \
             lacking here; everything stored is safe; raise it with 'ouisync quota', or lift it with 'ouisync quota NAME none'",
            quota.bytes, quota.refused
        ));
    }
    if let Some(version) = snapshot.unknown_policy {
        add(format!(
            "the folder's policy (version {version}) was set by a newer program than this one: everything is kept here until this one \
             is updated"
        ));
    }
    if snapshot.removed {
        add("this device was removed from the folder: its files and all that is edited here stay in the directory, and nothing is sent or received any more; \
             forget the folder here ('ouisync folder forget'; the files stay); to take part again, then ask an owner for a new invitation and join into \
             the same directory"
            .to_owned());
    }
    if snapshot.outside {
        add("this device is not a member: another device used the invitation first, it was taken back, or this device was restored from a backup that is \
             older than its present key; its files stay; forget the folder here and join by a new invitation"
            .to_owned());
    }
    if let JoinState::Refused(reason) = &*shared.join_state().borrow() {
        add(format!("the invitation can't be used: {reason}"));
    }
    if snapshot.quarantined > 0 {
        add(format!(
            "{} commits that a removed member made meanwhile are kept aside and not merged",
            snapshot.quarantined
        ));
    }
    for (member, checkpoint) in &snapshot.wrong_checkpoints {
        let name = shared.names().get(member).cloned();
        let name = name.unwrap_or_else(|| member.to_string());
        add(format!(
            "the checkpoint {checkpoint} that '{name}' made is false: it is not used, and nothing is dropped for it; \
             that device is faulty or somebody misuses its key"
        ));
    }
    for member in &snapshot.forked {
        let name = shared
            .names()
            .get(member)
            .cloned()
            .unwrap_or_else(|| member.to_string());
        add(format!(
            "the key of '{name}' signed two versions of history (a restored backup or a copied device); both are kept"
        ));
    }
    problems
}
