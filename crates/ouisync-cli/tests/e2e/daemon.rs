//! Life of a daemon, and what commands say when they can't do their work.

use std::{fs, os::unix::fs::PermissionsExt, process::Stdio};

use crate::node::Node;

#[test]
fn without_a_daemon_commands_say_how_to_start_one() {
    let node = Node::idle("Nobody");
    let ended = node.run(&["status"]);
    assert_eq!(ended.code, 3);
    assert_eq!(ended.error()["kind"], "not_running");
    assert!(ended.error()["hint"].as_str().unwrap().contains("serve"));
    assert!(ended.stdout.is_empty());
}

#[test]
fn wrong_use_is_told_in_json_too() {
    let node = Node::idle("Nobody");
    let ended = node.run(&["invite", "Notes", "--role", "boss"]);
    assert_eq!(
        (ended.code, ended.error()["kind"].as_str()),
        (2, Some("invalid"))
    );
    assert_eq!(node.run(&["--help"]).code, 0);
}

#[test]
fn a_home_is_private_has_one_daemon_and_ends_cleanly() {
    let mut node = Node::started("Alone");
    let mode = |path: &str| {
        fs::metadata(node.home.join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (
            mode("."),
            mode("api.token"),
            mode("api.sock"),
            mode("api.address")
        ),
        (0o700, 0o600, 0o600, 0o600)
    );
    let second = node
        .command()
        .args(["--json", "serve"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&second.stderr).contains("already running"));
    let device = node.json(&["device"]);
    let id = device["device"].as_str().unwrap().to_owned();
    assert!(
        device["addresses"][0]
            .as_str()
            .unwrap()
            .starts_with(&format!("{id}@127.0.0.1:")),
        "{device}"
    );
    assert_eq!(device["name"], "Alone");
    assert_eq!(node.json(&["status"]), serde_json::json!([]));
    assert_eq!(node.terminate(), Some(0));
    assert_eq!(node.run(&["device"]).code, 3);
    node.start();
    assert_eq!(
        node.json(&["device"])["device"],
        id.as_str(),
        "the device stays who it is"
    );
    assert_eq!(node.terminate(), Some(0));
}

#[test]
fn a_home_with_a_very_long_path_works() {
    let mut node = Node::idle("Long");
    node.home = node
        .scratch()
        .canonicalize()
        .unwrap()
        .join("x".repeat(120))
        .join("home");
    node.start();
    assert_eq!(node.json(&["device"])["name"], "Long");
    fs::remove_file(node.home.join("api.sock")).unwrap();
    assert_eq!(
        node.json(&["device"])["name"],
        "Long",
        "the loopback address serves as well"
    );
}

#[test]
fn directories_that_would_overlap_are_refused() {
    let node = Node::started("Alone");
    let create = |name: &str, path: &std::path::Path| {
        node.run(&["folder", "create", name, "--path", path.to_str().unwrap()])
    };
    assert_eq!(create("Inside", &node.home.join("x")).code, 6);
    assert_eq!(create("Around", node.home.parent().unwrap()).code, 6);
    node.create();
    assert_eq!(create("Same", &node.files).code, 6);
    assert_eq!(create("Below", &node.files.join("x")).code, 6);
    assert_eq!(
        create(
            "Notes",
            &node.scratch().canonicalize().unwrap().join("other")
        )
        .code,
        6,
        "the name is taken"
    );
    let listed = node.json(&["folder", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(node.run(&["status", "Other"]).code, 5);
    node.json(&["folder", "forget", "Notes"]);
    assert_eq!(node.json(&["folder", "list"]), serde_json::json!([]));
}
