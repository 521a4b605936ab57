//! What a device says of itself when something needs attention.

use std::{fs, process::Command, time::Instant};

use serde_json::Value;

use crate::node::{Node, converge, noise, until};

#[test]
fn a_missing_directory_is_an_error_until_it_is_back() {
    let (alice, bob) = (Node::started("Alice"), Node::started("Bob"));
    alice.write("a.txt", "a\n");
    alice.create();
    bob.join(&alice.invite("writer"), "writer");
    converge(&[&alice, &bob]);
    let away = bob.files.with_extension("away");
    fs::rename(&bob.files, &away).unwrap();
    let ended = bob.run(&["wait", "Notes", "--timeout", "5"]);
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    let message = ended.error()["message"].to_string();
    assert!(message.contains("is not there"), "{message}");
    let status = bob.status();
    assert_eq!(status["state"], "error", "{status}");
    fs::rename(&away, &bob.files).unwrap();
    until("it goes on by itself", || bob.status()["state"] == "synced");
    assert!(alice.files.join("a.txt").exists());
}

#[test]
fn a_paused_folder_says_so_at_once() {
    let (alice, bob) = (Node::started("Alice"), Node::started("Bob"));
    alice.write("a.txt", "a\n");
    alice.create();
    bob.join(&alice.invite("writer"), "writer");
    converge(&[&alice, &bob]);
    bob.json(&["pause", "Notes"]);
    bob.write("b.txt", "b\n");
    alice.write("c.txt", "c\n");
    let ended = bob.run(&["wait", "Notes"]);
    assert_eq!(ended.code, 10, "{}", ended.stderr);
    let error = ended.error();
    assert_eq!(error["kind"], "unavailable", "{error}");
    assert!(error["message"].to_string().contains("paused"), "{error}");
    assert!(
        error["hint"].to_string().contains("ouisync resume"),
        "{error}"
    );
    let status = bob.status();
    assert_eq!(status["state"], "paused", "{status}");
    for node in [&alice, &bob] {
        until("they don't see one another", || {
            node.status()["peers"][0]["connected"] == false
        });
    }
    assert!(!alice.files.join("b.txt").exists() && !bob.files.join("c.txt").exists());
    bob.json(&["resume", "Notes"]);
    converge(&[&alice, &bob]);
    assert!(alice.files.join("b.txt").exists() && bob.files.join("c.txt").exists());
}

#[test]
fn wait_names_a_file_that_a_full_disk_holds_up() {
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let (alice, mut bob) = (Node::started("Alice"), Node::started("Bob"));
    fs::create_dir_all(&bob.files).unwrap();
    let mount = |options: &str| {
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", options, "none"]);
        let mounted = mount.arg(&bob.files).status();
        mounted.is_ok_and(|status| status.success())
    };
    if !mount("size=256k") {
        eprintln!("SKIPPED: nothing can be mounted here");
        return;
    }
    let unmount = Unmount(bob.files.clone());
    alice.write("big.bin", noise(3, 1 << 20));
    alice.create();
    bob.join(&alice.invite("writer"), "writer");
    let ended = bob.run(&["wait", "Notes", "--timeout", "6"]);
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    let message = ended.error()["message"].to_string();
    assert!(
        message.contains("big.bin") && message.contains("space"),
        "{message}"
    );
    assert_ne!(bob.status()["state"], "synced");
    assert!(mount("remount,size=8m"));
    bob.wait();
    assert_eq!(bob.status()["state"], "synced");
    assert!(bob.files.join("big.bin").exists());
    bob.terminate();
    drop(unmount);
}

#[test]
fn a_locked_device_says_of_itself_what_it_knows() {
    let (alice, mut bob) = (Node::started("Alice"), Node::started("Bob"));
    alice.create();
    bob.join(&alice.invite("owner"), "owner");
    converge(&[&alice, &bob]);
    let own = bob.json(&["members", "Notes"])[0]["member"].clone();
    assert_eq!(bob.run_with(&["lock"], "correct horse battery\n").code, 0);
    let of = |status: &Value| {
        let peers = status["peers"].as_array().unwrap();
        peers.iter().any(|peer| peer["member"] == own)
    };
    let status = bob.json(&["status"])[0].clone();
    assert_eq!(status["role"], "owner", "{status}");
    assert!(!of(&status), "{status}");
    bob.terminate();
    bob.start();
    let status = bob.json(&["status"])[0].clone();
    assert_eq!(
        (&status["state"], &status["role"]),
        (&Value::from("locked"), &Value::Null),
        "{status}"
    );
    assert!(!of(&status), "{status}");
    let members = bob.json(&["members", status["folder"].as_str().unwrap()]);
    let mut members = members.as_array().unwrap().iter();
    assert!(members.all(|member| member["this_device"].is_null()));
}

#[test]
fn a_device_that_joined_anew_can_be_told_from_its_old_entry() {
    let (alice, bob) = (Node::started("Alice"), Node::started("Bob"));
    alice.write("a.txt", "a\n");
    alice.create();
    bob.join(&alice.invite("writer"), "writer");
    converge(&[&alice, &bob]);
    let old = bob.json(&["members", "Notes"])[0]["member"].clone();
    bob.json(&["folder", "forget", "Notes"]);
    let left = fs::read_dir(bob.home.join("folders")).unwrap().count();
    assert_eq!(left, 0, "its store is deleted");
    bob.join(&alice.invite("writer"), "writer");
    converge(&[&alice, &bob]);
    let new = bob.json(&["members", "Notes"])[0]["member"].clone();
    let members = alice.json(&["members", "Notes"]);
    let entry = |member: &Value| {
        let mut members = members.as_array().unwrap().iter();
        members.find(|entry| entry["member"] == *member).unwrap()
    };
    assert_eq!(entry(&old)["newer"], new, "{members}");
    assert!(entry(&new)["newer"].is_null(), "{members}");
    alice.json(&["member", "remove", "Notes", old.as_str().unwrap()]);
    converge(&[&alice, &bob]);
    assert_eq!(
        alice.json(&["members", "Notes"]).as_array().unwrap().len(),
        2
    );
}

#[test]
fn the_last_device_ends_soon_after_its_peers() {
    let (mut alice, mut bob, mut carol) = (
        Node::started("Alice"),
        Node::started("Bob"),
        Node::started("Carol"),
    );
    alice.write("a.txt", "a\n");
    alice.create();
    bob.join(&alice.invite("writer"), "writer");
    carol.join(&alice.invite("writer"), "writer");
    converge(&[&alice, &bob, &carol]);
    bob.terminate();
    carol.kill();
    // It dials whoever has gone.
    std::thread::sleep(std::time::Duration::from_millis(700));
    let start = Instant::now();
    assert_eq!(alice.terminate(), Some(0));
    let took = start.elapsed();
    eprintln!("ended within {took:?}");
    assert!(took.as_secs_f64() < 2.0, "{took:?}");
}
