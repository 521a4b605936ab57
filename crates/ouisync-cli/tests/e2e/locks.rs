//! Locked folders sync blind.

use crate::node::{Node, converge, find, until};

#[test]
fn a_locked_folder_syncs_blind_and_opens_again() {
    let (alice, bob) = (Node::started("Alice"), Node::started("Bob"));
    alice.write("first.txt", "first\n");
    alice.create();
    bob.join(&alice.invite("writer"), "writer");
    converge(&[&alice, &bob]);
    let ended = bob.run(&["lock"]);
    assert_eq!(
        (ended.code, ended.error()["kind"].as_str()),
        (2, Some("invalid")),
        "no passphrase is set: {}",
        ended.stderr
    );
    assert!(
        ended.error()["hint"]
            .as_str()
            .unwrap()
            .contains("passphrase")
    );
    let ended = bob.run_with(&["lock"], "correct horse battery\n");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let folders = bob.json(&["status"]);
    assert_eq!(folders[0]["state"], "locked", "{folders}");
    assert_eq!(folders[0]["files"], 0);
    let folder = folders[0]["folder"].as_str().unwrap().to_owned();
    alice.write("second.txt", "second\n".repeat(40_000));
    until("the locked device holds the ciphertext", || {
        let status = alice.status();
        let peers = status["peers"].as_array().unwrap();
        status["state"] != "syncing"
            && !peers.is_empty()
            && peers.iter().all(|peer| peer["missing_bytes"] == 0)
    });
    assert!(
        !bob.files.join("second.txt").exists(),
        "the directory rests while locked"
    );
    let ended = bob.run_with(&["unlock"], "wrong\n");
    assert_eq!(
        (ended.code, ended.error()["kind"].as_str()),
        (2, Some("invalid")),
        "{}",
        ended.stderr
    );
    let mut bob = bob;
    bob.terminate();
    bob.start();
    assert_eq!(
        bob.json(&["status", &folder])["state"],
        "locked",
        "it stays locked"
    );
    let ended = bob.run_with(&["unlock"], "correct horse battery\n");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(ended.json()[0]["folder"], folder.as_str());
    bob.json(&["connect", &alice.address()]);
    converge(&[&alice, &bob]);
    assert!(bob.files.join("second.txt").exists());
    for node in [&alice, &bob] {
        assert_eq!(
            find(&node.log(), &["correct horse", "ouisync://join"]),
            None,
            "no secret is in a log"
        );
    }
}

#[test]
fn the_passphrase_can_be_changed_with_the_old_one_only() {
    let node = Node::started("Alice");
    node.create();
    assert_eq!(node.run_with(&["passphrase", "set"], "one\n").code, 0);
    assert_eq!(node.json(&["device"])["passphrase_set"], true);
    assert_ne!(
        node.run_with(&["passphrase", "set"], "wrong\ntwo\n").code,
        0
    );
    assert_eq!(node.run_with(&["passphrase", "set"], "one\ntwo\n").code, 0);
    assert_eq!(node.run(&["lock"]).code, 0);
    assert_ne!(node.run_with(&["unlock"], "one\n").code, 0);
    assert_eq!(node.run_with(&["unlock"], "two\n").code, 0);
}
