//! Live packs that are given up, and wanted again.

use std::{fs, sync::atomic::AtomicBool, time::Duration};

use ouisync_crypto::commit::Commit;
use ouisync_store::{
    catalogue::Disposition,
    collect::CollectPolicy,
    store::{
        Store,
        offload::TakenBack,
        packs::{PackState, Totals},
    },
};
use tempfile::TempDir;

use crate::making::{Clock, Pack, commit, dot};

struct Stored {
    directory: TempDir,
    clock: Clock,
    store: Store,
    pack: Pack,
    own: Commit,
}

fn stored() -> Stored {
    let (directory, clock) = (tempfile::tempdir().unwrap(), Clock::new());
    let store = Store::open_directory(directory.path(), clock.options()).unwrap();
    let pack = Pack::new("p", 4);
    let own = commit(1, 1, &[], &[&pack], &[]);
    store.create_pack(&pack.hashes, &pack.bytes).unwrap();
    store
        .put_commits(std::slice::from_ref(&own), Disposition::Accepted, true)
        .unwrap();
    Stored {
        directory,
        clock,
        store,
        pack,
        own,
    }
}

impl Stored {
    fn reopen(self) -> Self {
        let Self {
            directory,
            clock,
            store,
            pack,
            own,
        } = self;
        drop(store);
        let store = Store::open_directory(directory.path(), clock.options()).unwrap();
        Self {
            directory,
            clock,
            store,
            pack,
            own,
        }
    }

    fn state(&self) -> Option<PackState> {
        let info = self.store.pack(self.pack.id).unwrap();
        info.map(|info| info.state)
    }

    fn put(&self, commit: &Commit) {
        self.store
            .put_commits(std::slice::from_ref(commit), Disposition::Accepted, true)
            .unwrap();
    }

    fn assert_clean(&self) {
        let report = self.store.verify(|_| {}, &AtomicBool::new(false)).unwrap();
        assert_eq!(report.problems, []);
        assert_eq!(report.missing, self.store.totals().missing_packs);
    }
}

#[test]
fn an_offloaded_pack_frees_its_bytes_and_is_not_missing() {
    let mut home = stored();
    let id = home.pack.id;
    assert_eq!(home.store.begin_offload(&[id]).unwrap(), [id]);
    assert_eq!(home.store.begin_offload(&[id]).unwrap(), []);
    assert_eq!(home.state(), Some(PackState::Offloaded { here: true }));
    assert_eq!(home.store.offloaded_packs(), [id]);
    // Still there to be read and compared.
    assert_eq!(
        home.store.read_frames(id, 0, 4).unwrap(),
        home.pack.bytes[..]
    );
    let size = home.pack.size.bytes();
    assert_eq!(home.store.totals().offloaded_bytes, 0);
    assert_eq!(home.store.finish_offload(&[id]).unwrap(), (1, size));
    assert_eq!(home.store.finish_offload(&[id]).unwrap(), (0, 0));
    for _ in 0..2 {
        assert_eq!(home.state(), Some(PackState::Offloaded { here: false }));
        let expected = Totals {
            offloaded_packs: 1,
            offloaded_bytes: size,
            ..Totals::default()
        };
        assert_eq!(home.store.totals(), expected);
        assert_eq!(home.store.missing_packs(), []);
        assert_eq!(home.store.offloaded_packs(), [id]);
        assert_eq!(home.store.live_digest().count, 1);
        home.assert_clean();
        home = home.reopen();
    }
    let trash = fs::read_dir(home.directory.path().join("trash")).unwrap();
    assert_eq!(trash.count(), 0);
}

#[test]
fn what_was_not_finished_is_taken_back_at_the_next_opening() {
    let home = stored();
    home.store.begin_offload(&[home.pack.id]).unwrap();
    let home = home.reopen();
    assert_eq!(home.state(), Some(PackState::Stored));
    assert_eq!(home.store.offloaded_packs(), []);
    home.assert_clean();
    // One that lost some of its bytes meanwhile is no offloaded one: it is missing.
    home.store.begin_offload(&[home.pack.id]).unwrap();
    let name = home.pack.id.to_string();
    let file = home.directory.path().join("packs").join(&name[..2]);
    fs::write(file.join(name), b"cut").unwrap();
    let home = home.reopen();
    assert_eq!(home.state(), Some(PackState::Missing));
}

