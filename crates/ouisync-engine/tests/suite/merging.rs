//! Edits made apart merge by themselves where they can; where they can't, one decision settles it for everybody.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ouisync_engine::{
    engine::conflicts::{ConflictInfo, Resolution, VersionKind},
    error::{EngineError, ErrorKind},
    housekeeping::Housekeeping,
    status::Role,
};
use ouisync_model::{id::FolderId, merge::text::LineChanges, name::Name};

use crate::device::{Device, eventually, noise, packs_of, quick};

fn merging() -> Housekeeping {
    Housekeeping {
        merge: Duration::from_millis(100),
        ..quick()
    }
}

fn path(name: &str) -> Vec<Name> {
    vec![Name::new(name).unwrap()]
}

/// Twenty lines.
fn text() -> String {
    (0..20).map(|number| format!("line {number}\n")).collect()
}

fn with(text: &str, line: usize, new: &str) -> String {
    text.replace(&format!("line {line}\n"), &format!("{new}\n"))
}

/// Writers that share a folder with what `files` says, and are apart now.
async fn apart<const N: usize>(
    names: [&str; N],
    files: &[(&str, &[u8])],
) -> (FolderId, [Device; N]) {
    let mut devices = Vec::new();
    for name in names {
        devices.push(Device::with(name, merging()).await);
    }
    let folder = devices[0].create().await;
    for other in &devices[1..] {
        other
            .join(&devices[0].invite(folder, Role::Writer).await)
            .await;
    }
    for (name, bytes) in files {
        devices[0].write(folder, name, bytes);
    }
    for device in &devices {
        for (name, bytes) in files {
            device.sees(folder, name, bytes).await;
        }
    }
    for device in &devices {
        device.engine().pause(Some(folder)).await.unwrap();
    }
    let devices = devices.try_into().unwrap_or_else(|_| unreachable!());
    (folder, devices)
}

/// They meet again, and come to rest.
async fn together(folder: FolderId, devices: &[&Device]) {
    for device in devices {
        device.engine().resume(Some(folder)).await.unwrap();
    }
    for (index, device) in devices.iter().enumerate() {
        for other in &devices[index + 1..] {
            device.meet(other).await;
        }
    }
    for _ in 0..3 {
        for device in devices {
            device.wait(folder).await;
        }
    }
}

async fn conflicts(device: &Device, folder: FolderId) -> Vec<ConflictInfo> {
    device.engine().conflicts(folder).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_other_lines_merge() {
    let base = text();
    let (folder, [alice, bob, carol]) =
        apart(["alice", "bob", "carol"], &[("a.txt", base.as_bytes())]).await;
    // Several saves: the last common one counts.
    alice.write(folder, "a.txt", with(&base, 2, "draft").as_bytes());
    alice.write(folder, "a.txt", with(&base, 2, "of alice").as_bytes());
    bob.write(folder, "a.txt", with(&base, 9, "of bob").as_bytes());
    carol.write(folder, "a.txt", with(&base, 15, "of carol").as_bytes());
    together(folder, &[&alice, &bob, &carol]).await;
    let merged = with(&base, 2, "of alice");
    let merged = with(&with(&merged, 9, "of bob"), 15, "of carol");
    for device in [&alice, &bob, &carol] {
        device.sees(folder, "a.txt", merged.as_bytes()).await;
        assert_eq!(device.names(folder), ["a.txt"]);
        assert_eq!(device.status(folder).await.conflicts, 0);
    }
}

/// Threads of this process that merge.
fn merging_threads() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let names = threads.filter_map(|thread| {
        let path = thread.unwrap().path().join("comm");
        // It may have ended meanwhile.
        std::fs::read_to_string(path).ok()
    });
    names.filter(|name| name.trim() == "folder-merge").count()
}

