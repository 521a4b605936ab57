//! Peers of a folder: what they send is checked here, and what the state machine wants done is done.

use std::time::Duration;

use bytes::Bytes;
use ouisync_crypto::{
    frame_hash::FrameHashes,
    proof::MemberProof,
    roster::{Added, statement::RosterEntry},
};
use ouisync_model::id::PackId;
use ouisync_store::error::{ErrorKind, StoreError};
use ouisync_sync::{
    codec::Contact,
    facts::{CommitFacts, FolderFacts},
    folder::{Output, PeerKey},
};
use tracing::{debug, error, info, warn};

use super::{Folder, Peer};
use crate::{command::NewPeer, flush::Flushed, status::EngineEvent};

/// How long a removed member may hear of its removal before it is dropped.
const FAREWELL: Duration = Duration::from_secs(3);

/// Time between looks for room after the disk was full.
const FULL_PAUSE: Duration = Duration::from_secs(15);

impl Folder {
    pub(super) fn peer_connected(&mut self, new: NewPeer) {
        let NewPeer {
            peer,
            device,
            rights,
            exporter,
            side,
            link,
            ..
        } = new;
        debug!(folder = %self.id, %device, ?rights, "peer connected");
        let proof = self
            .identity
            .as_ref()
            .filter(|identity| self.roster().state().role(&identity.member()).is_some())
            .map(|identity| MemberProof::new(identity, &exporter, side, &self.id));
        self.peers.insert(
            peer,
            Peer {
                device,
                exporter,
                side,
                link,
                claim: None,
                member: None,
                dismissed: None,
                challenged: None,
            },
        );
        self.sync.tick(self.uptime());
        self.sync.peer_connected(peer, rights, proof);
        self.merge_with_peer();
        self.tell_contacts(None);
    }

    /// Proves to all peers who this device is now.
    pub(super) fn prove_identity(&mut self) {
        let Some(identity) = &self.identity else {
            return;
        };
        if self.roster().state().role(&identity.member()).is_none() {
            return;
        }
        let proof = |peer: &Peer| MemberProof::new(identity, &peer.exporter, peer.side, &self.id);
        let proofs: Vec<_> = self
            .peers
            .iter()
            .map(|(key, peer)| (*key, proof(peer)))
            .collect();
        for (peer, proof) in proofs {
            self.sync.prove(peer, proof);
        }
    }

    /// Tells one peer, or all, where this device and the members that it is connected to can be reached.
    fn tell_contacts(&mut self, peer: Option<PeerKey>) {
        let as_contact = |(device, sockets): (_, Vec<std::net::SocketAddr>)| Contact {
            device,
            addresses: sockets.iter().map(ToString::to_string).collect(),
        };
        let own = (
            self.key_store.device().key().device(),
            self.network.addresses(),
        );
        let known = self.network.contacts(&self.id);
        let contacts: Vec<_> = std::iter::once(own)
            .chain(known)
            .filter(|(_, sockets)| !sockets.is_empty())
            .map(as_contact)
            .collect();
        self.sync.send_contacts(peer, contacts);
    }

