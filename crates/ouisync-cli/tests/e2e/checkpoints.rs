//! Newcomers and late ones after everybody dropped the first commits.

use std::fs;

use ouisync_cli::commands::demo::tree;

use crate::node::{Node, converge, noise, until};

/// A daemon that makes a checkpoint after a few commits and drops soon what one covers.
fn eager(name: &'static str) -> Node {
    tuned(
        name,
        "grace_seconds = 5\nfloor_seconds = 0\nsafe_retention_seconds = 0\ncheckpoint_commits = 8\n",
    )
}

/// A daemon that looks after its folders often.
fn tuned(name: &'static str, upkeep: &str) -> Node {
    let mut node = Node::idle(name);
    fs::create_dir_all(&node.home).unwrap();
    let settings = format!("[upkeep]\nrelease_seconds = 1\ncollect_seconds = 1\n{upkeep}");
    fs::write(node.home.join("daemon.toml"), settings).unwrap();
    node.start();
    node
}

#[track_caller]
fn says(node: &Node, what: &str) {
    until(what, || {
        fs::read_to_string(node.log()).unwrap().contains(what)
    });
}

/// Twelve commits and more of a tree with moves and deletions.
fn live(alice: &Node) {
    for number in 0..12_u64 {
        alice.write(
            &format!("directory {}/file {number}", number % 3),
            noise(number + 1, 40_000),
        );
        alice.write(&format!("note {number}.txt"), format!("note {number}\n"));
        alice.wait();
    }
    fs::remove_file(alice.files.join("note 3.txt")).unwrap();
    fs::rename(
        alice.files.join("directory 1"),
        alice.files.join("directory 2/moved"),
    )
    .unwrap();
    alice.write("note 4.txt", "changed\n");
    alice.wait();
}

#[test]
fn a_newcomer_gets_the_tree_from_a_safe_without_the_first_commits() {
    let (mut alice, pi) = (eager("Alice"), eager("Raspberry"));
    alice.create();
    pi.join(&alice.invite("safe"), "safe");
    live(&alice);
    says(&alice, "made a checkpoint");
    alice.write("the tail.txt", "after the checkpoint\n");
    alice.wait();
    says(&pi, "dropped the bytes of commits");
    let link = alice.invite("writer");
    alice.wait();
    assert_eq!(alice.terminate(), Some(0));

    let mut bob = eager("Bob");
    bob.join(&link, "writer");
    says(&bob, "starting from a checkpoint");
    until("Bob's directory is the same", || {
        bob.files.exists()
            && tree::differences(&alice.files, &bob.files)
                .unwrap()
                .is_empty()
    });
    bob.wait();
    let status = bob.status();
    assert_eq!(status["conflicts"], 0, "{status}");
    bob.write("note 4.txt", "changed by Bob\n");
    bob.wait();
    bob.verify();
    assert_eq!(bob.terminate(), Some(0));
    bob.start();
    alice.start();
    until("Alice has Bob's change", || {
        alice.read("note 4.txt") == "changed by Bob\n"
    });
    converge(&[&alice, &bob]);
    alice.verify();
    pi.verify();
}

#[test]
fn who_joins_through_a_safe_alone_brings_back_what_was_deleted_before_the_checkpoint() {
    let mut alice = Node::idle("Alice");
    fs::create_dir_all(&alice.home).unwrap();
    let settings = "[upkeep]\nrelease_seconds = 1\ncheckpoint_commits = 8\n";
    fs::write(alice.home.join("daemon.toml"), settings).unwrap();
    alice.start();
    alice.create();
    let (pi, bob) = (Node::started("Raspberry"), Node::started("Bob"));
    pi.join(&alice.invite("safe"), "safe");
    live(&alice);
    says(&alice, "made a checkpoint");
    let link = alice.invite("writer");
    alice.wait();
    assert_eq!(alice.terminate(), Some(0));
    fs::remove_dir_all(&alice.home).unwrap();

    bob.join(&link, "writer");
    bob.wait();
    let deleted = bob.json(&["deleted", "Notes"]);
    assert_eq!(deleted[0]["path"], "note 3.txt", "{deleted}");
    bob.json(&["restore", "Notes:note 3.txt"]);
    bob.wait();
    assert_eq!(bob.read("note 3.txt"), "note 3\n");
    let before = bob.json(&["history", "Notes:note 4.txt"]);
    let first = before["versions"].as_array().unwrap().last().unwrap()["version"].clone();
    let shown = bob
        .command()
        .args([
            "show",
            &format!("Notes:note 4.txt@{}", first.as_str().unwrap()),
        ])
        .output()
        .unwrap();
    assert_eq!(shown.stdout, b"note 4\n");
}

