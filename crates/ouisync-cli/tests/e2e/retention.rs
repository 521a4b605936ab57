//! How long history is kept, from the command line: the policy, its preview, a safe's quota.

use serde_json::json;

use crate::node::{LIMIT, Node, noise, until};

const FRAME: u64 = 65536;

#[test]
fn an_owner_sets_what_is_kept_and_a_safe_obeys_blind() {
    let (alice, pi, bob) = (
        Node::started("Alice"),
        Node::started("Raspberry"),
        Node::started("Bob"),
    );
    alice.write("diary.txt", noise(1, 50_000));
    alice.create();
    pi.join(&alice.invite("safe"), "safe");
    bob.join(&alice.invite("writer"), "writer");
    alice.wait();
    let before = alice.json(&["retention", "Notes"]);
    assert_eq!(
        (&before["keep"], &before["devices"], &before["set"]),
        (&json!("90d"), &json!("little"), &json!(false)),
        "{before}"
    );
    assert_eq!(pi.json(&["retention", "Notes"])["here"]["safe"], true);

    // Lengthening needs no word more; every holder hears of it.
    let set = alice.json(&["retention", "Notes", "--keep", "all", "--devices", "little"]);
    assert_eq!(
        (&set["keep"], &set["devices"]),
        (&json!("all"), &json!("little"))
    );
    for node in [&pi, &bob] {
        until("the others know it", || {
            node.json(&["retention", "Notes"])["keep"] == "all"
        });
    }
    let ended = bob.run(&["retention", "Notes", "--keep", "1d", "--yes"]);
    assert_eq!(
        (ended.code, ended.error()["kind"].as_str()),
        (7, Some("forbidden"))
    );

    // Shortening is shown first, and asks; without a terminal it takes a --yes.
    let preview = alice.json(&["retention", "Notes", "--keep", "staggered", "--preview"]);
    assert_eq!(preview["shortens"], true, "{preview}");
    assert_eq!(preview["versions"]["going"], 0, "{preview}");
    assert_eq!(preview["safes"]["safes"], 1, "{preview}");
    let ended = alice.run(&["retention", "Notes", "--keep", "1d"]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert_eq!(ended.error()["kept"], "Nothing was changed.");
    assert_eq!(alice.json(&["retention", "Notes"])["keep"], "all");
    alice.json(&["retention", "Notes", "--keep", "1d", "--yes"]);
    until("the safe knows, and holds on for its floor", || {
        let here = pi.json(&["retention", "Notes"])["here"].clone();
        here["keep"] == "1d" && here["held"] == "all" && here["held_seconds"] == 30 * 86_400
    });
    let words = pi.command().args(["retention", "Notes"]).output().unwrap();
    let words = String::from_utf8(words.stdout).unwrap();
    assert!(
        words.contains("everything, for ever, for 30 d 0 h more"),
        "{words}"
    );
    let ended = alice.run(&["retention", "Nobody", "--keep", "1d", "--yes"]);
    assert_eq!(ended.code, 5, "{}", ended.stderr);
}

#[test]
fn a_safe_with_too_small_a_quota_says_so_and_loses_nothing() {
    let (alice, mut pi) = (Node::started("Alice"), Node::started("Raspberry"));
    alice.write("first.bin", noise(1, 50_000));
    alice.create();
    pi.join(&alice.invite("safe"), "safe");
    alice.wait();
    let stored = pi.status()["stored_bytes"].as_u64().unwrap();
    assert_eq!(pi.status()["live_bytes"], stored);
    let limited = pi.json(&["quota", "Notes", &stored.to_string(), "--floor", "40d"]);
    assert_eq!(limited["here"]["quota_bytes"], stored, "{limited}");
    assert_eq!(limited["here"]["least_seconds"], 40 * 86_400, "{limited}");
    let ended = alice.run(&["quota", "Notes", "1GB"]);
    assert_eq!(
        (ended.code, ended.error()["kind"].as_str()),
        (6, Some("conflict"))
    );

    alice.write("second.bin", noise(2, 50_000));
    until("the safe says that it is full", || {
        let status = pi.status();
        let problem = status["problems"][0]["message"]
            .as_str()
            .unwrap_or_default();
        status["state"] == "error"
            && status["refused_bytes"] == FRAME
            && problem.contains("ouisync quota")
    });
    until("alice sees what it lacks", || {
        alice.status()["peers"][0]["missing_bytes"] == FRAME
    });
    assert_eq!(alice.run(&["wait", "Notes", "--timeout", "1"]).code, 4);
    assert_eq!(pi.status()["stored_bytes"], stored);
    pi.terminate();
    pi.start();
    pi.verify();
    until("it still says so", || pi.status()["state"] == "error");
    pi.json(&["quota", "Notes", "none"]);
    // It dials its members again by itself, but not at once.
    pi.run(&["connect", &alice.address()]);
    alice.json(&["wait", "Notes", "--timeout", &LIMIT.as_secs().to_string()]);
    let status = pi.status();
    assert_eq!(status["stored_bytes"], stored + FRAME, "{status}");
    assert_eq!(status["problems"], json!([]), "{status}");
}

#[test]
fn former_versions_of_a_file_are_given_up_everywhere() {
    let alice = Node::started("Alice");
    alice.write("secret.bin", noise(1, 50_000));
    alice.create();
    until("the first version is recorded", || {
        alice.status()["files"] == 1 && alice.status()["live_bytes"] == FRAME
    });
    alice.write("secret.bin", noise(2, 50_000));
    until("the second version is recorded", || {
        alice.json(&["history", "Notes:secret.bin"])["versions"]
            .as_array()
            .is_some_and(|versions| versions.len() == 2)
    });
    let preview = alice.json(&["forget-versions", "Notes:secret.bin", "--preview"]);
    assert_eq!(
        (&preview["versions"], &preview["inline"]),
        (&json!(1), &json!(0)),
        "{preview}"
    );
    let ended = alice.run(&["forget-versions", "Notes:secret.bin"]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    let ended = alice.run(&["forget-versions", "Notes:nothing.bin", "--yes"]);
    assert_eq!(ended.code, 5, "{}", ended.stderr);
    let ended = alice.run(&["forget-versions", "Notes", "--yes"]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    let done = alice.json(&["forget-versions", "Notes:secret.bin", "--yes"]);
    assert_eq!(
        (&done["preview"], &done["path"]),
        (&json!(false), &json!("secret.bin"))
    );
}