    /// Does everything that the state machine wants done.
    pub(super) fn drain(&mut self) {
        while let Some(output) = self.sync.poll_output() {
            match output {
                Output::Send { peer, message } => {
                    if let Some(peer) = self.peers.get(&peer) {
                        peer.link.send(message);
                    }
                }
                Output::Serve {
                    peer,
                    pack,
                    first,
                    count,
                } => {
                    let status = |peer: &PeerKey| self.sync.peer_status(*peer);
                    let takers = self.peers.keys().filter_map(status);
                    let once = takers.filter(|taker| taker.missing_bytes > 0).count() <= 1;
                    if let Some(peer) = self.peers.get(&peer) {
                        peer.link
                            .serve(self.store.clone(), pack, first, count, once);
                    }
                }
                Output::AddRosterEntries { peer, entries } => {
                    self.add_roster_entries(peer, entries)
                }
                Output::AddCommits { peer, commits } => self.add_commits(peer, commits),
                Output::JudgeCheckpoint { peer, commit, .. } => {
                    self.judge_checkpoint(peer, &commit)
                }
                Output::KeepSkeleton { offset, data } => self.keep_skeleton(offset, &data),
                Output::KeepPast { commit, bytes } => self.keep_past(commit, &bytes),
                Output::AddCheckpoint { peer, commit } => self.add_checkpoint(peer, &commit),
                Output::ProveMember { peer, proof } => self.prove_member(peer, &proof),
                Output::StoreHashes { pack, size, hashes } => {
                    let begun = FrameHashes::verified(pack, size, hashes)
                        .map_err(|_| StoreError::HashesWrong(pack))
                        .and_then(|hashes| self.store.begin_pack(&hashes));
                    if let Err(error) = begun {
                        self.pack_failed(pack, &error);
                    }
                }
                Output::WriteFrames { pack, first, data } => {
                    let length = data.len() as u64;
                    match self.store.write_verified_frames(pack, first, &data) {
                        // A view puts the file together while it comes.
                        Ok(_) if self.drafts.are_open() => {
                            self.store.keep_recent(pack, first, data);
                        }
                        Ok(_) => {}
                        Err(error) => self.pack_failed(pack, &error),
                    }
                    self.sync.frames_written(length);
                }
                Output::FinishPack { pack } => match self.store.has_pack(pack) {
                    Ok(true) => {
                        self.sync.pack_stored(pack);
                        self.shared.packs_arrived(pack);
                        self.flusher.wake();
                    }
                    Ok(false) => self.sync.pack_lost(pack),
                    Err(error) => self.pack_failed(pack, &error),
                },
                Output::Prove {
                    peer,
                    nonce,
                    samples,
                } => self.show_possession(peer, nonce, samples),
                Output::Judge {
                    peer,
                    nonce,
                    proofs,
                } => self.take_answer(peer, nonce, proofs),
                Output::Contacts { contacts, .. } => self.learn_contacts(contacts),
                Output::Disconnect { peer, reason } => {
                    if let Some(gone) = self.peers.remove(&peer) {
                        let message = format!("dropped the peer {}: {reason}", gone.device);
                        warn!(folder = %self.id, device = %gone.device, %reason, "dropping a peer");
                        gone.link.close(&reason.to_string());
                        self.shared.event(EngineEvent::Warning {
                            folder: Some(self.id),
                            message,
                        });
                    }
                }
                Output::StatusChanged => {}
            }
        }
        self.shared.flush_events();
    }

    fn pack_failed(&mut self, pack: PackId, error: &StoreError) {
        if matches!(error, StoreError::UnknownPack(_)) {
            // Released while it came in.
            self.sync.packs_released(&[pack]);
            return;
        }
        error!(folder = %self.id, %pack, %error, "can't store a pack");
        if error.kind() == ErrorKind::Full {
            self.store_failed(error);
        }
        self.sync.pack_lost(pack);
    }

    /// The store can't take what came: transfers stop until a person acts.
    pub(super) fn store_failed(&mut self, error: &StoreError) {
        if error.kind() != ErrorKind::Full {
            return self.shared.fail(&error.to_string());
        }
        self.shared.fail(&format!(
            "{error}; what is already stored is safe; free some space: it goes on by itself, or at once with 'ouisync resume'"
        ));
        self.sync.pause();
        self.full_since = Some(self.surroundings.now());
    }

    /// After a full disk: goes on when there is room again.
    pub(super) fn go_on_with_room(&mut self) {
        let due = self
            .full_since
            .is_some_and(|since| self.since(since) >= FULL_PAUSE);
        if !due || self.paused {
            return;
        }
        if self.store.has_room() {
            info!(folder = %self.id, "the disk has room again");
            self.full_since = None;
            self.shared.set_trouble(None);
            self.sync.resume();
        } else {
            self.full_since = Some(self.surroundings.now());
        }
    }

    pub(super) fn flushed(&mut self, flushed: Flushed) {
        match flushed.0 {
            Ok(packs) => self.sync.packs_durable(&packs),
            Err(error) => {
                error!(folder = %self.id, %error, "can't make packs durable");
                self.store_failed(&error);
            }
        }
    }

