//! What every backend does, on disk and in memory.

use std::{io, path::Path};

use ouisync_store::backend::{
    Backend, CatalogueLimits, Listed, directory::DirectoryBackend, faulty::FaultyBackend,
};

const LIMITS: CatalogueLimits = CatalogueLimits {
    cache: 1 << 20,
    write_buffer: 1 << 20,
};

#[test]
fn directory_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let backend = DirectoryBackend::new(directory.path().join("made/by/it")).unwrap();
    files(&backend);
    records(&backend);
}

#[test]
fn memory_conforms() {
    let backend = FaultyBackend::default();
    files(&backend);
    records(&backend);
}

fn files(backend: &dyn Backend) {
    let (a, b) = (Path::new("d/e/a"), Path::new("d/b"));
    assert!(backend.list_files(Path::new("d")).unwrap().is_empty());
    assert_eq!(
        backend.write_at(a, 0, b"x").unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    backend.create_dir(Path::new("d/e")).unwrap();
    backend.create_dir(Path::new("d/e")).unwrap();
    assert_eq!(backend.length(a).unwrap(), None);
    assert_eq!(
        backend.read_at(a, 0, 1).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );

    backend.write_at(a, 4, b"tail").unwrap();
    backend.write_at(a, 1, b"he").unwrap();
    assert_eq!(backend.length(a).unwrap(), Some(8));
    assert_eq!(backend.read_at(a, 0, 8).unwrap(), b"\0he\0tail"[..]);
    assert_eq!(backend.read_at(a, 6, 2).unwrap(), b"il"[..]);
    assert_eq!(
        backend.read_at(a, 6, 3).unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
    assert_eq!(backend.list_dirs(Path::new("d")).unwrap(), ["e"]);
    assert_eq!(
        backend.list_files(Path::new("d/e")).unwrap(),
        [Listed {
            name: "a".into(),
            length: 8
        }]
    );

    backend.write_at(b, 0, b"old").unwrap();
    backend.rename(a, b).unwrap();
    assert_eq!(backend.length(a).unwrap(), None);
    assert_eq!(backend.length(b).unwrap(), Some(8));
    assert_eq!(
        backend.rename(a, b).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    backend.sync_file(b).unwrap();
    backend.sync_dir(Path::new("d")).unwrap();
    backend.sync_dir(Path::new("")).unwrap();
    assert_eq!(
        backend.sync_file(a).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    assert!(backend.free_space().unwrap() > 0);

    backend.remove(b).unwrap();
    backend.remove(b).unwrap();
    assert_eq!(backend.length(b).unwrap(), None);
}

fn records(backend: &dyn Backend) {
    let records = backend.open_records(LIMITS).unwrap();
    let put = |key: &str, value: &str| (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec()));
    // Keys that begin with C go to a keyspace of their own.
    records
        .commit(
            [
                put("C1", "one"),
                put("P1", "x"),
                put("P2", "y"),
                put("Q", ""),
            ]
            .into(),
            false,
        )
        .unwrap();
    records
        .commit(
            [
                (b"P2".to_vec(), None),
                put("P3", "z"),
                put("C2", &"big".repeat(9999)),
            ]
            .into(),
            true,
        )
        .unwrap();
    records.commit([].into(), true).unwrap();
    records.persist().unwrap();
    assert_eq!(records.get(b"C1").unwrap().unwrap(), b"one");
    assert_eq!(records.get(b"C2").unwrap().unwrap().len(), 3 * 9999);
    assert_eq!(records.get(b"P2").unwrap(), None);
    assert_eq!(records.get(b"Q").unwrap().unwrap(), b"");
    let mut seen = Vec::new();
    let mut scan = |from: &[u8], to: &[u8], limit: usize| {
        seen.clear();
        records
            .scan(from, to, &mut |key, value| {
                // A visitor may read.
                assert_eq!(records.get(key).unwrap().unwrap(), value);
                seen.push(String::from_utf8(key.to_vec()).unwrap());
                if seen.len() == limit {
                    std::ops::ControlFlow::Break(())
                } else {
                    std::ops::ControlFlow::Continue(())
                }
            })
            .unwrap();
        seen.join(" ")
    };
    assert_eq!(scan(b"P", b"Q", 9), "P1 P3");
    assert_eq!(scan(b"P1", b"P3", 9), "P1");
    assert_eq!(scan(b"P1", b"Z", 2), "P1 P3");
    assert_eq!(scan(b"C", b"D", 9), "C1 C2");
}
