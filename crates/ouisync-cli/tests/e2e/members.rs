//! Removal of members, and invitations that end.

use std::time::{Duration, Instant};

use crate::node::{Node, converge, until};

#[test]
fn a_removed_safe_gets_nothing_more() {
    let (alice, pi, bob) = (
        Node::started("Alice"),
        Node::started("Raspberry"),
        Node::started("Bob"),
    );
    alice.write("before.txt", "before\n");
    alice.create();
    pi.join(&alice.invite("safe"), "safe");
    bob.join(&alice.invite("reader"), "reader");
    converge(&[&alice, &bob]);
    until("the safe has all", || {
        alice.status()["peers"]
            .as_array()
            .unwrap()
            .iter()
            .all(|peer| peer["missing_bytes"] == 0)
    });
    let members = alice.json(&["members", "Notes"]);
    let safe = members
        .as_array()
        .unwrap()
        .iter()
        .find(|member| member["role"] == "safe")
        .unwrap()["member"]
        .clone();
    alice.json(&["member", "remove", "Notes", safe.as_str().unwrap()]);
    let stored = pi.status()["stored_bytes"].as_u64().unwrap();
    let mut pi = pi;
    pi.terminate();
    pi.start();
    alice.write("after.txt", "after\n".repeat(50_000));
    // It keeps trying.
    for address in [alice.address(), bob.address()] {
        pi.run(&["connect", &address]);
    }
    converge(&[&alice, &bob]);
    assert!(bob.files.join("after.txt").exists());
    for node in [&alice, &bob] {
        let status = node.status();
        let peers = status["peers"].as_array().unwrap();
        assert!(
            !peers
                .iter()
                .any(|peer| peer["member"] == safe && peer["connected"] == true),
            "{status}"
        );
    }
    assert_ne!(pi.run(&["wait", "Notes", "--timeout", "2"]).code, 0);
    assert!(
        pi.status()["stored_bytes"].as_u64().unwrap() <= stored,
        "nothing new came to it"
    );
    let members = alice.json(&["members", "Notes"]);
    assert!(
        !members
            .as_array()
            .unwrap()
            .iter()
            .any(|member| member["member"] == safe),
        "{members}"
    );
}

#[test]
fn who_is_killed_right_after_joining_still_knows_whom_to_ask() {
    let (alice, mut bob) = (Node::started("Alice"), Node::started("Bob"));
    alice.write("a.txt", "a\n");
    alice.create();
    bob.join(&alice.invite("writer"), "writer");
    bob.kill();
    // At another port, so that Alice can't find him.
    bob.start();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !bob.files.join("a.txt").exists() {
        assert!(Instant::now() < deadline, "{}", bob.status());
        std::thread::sleep(Duration::from_millis(100));
    }
    converge(&[&alice, &bob]);
}

#[test]
fn a_reader_can_not_write_and_a_writer_not_invite() {
    let (alice, bob) = (Node::started("Alice"), Node::started("Bob"));
    alice.write("a.txt", "a\n");
    alice.create();
    bob.join(&alice.invite("reader"), "reader");
    converge(&[&alice, &bob]);
    let ended = bob.run(&["invite", "Notes", "--role", "reader"]);
    assert_eq!(
        (ended.code, ended.error()["kind"].as_str()),
        (7, Some("forbidden"))
    );
    bob.write("a.txt", "changed by a reader\n");
    until("the reader is told", || {
        !bob.status()["problems"].as_array().unwrap().is_empty() || bob.read("a.txt") == "a\n"
    });
    assert_eq!(alice.read("a.txt"), "a\n");
    alice.json(&["member", "role", "Notes", "Bob", "writer"]);
    bob.write("b.txt", "b\n");
    until("a writer's file comes over", || {
        alice.files.join("b.txt").exists()
    });
}

#[test]
fn invitations_end_with_use_and_revocation() {
    let (alice, bob, eve) = (
        Node::started("Alice"),
        Node::started("Bob"),
        Node::started("Eve"),
    );
    alice.create();
    let link = alice.invite("writer");
    bob.join(&link, "writer");
    let files = eve.files.to_str().unwrap().to_owned();
    assert_ne!(
        eve.run(&["join", &link, "--path", &files, "--timeout", "3"])
            .code,
        0,
        "it is spent"
    );
    let invitation = alice.json(&[
        "invite",
        "Notes",
        "--role",
        "writer",
        "--uses",
        "2",
        "--expires",
        "7d",
    ]);
    alice.json(&[
        "revoke",
        "Notes",
        invitation["invitation"].as_str().unwrap(),
    ]);
    let link = invitation["link"].as_str().unwrap();
    let eve = Node::started("Eve again");
    let files = eve.files.to_str().unwrap().to_owned();
    assert_ne!(
        eve.run(&["join", link, "--path", &files, "--timeout", "3"])
            .code,
        0,
        "it is revoked"
    );
    assert_eq!(
        alice.json(&["members", "Notes"]).as_array().unwrap().len(),
        2
    );
    assert_eq!(
        eve.run(&["join", "ouisync://join/v1#damaged", "--path", &files])
            .code,
        2
    );
    assert_eq!(
        eve.run_with(&["join", "-", "--path", &files], "no link\n")
            .code,
        2
    );
}
