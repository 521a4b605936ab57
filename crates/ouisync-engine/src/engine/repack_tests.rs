//! Copies that are none.

use std::time::{Duration, Instant};

use ouisync_model::{
    id::{NodeId, NodeKind},
    name::Name,
    operation::{ChunkPlace, FileData, PackTable, Value},
    tree::edit,
};
use ouisync_store::content::ChunkPlaces;
use tokio::task::block_in_place;

use super::{Engine, EngineOptions};
use crate::housekeeping::Housekeeping;

/// A writer says that a chunk is also in another pack, and better there. It is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_none_takes_no_place() {
    let home = tempfile::tempdir().unwrap();
    let options = EngineOptions {
        home: home.path().join("home"),
        listen: Some(([127, 0, 0, 1], 0).into()),
        lan: false,
        device_name: "alice".to_owned(),
        housekeeping: Housekeeping {
            tick: Duration::from_millis(20),
            release: Duration::from_millis(50),
            reserve: 0,
            ..Housekeeping::default()
        },
        key_ring: None,
    };
    let engine = Engine::start(options).await.unwrap();
    let folder = engine.create_folder("voyage").await.unwrap().folder;
    let view = engine.view(folder).unwrap();
    let mut chunks = Vec::new();
    for name in ["precious", "other"] {
        let mut bytes = vec![0; 6000];
        rand::fill(&mut bytes[..]);
        let node = NodeId::new(NodeKind::Leaf, rand::random());
        block_in_place(|| {
            let content = view.ingest(&mut &bytes[..], 6000, None).unwrap();
            let FileData::Chunks(list) = &content.data else {
                panic!("{content:?}");
            };
            chunks.push(list[0].chunk);
            let name = Name::new(name).unwrap();
            let made = edit::create(NodeId::ROOT, name, node, Value::File(content), None);
            view.commit(made, Vec::new()).unwrap();
        });
    }
    let running = engine.folder(&folder).unwrap();
    let readable = running.shared.readable().unwrap();
    let index = &readable.index;
    let [(home_pack, _), (other_pack, place)] =
        [chunks[0], chunks[1]].map(|chunk| index.places(&chunk).unwrap()[0]);
    let forged = PackTable {
        pack: other_pack,
        round: 1,
        chunks: vec![ChunkPlace {
            chunk: chunks[0],
            ..place
        }],
    };
    let size = readable.pack_size(&other_pack).unwrap();
    let told = running
        .run(move |folder| folder.commit(Vec::new(), vec![(forged, size)], Vec::new(), |_| Ok(())));
    told.await.unwrap();
    assert_eq!(index.places(&chunks[0]).unwrap().len(), 2);
    let begun = Instant::now();
    while !index.repeating_packs(1).unwrap().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let known = index.chunk_use(&chunks[0]).unwrap().unwrap();
    assert_eq!(known.home.pack, home_pack);
    assert!(!index.unreferenced_packs().unwrap().contains(&home_pack));
    let content = block_in_place(|| view.list(NodeId::ROOT)).unwrap();
    for entry in content {
        let Value::File(content) = entry.value else {
            panic!("no file");
        };
        let mut stream = view.open(&content).unwrap();
        block_in_place(|| stream.next_chunk()).unwrap().unwrap();
    }
    drop((readable, running));
    engine.shutdown().await;
}