#[test]
fn a_pack_comes_back_and_may_be_given_up_again_meanwhile() {
    let home = stored();
    let (id, size) = (home.pack.id, home.pack.size);
    home.store.begin_offload(&[id]).unwrap();
    let back = |here| {
        [TakenBack {
            pack: id,
            size,
            here,
        }]
    };
    assert_eq!(home.store.take_back(&[id]).unwrap(), back(true));
    assert_eq!(home.state(), Some(PackState::Stored));
    assert_eq!(
        home.store.finish_offload(&[id]).unwrap(),
        (0, 0),
        "it was taken back"
    );
    home.store.begin_offload(&[id]).unwrap();
    home.store.finish_offload(&[id]).unwrap();

    assert_eq!(home.store.take_back(&[id]).unwrap(), back(false));
    assert_eq!(home.store.take_back(&[id]).unwrap(), []);
    assert_eq!(home.store.missing_bytes(), size.bytes());
    home.store.begin_pack(&home.pack.hashes).unwrap();
    home.store
        .write_frames(id, 1, home.pack.frames(1, 1))
        .unwrap();
    assert_eq!(home.store.offload_absent(&[id]).unwrap(), [id]);
    assert_eq!(home.state(), Some(PackState::Offloaded { here: false }));
    assert_eq!(home.store.missing_bytes(), 0);
    // Frames that come late make nothing of it.
    home.store.begin_pack(&home.pack.hashes).unwrap();
    home.store
        .write_frames(id, 0, home.pack.frames(0, 1))
        .unwrap();
    assert_eq!(home.state(), Some(PackState::Offloaded { here: false }));
    let home = home.reopen();
    let incoming = fs::read_dir(home.directory.path().join("incoming")).unwrap();
    assert_eq!(incoming.count(), 0);

    // Content of the past is asked for in the same way.
    assert!(home.store.want_pack(id, size).unwrap());
    home.store.receive_pack(id, &home.pack.bytes).unwrap();
    assert_eq!(home.state(), Some(PackState::Pending));
    assert_eq!(home.store.offload_absent(&[id]).unwrap(), [], "it is here");
    assert_eq!(home.store.begin_offload(&[id]).unwrap(), [], "not durable");
    assert_eq!(home.store.sync_packs().unwrap(), [id]);
    assert_eq!(home.state(), Some(PackState::Stored));
    home.assert_clean();
}

#[test]
fn an_offloaded_pack_stays_so_when_it_is_released_and_added_again() {
    let home = stored();
    let id = home.pack.id;
    home.store.begin_offload(&[id]).unwrap();
    home.store.finish_offload(&[id]).unwrap();
    let releasing = commit(1, 2, &[&home.own], &[], &[dot(&home.own, &home.pack)]);
    home.put(&releasing);
    assert_eq!(home.state(), Some(PackState::Offloaded { here: false }));
    assert_eq!(home.store.offloaded_packs(), [], "nobody needs it");
    assert_eq!(home.store.totals(), Totals::default());
    let home = home.reopen();
    let again = commit(1, 3, &[&releasing], &[&home.pack], &[]);
    home.put(&again);
    assert_eq!(home.store.offloaded_packs(), [id]);
    assert_eq!(home.store.missing_packs(), []);
    // Released for good, what is known of it goes when its bytes would.
    let last = commit(1, 4, &[&again], &[], &[dot(&again, &home.pack)]);
    home.put(&last);
    home.clock.advance(60);
    let at_once = CollectPolicy {
        grace: Duration::ZERO,
        ..CollectPolicy::default()
    };
    let collected = home.store.collect(home.clock.now(), &at_once).unwrap();
    assert_eq!((collected.packs, collected.bytes), (0, 0));
    assert_eq!(home.state(), None);
    home.assert_clean();
}

#[test]
fn a_release_or_damage_while_others_are_asked_ends_it() {
    let home = stored();
    let id = home.pack.id;
    home.store.begin_offload(&[id]).unwrap();
    let releasing = commit(1, 2, &[&home.own], &[], &[dot(&home.own, &home.pack)]);
    home.put(&releasing);
    assert!(matches!(home.state(), Some(PackState::Released { .. })));
    assert_eq!(home.store.finish_offload(&[id]).unwrap(), (0, 0));
    assert!(home.store.has_pack(id).unwrap(), "history stays");

    let home = stored();
    home.store.begin_offload(&[id]).unwrap();
    home.store.report_damaged(id).unwrap();
    assert_eq!(home.store.finish_offload(&[id]).unwrap(), (0, 0));
    home.store.repair().unwrap();
    assert_eq!(home.state(), Some(PackState::Missing));
}