/// Nobody but the safe has what both edits come from any more.
#[tokio::test(flavor = "multi_thread")]
async fn the_base_of_a_merge_is_fetched_from_a_safe() {
    let now = Arc::new(AtomicU64::new(1_000_000_000));
    let clock = now.clone();
    let settings = Housekeeping {
        release: Duration::from_millis(100),
        collect: Duration::from_millis(50),
        grace: Duration::from_secs(3600),
        clock: Arc::new(move || clock.load(Ordering::Relaxed)),
        ..merging()
    };
    let mut devices = Vec::new();
    for name in ["alice", "bob", "pi"] {
        devices.push(Device::with(name, settings.clone()).await);
    }
    let [mut alice, mut bob, mut pi] =
        <[Device; 3]>::try_from(devices).unwrap_or_else(|_| unreachable!());
    let folder = alice.create().await;
    bob.join(&alice.invite(folder, Role::Writer).await).await;
    pi.join(&alice.invite(folder, Role::Safe).await).await;
    // Too long to travel in the commit, and too short to be of several chunks that later versions share.
    let base: String = (0..600).map(|number| format!("line {number}\n")).collect();
    for name in ["a.txt", "b.txt"] {
        alice.write(folder, name, base.as_bytes());
    }
    alice.wait(folder).await;
    bob.wait(folder).await;
    let first = packs_of(&alice, folder);
    assert!(!first.is_empty());
    pi.stop().await;
    bob.stop().await;
    // They don't meet before both have collected what they began with.
    let ids = |paths: &[PathBuf]| -> BTreeSet<OsString> {
        let names = paths.iter().filter_map(|path| path.file_name());
        names.map(ToOwned::to_owned).collect()
    };
    let edit = async |device: &Device, line: usize, new: &str| {
        for name in ["a.txt", "b.txt"] {
            device.write(folder, name, with(&base, line, new).as_bytes());
        }
        eventually("the base is collected", async || {
            now.fetch_add(3600, Ordering::Relaxed);
            ids(&first).is_disjoint(&ids(&packs_of(device, folder)))
        })
        .await;
    };
    edit(&alice, 2, "of alice").await;
    alice.stop().await;
    bob.go_on().await;
    edit(&bob, 500, "of bob").await;
    alice.go_on().await;
    together(folder, &[&alice, &bob]).await;
    assert_eq!(conflicts(&alice, folder).await.len(), 2, "nobody has it");
    // Whoever closes the folder while that is looked for waits for the end of it, which is soon.
    bob.stop().await;
    alice.stop().await;
    alice.go_on().await;
    eventually("it is looked for", async || merging_threads() > 0).await;
    alice.stop().await;
    assert_eq!(merging_threads(), 0);
    alice.go_on().await;
    bob.go_on().await;
    pi.go_on().await;
    let merged = with(&with(&base, 2, "of alice"), 500, "of bob");
    for device in [&alice, &bob] {
        pi.meet(device).await;
        for name in ["a.txt", "b.txt"] {
            device.sees(folder, name, merged.as_bytes()).await;
        }
    }
    together(folder, &[&alice, &bob]).await;
    for device in [&alice, &bob] {
        assert_eq!(device.names(folder), ["a.txt", "b.txt"]);
        assert_eq!(conflicts(device, folder).await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_texts_merge_and_binaries_do_not() {
    let base: String = (0..30_000).map(|n| format!("line {n}\r\n")).collect();
    let blob = noise(100_000);
    let files: &[(&str, &[u8])] = &[("large", base.as_bytes()), ("blob", &blob)];
    let (folder, [alice, bob]) = apart(["alice", "bob"], files).await;
    let of_alice = base.replace("line 7\r\n", "alice\r\n");
    let of_bob = base.replace("line 29999\r\n", "bob");
    alice.write(folder, "large", of_alice.as_bytes());
    bob.write(folder, "large", of_bob.as_bytes());
    let (mut one, mut other) = (blob.clone(), blob.clone());
    one[0] ^= 1;
    other[99_999] ^= 1;
    alice.write(folder, "blob", &one);
    bob.write(folder, "blob", &other);
    together(folder, &[&alice, &bob]).await;
    let merged = of_alice.replace("line 29999\r\n", "bob");
    for device in [&alice, &bob] {
        device.sees(folder, "large", merged.as_bytes()).await;
        assert_eq!(device.names(folder).len(), 3);
        let [conflict] = &conflicts(device, folder).await[..] else {
            panic!("one conflict")
        };
        assert_eq!(conflict.path, path("blob"));
        assert_eq!(conflict.versions.len(), 2);
        assert!(conflict.versions.iter().all(|version| version.here
            && version.changes.is_none()
            && version.size == 100_000
            && version.kind == VersionKind::File));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_edits_are_settled_once_for_everybody() {
    let base = text();
    let (folder, [alice, bob, carol]) =
        apart(["alice", "bob", "carol"], &[("a.txt", base.as_bytes())]).await;
    let of_alice = with(&base, 5, "of alice");
    let of_bob = with(&base, 5, "of bob\nand more");
    alice.write(folder, "a.txt", of_alice.as_bytes());
    bob.write(folder, "a.txt", of_bob.as_bytes());
    // Carol stays away.
    together(folder, &[&alice, &bob]).await;
    let [conflict] = &conflicts(&bob, folder).await[..] else {
        panic!("one conflict")
    };
    assert_eq!(
        conflicts(&alice, folder).await,
        std::slice::from_ref(conflict)
    );
    assert_eq!(bob.status(folder).await.conflicts, 1);
    assert_eq!(conflict.path, path("a.txt"));
    let [first, second] = &conflict.versions[..] else {
        panic!("two versions")
    };
    assert_eq!(first.changes, None);
    let members = alice.engine().members(folder).await.unwrap();
    let name_of = async |author| {
        let member = members.iter().find(|member| Some(member.member) == author);
        member.unwrap().name.clone().unwrap()
    };
    let (added, removed) = if name_of(second.author).await == "bob" {
        (2, 1)
    } else {
        (1, 2)
    };
    assert_eq!(second.changes, Some(LineChanges { added, removed }));
    let mut authors = [name_of(first.author).await, name_of(second.author).await];
    authors.sort();
    assert_eq!(authors, ["alice", "bob"]);
    let copy = second.path[0].to_string();
    assert!(
        copy.contains("(conflict ") && copy.ends_with(").txt"),
        "{copy}"
    );

    let resolve = async |device: &Device, at: &str, resolution| {
        device.engine().resolve(folder, path(at), resolution).await
    };
    let error = resolve(&alice, "nothing", Resolution::Both)
        .await
        .unwrap_err();
    assert!(matches!(error, EngineError::NoConflict(_)));
    let keep = |version: &str| Resolution::Keep(version.to_owned());
    for wrong in ["3", "0", "nobody", "ffffffff-9"] {
        let error = resolve(&alice, "a.txt", keep(wrong)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{wrong}: {error}");
    }
    // By the copy's path, too.
    resolve(&alice, &copy, keep("bob")).await.unwrap();
    together(folder, &[&alice, &bob]).await;
    together(folder, &[&alice, &bob, &carol]).await;
    for device in [&alice, &bob, &carol] {
        device.sees(folder, "a.txt", of_bob.as_bytes()).await;
        assert_eq!(device.names(folder), ["a.txt"]);
        assert_eq!(conflicts(device, folder).await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_made_apart_are_one_conflict_again() {
    let (folder, [alice, bob]) = apart(["alice", "bob"], &[("a.txt", b"base\n")]).await;
    alice.write(folder, "a.txt", b"alice\n");
    bob.write(folder, "a.txt", b"bob\n");
    together(folder, &[&alice, &bob]).await;
    for device in [&alice, &bob] {
        device.engine().pause(Some(folder)).await.unwrap();
        let own = device.engine().device().name;
        let kept = device
            .engine()
            .resolve(folder, path("a.txt"), Resolution::Keep(own));
        assert_eq!(kept.await.unwrap(), path("a.txt"));
        assert_eq!(device.names(folder), ["a.txt"]);
    }
    together(folder, &[&alice, &bob]).await;
    // Neither choice is lost, and nothing goes round and round.
    let seen = conflicts(&alice, folder).await;
    assert_eq!(seen.len(), 1);
    assert_eq!(conflicts(&bob, folder).await, seen);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(conflicts(&bob, folder).await, seen);
    let merged = "both\n";
    let resolution = Resolution::Merged(5, Box::new(merged.as_bytes()));
    let resolved = bob.engine().resolve(folder, path("a.txt"), resolution);
    resolved.await.unwrap();
    together(folder, &[&alice, &bob]).await;
    for device in [&alice, &bob] {
        device.sees(folder, "a.txt", merged.as_bytes()).await;
        assert_eq!(conflicts(device, folder).await, []);
    }
    // Both as ordinary files, while the other writes on.
    alice.engine().pause(Some(folder)).await.unwrap();
    alice.write(folder, "a.txt", b"alice again\n");
    bob.write(folder, "a.txt", b"bob again\n");
    together(folder, &[&alice, &bob]).await;
    let resolved = alice
        .engine()
        .resolve(folder, path("a.txt"), Resolution::Both);
    resolved.await.unwrap();
    together(folder, &[&alice, &bob]).await;
    let names = bob.names(folder);
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(bob.status(folder).await.conflicts, 0);
    let mut contents: Vec<_> = names.iter().map(|name| bob.read(folder, name)).collect();
    contents.sort();
    let expected = [&b"alice again\n"[..], b"bob again\n"].map(|bytes| Some(bytes.to_vec()));
    assert_eq!(contents, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folders_rules_hold() {
    let rules = b"*.log merge=union\n*.state merge=newest\n*.md merge=keep-both\n";
    let base = text();
    let files: &[(&str, &[u8])] = &[
        (".ouisyncattributes", rules),
        ("a.log", b"first\n"),
        ("a.state", b"0"),
        ("a.md", base.as_bytes()),
    ];
    let (folder, [alice, bob]) = apart(["alice", "bob"], files).await;
    alice.write(folder, "a.log", b"first\nalice\n");
    bob.write(folder, "a.log", b"first\nbob\n");
    alice.write(folder, "a.state", b"1");
    bob.write(folder, "a.state", b"2");
    // No text in common at all.
    alice.write(folder, "new.log", b"one\nshared\n");
    bob.write(folder, "new.log", b"shared\ntwo\n");
    alice.write(folder, "a.md", with(&base, 1, "alice").as_bytes());
    bob.write(folder, "a.md", with(&base, 18, "bob").as_bytes());
    together(folder, &[&alice, &bob]).await;
    for device in [&alice, &bob] {
        let open = conflicts(device, folder).await;
        assert_eq!(open.len(), 1, "{open:?}");
        assert_eq!(open[0].path, path("a.md"));
        let log = String::from_utf8(device.read(folder, "a.log").unwrap()).unwrap();
        let mut lines: Vec<_> = log.lines().collect();
        assert_eq!(lines.remove(0), "first");
        lines.sort_unstable();
        assert_eq!(lines, ["alice", "bob"]);
        let log = device.read(folder, "new.log").unwrap();
        assert_eq!(log, b"one\nshared\ntwo\n");
    }
    assert_eq!(alice.read(folder, "a.state"), bob.read(folder, "a.state"));
    // Another rule: what stayed merges now.
    bob.write(folder, ".ouisyncattributes", b"*.log merge=union\n");
    let merged = with(&with(&base, 1, "alice"), 18, "bob");
    for device in [&alice, &bob] {
        device.sees(folder, "a.md", merged.as_bytes()).await;
        eventually("no conflict is left", async || {
            conflicts(device, folder).await.is_empty()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_merges_nothing_and_may_not_decide() {
    let base = text();
    let (folder, [alice, bob]) = apart(["alice", "bob"], &[("a.txt", base.as_bytes())]).await;
    alice.write(folder, "a.txt", with(&base, 2, "of alice").as_bytes());
    bob.write(folder, "a.txt", with(&base, 2, "of bob").as_bytes());
    together(folder, &[&alice, &bob]).await;
    let carol = Device::with("carol", merging()).await;
    carol.join(&alice.invite(folder, Role::Reader).await).await;
    carol.wait(folder).await;
    assert_eq!(conflicts(&carol, folder).await.len(), 1);
    let resolution = Resolution::Keep("1".to_owned());
    let error = carol
        .engine()
        .resolve(folder, path("a.txt"), resolution)
        .await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Forbidden);
}
