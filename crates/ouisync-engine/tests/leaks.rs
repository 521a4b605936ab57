//! Nothing stays of a folder that was forgotten. Alone in its process, as it counts what the process holds.

#![allow(clippy::unwrap_used)]

use std::{fs, time::Duration};

use ouisync_engine::{
    engine::{Engine, EngineOptions},
    housekeeping::Housekeeping,
};

fn count(of: &str) -> usize {
    fs::read_dir(of).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_and_forgetting_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let options = EngineOptions {
        home: home.path().join("home"),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        lan: false,
        device_name: "alice".to_owned(),
        housekeeping: Housekeeping {
            reserve: 0,
            ..Housekeeping::default()
        },
        key_ring: None,
    };
    let engine = Engine::start(options).await.unwrap();
    let cycle = async |number: usize| {
        let folder = engine
            .create_folder(&format!("folder {number}"))
            .await
            .unwrap()
            .folder;
        let view = engine.view(folder).unwrap();
        tokio::task::block_in_place(|| view.ingest(&mut &vec![7; 100_000][..], 100_000, None))
            .unwrap();
        drop(view);
        engine.forget_folder(folder).await.unwrap();
    };
    // What is made once and kept, the pool of threads above all, is made first.
    for number in 0..10 {
        cycle(number).await;
    }
    let (threads, handles) = (count("/proc/self/task"), count("/proc/self/fd"));
    for number in 10..50 {
        cycle(number).await;
    }
    let mut now = (0, 0);
    for _ in 0..100 {
        now = (count("/proc/self/task"), count("/proc/self/fd"));
        if now.0 <= threads + 4 && now.1 <= handles + 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(now.0 <= threads + 4, "{threads} threads became {}", now.0);
    assert!(
        now.1 <= handles + 4,
        "{handles} open files became {}",
        now.1
    );
    assert_eq!(count(home.path().join("home/folders").to_str().unwrap()), 0);
    engine.shutdown().await;
}
