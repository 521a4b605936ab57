//! Retention of folders: what holds, changing it, and what a change would do.

use std::{
    cell::Cell,
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use ouisync_model::id::FolderId;
use ouisync_store::store::Store;

use super::{Engine, blocking};
use crate::{
    error::EngineError,
    folder::retention::{PreviewBasis, going},
    history::FolderPath,
    retention::{
        FolderPolicy, Forgetting, Keep, Limits, PackCount, PolicyChange, Preview, Retention,
        Version, outlasts,
    },
    thinning::{self, Plan},
};

/// What was said to be forgotten longer ago is taken to be gone: the usual floor of safes, and some days more.
const MEMORY: Duration = Duration::from_secs(40 * 24 * 3600);

impl Engine {
    /// How long a folder's history is kept.
    pub async fn retention(&self, folder: FolderId) -> Result<Retention, EngineError> {
        self.folder(&folder)?.run(|folder| folder.retention()).await
    }

    /// Changes it for all holders; for owners.
    pub async fn set_policy(
        &self,
        folder: FolderId,
        change: PolicyChange,
    ) -> Result<Retention, EngineError> {
        self.folder(&folder)?
            .run(move |folder| {
                folder.set_policy(&change)?;
                folder.retention()
            })
            .await
    }

    /// What [`Self::set_policy`] would do; changes nothing.
    pub async fn preview_policy(
        &self,
        folder: FolderId,
        change: PolicyChange,
    ) -> Result<Preview, EngineError> {
        let running = self.folder(&folder)?;
        let basis = running
            .run(move |folder| folder.preview_basis(&change))
            .await?;
        blocking(move || preview(&basis)).await
    }

    /// Says that no holder need keep the former versions of the file at `path` (of a deleted file: any version); with `preview`
    /// only tells what that would do. For members that write.
    pub async fn forget_versions(
        &self,
        folder: FolderId,
        path: FolderPath,
        preview: bool,
    ) -> Result<Forgetting, EngineError> {
        let running = self.folder(&folder)?;
        let past = self.past(folder).await?;
        let readable = past.readable.clone();
        let files = blocking(move || past.files_at(&path)).await?;
        let (store, least) = (running.store.clone(), self.inner.housekeeping.grace);
        let (found, packs) = blocking(move || {
            let rule = |node, versions: &[Version]| {
                let gone = versions.iter().filter(|version| version.replaced.is_some());
                let gone = gone.filter(|_| files.contains(&node));
                gone.map(|version| version.stamp).collect()
            };
            let plan = thinning::plan(&store, &readable, &rule, &AtomicBool::new(false))?;
            let mut bytes = 0;
            for pack in &plan.packs {
                bytes += store.pack(*pack)?.map_or(0, |info| info.size.bytes());
            }
            let found = Forgetting {
                versions: plan.going,
                inline: plan.inline,
                packs: PackCount {
                    packs: plan.packs.len() as u64,
                    bytes,
                },
                shared: plan.shared_packs(&readable)?,
                least,
            };
            Ok((found, plan.packs))
        })
        .await?;
        if !preview {
            running
                .run(move |folder| folder.forget_packs(packs))
                .await?;
        }
        Ok(found)
    }

    /// Takes back what members said to forget in the last weeks: the packs become live again, so that every holder keeps them, and are
    /// given up anew, as history. Returns how much that is. For members that write.
    pub async fn keep_forgotten(&self, folder: FolderId) -> Result<PackCount, EngineError> {
        let running = self.folder(&folder)?;
        let store = running.store.clone();
        let now = (self.inner.housekeeping.clock)() / 3600;
        let since = now.saturating_sub(MEMORY.as_secs() / 3600);
        let packs = blocking(move || {
            let mut released = store.released_packs()?;
            let lately = |hours: u32| u64::from(hours) >= since;
            released.retain(|pack| pack.forgotten.is_some_and(lately));
            Ok(released)
        })
        .await?;
        running.run(move |folder| folder.add_again(&packs)).await
    }

    /// Sets what this device's host allows a safe.
    pub async fn set_limits(
        &self,
        folder: FolderId,
        limits: Limits,
    ) -> Result<Retention, EngineError> {
        self.folder(&folder)?
            .run(move |folder| {
                folder.set_limits(limits)?;
                folder.retention()
            })
            .await
    }
}

fn preview(basis: &PreviewBasis) -> Result<Preview, EngineError> {
    let PreviewBasis { before, after, .. } = *basis;
    let devices = |policy: FolderPolicy| policy.devices.unwrap_or(policy.keep);
    let thins = |before, after| after == Keep::Staggered && before != Keep::Staggered;
    let shortens = outlasts(before.keep, after.keep)
        || outlasts(devices(before), devices(after))
        || thins(before.keep, after.keep)
        || thins(devices(before), devices(after));
    // Safes keep most; where there is none devices do.
    let (now, then) = if basis.safes > 0 {
        (before.keep, after.keep)
    } else {
        (devices(before), devices(after))
    };
    let (plan, more) = versions(basis, now, then)?;
    let thinned: BTreeSet<_> = if then == Keep::Staggered {
        plan.packs.iter().copied().collect()
    } else {
        BTreeSet::new()
    };

    let drop_now = basis.store.collection(&basis.now_here, basis.after_here)?;
    let drop_then = basis.store.collection(&basis.then_here, basis.after_here)?;
    let mut here = PackCount {
        packs: drop_then.packs.saturating_sub(drop_now.packs),
        bytes: drop_then.bytes.saturating_sub(drop_now.bytes),
    };
    let mut each_safe = PackCount::default();
    let wait = basis.floor;
    for released in basis.store.released_packs()? {
        if released.forgotten.is_some() {
            continue;
        }
        let bytes = released.size.bytes();
        let is_thinned = thinned.contains(&released.pack);
        if is_thinned && basis.store.has_pack(released.pack)? {
            here.packs += 1;
            here.bytes += bytes;
        }
        let at = u64::from(released.released) * 3600;
        let age = Duration::from_secs(basis.seconds.saturating_sub(at)) + wait;
        let least = basis.grace.max(basis.floor);
        let over = |keep: Keep| keep.limit().is_some_and(|limit| age >= limit.max(least));
        if !over(before.keep) && (over(after.keep) || is_thinned) {
            each_safe.packs += 1;
            each_safe.bytes += bytes;
        }
    }
    if basis.safes == 0 {
        each_safe = PackCount::default();
    }
    Ok(Preview {
        before,
        after,
        shortens,
        here,
        each_safe,
        safes: basis.safes,
        safes_after: wait,
        going: more,
        staying: plan.staying,
        examples: if more > 0 { plan.examples } else { Vec::new() },
    })
}

/// The versions that go by the new rule, and how many of them the old one would have kept.
fn versions(basis: &PreviewBasis, now: Keep, then: Keep) -> Result<(Plan, u64), EngineError> {
    let Some(readable) = &basis.readable else {
        return Ok((Plan::default(), 0));
    };
    let seconds = i64::try_from(basis.seconds).unwrap_or(i64::MAX);
    let more = Cell::new(0);
    let store: &Arc<Store> = &basis.store;
    let rule = |_, versions: &[Version]| {
        let after = going(then, basis.grace, versions, seconds);
        let before: BTreeSet<_> = going(now, basis.grace, versions, seconds)
            .into_iter()
            .collect();
        let fresh = after.iter().filter(|stamp| !before.contains(stamp)).count();
        more.set(more.get() + fresh as u64);
        after
    };
    let plan = thinning::plan(store, readable, &rule, &AtomicBool::new(false))?;
    Ok((plan, more.get()))
}
