//! Packs of a folder in memory: how they come in, are kept, given up and lost.

use bytes::{Bytes, BytesMut};
use ouisync_crypto::{
    frame_hash::FrameHash,
    possession::{GROUP, Nonce, Possession, PossessionKey},
    proof::{Exporter, Side},
};
use ouisync_model::id::{FolderId, PackId};
use ouisync_sync::{codec::Sample, facts::FrameSet};

use super::{FRAME, MemoryFacts};

impl MemoryFacts {
    /// Keeps a hash list.
    pub fn store_hashes(&mut self, pack: PackId, hashes: Vec<FrameHash>) {
        self.packs.entry(pack).or_default().hashes = Some(hashes);
    }

    /// Writes frames of a partial pack.
    pub fn write(&mut self, pack: PackId, first: u32, data: &[u8]) {
        let stored = self.packs.entry(pack).or_default();
        let Some(size) = stored.size else { return };
        let (partial, present) = stored
            .partial
            .get_or_insert_with(|| (BytesMut::zeroed(size.bytes() as usize), FrameSet::EMPTY));
        let offset = first as usize * FRAME;
        partial[offset..offset + data.len()].copy_from_slice(data);
        (first..first + (data.len() / FRAME) as u32).for_each(|index| present.insert(index));
        self.written += data.len() as u64;
    }

    /// Moves a partial pack into place; panics when its bytes are not the pack's.
    pub fn finish(&mut self, pack: PackId) {
        let stored = self.packs.entry(pack).or_default();
        let (partial, _) = stored.partial.take().expect("frames were written");
        assert_eq!(
            blake3::hash(&partial).as_bytes(),
            pack.as_bytes(),
            "finished pack is not itself"
        );
        stored.data = Some(partial.freeze());
    }

    /// Makes stored packs durable; gives those that are held.
    pub fn sync(&mut self, packs: &[PackId]) -> Vec<PackId> {
        let mut durable = Vec::new();
        for pack in packs {
            if let Some(stored) = self.packs.get_mut(pack)
                && stored.data.is_some()
            {
                stored.durable = true;
                durable.push(*pack);
            }
        }
        durable
    }

    /// Gives up the packs that are held durably; gives those that weren't given up before.
    pub fn begin_offload(&mut self) -> Vec<PackId> {
        let mut begun = Vec::new();
        for (pack, stored) in &mut self.packs {
            if stored.durable && !stored.dots.is_empty() && !stored.offloaded {
                stored.offloaded = true;
                begun.push(*pack);
            }
        }
        begun
    }

    /// Drops the data of a pack that is given up.
    pub fn finish_offload(&mut self, pack: &PackId) {
        self.lose(pack);
    }

    /// Wants a pack again.
    pub fn take_back(&mut self, pack: &PackId) {
        if let Some(stored) = self.packs.get_mut(pack) {
            stored.offloaded = false;
        }
    }

    /// What a crash leaves: durable packs, and partial ones (their frames are re-checked by a real store). What was being given up
    /// is held again.
    pub fn crash(&mut self) {
        for stored in self.packs.values_mut() {
            stored.offloaded &= stored.data.is_none();
        }
        for stored in self.packs.values_mut().filter(|stored| !stored.durable) {
            stored.data = None;
        }
        self.spool.clear();
    }

    /// Frames of a held pack.
    pub fn read(&self, pack: &PackId, first: u32, count: u32) -> Option<Bytes> {
        let data = self.packs.get(pack)?.data.as_ref()?;
        let (start, end) = (first as usize * FRAME, (first + count) as usize * FRAME);
        (end <= data.len()).then(|| data.slice(start..end))
    }

    /// What shows possession of a sample. All connections are taken for one.
    pub fn show(&self, nonce: &Nonce, sample: &Sample) -> Option<Possession> {
        let data = self.packs.get(&sample.pack)?.data.as_ref()?;
        let folder = FolderId::from_bytes([0; 32]);
        let key = PossessionKey::new(&Exporter([0; 32]), Side::Dialer, &folder, nonce);
        let groups = sample
            .groups
            .iter()
            .map(|group| data.chunks(GROUP).nth(usize::from(*group)));
        Some(key.show(&sample.pack, groups.collect::<Option<Vec<_>>>()?))
    }

    /// Loses a held pack (damage).
    pub fn lose(&mut self, pack: &PackId) {
        if let Some(stored) = self.packs.get_mut(pack) {
            stored.data = None;
            stored.durable = false;
        }
    }
}
