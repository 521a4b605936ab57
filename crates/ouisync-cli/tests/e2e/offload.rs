//! Copies that are dropped and come back: the plain ones, and the sealed ones that others hold.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::node::{Node, converge, noise, until};

#[test]
fn a_plain_copy_that_is_dropped_stays_in_the_folder_and_comes_back() {
    let (alice, mut bob) = (Node::started("Alice"), Node::started("Bob"));
    let film = noise(7, 3_000_000);
    alice.write("films/one.bin", &film);
    alice.write("films/two.txt", "short\n");
    alice.create();
    bob.join(&alice.invite("writer"), "writer");
    converge(&[&alice, &bob]);
    let place = bob.files.join("films");
    let outcome = bob.json(&["offload", "--plain", place.to_str().unwrap()]);
    assert_eq!(
        (&outcome["files"], &outcome["bytes"]),
        (&2.into(), &3_000_006.into()),
        "{outcome}"
    );
    assert!(!place.join("one.bin").exists());
    assert!(
        bob.read("films/one.bin.ouisync-offloaded")
            .contains("ouisync fetch")
    );
    bob.wait();
    assert_eq!(bob.status()["files"], 2);
    // Others notice nothing, and may go on with it.
    alice.write("films/two.txt", "longer than before\n");
    alice.wait();
    bob.terminate();
    bob.start();
    bob.json(&["connect", &alice.address()]);
    bob.wait();
    alice.wait();
    assert_eq!(
        std::fs::read(alice.files.join("films/one.bin")).unwrap(),
        film
    );
    assert!(!place.join("two.txt").exists());
    assert_eq!(bob.run(&["fetch", "Notes:nowhere"]).code, 5);
    let note = place.join("two.txt.ouisync-offloaded");
    bob.json(&["fetch", note.to_str().unwrap()]);
    bob.wait();
    assert_eq!(bob.read("films/two.txt"), "longer than before\n");
    bob.json(&["fetch", "Notes"]);
    converge(&[&alice, &bob]);
    assert_eq!(std::fs::read(place.join("one.bin")).unwrap(), film);
}

/// Bytes that a directory takes on the disk.
fn disk_usage(directory: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(directory).unwrap().flatten() {
        // What goes meanwhile takes nothing.
        let Ok(found) = entry.path().symlink_metadata() else {
            continue;
        };
        bytes += match found.is_dir() {
            true => disk_usage(&entry.path()),
            false => found.blocks() * 512,
        };
    }
    bytes
}

fn packs(node: &Node) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for folder in fs::read_dir(node.home.join("folders")).unwrap().flatten() {
        for group in fs::read_dir(folder.path().join("packs")).unwrap().flatten() {
            let files = fs::read_dir(group.path()).unwrap().flatten();
            found.extend(files.map(|file| file.path()));
        }
    }
    found
}

/// Alice with films, a safe and Bob with all of it, and two wanted replicas, as is the default.
fn three() -> (Node, Node, Node) {
    let (alice, pi, bob) = (
        Node::started("Alice"),
        Node::started("Raspberry"),
        Node::started("Bob"),
    );
    for (seed, name) in [
        (1, "films/one.bin"),
        (3, "films/two.bin"),
        (5, "notes/kept.bin"),
    ] {
        alice.write(name, noise(seed, 4_000_000));
    }
    alice.write("films/small.txt", "short\n");
    alice.create();
    pi.join(&alice.invite("safe"), "safe");
    bob.join(&alice.invite("writer"), "writer");
    converge(&[&alice, &bob]);
    until("the safe has all of it, and Alice knows", || {
        let status = alice.status();
        let peers = status["peers"].as_array().unwrap().clone();
        peers.len() == 2 && peers.iter().all(|peer| peer["missing_bytes"] == 0)
    });
    pi.wait();
    (alice, pi, bob)
}

