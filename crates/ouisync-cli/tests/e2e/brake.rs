//! A burst of deleting is held back, told, and undone by one command.

use std::fs;

use crate::node::{Node, converge, until};

#[test]
fn a_wrong_rm_reaches_nobody_and_is_undone() {
    let (alice, bob) = (Node::started("Alice"), Node::started("Bob"));
    for number in 0..120 {
        alice.write(
            &format!("letters/{number}.txt"),
            format!("letter {number}\n"),
        );
    }
    alice.write("keep.txt", "kept\n");
    alice.create();
    bob.join(&alice.invite("writer"), "writer");
    converge(&[&alice, &bob]);
    let ended = bob.run(&["brake", "Notes", "--undo"]);
    assert_eq!(ended.code, 6, "nothing is held back: {}", ended.stderr);
    fs::remove_dir_all(bob.files.join("letters")).unwrap();
    until("it is held back", || bob.status()["state"] == "error");
    let status = bob.status();
    let problem = status["problems"][0]["message"].as_str().unwrap();
    assert!(problem.contains("ouisync brake"), "{problem}");
    let brake = bob.json(&["brake", "Notes"]);
    assert_eq!(brake["burst"]["deleted"], 120, "{brake}");
    let ended = bob.run(&["wait", "Notes", "--timeout", "2"]);
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    assert!(alice.files.join("letters/7.txt").exists());
    // What others do still arrives.
    alice.write("news.txt", "news\n");
    until("others' files arrive", || {
        bob.files.join("news.txt").exists()
    });
    let brake = bob.json(&["brake", "Notes", "--undo"]);
    assert!(brake["burst"].is_null(), "{brake}");
    assert_eq!(brake["undone"]["put_back"], 120, "{brake}");
    converge(&[&alice, &bob]);
    assert_eq!(bob.read("letters/7.txt"), "letter 7\n");
    // And the same again, on purpose.
    fs::remove_dir_all(bob.files.join("letters")).unwrap();
    until("it is held back", || bob.status()["state"] == "error");
    bob.json(&["brake", "Notes", "--allow"]);
    until("it is deleted everywhere", || {
        !alice.files.join("letters").exists()
    });
    converge(&[&alice, &bob]);
    let brake = bob.json(&["brake", "Notes", "--files", "7", "--within", "5m"]);
    assert_eq!(
        (&brake["files"], &brake["window_seconds"]),
        (&7.into(), &300.into())
    );
}
