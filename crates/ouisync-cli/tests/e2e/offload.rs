//! Plain copies that are dropped and come back.

use crate::node::{Node, converge, noise};

#[test]
fn an_offloaded_file_stays_in_the_folder_and_comes_back() {
    let (alice, mut bob) = (Node::started("Alice"), Node::started("Bob"));
    let film = noise(7, 3_000_000);
    alice.write("films/one.bin", &film);
    alice.write("films/two.txt", "short\n");
    alice.create();
    bob.join(&alice.invite("writer"), "writer");
    converge(&[&alice, &bob]);
    let place = bob.files.join("films");
    let outcome = bob.json(&["offload", place.to_str().unwrap()]);
    assert_eq!(
        (&outcome["files"], &outcome["bytes"]),
        (&2.into(), &3_000_006.into()),
        "{outcome}"
    );
    assert!(!place.join("one.bin").exists());
    assert!(
        bob.read("films/one.bin.ouisync-offloaded")
            .contains("ouisync fetch")
    );
    bob.wait();
    assert_eq!(bob.status()["files"], 2);
    // Others notice nothing, and may go on with it.
    alice.write("films/two.txt", "longer than before\n");
    alice.wait();
    bob.terminate();
    bob.start();
    bob.json(&["connect", &alice.address()]);
    bob.wait();
    alice.wait();
    assert_eq!(
        std::fs::read(alice.files.join("films/one.bin")).unwrap(),
        film
    );
    assert!(!place.join("two.txt").exists());
    assert_eq!(bob.run(&["fetch", "Notes:nowhere"]).code, 5);
    let note = place.join("two.txt.ouisync-offloaded");
    bob.json(&["fetch", note.to_str().unwrap()]);
    bob.wait();
    assert_eq!(bob.read("films/two.txt"), "longer than before\n");
    bob.json(&["fetch", "Notes"]);
    converge(&[&alice, &bob]);
    assert_eq!(std::fs::read(place.join("one.bin")).unwrap(), film);
}
