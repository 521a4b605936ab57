//! The independent reader (`tools/reader`, Python, written from the format's documents) against the real thing: what it extracts from
//! a store is what the devices show, byte for byte. Skipped, and says so, where Python or its packages are absent.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, fs::symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, SystemTime},
};

use ouisync_cli::commands::demo::tree;

use crate::node::{Node, converge, until};

/// The reader's directory and a Python that has what it needs.
fn reader() -> Option<(PathBuf, PathBuf)> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/reader");
    let candidates = [tools.join(".venv/bin/python"), PathBuf::from("python3")];
    let check = "import blake3, lz4.block, zstandard, cryptography.hazmat.primitives.kdf.argon2";
    let found = candidates.into_iter().find(|python| {
        let status = Command::new(python)
            .args(["-c", check])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    });
    if found.is_none() {
        let required = std::env::var_os("OUISYNC_REQUIRE_READER").is_some_and(|value| value == "1");
        assert!(!required, "the reader's Python packages are absent");
        eprintln!(
            "SKIPPED: no Python with the packages of tools/reader/requirements.txt; run scripts/setup.sh"
        );
    }
    found.map(|python| (tools, python))
}

fn read(tools: &Path, python: &Path, store: &Path, target: &Path, arguments: &[&OsStr]) -> Output {
    let _ = fs::remove_dir_all(target);
    Command::new(python)
        .current_dir(tools)
        .args(["-B", "-m", "ouisync_reader"])
        .args([store, target])
        .args(arguments)
        .output()
        .unwrap()
}

/// The store of a node's only folder.
fn store(node: &Node) -> PathBuf {
    let mut stores = fs::read_dir(node.home.join("folders")).unwrap();
    stores.next().unwrap().unwrap().path()
}

/// A copy of a store, as a backup makes one while the device runs.
fn copied(node: &Node) -> PathBuf {
    let store = store(node);
    let copy = node.scratch().join(store.file_name().unwrap());
    let _ = fs::remove_dir_all(&copy);
    let status = Command::new("cp").arg("-r").args([&store, &copy]).status();
    assert!(status.unwrap().success());
    copy
}

fn files(node: &Node) -> u64 {
    node.status()["files"].as_u64().unwrap()
}

/// Bytes that compression leaves alone.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

