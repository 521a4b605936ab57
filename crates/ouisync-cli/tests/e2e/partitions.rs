//! Three devices do things at random while they are apart, again and again: in the end all show one tree, and every content that
//! anybody ever saved is visible or is read back from history.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use ouisync_testkit::seed::{Replay, seeds};
use serde_json::Value;

use crate::{
    conflicts::{conflicts, connect, group, recorded, text},
    node::{Node, converge},
};

/// What was saved, and who saved it where.
type Saved = BTreeMap<Vec<u8>, String>;

const STAYS: &str = "stays.txt";

#[test]
fn random_partitions_lose_nothing() {
    for seed in seeds(1) {
        let _replay = Replay(seed);
        partitions(seed);
    }
}

fn partitions(seed: u64) {
    let mut dice = Dice(seed + 7);
    let mut nodes = group(["Alice", "Bob", "Carol"]);
    let mut saved = Saved::new();
    for number in 0..4 {
        let path = format!("d{}/f{number}.txt", number % 2);
        nodes[0].write(&path, text());
        note(&nodes[0], &nodes[0].files.join(path), &mut saved);
    }
    // A directory in which nothing is left would be held to be a mistake.
    nodes[0].write(STAYS, "");
    converge(&nodes.each_ref());
    for round in 0..2 {
        for node in &mut nodes {
            assert_eq!(node.terminate(), Some(0));
        }
        // They listen on other ports than before, and nobody has told them of each other.
        for node in &mut nodes {
            node.start();
        }
        for step in 0..4 {
            for (who, node) in nodes.iter().enumerate() {
                let (did, changed) = act(node, &mut dice, &format!("{round}.{who}.{step}"));
                eprintln!("{}: {did}", node.name);
                // A copy that is edited may have another name once that is recorded.
                for file in changed {
                    note(node, &file, &mut saved);
                }
            }
            nodes.iter().for_each(recorded);
        }
        connect(&nodes.each_ref());
        converge(&nodes.each_ref());
        let open = paths(&conflicts(&nodes[0]));
        eprintln!("in conflict: {open:?}");
        for node in &nodes[1..] {
            assert_eq!(paths(&conflicts(node)), open);
        }
    }
    // In the end somebody decides about all that is left.
    for conflict in conflicts(&nodes[2]) {
        let place = format!("Notes:{}", conflict["path"].as_str().unwrap());
        let ended = nodes[2].run(&["resolve", &place, "--both"]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }
    converge(&nodes.each_ref());
    for node in &nodes {
        assert_eq!(node.status()["conflicts"], 0);
        node.verify();
    }
    let held = read_back(&nodes[1]);
    let lost: Vec<_> = saved
        .iter()
        .filter(|(content, _)| !held.contains(*content))
        .map(|(content, whence)| format!("{whence}: {}", String::from_utf8_lossy(content)))
        .collect();
    assert!(
        lost.is_empty(),
        "{} of {}: {lost:#?}",
        lost.len(),
        saved.len()
    );
}

/// Everything that a device shows, and everything that its history has of what it shows or what was deleted.
fn read_back(node: &Node) -> BTreeSet<Vec<u8>> {
    let mut held = BTreeSet::new();
    let mut places = BTreeSet::new();
    for file in files(&node.files) {
        held.insert(fs::read(&file).unwrap());
        let inside = file.strip_prefix(&node.files).unwrap();
        places.insert(inside.to_str().unwrap().to_owned());
    }
    for gone in node
        .json(&["deleted", "Notes", "--all"])
        .as_array()
        .unwrap()
    {
        if gone["kind"] == "file" {
            places.insert(gone["path"].as_str().unwrap().to_owned());
        }
    }
    for place in places {
        let place = format!("Notes:{place}");
        let history = node.json(&["history", &place, "--limit", "1000"]);
        for version in history["versions"].as_array().unwrap() {
            if version["kind"] == "file" {
                let name = version["version"].as_str().unwrap();
                let mut show = node.command();
                show.args(["show", &place, "--version", name]);
                let shown = show.output().unwrap();
                let said = String::from_utf8_lossy(&shown.stderr);
                assert!(shown.status.success(), "{place}@{name}: {said}");
                held.insert(shown.stdout);
            }
        }
    }
    held
}

fn note(node: &Node, file: &Path, saved: &mut Saved) {
    let whence = format!("{} in {}", node.name, file.display());
    saved.insert(fs::read(file).unwrap(), whence);
}

fn paths(conflicts: &[Value]) -> BTreeSet<String> {
    let paths = conflicts.iter();
    paths.map(|conflict| conflict["path"].to_string()).collect()
}

/// The files below a directory, in order.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            if name.starts_with(".ouisync-") {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// One thing that a person does; what, and the files that have new content then.
fn act(node: &Node, dice: &mut Dice, word: &str) -> (String, Vec<PathBuf>) {
    let mut all = files(&node.files);
    all.retain(|path| !path.ends_with(STAYS));
    let copies: Vec<_> = all
        .iter()
        .filter(|path| path.to_string_lossy().contains("(conflict "))
        .cloned()
        .collect();
    // What is in conflict is more interesting than the rest.
    let pool = if !copies.is_empty() && dice.below(3) == 0 {
        &copies
    } else {
        &all
    };
    // Mostly the same few, so that what they do meets.
    let few = pool
        .len()
        .min(if dice.below(3) == 0 { pool.len() } else { 2 });
    let Some(file) = pool.get(dice.below(few.max(1))).cloned() else {
        return ("nothing".to_owned(), Vec::new());
    };
    let shown = file
        .strip_prefix(&node.files)
        .unwrap()
        .display()
        .to_string();
    match dice.below(12) {
        0..4 => {
            let content = fs::read_to_string(&file).unwrap();
            let mut lines: Vec<_> = content.lines().map(str::to_owned).collect();
            let at = dice.below(lines.len().clamp(1, 3));
            lines.resize(lines.len().max(1), String::new());
            lines[at] = format!("word {word}");
            fs::write(&file, lines.join("\n") + "\n").unwrap();
            (format!("edits line {at} of {shown}"), vec![file])
        }
        4 => {
            // Too long for a commit, so it goes into packs.
            let seed = dice.below(1 << 30);
            let text: String = (0..600).map(|line| format!("{seed} {line}\n")).collect();
            fs::write(&file, text).unwrap();
            (format!("rewrites {shown}"), vec![file])
        }
        5 => {
            let file = node
                .files
                .join(format!("d{}/new {word}.txt", dice.below(3)));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, format!("new {word}\n")).unwrap();
            (format!("makes {}", file.display()), vec![file])
        }
        6..8 => {
            let directory = node.files.join(format!("d{}", dice.below(3)));
            fs::create_dir_all(&directory).unwrap();
            let target = directory.join(format!("moved {word}.txt"));
            fs::rename(&file, &target).unwrap();
            (format!("moves {shown} to {}", target.display()), Vec::new())
        }
        8 => {
            fs::remove_file(&file).unwrap();
            (format!("deletes {shown}"), Vec::new())
        }
        9 => {
            let open = conflicts(node);
            let Some(conflict) = open.get(dice.below(open.len().max(1))) else {
                return ("has nothing to settle".to_owned(), Vec::new());
            };
            let place = format!("Notes:{}", conflict["path"].as_str().unwrap());
            let merged = node.scratch().join("merged");
            fs::write(&merged, format!("merged {word}\n")).unwrap();
            let (first, second) = [
                ("--keep", "1"),
                ("--keep", "2"),
                ("--both", ""),
                ("--merged", merged.to_str().unwrap()),
            ][dice.below(4)];
            let mut command = vec!["resolve", &place, first];
            command.extend((!second.is_empty()).then_some(second));
            let ended = node.run(&command);
            assert!([0, 6].contains(&ended.code), "{}", ended.stderr);
            let changed = (first == "--merged" && ended.code == 0).then(|| merged.clone());
            (
                format!("settles {place} {first} {second}"),
                changed.into_iter().collect(),
            )
        }
        10 => {
            let from = node.files.join(format!("d{}", dice.below(3)));
            let to = node.files.join(format!("d{}/inner {word}", dice.below(3)));
            if !from.is_dir() || to.starts_with(&from) {
                return ("moves no directory".to_owned(), Vec::new());
            }
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::rename(&from, &to).unwrap();
            (
                format!("moves {} to {}", from.display(), to.display()),
                Vec::new(),
            )
        }
        _ => {
            let directory = file.parent().unwrap();
            if directory == node.files || dice.below(3) > 0 {
                return ("deletes no directory".to_owned(), Vec::new());
            }
            fs::remove_dir_all(directory).unwrap();
            (format!("deletes the directory of {shown}"), Vec::new())
        }
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
