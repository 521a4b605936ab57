//! Files between devices, directly and through a safe.

use std::{fs, time::Duration};

use crate::node::{Node, converge, find, noise, until};

/// A folder of `alice`, joined by `bob` directly.
fn pair() -> (Node, Node) {
    let (alice, bob) = (Node::started("Alice"), Node::started("Bob"));
    alice.create();
    let link = alice.invite("writer");
    bob.json(&["connect", &alice.address()]);
    bob.join(&link, "writer");
    (alice, bob)
}

#[test]
fn two_devices_share_a_directory() {
    let (alice, bob) = (Node::started("Alice"), Node::started("Bob"));
    alice.write("one.txt", "one\n");
    alice.write("deep/er/große Datei.bin", noise(1, 3_000_000));
    alice.write("empty", "");
    fs::create_dir(alice.files.join("nothing in it")).unwrap();
    std::os::unix::fs::symlink("one.txt", alice.files.join("link")).unwrap();
    alice.create();
    bob.write("was here before.txt", "Bob's own\n");
    let link = alice.invite("writer");
    bob.json(&["connect", &alice.address()]);
    bob.join(&link, "writer");
    converge(&[&alice, &bob]);
    assert_eq!(alice.read("was here before.txt"), "Bob's own\n");
    alice.write("one.txt", "one, changed\n");
    bob.write("two.txt", "two\n");
    until("both changes are everywhere", || {
        fs::read_to_string(bob.files.join("one.txt")).unwrap() == "one, changed\n"
            && alice.files.join("two.txt").exists()
    });
    fs::remove_file(bob.files.join("empty")).unwrap();
    fs::rename(alice.files.join("deep"), alice.files.join("deeper")).unwrap();
    until("the deletion and the move are everywhere", || {
        !alice.files.join("empty").exists()
            && bob.files.join("deeper/er/große Datei.bin").exists()
            && !bob.files.join("deep").exists()
    });
    converge(&[&alice, &bob]);
    let status = alice.status();
    assert_eq!(status["state"], "synced", "{status}");
    assert_eq!(
        (status["files"].as_u64(), status["missing_bytes"].as_u64()),
        (Some(4), Some(0)),
        "{status}"
    );
    assert_eq!(status["peers"][0]["connected"], true, "{status}");
    let members = alice.json(&["members", "Notes"]);
    assert_eq!(members.as_array().unwrap().len(), 2, "{members}");
    alice.verify();
    bob.verify();
}

/// Bytes in the directory where a device prepares files.
fn prepared(node: &Node) -> u64 {
    let files = fs::read_dir(&node.files).unwrap().flatten();
    let staging = files.filter(|file| file.file_name().to_string_lossy().starts_with(".ouisync-"));
    let inside = staging.flat_map(|directory| fs::read_dir(directory.path()));
    let inside = inside.flatten().flatten();
    inside
        .map(|file| file.metadata().map_or(0, |metadata| metadata.len()))
        .sum()
}

#[test]
fn a_large_file_is_put_together_while_it_comes() {
    let (alice, mut bob) = pair();
    converge(&[&alice, &bob]);
    let content = noise(3, 112 << 20);
    alice.write("large", &content);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while prepared(&bob) < 8 << 20 {
        assert!(!bob.files.join("large").exists(), "it came at the end");
        assert!(std::time::Instant::now() < deadline, "nothing comes");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!bob.files.join("large").exists());
    bob.kill();
    assert!(prepared(&bob) > 0);
    bob.start();
    converge(&[&alice, &bob]);
    assert!(fs::read(bob.files.join("large")).unwrap() == content);
    until("nothing is left over", || prepared(&bob) == 0);
    bob.verify();
}

#[test]
fn a_blind_safe_stores_and_forwards_while_the_first_device_is_off() {
    let (mut alice, pi, bob) = (
        Node::started("Alice"),
        Node::started("Raspberry"),
        Node::started("Bob"),
    );
    alice.write(
        "confidential diary.txt",
        "the treasure is buried under the medlar tree\n".repeat(200),
    );
    alice.write(
        "inner directory/small note.txt",
        "an unmistakable sentence of a small note\n",
    );
    alice.write("noise.bin", noise(2, 2_000_000));
    alice.create();
    let safe_link = alice.invite("safe");
    pi.join(&safe_link, "safe");
    alice.wait();
    let link = alice.invite("writer");
    alice.wait();
    assert_eq!(alice.terminate(), Some(0));
    bob.json(&["connect", &pi.address()]);
    bob.join(&link, "writer");
    converge(&[&bob]);
    assert_eq!(
        ouisync_cli::commands::demo::tree::differences(&alice.files, &bob.files).unwrap(),
        Vec::<String>::new()
    );
    bob.write(
        "from Bob to Alice.txt",
        "words that only members may read\n",
    );
    bob.wait();
    alice.start();
    alice.json(&["connect", &pi.address()]);
    converge(&[&alice, &bob]);
    assert_eq!(
        alice.read("from Bob to Alice.txt"),
        "words that only members may read\n"
    );
    let status = pi.status();
    assert_eq!(
        (status["role"].as_str(), status["files"].as_u64()),
        (Some("safe"), Some(0))
    );
    assert!(
        status["stored_bytes"].as_u64().unwrap() > 2_000_000,
        "{status}"
    );
    let needles = [
        "confidential diary",
        "treasure is buried",
        "medlar tree",
        "inner directory",
        "small note",
        "unmistakable",
        "noise.bin",
        "from Bob to Alice",
        "only members may read",
    ];
    assert_eq!(find(&pi.home, &needles), None);
    assert_eq!(find(&pi.log(), &needles), None);
    let sample = &noise(2, 2_000_000)[1_000_000..1_000_024];
    assert!(!fs::read_dir(&pi.home).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        path.is_file()
            && fs::read(&path)
                .unwrap()
                .windows(24)
                .any(|part| part == sample)
    }));
    for node in [&alice, &pi, &bob] {
        node.verify();
    }
}

