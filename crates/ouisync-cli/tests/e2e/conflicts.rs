//! Edits made apart: what merges, what is to be decided, and that one decision reaches everybody.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use crate::node::{Node, converge, until};

/// Twenty lines.
fn text() -> String {
    (0..20).map(|number| format!("line {number}\n")).collect()
}

fn with(text: &str, line: usize, new: &str) -> String {
    text.replace(&format!("line {line}\n"), &format!("{new}\n"))
}

/// Devices that all know each other and share `Notes`.
fn group<const N: usize>(names: [&'static str; N]) -> [Node; N] {
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

fn connect(nodes: &[&Node]) {
    for (index, node) in nodes.iter().enumerate() {
        for other in &nodes[index + 1..] {
            node.json(&["connect", &other.address()]);
        }
    }
}

/// Waits until what has changed in the directory of a device that is alone is recorded.
fn recorded(node: &Node) {
    until("the directory is recorded", || {
        let ended = node.run(&["wait", "Notes", "--timeout", "0.3"]);
        assert_eq!(ended.code, 4, "{}", ended.stderr);
        let message = ended.error()["message"].to_string();
        message.contains("no other member is connected")
    });
}

fn conflicts(node: &Node) -> Vec<Value> {
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

/// Numbers that look random, the same for one seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Three devices edit, move, delete and settle at random while apart, again and again, until all show one tree. Every content
/// that was saved is still to be had.
#[test]
fn random_partitions_lose_nothing() {
    let seed = std::env::var("SEED").map_or(7, |seed| seed.parse().unwrap());
    let mut dice = Dice(seed);
    let mut nodes = group(["Alice", "Bob", "Carol"]);
    let base = text();
    for number in 0..6 {
        nodes[0].write(&format!("d{}/f{number}.txt", number % 2), &base);
    }
    converge(&nodes.each_ref());
    let mut written = BTreeSet::new();
    for round in 0..2 {
        for node in &mut nodes {
            assert_eq!(node.terminate(), Some(0));
        }
        for (who, node) in nodes.iter_mut().enumerate() {
            node.start();
            for step in 0..3 {
                act(
                    node,
                    &mut dice,
                    &format!("{round}.{who}.{step}"),
                    &mut written,
                );
                recorded(node);
            }
            assert_eq!(node.terminate(), Some(0));
        }
        for node in &mut nodes {
            node.start();
        }
        connect(&nodes.each_ref());
        converge(&nodes.each_ref());
        let open = paths(&conflicts(&nodes[0]));
        for node in &nodes[1..] {
            assert_eq!(paths(&conflicts(node)), open, "seed {seed}");
        }
    }
    // In the end somebody decides about all that is left.
    for conflict in conflicts(&nodes[2]) {
        let place = format!("Notes:{}", conflict["path"].as_str().unwrap());
        let ended = nodes[2].run(&["resolve", &place, "--both"]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }
    converge(&nodes.each_ref());
    let mut kept = BTreeSet::new();
    for node in &nodes {
        assert_eq!(node.status()["conflicts"], 0);
        node.verify();
    }
    lines_of(&nodes[1].files, &mut kept);
    // Every state that was saved is a version of its own, visible or not.
    let history = nodes[1].json(&["history", "Notes", "--limit", "1000"]);
    let changes = history["changes"].as_array().unwrap();
    for (who, author) in ["Alice", "Bob", "Carol"].into_iter().enumerate() {
        let of_author = |word: &&String| word.split('.').nth(1) == Some(&who.to_string());
        let saved = written.iter().filter(of_author).count() as u64;
        let made = changes
            .iter()
            .filter(|change| change["author"]["name"] == author);
        let made: u64 = made.map(|change| change["edited"].as_u64().unwrap()).sum();
        assert!(made >= saved, "{author}: {made} of {saved}, seed {seed}");
    }
    assert!(!kept.is_empty());
}

fn paths(conflicts: &[Value]) -> Vec<String> {
    let mut paths: Vec<_> = conflicts
        .iter()
        .map(|conflict| conflict["path"].to_string())
        .collect();
    paths.sort();
    paths
}

fn files_below(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        let own = path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with(".ouisync-");
        if path.is_dir() && !own {
            files_below(&path, found);
        } else if !own {
            found.push(path);
        }
    }
}

fn lines_of(directory: &Path, lines: &mut BTreeSet<String>) {
    let mut files = Vec::new();
    files_below(directory, &mut files);
    for file in files {
        lines.extend(fs::read_to_string(file).unwrap().lines().map(str::to_owned));
    }
}

/// One thing that a person does.
fn act(node: &Node, dice: &mut Dice, word: &str, written: &mut BTreeSet<String>) {
    let mut files = Vec::new();
    files_below(&node.files, &mut files);
    let Some(file) = files.get(dice.below(files.len().max(1))) else {
        return;
    };
    match dice.below(10) {
        0..5 => {
            let mut lines: Vec<String> = fs::read_to_string(file)
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect();
            if !lines.is_empty() {
                let at = dice.below(lines.len());
                let word = format!("word {word}");
                lines[at] = word.clone();
                fs::write(file, lines.join("\n") + "\n").unwrap();
                written.insert(word);
            }
        }
        5..7 => {
            let directory = node.files.join(format!("d{}", dice.below(3)));
            fs::create_dir_all(&directory).unwrap();
            let target = directory.join(format!("moved {word}.txt"));
            fs::rename(file, target).unwrap();
        }
        7 => fs::remove_file(file).unwrap(),
        8 => {
            let open = conflicts(node);
            if let Some(conflict) = open.first() {
                let place = format!("Notes:{}", conflict["path"].as_str().unwrap());
                let number = (1 + dice.below(2)).to_string();
                let ended = node.run(&["resolve", &place, "--keep", &number]);
                assert!([0, 6].contains(&ended.code), "{}", ended.stderr);
            }
        }
        _ => {
            let from = node.files.join("d0");
            let to = node.files.join(format!("d1/inner {word}"));
            if from.is_dir() && fs::create_dir_all(node.files.join("d1")).is_ok() {
                fs::rename(from, to).unwrap();
            }
        }
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
