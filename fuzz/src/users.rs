//! What users and their programs give: rules, texts, links, requests, files of the home.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use ouisync_api::{data, duration, history, moment, sse};
use ouisync_crypto::{
    invitation::{InvitationLink, InvitationSecret},
    keystore::{KeyStore, KeyStoreKey, PassphraseCost},
    roster::role::Role,
};
use ouisync_model::{
    id::FolderId,
    merge::{attributes::Attributes, text},
    name::Name,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::operations::Program;

/// A file of the crate for plain directories, which as a whole needs much more to be built.
#[path = "../../crates/ouisync-worktree/src/ignored/text.rs"]
mod rules_text;

/// Merging of texts, and the rules for it.
pub(crate) fn merge(data: &[u8]) {
    let mut program = Program(data);
    let (rules, base) = (program.part(), program.part());
    let (ours, theirs) = (program.part(), program.part());
    let attributes = Attributes::parse(rules);
    let path: Vec<_> = program
        .0
        .split(|byte| *byte == b'/')
        .filter_map(|name| Name::new(name).ok())
        .collect();
    let _ = attributes.strategy(&path);
    let _ = (text::is_text(ours), text::changes(base, ours));
    let merged = text::merge(base, ours, theirs);
    // Equal to one that is swapped only as far as there is no conflict.
    if let (Some(merged), Some(swapped)) = (&merged, text::merge(base, theirs, ours)) {
        assert_eq!(*merged, swapped);
    }
    if text::is_text(ours) && text::is_text(base) {
        assert_eq!(text::merge(base, ours, base), Some(ours.to_vec()));
        assert_eq!(text::merge(base, ours, ours), Some(ours.to_vec()));
    }
    let _ = text::union(Some(base), ours, theirs);
    let _ = text::union(None, ours, theirs);
}

pub(crate) fn merge_seeds() -> Vec<Vec<u8>> {
    vec![
        b"*.txt merge=union\n[a-z]/** merge=text\n\0a\nb\nc\n\0a\nB\nc\n\0a\nb\nC\nd\n\0d/x.txt"
            .to_vec(),
        b"\"a b\" merge=none\n{a,b}* merge=text\0one\r\ntwo\0one\r\n\0\0a".to_vec(),
    ]
}

/// Invitations' links.
pub(crate) fn invitation(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(link) = InvitationLink::parse(&text) {
        let again = InvitationLink::parse(&link.encode()).expect("own encoding");
        assert_eq!(again.encode(), link.encode());
    }
}

pub(crate) fn invitation_seeds() -> Vec<Vec<u8>> {
    let link = InvitationLink {
        folder: FolderId::from_bytes([1; 32]),
        role: Role::Writer,
        secret: InvitationSecret::from_bytes([2; 32]),
        name: "Notes".to_owned(),
        contacts: Vec::new(),
    };
    vec![link.encode().into_bytes(), b"ouisync://join/v1#".to_vec()]
}

/// The file with slots; its cost is never paid here.
pub(crate) fn keystore(data: &[u8]) {
    // A file of the right length around the bytes, too.
    let mut whole = PassphraseCost {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };
    whole.passes = u32::from(data.first().copied().unwrap_or(1));
    let mut bytes = KeyStore::create(whole, &mut rand::rng())
        .as_bytes()
        .to_vec();
    let start = data.len().min(bytes.len());
    bytes[..start].copy_from_slice(&data[..start]);
    for bytes in [bytes, data.to_vec()] {
        let Ok(store) = KeyStore::from_bytes(bytes) else {
            continue;
        };
        let memory = store
            .as_bytes()
            .get(8..12)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_le_bytes);
        let passes = store.as_bytes()[12];
        if memory.is_some_and(|memory| memory < 64) && passes < 4 {
            let _ = store.passphrase_key(b"guess");
        }
        let _ = store.open(&KeyStoreKey::from_bytes([1; 32]));
    }
}

pub(crate) fn keystore_seeds() -> Vec<Vec<u8>> {
    let cost = PassphraseCost {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };
    vec![KeyStore::create(cost, &mut rand::rng()).as_bytes()[..56].to_vec()]
}

fn request<T: DeserializeOwned + Serialize>(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<T>(data) {
        let text = serde_json::to_vec(&request).expect("a decoded request");
        serde_json::from_slice::<T>(&text).expect("own encoding");
    }
}

/// Requests, and what a client reads.
pub(crate) fn api(data: &[u8]) {
    request::<data::AttachRequest>(data);
    request::<data::ConfirmRequest>(data);
    request::<data::ConnectRequest>(data);
    request::<data::CreateRequest>(data);
    request::<data::FolderSelection>(data);
    request::<data::FolderStatus>(data);
    request::<data::InviteRequest>(data);
    request::<data::JoinRequest>(data);
    request::<data::KeyRingRequest>(data);
    request::<data::LockRequest>(data);
    request::<data::PassphraseRequest>(data);
    request::<data::RevokeRequest>(data);
    request::<data::RoleRequest>(data);
    request::<data::UnlockRequest>(data);
    request::<data::WaitRequest>(data);
    request::<history::HistoryRequest>(data);
    request::<history::DeletedRequest>(data);
    let text = String::from_utf8_lossy(data);
    let _ = duration::parse(&text);
    let _ = moment::Moment::parse(&text);
    if let Ok(now) = moment::Moment::parse("2026-11-23T10:00:00Z") {
        let _ = moment::Named::parse(&text, now);
    }
    let mut parser = sse::Parser::default();
    for piece in data.chunks(13) {
        if parser.push(piece).is_err() {
            break;
        }
    }
}

pub(crate) fn api_seeds() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"name":"Notes","path":"/home/x/Notes"}"#,
        r#"{"role":"writer","uses":1,"expires_seconds":60}"#,
        r#"{"link":"ouisync://join/v1#","path":null,"timeout_seconds":1}"#,
        r#"{"folder":"Notes","passphrase":"x"}"#,
        "7d",
        "2026-11-23T10:00:00+01:00",
        "1 hour ago",
        "event: x\ndata: {\"a\":1}\n\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// Rules of `.ouisyncignore` and names under them.
pub(crate) fn ignore(data: &[u8]) {
    let mut program = Program(data);
    let rules = program.part();
    // Names and what they are joined to have no root.
    let path = program.0.strip_prefix(b"/").unwrap_or(program.0);
    let path = Path::new(OsStr::from_bytes(path));
    if !path.has_root() {
        let rules = rules_text::parse(rules);
        let _ = (rules.matched(path, false), rules.matched(path, true));
    }
}

pub(crate) fn ignore_seeds() -> Vec<Vec<u8>> {
    vec![
        b"*.o\n!keep.o\n/build/\n**/x[a-z]?\n\\#\n\0d/keep.o".to_vec(),
        b"{a,b}\n***\n[\0[".to_vec(),
    ]
}
