//! What was: versions, the timeline, what is deleted, and bringing it back.

use std::fs;

use serde_json::Value;

use crate::node::{Node, converge, find, noise, until};

fn history(node: &Node, path: &str) -> Value {
    node.json(&["history", path])
}

/// What was done to a file, the newest first.
fn actions(node: &Node, path: &str) -> Vec<String> {
    let found = history(node, path);
    let versions = found["versions"].as_array();
    let versions = versions.unwrap_or_else(|| panic!("{found}"));
    versions
        .iter()
        .map(|version| version["action"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_saved_version_is_known_to_every_member_and_who_made_it() {
    let (alice, bob) = (Node::started("Alice"), Node::started("Bob"));
    alice.create();
    alice.write("letters/to Eve.txt", "Dear Eve\n");
    let link = alice.invite("writer");
    bob.json(&["connect", &alice.address()]);
    bob.join(&link, "writer");
    converge(&[&alice, &bob]);
    bob.write("letters/to Eve.txt", "Dear Eve,\nhow are you?\n");
    converge(&[&alice, &bob]);
    fs::rename(
        alice.files.join("letters/to Eve.txt"),
        alice.files.join("letters/Eve.txt"),
    )
    .unwrap();
    converge(&[&alice, &bob]);
    fs::remove_dir_all(bob.files.join("letters")).unwrap();
    converge(&[&alice, &bob]);
    until("the deletion is known", || {
        alice.json(&["deleted", "Notes"]).as_array().unwrap().len() == 2
    });

    let expected = ["deleted", "moved", "edited", "created"];
    let path = alice.files.join("letters/Eve.txt");
    assert_eq!(actions(&alice, path.to_str().unwrap()), expected);
    assert_eq!(actions(&bob, "Notes:letters/Eve.txt"), expected);
    // Up to where it was moved away.
    assert_eq!(
        actions(&bob, "Notes:letters/to Eve.txt"),
        expected[1..].to_vec()
    );
    let found = history(&alice, path.to_str().unwrap());
    let versions = found["versions"].as_array().unwrap();
    let (edited, created) = (&versions[2], &versions[3]);
    assert_eq!(edited["author"]["name"], "Bob", "{edited}");
    assert_eq!(edited["author"]["this_device"], false, "{edited}");
    assert_eq!(edited["size"], 23, "{edited}");
    assert_eq!(created["author"]["this_device"], true, "{created}");
    assert_eq!(versions[1]["from"], "letters/to Eve.txt", "{found}");

    let folder = history(&alice, "Notes");
    let changes = folder["changes"].as_array().unwrap();
    let sum = |what: &str| -> u64 {
        let counts = changes.iter().map(|change| change[what].as_u64().unwrap());
        counts.sum()
    };
    assert_eq!(
        (sum("created"), sum("edited"), sum("deleted"), sum("moved")),
        (1, 1, 1, 1),
        "{folder}"
    );
    let deleted = alice.json(&["deleted", "Notes"]);
    assert_eq!(deleted[0]["path"], "letters", "{deleted}");
    assert_eq!(deleted[0]["kind"], "directory", "{deleted}");
    assert_eq!(deleted[0]["files"], 1, "{deleted}");
    assert_eq!(deleted[1]["path"], "letters/Eve.txt", "{deleted}");
    assert_eq!(deleted[1]["author"]["name"], "Bob", "{deleted}");
    assert_eq!(alice.run(&["history", "Notes:nothing"]).code, 5);
    assert_eq!(alice.run(&["history", "/somewhere else"]).code, 5);
}

/// The bytes that `show` writes.
fn shown(node: &Node, what: &str) -> Vec<u8> {
    let output = node.command().args(["show", what]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {text}");
    output.stdout
}

/// The names of the versions of a file, the newest first.
fn versions(node: &Node, path: &str) -> Vec<Value> {
    history(node, path)["versions"].as_array().unwrap().clone()
}

#[test]
fn versions_saved_while_the_safe_was_away_are_read_from_it_when_their_author_is_gone() {
    let mut alice = Node::idle("Alice");
    fs::create_dir_all(&alice.home).unwrap();
    fs::write(alice.home.join("daemon.toml"), "release_seconds = 1\n").unwrap();
    alice.start();
    let mut pi = Node::started("Raspberry");
    let version = |number: u64| noise(2 * number + 1, 20_000);
    alice.write("letter.odt", version(0));
    alice.create();
    pi.join(&alice.invite("safe"), "safe");
    alice.wait();
    assert_eq!(pi.terminate(), Some(0));
    let live = alice.status()["live_bytes"].as_u64().unwrap();
    for number in 1..=10 {
        alice.write("letter.odt", version(number));
        until("the version is recorded", || {
            versions(&alice, "Notes:letter.odt").len() as u64 == number + 1
        });
    }
    until("the former versions are history", || {
        let status = alice.status();
        status["live_bytes"] == live && status["history_bytes"] == 10 * live
    });
    let link = alice.invite("reader");
    pi.start();
    alice.json(&["connect", &pi.address()]);
    alice.wait();
    until("the safe has what it missed", || {
        let status = pi.status();
        status["missing_history_bytes"] == 0
            && status["history_bytes"] == alice.status()["history_bytes"]
    });
    let bob = Node::started("Bob");
    bob.json(&["connect", &pi.address()]);
    bob.join(&link, "reader");
    converge(&[&alice, &bob]);

    // Her device and all that was on it are gone.
    alice.kill();
    fs::remove_dir_all(&alice.home).unwrap();
    let all = versions(&bob, "Notes:letter.odt");
    assert_eq!(all.len(), 11, "{all:?}");
    for (number, shown_as) in (0..=10).rev().zip(&all) {
        let name = shown_as["version"].as_str().unwrap();
        assert_eq!(
            shown(&bob, &format!("Notes:letter.odt@{name}")),
            version(number),
            "version {number}"
        );
    }
    pi.verify();
}

#[test]
fn what_this_device_no_longer_holds_comes_back_from_the_safe() {
    let mut alice = Node::idle("Alice");
    // It soon removes what it released, the safe keeps it.
    fs::create_dir_all(&alice.home).unwrap();
    let upkeep = "release_seconds = 1\ncollect_seconds = 1\ngrace_seconds = 4\n";
    fs::write(alice.home.join("daemon.toml"), upkeep).unwrap();
    alice.start();
    let mut pi = Node::started("Raspberry");
    let (first, second) = (noise(1, 900_000), noise(5, 900_000));
    let gone = noise(9, 700_000);
    alice.write("photo.raw", &first);
    alice.write("albums/old/lost.raw", &gone);
    alice.create();
    pi.join(&alice.invite("safe"), "safe");
    alice.wait();
    let all = alice.status()["stored_bytes"].as_u64().unwrap();
    alice.write("photo.raw", &second);
    fs::remove_dir_all(alice.files.join("albums")).unwrap();
    alice.wait();
    until("the old packs are gone from Alice's device", || {
        alice.status()["stored_bytes"].as_u64().unwrap() < all
            && versions(&alice, "Notes:photo.raw")[1]["here"] == false
            && alice.json(&["deleted", "Notes"])[2]["here"] == false
    });
    let old = versions(&alice, "Notes:photo.raw")[1]["version"]
        .as_str()
        .unwrap()
        .to_owned();

    // Nobody else holds it: told at once, nothing changed.
    assert_eq!(pi.terminate(), Some(0));
    let refused = alice.run(&["restore", "Notes:photo.raw", "--version", &old]);
    assert_eq!(refused.code, 10, "{} {}", refused.stdout, refused.stderr);
    let message = refused.error()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("Raspberry"), "{message}");
    assert_eq!(fs::read(alice.files.join("photo.raw")).unwrap(), second);

    pi.start();
    alice.json(&["connect", &pi.address()]);
    assert_eq!(shown(&alice, &format!("Notes:photo.raw@{old}")), first);
    let path = alice.files.join("photo.raw");
    let done = alice.json(&["restore", path.to_str().unwrap(), "--version", &old]);
    assert_eq!(
        (&done["files"], &done["applied"]),
        (&1.into(), &true.into())
    );
    assert_eq!(fs::read(&path).unwrap(), first);
    // What was there is a version now, and nothing else.
    let now = versions(&alice, "Notes:photo.raw");
    assert_eq!(now.len(), 3, "{now:?}");
    let replaced = now[1]["version"].as_str().unwrap();
    assert_eq!(
        shown(&alice, &format!("Notes:photo.raw@{replaced}")),
        second
    );

    let done = alice.json(&["restore", "Notes:albums"]);
    assert_eq!(
        (&done["files"], &done["directories"]),
        (&1.into(), &2.into()),
        "{done}"
    );
    let lost = alice.files.join("albums/old/lost.raw");
    assert_eq!(fs::read(lost).unwrap(), gone);
    assert_eq!(alice.json(&["deleted", "Notes"]), serde_json::json!([]));
    alice.wait();
    alice.verify();

    // A newcomer reads versions that it never had.
    let bob = Node::started("Bob");
    let link = alice.invite("reader");
    bob.json(&["connect", &pi.address()]);
    bob.join(&link, "reader");
    converge(&[&alice, &bob]);
    let then = bob.scratch().join("then");
    let at = now[1]["counts_from"].as_str().unwrap();
    let target = then.to_str().unwrap();
    bob.json(&["browse", "Notes", "--at", at, target]);
    assert_eq!(fs::read(then.join("photo.raw")).unwrap(), second);
    let refused = bob.run(&["restore", "Notes:photo.raw", "--at", at]);
    assert_eq!(refused.code, 7, "{}", refused.stderr);
    // Not into what is there, nor into the folder.
    assert_eq!(bob.run(&["browse", "Notes", "--at", at, target]).code, 6);
    let inside = bob.files.join("then");
    let refused = bob.run(&["browse", "Notes", "--at", at, inside.to_str().unwrap()]);
    assert_eq!(refused.code, 6, "{}", refused.stderr);
    assert_eq!(find(&pi.home, &["photo.raw", "albums"]), None);
}

#[test]
fn a_restore_keeps_what_is_there_and_diff_tells_it_apart() {
    let alice = Node::started("Alice");
    alice.write("a.txt", "one\ntwo\nthree\n");
    alice.write("d/inner.txt", "inner\n");
    alice.create();
    until("all is recorded", || alice.status()["files"] == 2);
    let changes = history(&alice, "Notes");
    let then = changes["changes"][0]["counts_from"].as_str().unwrap();
    alice.write("a.txt", "one\n2\nthree\n");
    fs::remove_dir_all(alice.files.join("d")).unwrap();
    // A file is where a directory was, and a directory where a file is to be.
    alice.write("d", "a file now\n");
    alice.write("new.txt", "new\n");
    until("the edits are recorded", || {
        alice.status()["files"] == 3 && actions(&alice, "Notes:a.txt").len() == 2
    });
    let diff = alice.json(&["diff", "Notes:a.txt"]);
    let text = diff["text"].as_str().unwrap();
    assert!(text.contains("-two\n+2\n"), "{text}");
    assert_eq!(
        (&diff["equal"], &diff["binary"]),
        (&false.into(), &false.into())
    );

    // This edit isn't recorded when the restore begins.
    alice.write("a.txt", "one\n2, unsaved\nthree\n");
    let done = alice.json(&["restore", "Notes", "--at", then]);
    assert_eq!(done["applied"], true, "{done}");
    assert_eq!(alice.read("a.txt"), "one\ntwo\nthree\n");
    assert_eq!(alice.read("d/inner.txt"), "inner\n");
    assert_eq!(alice.read("new.txt"), "new\n");
    let kept = versions(&alice, "Notes:a.txt");
    assert_eq!(kept.len(), 4, "{kept:?}");
    let unsaved = kept[1]["version"].as_str().unwrap();
    assert_eq!(
        shown(&alice, &format!("Notes:a.txt@{unsaved}")),
        b"one\n2, unsaved\nthree\n"
    );
    let file = history(&alice, "Notes:d")["changes"].clone();
    assert!(file.is_array(), "the directory is what is there now");

    // Exactly as it was, and back again.
    let before = history(&alice, "Notes")["changes"][0]["version"]
        .as_str()
        .unwrap()
        .to_owned();
    alice.json(&["restore", "Notes", "--at", then, "--exact"]);
    assert!(!alice.files.join("new.txt").exists());
    alice.json(&["restore", "Notes", "--version", &before]);
    assert_eq!(alice.read("new.txt"), "new\n");

    // Elsewhere: in the folder, and outside.
    alice.json(&[
        "restore",
        "Notes:a.txt",
        "--version",
        unsaved,
        "--to",
        "Notes:copies/b.txt",
    ]);
    assert_eq!(alice.read("copies/b.txt"), "one\n2, unsaved\nthree\n");
    let outside = alice.scratch().join("out/c.txt");
    alice.json(&[
        "restore",
        &format!("Notes:a.txt@{unsaved}"),
        "--to",
        outside.to_str().unwrap(),
    ]);
    assert_eq!(
        fs::read_to_string(&outside).unwrap(),
        "one\n2, unsaved\nthree\n"
    );
    assert_eq!(alice.run(&["restore", "Notes"]).code, 2);
    assert_eq!(
        alice
            .run(&["restore", "Notes:a.txt", "--at", "1999-01-01"])
            .code,
        5
    );
    alice.verify();
}
