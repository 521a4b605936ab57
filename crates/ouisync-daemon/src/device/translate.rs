//! The engine's plain data as the API's.

use ouisync_api::{data, event::Event};
use ouisync_engine::status::{
    DeviceInfo, EngineEvent, FolderState, FolderStatus, FolderSummary, MemberInfo, Role, Sealing,
    VerifyOutcome,
};

pub(super) fn role(role: Role) -> data::Role {
    match role {
        Role::Safe => data::Role::Safe,
        Role::Reader => data::Role::Reader,
        Role::Writer => data::Role::Writer,
        Role::Owner => data::Role::Owner,
    }
}

pub(super) fn engine_role(role: data::Role) -> Role {
    match role {
        data::Role::Safe => Role::Safe,
        data::Role::Reader => Role::Reader,
        data::Role::Writer => Role::Writer,
        data::Role::Owner => Role::Owner,
    }
}

pub(super) fn link_role(role: ouisync_crypto::roster::role::Role) -> data::Role {
    use ouisync_crypto::roster::role::Role as LinkRole;
    match role {
        LinkRole::Safe => data::Role::Safe,
        LinkRole::Reader => data::Role::Reader,
        LinkRole::Writer => data::Role::Writer,
        LinkRole::Owner => data::Role::Owner,
    }
}

pub(super) fn device(info: &DeviceInfo, sealing: Sealing) -> data::Device {
    data::Device {
        device: info.device.to_string(),
        name: info.name.clone(),
        addresses: info
            .sockets
            .iter()
            .map(|socket| format!("{}@{socket}", info.device))
            .collect(),
        passphrase_set: sealing == Sealing::Passphrase,
        key_ring: sealing == Sealing::KeyRing,
    }
}

pub(super) fn folder(summary: &FolderSummary, path: Option<String>) -> data::Folder {
    data::Folder {
        folder: summary.folder.to_string(),
        name: summary.name.clone(),
        role: summary.role.map(role),
        path,
    }
}

pub(super) fn member(info: MemberInfo) -> data::Member {
    data::Member {
        member: info.member.to_string(),
        name: info.name,
        role: role(info.role),
        this_device: info.this_device,
        connected: info.connected,
        newer: info.newer.map(|member| member.to_string()),
    }
}

pub(super) fn status(status: FolderStatus, path: Option<String>) -> data::FolderStatus {
    data::FolderStatus {
        name: status.name,
        folder: status.folder.to_string(),
        role: status.role.map(role),
        state: match status.state {
            FolderState::Synced => data::FolderState::Synced,
            FolderState::Syncing => data::FolderState::Syncing,
            FolderState::Waiting => data::FolderState::Waiting,
            FolderState::Paused => data::FolderState::Paused,
            FolderState::Locked => data::FolderState::Locked,
            FolderState::Error => data::FolderState::Error,
        },
        files: status.files,
        bytes: status.bytes,
        missing_bytes: status.missing_bytes,
        stored_bytes: status.stored_bytes,
        live_bytes: status.live_bytes,
        offloaded_bytes: status.offloaded_bytes,
        missing_history_bytes: status.missing_history_bytes,
        history_bytes: status.stored_bytes.saturating_sub(status.live_bytes),
        quota_bytes: status.quota_bytes,
        refused_bytes: status.refused_bytes,
        conflicts: status.conflicts,
        problems: status
            .problems
            .into_iter()
            .map(|problem| data::Problem {
                path: problem.path,
                message: problem.message,
            })
            .collect(),
        peers: status
            .peers
            .into_iter()
            .map(|peer| data::Peer {
                member: peer.member.map(|member| member.to_string()),
                name: peer.name,
                role: peer.role.map(role),
                connected: peer.connected,
                missing_bytes: peer.missing_bytes,
            })
            .collect(),
        path,
        download_rate: status.download_rate,
        upload_rate: status.upload_rate,
    }
}

pub(super) fn verification(outcome: VerifyOutcome) -> data::Verification {
    data::Verification {
        ok: outcome.ok,
        packs: outcome.packs,
        bytes: outcome.bytes,
        problems: outcome.problems,
    }
}

pub(super) fn event(event: EngineEvent) -> Event {
    match event {
        EngineEvent::FolderChanged(folder) => Event::FolderChanged {
            folder: folder.to_string(),
        },
        EngineEvent::FoldersChanged => Event::FoldersChanged,
        EngineEvent::Warning { folder, message } => Event::Warning {
            folder: folder.map(|folder| folder.to_string()),
            message,
        },
    }
}