fn fill(alice: &Node) {
    alice.write("small.txt", "small\n");
    alice.write("empty", "");
    alice.write("inline", noise(4096));
    alice.write("not-inline", noise(4097));
    alice.write("several-chunks", noise(700_000));
    alice.write("compressible", "over and over\n".repeat(150_000));
    alice.write("grows", noise(50_000));
    alice.write("d/e/f/deep", "deep\n");
    alice.write("gone/a", "a\n");
    alice.write("run.sh", "#!/bin/sh\n");
    let run = alice.files.join("run.sh");
    fs::set_permissions(run, fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../nowhere", alice.files.join("d/link")).unwrap();
    for name in [
        &b"not \xff UTF-8"[..],
        b"new\nline",
        "\u{e9}".repeat(127).as_bytes(),
    ] {
        fs::write(alice.files.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let file = fs::File::options()
        .write(true)
        .open(alice.files.join("small.txt"));
    let old = SystemTime::UNIX_EPOCH + Duration::new(981_173_106, 789_000_001);
    file.unwrap().set_modified(old).unwrap();
}

/// Changes on both sides that neither has seen of the other.
fn diverge(alice: &Node, bob: &mut Node) {
    let alices = files(alice);
    bob.terminate();
    for (node, who) in [(alice, "Alice"), (bob, "Bob")] {
        node.write("small.txt", who);
        node.write("both.tar.gz", who);
        node.write("same", "the same bytes");
        node.write(&format!("shared/{who}"), who);
    }
    fs::rename(
        alice.files.join("several-chunks"),
        alice.files.join("renamed"),
    )
    .unwrap();
    bob.write("several-chunks", noise(700_001));
    alice.write("clash/in", "a directory");
    bob.write("clash", "a file");
    fs::remove_file(alice.files.join("d/e/f/deep")).unwrap();
    bob.write("d/e/f/deep", "edited while it was deleted");
    fs::remove_dir_all(bob.files.join("gone")).unwrap();
    until("Alice has recorded what she did", || {
        files(alice) == alices + 3
    });
    bob.start();
}

#[test]
fn a_reader_made_from_the_documents_extracts_every_file() {
    let Some((tools, python)) = reader() else {
        return;
    };
    let read = |store: &Path, target: &Path, arguments: &[&OsStr]| {
        read(&tools, &python, store, target, arguments)
    };
    let (alice, mut bob, pi) = (
        Node::started("Alice"),
        Node::started("Bob: 'x'/y"),
        Node::started("Raspberry"),
    );
    fill(&alice);
    alice.create();
    bob.join(&alice.invite("writer"), "writer");
    pi.join(&alice.invite("safe"), "safe");
    converge(&[&alice, &bob]);
    diverge(&alice, &mut bob);
    converge(&[&alice, &bob]);
    let conflicts = alice.status()["conflicts"].as_u64().unwrap();
    assert!(conflicts >= 3, "{conflicts}");

    // A kit from before the secrets are renewed, and one from after.
    let (early, late) = (alice.scratch().join("early"), alice.scratch().join("late"));
    let passphrase = alice.scratch().join("passphrase");
    alice.json(&["recovery-kit", "Notes", "--output", early.to_str().unwrap()]);
    let mode = fs::metadata(&early).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = alice.run(&["recovery-kit", "Notes", "--output", early.to_str().unwrap()]);
    assert_eq!(again.code, 2, "never over another file: {}", again.stderr);
    assert_eq!(
        alice.run(&["recovery-kit", "Notes"]).code,
        2,
        "never into a pipe"
    );
    let bobs = alice.json(&["members", "Notes"]);
    let bobs = bobs.as_array().unwrap().iter();
    let bobs = bobs.filter(|member| member["role"] == "writer");
    let bobs: Vec<_> = bobs
        .map(|member| member["member"].as_str().unwrap())
        .collect();
    let [member] = bobs[..] else {
        panic!("{bobs:?}")
    };
    alice.json(&["member", "remove", "Notes", member]);
    // More than 1024 chunks, since it keeps the level of when it was small; few different ones.
    alice.write("grows", noise(1_000_000).repeat(75));
    alice.write("after", "after\n");
    fs::rename(alice.files.join("d"), alice.files.join("moved")).unwrap();
    fs::remove_file(alice.files.join("empty")).unwrap();
    until("what was written since is recorded", || {
        let status = alice.status();
        status["bytes"].as_u64().unwrap() > 75_000_000 && status["state"] == "synced"
    });
    let kept = fs::read_dir(&alice.files).unwrap();
    let kept = kept.map(|entry| entry.unwrap().file_name().into_string().unwrap_or_default());
    let kept: Vec<_> = kept.filter(|name| name.contains("conflict")).collect();
    assert_eq!(kept.len() as u64, conflicts, "{kept:?}");
    assert!(
        kept.iter()
            .all(|name| name.contains("Bob_ 'x'_y") || name.contains("Alice")),
        "who has left keeps the name: {kept:?}"
    );

    let given = alice.run_with(&["passphrase", "set"], "long enough to be one\n");
    assert_eq!(given.code, 0, "{}", given.stderr);
    let arguments = ["recovery-kit", "Notes", "--output", late.to_str().unwrap()];
    assert_eq!(alice.run_with(&arguments, "wrong\n").code, 2);
    assert!(!late.exists());
    let made = alice.run_with(&arguments, "long enough to be one\n");
    assert_eq!(made.code, 0, "{}", made.stderr);
    let refused = pi.run(&["recovery-kit", "Notes", "--output", late.to_str().unwrap()]);
    assert_eq!(refused.code, 7, "a safe has no secrets: {}", refused.stderr);

    // From the safe's store with the kit, and from the owner's with its home.
    fs::write(&passphrase, "long enough to be one\n").unwrap();
    let extracted = alice.scratch().join("extracted");
    let home = [
        OsStr::new("--home"),
        alice.home.as_os_str(),
        OsStr::new("--passphrase-file"),
        passphrase.as_os_str(),
    ];
    let kit = [OsStr::new("--kit"), late.as_os_str()];
    for (node, arguments) in [(&pi, &kit[..]), (&alice, &home[..])] {
        let output = read(&copied(node), &extracted, arguments);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(
            said.matches("conflict: ").count() as u64,
            conflicts,
            "{said}"
        );
        assert_eq!(
            tree::differences(&alice.files, &extracted).unwrap(),
            Vec::<String>::new()
        );
    }

    // An old kit opens what was written until then, and the reader says that it is not all.
    let output = read(
        &copied(&pi),
        &extracted,
        &[OsStr::new("--kit"), early.as_os_str()],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(extracted.join("d/e/f/deep").exists() && !extracted.join("after").exists());
    // One wrong digit is a typing error, not garbage.
    let text = fs::read_to_string(&late).unwrap();
    let mistyped = match text.rfind('0') {
        Some(at) => [&text[..at], "1", &text[at + 1..]].concat(),
        None => panic!("no digit 0 in {} bytes", text.len()),
    };
    fs::write(&early, mistyped).unwrap();
    let output = read(
        &copied(&pi),
        &extracted,
        &[OsStr::new("--kit"), early.as_os_str()],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("check does not match"));
}

#[test]
fn a_reader_starts_from_a_checkpoint_where_commits_are_gone() {
    let Some((tools, python)) = reader() else {
        return;
    };
    let (alice, pi) = (eager("Alice"), eager("Raspberry"));
    alice.create();
    pi.join(&alice.invite("safe"), "safe");
    for number in 0..12 {
        alice.write(&format!("{}/{number}", number % 3), noise(40_000 + number));
        alice.write("often", format!("{number}\n"));
        alice.wait();
    }
    fs::rename(alice.files.join("1"), alice.files.join("2/moved")).unwrap();
    fs::remove_file(alice.files.join("0/3")).unwrap();
    alice.wait();
    let says = |node: &Node, what: &str| {
        until(what, || {
            fs::read_to_string(node.log()).unwrap().contains(what)
        });
    };
    says(&alice, "made a checkpoint");
    says(&pi, "dropped the bytes of commits");
    says(&alice, "dropped the bytes of commits");
    // What a newcomer has of the first commits is the checkpoint.
    let bob = eager("Bob");
    bob.join(&alice.invite("reader"), "reader");
    says(&bob, "starting from a checkpoint");
    fs::remove_file(alice.files.join("2/moved/4")).unwrap();
    alice.write("0/6", "after the checkpoint\n");
    converge(&[&alice, &bob]);
    let extracted = bob.scratch().join("extracted");
    let home = [OsStr::new("--home"), bob.home.as_os_str()];
    let output = read(&tools, &python, &copied(&bob), &extracted, &home);
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaints}");
    assert_eq!(
        tree::differences(&alice.files, &extracted).unwrap(),
        Vec::<String>::new()
    );
    let commits = said.rsplit("from ").next().unwrap();
    let commits: u32 = commits.split(' ').next().unwrap().parse().unwrap();
    assert!(commits < 12, "{said}");
}

/// A daemon that makes a checkpoint after a few commits and drops soon what one covers.
fn eager(name: &'static str) -> Node {
    let mut node = Node::idle(name);
    fs::create_dir_all(&node.home).unwrap();
    fs::write(
        node.home.join("daemon.toml"),
        "[upkeep]\nrelease_seconds = 1\ncollect_seconds = 1\ngrace_seconds = 5\n\
         floor_seconds = 0\nsafe_retention_seconds = 0\ncheckpoint_commits = 8\n",
    )
    .unwrap();
    node.start();
    node
}