#[test]
fn offloading_frees_the_disk_and_fetching_brings_every_byte_back() {
    let (mut alice, mut pi, mut bob) = three();
    let everything = |node: &Node| disk_usage(&node.home) + disk_usage(&node.files);
    let before = everything(&alice);
    let place = alice.files.join("films");
    // Both copies of eight megabytes go; chunks of two files may share a pack with the third, which stays.
    let offloaded = alice.json(&["offload", place.to_str().unwrap()]);
    assert_eq!(offloaded["files"], 3, "{offloaded}");
    assert_eq!(offloaded["skipped"], serde_json::json!([]));
    let offloaded = alice.json(&["offload", "Notes"]);
    assert_eq!(offloaded["files"], 1, "{offloaded}");
    until("the space is free", || {
        before - everything(&alice) > 22_000_000
    });
    assert!(packs(&alice).is_empty(), "{:?}", packs(&alice));
    let status = alice.status();
    assert!(
        status["offloaded_bytes"].as_u64().unwrap() >= 12_000_000,
        "{status}"
    );
    assert_eq!(
        (&status["missing_bytes"], &status["files"]),
        (&0.into(), &4.into())
    );
    // It stays so for everybody, over restarts, checks and repairs; nobody waits for it or takes it for a deletion.
    for node in [&mut alice, &mut bob, &mut pi] {
        node.terminate();
        node.start();
    }
    bob.json(&["connect", &alice.address()]);
    pi.json(&["connect", &alice.address()]);
    for node in [&alice, &bob, &pi] {
        node.wait();
        node.verify();
    }
    assert_eq!(alice.json(&["repair"])["ok"], true);
    alice.wait();
    assert!(packs(&alice).is_empty());
    assert_eq!(bob.status()["files"], 4);
    assert_eq!(
        alice.json(&["brake", "Notes"])["burst"],
        serde_json::Value::Null
    );
    assert_eq!(bob.read("films/small.txt"), "short\n");

    // One file comes back from the safe alone, in full.
    bob.terminate();
    alice.json(&[
        "fetch",
        alice
            .files
            .join("films/one.bin.ouisync-offloaded")
            .to_str()
            .unwrap(),
    ]);
    until("the file is there", || {
        fs::read(alice.files.join("films/one.bin")).is_ok_and(|bytes| bytes == noise(1, 4_000_000))
    });
    assert!(alice.files.join("films/two.bin.ouisync-offloaded").exists());
    // What the program itself needs comes by itself.
    let shown = alice
        .command()
        .args(["show", "Notes:notes/kept.bin"])
        .output()
        .unwrap();
    assert!(shown.stdout == noise(5, 4_000_000), "{:?}", shown.stderr);
    bob.start();
    bob.json(&["connect", &alice.address()]);
    alice.json(&["fetch", "Notes"]);
    converge(&[&alice, &bob]);
    assert!(fs::read(place.join("two.bin")).unwrap() == noise(3, 4_000_000));
    assert_eq!(alice.status()["offloaded_bytes"], 0);
    alice.verify();
}

#[test]
fn without_enough_replicas_offloading_refuses_and_changes_nothing() {
    let (alice, mut pi, bob) = three();
    let before = (disk_usage(&alice.files), packs(&alice).len());
    let refused = |why: &str| {
        let ended = alice.run(&["offload", "Notes"]);
        assert_eq!(ended.code, 10, "{} {}", ended.stdout, ended.stderr);
        let message = ended.error()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(why), "{message}");
        let left = (disk_usage(&alice.files), packs(&alice).len());
        assert_eq!(left, before, "{message}");
    };
    // Too few are there.
    pi.terminate();
    until("it is noticed", || {
        let status = alice.status();
        let peers = status["peers"].as_array().unwrap().clone();
        peers
            .iter()
            .filter(|peer| peer["connected"] == true)
            .count()
            == 1
    });
    refused(
        "1 of 2 wanted replicas have shown that they hold it (Bob (writer)); not connected: Raspberry (safe)",
    );
    // The safe says that it has what it has not.
    pi.start();
    alice.json(&["connect", &pi.address()]);
    alice.wait();
    pi.wait();
    for pack in packs(&pi) {
        let length = fs::metadata(&pack).unwrap().len();
        fs::write(&pack, vec![0; length as usize]).unwrap();
    }
    refused("not shown by: Raspberry (safe)");
    alice.json(&["retention", "Notes", "--replicas", "3"]);
    refused("1 of 3 wanted replicas");
    // The plain copies may go at any time; and where one replica is enough, the sealed ones, too.
    alice.json(&["retention", "Notes", "--replicas", "1", "--yes"]);
    let offloaded = alice.json(&["offload", "--plain", "Notes:films"]);
    assert_eq!(
        (&offloaded["files"], &offloaded["packs"]),
        (&3.into(), &0.into())
    );
    let offloaded = alice.json(&["offload", "Notes"]);
    assert_eq!(offloaded["files"], 1, "{offloaded}");
    assert!(packs(&alice).is_empty());
    bob.wait();
    alice.json(&["fetch", "Notes"]);
    converge(&[&alice, &bob]);
    assert!(fs::read(alice.files.join("films/two.bin")).unwrap() == noise(3, 4_000_000));
}

#[test]
fn ctrl_c_ends_an_offload_and_nothing_is_half_gone() {
    let (alice, _pi, bob) = three();
    for number in 0..300 {
        alice.write(&format!("many/{number}.bin"), noise(100 + number, 6000));
    }
    converge(&[&alice, &bob]);
    // From at once to when it may be done.
    for delay in [0, 100, 400] {
        let mut command = alice.command();
        command.args(["--json", "offload", "Notes"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = child.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        // It may have ended.
        let _ = kill_process(pid, Signal::INT);
        let begun = Instant::now();
        let ended = child.wait_with_output().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10));
        let code = ended.status.code().unwrap_or(-1);
        assert!(code == 130 || code == 0 || code == -1, "{delay}: {code}");
        // The device goes on: the next order is taken as soon as the one that was stopped has let go.
        until("the next fetch is done", || {
            alice.run(&["fetch", "Notes"]).code == 0
        });
        converge(&[&alice, &bob]);
        for number in [0, 150, 299] {
            let path = format!("many/{number}.bin");
            assert!(fs::read(alice.files.join(path)).unwrap() == noise(100 + number, 6000));
        }
        assert_eq!(bob.status()["files"], 304);
    }
    let ended = alice.run(&["offload", "Notes"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}