#[test]
fn who_was_away_with_edits_of_its_own_loses_none() {
    let (mut alice, pi, mut bob) = (eager("Alice"), eager("Raspberry"), eager("Bob"));
    alice.create();
    pi.join(&alice.invite("safe"), "safe");
    alice.write("shared.txt", "as it was\n");
    alice.write("kept.bin", noise(99, 300_000));
    alice.wait();
    bob.join(&alice.invite("writer"), "writer");
    converge(&[&alice, &bob]);
    assert_eq!(bob.terminate(), Some(0));
    let kept = fs::metadata(bob.files.join("kept.bin")).unwrap();
    live(&alice);
    says(&alice, "dropped the bytes of commits");
    says(&pi, "dropped the bytes of commits");
    assert_eq!(alice.terminate(), Some(0));

    bob.write("of Bob alone.txt", "nobody else has it\n");
    bob.write("shared.txt", "as Bob has it\n");
    bob.start();
    says(&bob, "starting from a checkpoint");
    until("Bob has what Alice did", || {
        bob.files.join("directory 2/moved/file 1").exists() && bob.files.join("note 4.txt").exists()
    });
    bob.wait();
    alice.start();
    until("Alice has what Bob did", || {
        alice.files.join("of Bob alone.txt").exists()
            && alice.read("shared.txt") == "as Bob has it\n"
    });
    converge(&[&alice, &bob]);
    use std::os::unix::fs::MetadataExt;
    let now = fs::metadata(bob.files.join("kept.bin")).unwrap();
    assert_eq!(now.ino(), kept.ino(), "an unchanged file was not touched");
    for node in [&alice, &bob] {
        let status = node.status();
        assert_eq!(status["conflicts"], 0, "{status}");
        assert_eq!(status["problems"], serde_json::json!([]), "{status}");
    }
}

/// What was done to a file, the newest first.
fn actions(node: &Node, path: &str) -> Vec<(String, String)> {
    let found = node.json(&["history", path, "--limit", "1000"]);
    assert_eq!(found["begins"], serde_json::Value::Null, "{found}");
    let versions = found["versions"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    versions
        .map(|version| (text(&version["version"]), text(&version["action"])))
        .collect()
}

fn deleted(node: &Node) -> Vec<serde_json::Value> {
    let mut found = node.json(&["deleted", "Notes"]);
    let entries = found.as_array_mut().unwrap();
    for entry in entries.iter_mut() {
        // Whose name, and what is on the device, isn't the same on both.
        entry["author"] = entry["author"]["member"].take();
        entry["here"].take();
    }
    std::mem::take(entries)
}

#[test]
fn who_started_from_a_checkpoint_gets_back_from_a_safe_what_was_before() {
    let (mut alice, mut pi) = (eager("Alice"), tuned("Raspberry", ""));
    alice.create();
    pi.join(&alice.invite("safe"), "safe");
    let gone = noise(7, 300_000);
    alice.write("gone.bin", &gone);
    alice.write("diary.txt", "first\n");
    alice.wait();
    alice.write("diary.txt", "second\n");
    fs::remove_file(alice.files.join("gone.bin")).unwrap();
    alice.wait();
    live(&alice);
    says(&alice, "dropped the bytes of commits");
    let link = alice.invite("writer");
    alice.wait();
    let versions = actions(&alice, "Notes:diary.txt");
    let was_deleted = deleted(&alice);
    assert_eq!(pi.terminate(), Some(0));

    // Whom Bob meets first has dropped what was before the checkpoint.
    let mut bob = Node::started("Bob");
    bob.join(&link, "writer");
    says(&bob, "starting from a checkpoint");
    until("Bob's directory is the same", || {
        bob.files.exists()
            && tree::differences(&alice.files, &bob.files)
                .unwrap()
                .is_empty()
    });
    bob.wait();
    assert_eq!(alice.terminate(), Some(0));
    fs::remove_dir_all(&alice.home).unwrap();
    // While the safe is away it is said what is unknown, and who may know.
    let text = |arguments: &[&str]| {
        let output = bob.command().args(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    until("Bob sees that the safe is away", || {
        let (_, said) = text(&["history", "Notes:diary.txt"]);
        said.contains("may hold it") && said.contains("Raspberry")
    });
    let found = bob.json(&["deleted", "Notes"]);
    let found = found.as_array().unwrap().iter();
    let mut unknown = found.filter(|entry| entry["path"] == "gone.bin");
    let unknown = unknown.next().unwrap();
    assert_eq!(unknown["bytes"], serde_json::Value::Null, "{unknown}");
    assert_eq!(unknown["here"], false, "{unknown}");
    let refused = bob.run(&["restore", "Notes:gone.bin"]);
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(refused.stderr.contains("may hold it"), "{}", refused.stderr);

    pi.start();
    bob.json(&["connect", &pi.address()]);
    until("the file is back", || {
        bob.run(&["restore", "Notes:gone.bin"]).code == 0
    });
    assert_eq!(fs::read(bob.files.join("gone.bin")).unwrap(), gone);
    // History is as Alice had it, from the first commit on.
    assert_eq!(actions(&bob, "Notes:diary.txt"), versions);
    let (first, _) = versions.last().unwrap();
    let (shown, said) = text(&["show", &format!("Notes:diary.txt@{first}")]);
    assert_eq!(shown, "first\n", "{said}");
    let mut now_deleted = deleted(&bob);
    now_deleted.extend(
        was_deleted
            .iter()
            .filter(|entry| entry["path"] == "gone.bin")
            .cloned(),
    );
    now_deleted.sort_by_key(|entry| entry["path"].as_str().unwrap().to_owned());
    let mut was_deleted = was_deleted;
    was_deleted.sort_by_key(|entry| entry["path"].as_str().unwrap().to_owned());
    assert_eq!(now_deleted, was_deleted);
    bob.verify();
    // And it stays so.
    assert_eq!(bob.terminate(), Some(0));
    assert_eq!(pi.terminate(), Some(0));
    bob.start();
    assert_eq!(actions(&bob, "Notes:diary.txt"), versions);
}
