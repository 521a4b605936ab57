//! The device's answers about how long history is kept.

use std::time::Duration;

use ouisync_api::{
    duration,
    error::ErrorBody,
    retention::{
        ForgetVersionsRequest, Forgetting, GoingVersion, Keep, LimitsRequest, PackCount, Retention,
        RetentionHere, RetentionPreview, RetentionRequest, SafesEstimate, VersionCount, parse_size,
    },
};
use ouisync_engine::retention::{self, Limits, PolicyChange, PolicyInForce};

use super::{
    Device,
    past::{names, text},
    service::engine,
};
use crate::{
    refusal::invalid,
    service::{Reply, RetentionService},
};

impl RetentionService for Device {
    fn retention(&self, folder: String) -> Reply<'_, Retention> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            let found = engine(self.inner.engine.retention(summary.folder).await)?;
            Ok(document(&summary.name, &found))
        })
    }

    fn set_retention(&self, folder: String, request: RetentionRequest) -> Reply<'_, Retention> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            let change = change(&request)?;
            let now = engine(self.inner.engine.set_policy(summary.folder, change).await)?;
            Ok(document(&summary.name, &now))
        })
    }

    fn preview_retention(
        &self,
        folder: String,
        request: RetentionRequest,
    ) -> Reply<'_, RetentionPreview> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            let change = change(&request)?;
            let found = self.inner.engine.preview_policy(summary.folder, change);
            Ok(preview(&summary.name, engine(found.await)?))
        })
    }

    fn forget_versions(
        &self,
        folder: String,
        request: ForgetVersionsRequest,
    ) -> Reply<'_, Forgetting> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            let path = names(&request.path)?;
            let shown = text(&path);
            let preview = request.preview;
            let found = self
                .inner
                .engine
                .forget_versions(summary.folder, path, preview);
            let found = engine(found.await)?;
            Ok(Forgetting {
                folder: summary.name,
                path: shown,
                versions: found.versions,
                inline: found.inline,
                packs: found.packs.packs,
                bytes: found.packs.bytes,
                shared_packs: found.shared,
                after_seconds: found.least.as_secs(),
                preview,
            })
        })
    }

    fn keep_forgotten(&self, folder: String) -> Reply<'_, PackCount> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            let kept = engine(self.inner.engine.keep_forgotten(summary.folder).await)?;
            Ok(PackCount {
                packs: kept.packs,
                bytes: kept.bytes,
            })
        })
    }

    fn set_limits(&self, folder: String, request: LimitsRequest) -> Reply<'_, Retention> {
        Box::pin(async move {
            let summary = self.inner.find(&folder)?;
            let mut limits = engine(self.inner.engine.retention(summary.folder).await)?.limits;
            if let Some(quota) = &request.quota {
                limits.quota = match quota.as_str() {
                    "none" => None,
                    size => Some(parse_size(size).map_err(|error| {
                        invalid(error.to_string(), "Write 'none' for no quota.")
                    })?),
                };
            }
            if let Some(floor) = &request.floor {
                limits.floor = match floor.as_str() {
                    "default" => None,
                    time => Some(span(time)?.as_secs()),
                };
            }
            let now = engine(self.inner.engine.set_limits(summary.folder, limits).await)?;
            Ok(document(&summary.name, &now))
        })
    }
}

fn span(text: &str) -> Result<Duration, ErrorBody> {
    duration::parse(text)
        .map_err(|error| invalid(error.to_string(), "Write 'default' for 30 days."))
}

fn keep(text: &str) -> Result<retention::Keep, ErrorBody> {
    let keep: Keep = text
        .parse()
        .map_err(|error: ouisync_api::retention::KeepFormatError| {
            invalid(error.to_string(), "See 'ouisync retention --help'.")
        })?;
    Ok(match keep {
        Keep::All => retention::Keep::All,
        Keep::Staggered => retention::Keep::Staggered,
        Keep::For(time) => retention::Keep::time(time),
    })
}

fn words(keep: retention::Keep) -> String {
    let keep = match keep {
        retention::Keep::All => Keep::All,
        retention::Keep::Staggered => Keep::Staggered,
        retention::Keep::For(seconds) => Keep::For(Duration::from_secs(seconds)),
    };
    keep.to_string()
}

fn change(request: &RetentionRequest) -> Result<PolicyChange, ErrorBody> {
    let devices = match request.devices.as_deref() {
        None => None,
        Some("same") => Some(None),
        Some(text) => Some(Some(keep(text)?)),
    };
    if request.replicas == Some(0) {
        return Err(invalid(
            "nothing would be kept by nobody",
            "Want at least one replica.",
        ));
    }
    Ok(PolicyChange {
        keep: request.keep.as_deref().map(keep).transpose()?,
        devices,
        replicas: request.replicas,
    })
}

fn document(name: &str, found: &retention::Retention) -> Retention {
    let retention::Retention {
        policy,
        is_safe,
        keep,
        held,
        least,
        limits: Limits { quota, .. },
        live_bytes,
        history_bytes,
        forgotten,
        safes,
    } = found;
    Retention {
        folder: name.to_owned(),
        keep: words(policy.safes()),
        devices: words(policy.devices()),
        replicas: match policy {
            PolicyInForce::Unknown(_) => None,
            _ => Some(policy.replicas()),
        },
        set: *policy != PolicyInForce::Default,
        unknown_version: match policy {
            PolicyInForce::Unknown(version) => Some(*version),
            _ => None,
        },
        safes: *safes,
        here: RetentionHere {
            safe: *is_safe,
            keep: words(*keep),
            held: held.map(|(keep, _)| words(keep)),
            held_seconds: held.map(|(_, left)| left.as_secs()),
            least_seconds: least.as_secs(),
            quota_bytes: *quota,
            live_bytes: *live_bytes,
            history_bytes: *history_bytes,
            forgotten_bytes: forgotten.bytes,
        },
    }
}

fn preview(name: &str, found: retention::Preview) -> RetentionPreview {
    let devices = |policy: retention::FolderPolicy| words(policy.devices.unwrap_or(policy.keep));
    let examples = found.examples.into_iter().map(|version| GoingVersion {
        path: version.path,
        written: version.written.to_rfc3339(),
        bytes: version.size,
    });
    RetentionPreview {
        folder: name.to_owned(),
        keep_before: words(found.before.keep),
        keep: words(found.after.keep),
        devices_before: devices(found.before),
        devices: devices(found.after),
        shortens: found.shortens,
        here: PackCount {
            packs: found.here.packs,
            bytes: found.here.bytes,
        },
        safes: SafesEstimate {
            safes: found.safes,
            packs: found.each_safe.packs,
            bytes: found.each_safe.bytes.saturating_mul(found.safes),
            after_seconds: found.safes_after.as_secs(),
        },
        versions: VersionCount {
            going: found.going,
            staying: found.staying,
            examples: examples.collect(),
        },
    }
}
