//! What was: versions, the timeline, what is deleted, and bringing it back.

use std::fs;

use serde_json::Value;

use crate::node::{Node, converge, until};

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
