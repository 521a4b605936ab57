//! A real process on a real disk, killed while it writes.

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::AtomicBool,
};

use ouisync_model::id::{CommitId, Sequence};
use ouisync_store::{catalogue::Disposition, store::Store};

use crate::making::{Clock, Pack, commit, member};

/// Set in the process that is going to be killed.
const DIRECTORY: &str = "OUISYNC_TEST_KILLED_STORE";

#[test]
fn a_killed_process_loses_nothing_that_it_promised() {
    if let Some(directory) = env::var_os(DIRECTORY) {
        write_until_killed(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let mut promised: Vec<CommitId> = Vec::new();
    for round in 1..=6 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "kill::a_killed_process_loses_nothing_that_it_promised",
                "--nocapture",
            ])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let ids = lines.filter_map(|line| line.split_once("promised ")?.1.parse::<CommitId>().ok());
        promised.extend(ids.take(3 * round));
        child.kill().unwrap();
        child.wait().unwrap();

        let store = Store::open_directory(directory.path(), Clock::new().options()).unwrap();
        let report = store.verify(|_| {}, &AtomicBool::new(false)).unwrap();
        assert_eq!(report.problems, []);
        for id in &promised {
            let kept = store.commit(*id).unwrap().unwrap();
            for add in &kept.header().added {
                assert!(store.has_pack(add.pack).unwrap(), "{} is gone", add.pack);
            }
        }
    }
    assert_eq!(promised.len(), 3 * (1 + 2 + 3 + 4 + 5 + 6));
}

/// Writes packs and commits for ever and says so as soon as they are durable.
fn write_until_killed(directory: &Path) -> ! {
    let store = Store::open_directory(directory, Clock::new().options()).unwrap();
    loop {
        let last = store.chain(member(1)).first().copied();
        let previous = last.map(|last| store.commit(last.head).unwrap().unwrap());
        let next = last.map_or(Sequence(0), |last| last.sequence).0 + 1;
        let packs = [
            Pack::new(&format!("small {next}"), 1),
            Pack::new(&format!("large {next}"), 4),
        ];
        for pack in &packs {
            store.create_pack(&pack.hashes, &pack.bytes).unwrap();
        }
        let own = commit(
            1,
            next,
            &previous.iter().collect::<Vec<_>>(),
            &packs.each_ref(),
            &[],
        );
        store
            .put_commits(std::slice::from_ref(&own), Disposition::Accepted, true)
            .unwrap();
        println!("promised {}", own.id());
    }
}
