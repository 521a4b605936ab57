//! False checkpoints, and an end in the middle of making an index from one.

use std::time::Duration;

use ouisync_model::{
    id::{FolderId, NodeId, NodeKind},
    name::Name,
    operation::Value,
    tree::edit,
};
use ouisync_store::checkpoint::CheckpointCheck;
use tempfile::TempDir;
use tokio::task::block_in_place;

use super::{Engine, EngineOptions, InvitationOptions};
use crate::{error::EngineError, folder::Folder, housekeeping::Housekeeping, status::Role};

const DEADLINE: Duration = Duration::from_secs(30);

struct Device {
    home: TempDir,
    engine: Option<Engine>,
    name: &'static str,
    commits: u64,
}

impl Device {
    async fn start(name: &'static str, commits: u64) -> Self {
        let mut device = Self {
            home: tempfile::tempdir().unwrap(),
            engine: None,
            name,
            commits,
        };
        device.go_on().await;
        device
    }

    async fn go_on(&mut self) {
        let options = EngineOptions {
            home: self.home.path().join("home"),
            listen: Some(([127, 0, 0, 1], 0).into()),
            lan: false,
            device_name: self.name.to_owned(),
            housekeeping: Housekeeping {
                tick: Duration::from_millis(50),
                release: Duration::from_millis(200),
                collect: Duration::from_millis(200),
                grace: Duration::ZERO,
                floor: Duration::ZERO,
                safe_retention: Some(Duration::ZERO),
                checkpoint_commits: self.commits,
                reserve: 0,
                ..Housekeeping::default()
            },
            key_ring: None,
        };
        self.engine = Some(Engine::start(options).await.unwrap());
    }

    async fn stop(&mut self) {
        self.engine.take().unwrap().shutdown().await;
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    async fn on_folder<T: Send + 'static>(
        &self,
        folder: FolderId,
        job: impl FnOnce(&mut Folder) -> Result<T, EngineError> + Send + 'static,
    ) -> T {
        let running = self.engine().folder(&folder).unwrap();
        running.run(job).await.unwrap()
    }

    fn write(&self, folder: FolderId, name: &str) {
        let view = self.engine().view(folder).unwrap();
        let node = NodeId::new(NodeKind::Leaf, rand::random());
        let value = Value::Symlink(name.as_bytes().to_vec());
        let create = edit::create(NodeId::ROOT, Name::new(name).unwrap(), node, value, None);
        block_in_place(|| view.commit(create, Vec::new())).unwrap();
    }

    fn names(&self, folder: FolderId) -> Vec<String> {
        let Ok(view) = self.engine().view(folder) else {
            return Vec::new();
        };
        let entries = block_in_place(|| view.list(NodeId::ROOT)).unwrap_or_default();
        entries.iter().map(|entry| entry.name.to_string()).collect()
    }

    async fn joins(&self, other: &Self, folder: FolderId, role: Role) {
        let options = InvitationOptions {
            role,
            uses: 1,
            expires: None,
        };
        let link = other.engine().invite(folder, options).await.unwrap().link;
        self.engine().join(&link, None, DEADLINE).await.unwrap();
    }

    async fn eventually(&self, what: &str, mut holds: impl AsyncFnMut(&Self) -> bool) {
        let begun = std::time::Instant::now();
        while !holds(self).await {
            assert!(begun.elapsed() < DEADLINE, "{}: never: {what}", self.name);
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    async fn problems(&self, folder: FolderId) -> String {
        let status = self.engine().status(folder).await.unwrap();
        let messages = status
            .problems
            .iter()
            .map(|problem| problem.message.clone());
        messages.collect::<Vec<_>>().join("\n")
    }

    /// Commits of the folder that are here without their bytes.
    async fn cut(&self, folder: FolderId) -> usize {
        self.on_folder(folder, |folder| {
            let mut cut = 0;
            for (_, id) in folder.store.commits_in_order(None, usize::MAX)? {
                cut += usize::from(folder.store.commit_bytes(id)?.is_none());
            }
            Ok(cut)
        })
        .await
    }
}

fn files(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("file {number:02}"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_checkpoint_is_shown_and_never_used() {
    for state in [false, true] {
        let alice = Device::start("alice", u64::MAX).await;
        let folder = alice.engine().create_folder("voyage").await.unwrap().folder;
        let (bob, safe) = (
            Device::start("bob", u64::MAX).await,
            Device::start("safe", u64::MAX).await,
        );
        bob.joins(&alice, folder, Role::Reader).await;
        safe.joins(&alice, folder, Role::Safe).await;
        for name in files(8) {
            alice.write(folder, &name);
        }
        bob.eventually("has the files", async |bob| bob.names(folder) == files(8))
            .await;
        let made = alice
            .on_folder(folder, move |folder| folder.make_false_checkpoint(state))
            .await;
        alice.write(folder, "later");
        let is_wrong = async |device: &Device| {
            device
                .on_folder(folder, move |folder| {
                    let info = folder.store.checkpoint(made)?;
                    Ok(info.is_some_and(|info| {
                        matches!(
                            info.check,
                            CheckpointCheck::Wrong | CheckpointCheck::WrongState
                        )
                    }))
                })
                .await
        };
        bob.eventually("finds it false", is_wrong).await;
        let problems = bob.problems(folder).await;
        assert!(
            problems.contains(&made.to_string()) && problems.contains("alice"),
            "{problems}"
        );
        // A reader drops nothing for it; a safe sees only the skeleton.
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(bob.cut(folder).await, 0);
        if !state {
            safe.eventually("finds it false too", is_wrong).await;
            assert_eq!(safe.cut(folder).await, 0);
        }
        // Who comes now gets the commits from Bob.
        let carol = Device::start("carol", u64::MAX).await;
        carol.joins(&alice, folder, Role::Reader).await;
        let mut all = files(8);
        all.push("later".to_owned());
        if !state {
            carol
                .eventually("has the files", async |carol| carol.names(folder) == all)
                .await;
        }
        assert_eq!(bob.names(folder), all);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_while_the_index_is_made_recovers() {
    let alice = Device::start("alice", 6).await;
    let folder = alice.engine().create_folder("voyage").await.unwrap().folder;
    let safe = Device::start("safe", 6).await;
    safe.joins(&alice, folder, Role::Safe).await;
    for name in files(9) {
        alice.write(folder, &name);
    }
    // Of whoever has all commits a newcomer gets all.
    for device in [&safe, &alice] {
        device
            .eventually("drops what is covered", async |device| {
                device.cut(folder).await > 0
            })
            .await;
    }
    let mut bob = Device::start("bob", 6).await;
    bob.joins(&alice, folder, Role::Writer).await;
    bob.eventually("has the files", async |bob| bob.names(folder) == files(9))
        .await;
    assert!(bob.cut(folder).await > 0);
    bob.write(folder, "of bob alone");
    let mut all = files(9);
    all.push("of bob alone".to_owned());
    for half in [false, true] {
        bob.on_folder(folder, move |folder| {
            folder.readable.as_ref().unwrap().break_off(half)?;
            Ok(())
        })
        .await;
        bob.stop().await;
        bob.go_on().await;
        bob.eventually("has all again", async |bob| bob.names(folder) == all)
            .await;
        bob.write(folder, if half { "z later" } else { "y later" });
        all.push(if half { "z later" } else { "y later" }.to_owned());
    }
    assert_eq!(bob.names(folder), all);
}