    fn add_roster_entries(&mut self, peer: PeerKey, entries: Vec<Bytes>) {
        let mut refused = None;
        let mut new = Vec::new();
        for bytes in entries {
            let added = RosterEntry::verified(bytes.to_vec())
                .map_err(|error| error.to_string())
                .and_then(|entry| {
                    let added = self.sync.facts_mut().roster.add(entry);
                    added.map_err(|error| error.to_string())
                });
            match added {
                Ok(Added::New(ids)) => new.extend(ids),
                Ok(Added::Known | Added::Pending { .. }) => {}
                Err(reason) => {
                    refused = Some(reason);
                    break;
                }
            }
        }
        if !new.is_empty() {
            info!(folder = %self.id, entries = new.len(), "the roster grew");
            let roster = self.roster();
            let bytes: Vec<_> = new
                .iter()
                .filter_map(|id| Some(roster.entry(id)?.as_bytes().to_vec()))
                .collect();
            let stored = self.store.put_roster_entries(&bytes).map_err(Into::into);
            if let Err(error) = stored.and_then(|_| self.roster_grew(true)) {
                error!(folder = %self.id, %error, "can't take in the roster");
                self.shared.fail(&error.to_string());
            }
        }
        match refused {
            Some(reason) => self.sync.roster_refused(peer, reason),
            None => self.sync.roster_accepted(peer),
        }
    }

    fn prove_member(&mut self, peer: PeerKey, proof: &MemberProof) {
        let Some(known) = self.peers.get(&peer) else {
            return;
        };
        if proof
            .verify(&known.exporter, known.side.other(), &self.id)
            .is_err()
        {
            self.sync
                .member_refused(peer, "the proof's signature is wrong".to_owned());
            return;
        }
        if let Some(known) = self.peers.get_mut(&peer)
            && known.claim.replace(proof.member) != Some(proof.member)
        {
            known.member = None;
        }
        self.judge_claims();
    }

    /// Decides on proven keys by the roster. One that isn't in it may have joined by others: its entry is on its way.
    pub(super) fn judge_claims(&mut self) {
        let state = self.sync.facts().roster.state();
        let (mut proven, mut refused) = (Vec::new(), Vec::new());
        for (key, peer) in &self.peers {
            let Some(claim) = peer.claim else { continue };
            if state.is_removed(&claim) {
                if peer.dismissed.is_none() {
                    refused.push(*key);
                }
            } else if peer.member.is_none() && state.role(&claim).is_some() {
                proven.push((*key, claim));
            }
        }
        for (key, member) in proven {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.member = Some(member);
            }
            self.sync.member_proven(key, member);
            self.tell_contacts(Some(key));
        }
        let now = self.surroundings.now();
        for key in refused {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.dismissed = Some(now);
                peer.member = None;
            }
            self.sync.member_dismissed(key);
        }
    }

    /// Drops removed members that have had the time to hear of it.
    pub(super) fn drop_dismissed(&mut self) {
        let is_due = |peer: &Peer| {
            peer.dismissed
                .is_some_and(|since| self.since(since) >= FAREWELL)
        };
        let due: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| is_due(peer))
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            self.sync
                .member_refused(key, "removed from the folder".to_owned());
        }
    }

    fn learn_contacts(&mut self, contacts: Vec<Contact>) {
        for contact in contacts {
            let sockets: Vec<_> = contact
                .addresses
                .iter()
                .filter_map(|address| address.parse().ok())
                .collect();
            self.network
                .learned(contact.device, Some(self.id), &sockets);
        }
    }

    /// Announces own commits that are durable.
    pub(super) fn announce(&mut self, commits: &[CommitFacts]) {
        self.sync.commits_added(commits);
        for (pack, _) in commits.iter().flat_map(|commit| &commit.added) {
            // They were made durable before the commit.
            if self.sync.facts().pack(pack).is_some() {
                self.sync.packs_durable(&[*pack]);
            }
        }
    }

    /// Peers for the status: member if proven, device, figures of the exchange.
    pub(super) fn peer_rows(&self) -> Vec<crate::shared::PeerRow> {
        let rows = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.dismissed.is_none())
            .filter_map(|(key, peer)| {
                let status = self.sync.peer_status(*key)?;
                Some(crate::shared::PeerRow {
                    device: peer.device,
                    member: status.member.or(peer.member),
                    exchanged: status.exchanged,
                    missing_bytes: status.missing_bytes,
                    has_all: status.has_all,
                })
            });
        rows.collect()
    }
}