#[test]
fn what_both_do_offline_merges_and_nothing_is_lost() {
    let (mut alice, mut bob) = pair();
    for number in 0..20 {
        alice.write(
            &format!("pages/{number:02}.txt"),
            format!("page {number}\n"),
        );
    }
    alice.write("both change this.txt", "before\n");
    alice.write("edited and deleted.txt", "before\n");
    converge(&[&alice, &bob]);
    alice.terminate();
    bob.terminate();
    // Alice moves the directory that Bob edits in; both change one file; one deletes what the other edits.
    fs::rename(alice.files.join("pages"), alice.files.join("moved")).unwrap();
    fs::remove_file(alice.files.join("moved/03.txt")).unwrap();
    alice.write("both change this.txt", "Alice's words\n");
    fs::remove_file(alice.files.join("edited and deleted.txt")).unwrap();
    bob.write("pages/07.txt", "page 7, edited by Bob\n");
    fs::rename(
        bob.files.join("pages/05.txt"),
        bob.files.join("pages/five.txt"),
    )
    .unwrap();
    fs::remove_file(bob.files.join("pages/09.txt")).unwrap();
    bob.write("both change this.txt", "Bob's words\n");
    bob.write("edited and deleted.txt", "Bob still needs this\n");
    alice.start();
    bob.start();
    alice.wait_for_directory();
    bob.wait_for_directory();
    bob.json(&["connect", &alice.address()]);
    converge(&[&alice, &bob]);
    assert_eq!(alice.read("moved/07.txt"), "page 7, edited by Bob\n");
    assert_eq!(alice.read("moved/five.txt"), "page 5\n");
    for gone in ["pages", "moved/03.txt", "moved/05.txt", "moved/09.txt"] {
        assert!(!alice.files.join(gone).exists(), "{gone}");
    }
    assert_eq!(
        alice.read("edited and deleted.txt"),
        "Bob still needs this\n"
    );
    let versions: Vec<_> = fs::read_dir(&alice.files)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("both change this")
        })
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    assert_eq!(versions.len(), 2, "{versions:?}");
    assert!(
        versions.contains(&"Alice's words\n".to_owned())
            && versions.contains(&"Bob's words\n".to_owned()),
        "{versions:?}"
    );
    assert!(alice.status()["conflicts"].as_u64().unwrap() > 0);
    alice.verify();
    bob.verify();
}

#[test]
fn processes_killed_under_load_lose_nothing() {
    let (mut alice, mut bob) = pair();
    converge(&[&alice, &bob]);
    for round in 0..4u64 {
        for number in 0..60u64 {
            alice.write(
                &format!("load {round}/{}/file {number}.bin", number % 7),
                noise(round * 100 + number + 1, 1 << (number % 17)),
            );
        }
        bob.write(
            &format!("from Bob {round}.bin"),
            noise(9000 + round, 400_000),
        );
        // At different moments of recording, sending and applying.
        std::thread::sleep(Duration::from_millis(60 + 170 * round));
        if round % 2 == 0 {
            bob.kill();
            bob.start();
            bob.json(&["connect", &alice.address()]);
        } else {
            alice.kill();
            alice.start();
            alice.json(&["connect", &bob.address()]);
        }
    }
    converge(&[&alice, &bob]);
    let files = alice.status()["files"].as_u64().unwrap();
    assert_eq!(files, 4 * 61);
    for round in 0..4u64 {
        assert_eq!(
            fs::read(alice.files.join(format!("from Bob {round}.bin"))).unwrap(),
            noise(9000 + round, 400_000)
        );
    }
    alice.verify();
    bob.verify();
}

#[test]
fn a_wait_without_anybody_ends_in_time() {
    let alice = Node::started("Alice");
    alice.write("a", "b");
    alice.create();
    let ended = alice.run(&["wait", "Notes", "--timeout", "1"]);
    assert_eq!(
        (ended.code, ended.error()["kind"].as_str()),
        (4, Some("timed_out")),
        "{}",
        ended.stderr
    );
    assert_eq!(alice.run(&["wait", "Other", "--timeout", "1"]).code, 5);
}

impl Node {
    /// Waits until the directory's changes of before the start are recorded: its peers may be away.
    fn wait_for_directory(&self) {
        until("the directory is scanned", || {
            self.status()["state"] != "syncing"
        });
    }
}
