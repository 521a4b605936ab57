//! Edits made apart: what merges, what is to be decided, and that one decision reaches everybody.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::node::{Node, converge, until};

/// Twenty lines.
pub(crate) fn text() -> String {
    (0..20).map(|number| format!("line {number}\n")).collect()
}

fn with(text: &str, line: usize, new: &str) -> String {
    text.replace(&format!("line {line}\n"), &format!("{new}\n"))
}

/// Devices that all know each other and share `Notes`.
pub(crate) fn group<const N: usize>(names: [&'static str; N]) -> [Node; N] {
    let nodes = names.map(Node::started);
    nodes[0].create();
    for other in &nodes[1..] {
        let link = nodes[0].invite("writer");
        other.json(&["connect", &nodes[0].address()]);
        other.join(&link, "writer");
    }
    connect(&nodes.iter().collect::<Vec<_>>());
    nodes
}

pub(crate) fn connect(nodes: &[&Node]) {
    for (index, node) in nodes.iter().enumerate() {
        for other in &nodes[index + 1..] {
            node.json(&["connect", &other.address()]);
        }
    }
}

/// Waits until what has changed in the directory of a device that is alone is recorded.
pub(crate) fn recorded(node: &Node) {
    until("the directory is recorded", || {
        let ended = node.run(&["wait", "Notes", "--timeout", "0.3"]);
        assert_eq!(ended.code, 4, "{}", ended.stderr);
        let message = ended.error()["message"].to_string();
        message.contains("no other member is connected")
    });
}

pub(crate) fn conflicts(node: &Node) -> Vec<Value> {
    node.json(&["conflicts", "Notes"])
        .as_array()
        .unwrap()
        .clone()
}

fn names(node: &Node) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(&node.files)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with(".ouisync-"))
        .collect();
    names.sort();
    names
}

#[test]
fn edits_made_apart_merge_or_are_settled_once() {
    let [mut alice, mut bob, mut carol] = group(["Alice", "Bob", "Carol"]);
    let base = text();
    alice.write("merges.txt", &base);
    alice.write("overlaps.txt", &base);
    converge(&[&alice, &bob, &carol]);
    for node in [&mut alice, &mut bob, &mut carol] {
        assert_eq!(node.terminate(), Some(0));
    }
    alice.write("merges.txt", with(&base, 2, "Alice's"));
    bob.write("merges.txt", with(&base, 12, "Bob's"));
    alice.write("overlaps.txt", with(&base, 5, "Alice's"));
    bob.write("overlaps.txt", with(&base, 5, "Bob's\nand one more"));
    alice.start();
    bob.start();
    connect(&[&alice, &bob]);
    converge(&[&alice, &bob]);
    let merged = with(&with(&base, 2, "Alice's"), 12, "Bob's");
    assert_eq!(alice.read("merges.txt"), merged);
    assert_eq!(bob.read("merges.txt"), merged);

    // The other is one visible conflict, the same on both.
    let seen = conflicts(&alice);
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0]["path"], "overlaps.txt");
    let versions = seen[0]["versions"].as_array().unwrap();
    assert_eq!(versions.len(), 2);
    let authors: BTreeSet<_> = versions
        .iter()
        .map(|version| version["author"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(authors, BTreeSet::from(["Alice", "Bob"]));
    let copy = versions[1]["path"].as_str().unwrap();
    let device = versions[1]["author"]["name"].as_str().unwrap();
    assert!(copy.starts_with("overlaps (conflict ") && copy.ends_with(&format!("{device}).txt")));
    assert!(versions[1]["lines_added"].as_u64().unwrap() > 0);
    assert_eq!(alice.status()["conflicts"], 1);
    assert_eq!(names(&bob), ["merges.txt", copy, "overlaps.txt"]);

    // One decision reaches everybody, also who was away.
    let place = alice.files.join("overlaps.txt");
    let place = place.to_str().unwrap();
    let resolved = alice.json(&["resolve", place, "--keep", "Bob"]);
    assert_eq!(resolved["path"], "overlaps.txt");
    carol.start();
    connect(&[&alice, &bob, &carol]);
    converge(&[&alice, &bob, &carol]);
    for node in [&alice, &bob, &carol] {
        assert_eq!(conflicts(node), [Value::Null; 0]);
        assert_eq!(names(node), ["merges.txt", "overlaps.txt"]);
        assert_eq!(
            node.read("overlaps.txt"),
            with(&base, 5, "Bob's\nand one more")
        );
    }
    assert_eq!(alice.run(&["resolve", place, "--both"]).code, 5);
    assert_eq!(alice.run(&["resolve", place]).code, 2);
    for node in [&alice, &bob, &carol] {
        node.verify();
    }
}

#[test]
fn conflict_files_in_the_directory_are_the_conflict() {
    let [mut alice, mut bob] = group(["Alice", "Bob"]);
    let files = ["deleted.txt", "merged.txt", "both.txt"];
    for file in files {
        alice.write(file, "base\n");
    }
    converge(&[&alice, &bob]);
    for node in [&mut alice, &mut bob] {
        assert_eq!(node.terminate(), Some(0));
    }
    for file in files {
        alice.write(file, "Alice\n");
        bob.write(file, "Bob\n");
    }
    for node in [&mut alice, &mut bob] {
        node.start();
    }
    connect(&[&alice, &bob]);
    converge(&[&alice, &bob]);
    let found = conflicts(&bob);
    assert_eq!(found.len(), 3, "{found:?}");
    let copies: Vec<String> = found
        .iter()
        .map(|conflict| conflict["versions"][1]["path"].as_str().unwrap().to_owned())
        .collect();
    let copy = |file: &str| {
        let stem = file.trim_end_matches(".txt");
        copies.iter().find(|copy| copy.starts_with(stem)).unwrap()
    };
    // By deleting what is not wanted; by the commands.
    let kept = bob.read("deleted.txt");
    fs::remove_file(bob.files.join(copy("deleted.txt"))).unwrap();
    let merged = bob.scratch().join("merged");
    fs::write(&merged, "Alice and Bob\n").unwrap();
    bob.json(&[
        "resolve",
        "Notes:merged.txt",
        "--merged",
        merged.to_str().unwrap(),
    ]);
    let both = bob.files.join(copy("both.txt"));
    bob.json(&["resolve", both.to_str().unwrap(), "--both"]);
    converge(&[&alice, &bob]);
    for node in [&alice, &bob] {
        assert_eq!(conflicts(node), [Value::Null; 0]);
        assert_eq!(node.status()["conflicts"], 0);
        assert_eq!(node.read("deleted.txt"), kept);
        assert_eq!(node.read("merged.txt"), "Alice and Bob\n");
        let mut expected = vec![copy("both.txt").clone()];
        expected.extend(files.map(str::to_owned));
        expected.sort();
        assert_eq!(names(node), expected);
        let words = [node.read("both.txt"), node.read(copy("both.txt"))];
        assert_eq!(
            BTreeSet::from(words.each_ref().map(String::as_str)),
            BTreeSet::from(["Alice\n", "Bob\n"])
        );
    }
}

#[test]
fn nothing_is_in_conflict_on_a_safe() {
    let (alice, pi) = (Node::started("Alice"), Node::started("Raspberry"));
    alice.create();
    pi.json(&["connect", &alice.address()]);
    pi.join(&alice.invite("safe"), "safe");
    assert_eq!(pi.run(&["conflicts", "Notes"]).code, 7);
    assert_eq!(pi.json(&["conflicts"]), serde_json::json!([]));
}
