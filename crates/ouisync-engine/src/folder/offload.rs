//! Giving packs up, on the folder's thread: marking them, asking members that hold them, and showing them to members that ask.

use std::collections::{BTreeMap, BTreeSet};

use ouisync_crypto::possession::{Nonce, Possession, PossessionKey};
use ouisync_model::id::{MemberId, PackId};
use ouisync_sync::{codec::Sample, folder::PeerKey};
use tracing::{info, warn};

use super::Folder;
use crate::{
    command::Command, error::EngineError, offload, retention::PolicyInForce, status::Role,
};

/// The answers to the challenges of the one offload that is under way.
#[derive(Default)]
pub(super) struct Offloading {
    nonce: Option<Nonce>,
    answers: Vec<Answer>,
}

/// A member's answer.
pub(crate) struct Answer {
    pub(crate) member: MemberId,
    /// What it had to key it with.
    pub(crate) key: PossessionKey,
    pub(crate) proofs: Vec<Option<Possession>>,
}

/// The terms on which packs may be given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How many members must show that they hold them.
    pub(crate) replicas: u16,
    /// What only former versions need is to be kept here, too.
    pub(crate) keeps_history: bool,
}

impl Folder {
    /// Begins an offload, of which there is one at a time; [`Self::end_offload`] ends it.
    pub(crate) fn start_offload(&mut self) -> Result<Terms, EngineError> {
        if let PolicyInForce::Unknown(version) = self.policy() {
            return Err(EngineError::UnknownPolicy(version));
        }
        if self.paused {
            return Err(EngineError::Paused);
        }
        if self.offloading.is_some() {
            return Err(EngineError::Offloading);
        }
        self.offloading = Some(Offloading::default());
        Ok(Terms {
            replicas: self.policy().replicas().max(1),
            keeps_history: self.keeps_history(),
        })
    }

    /// Gives up those of the packs that are live and durable here, so that nobody relies on this device from now on. Returns them.
    pub(crate) fn give_up(&mut self, packs: &[PackId]) -> Result<Vec<PackId>, EngineError> {
        // Who waited for one of them before it came doesn't take it back later.
        self.take_back_needed();
        let begun = self.store.begin_offload(packs)?;
        self.sync.packs_offloaded(&begun);
        Ok(begun)
    }

    /// The connected members that may keep packs for others. Whoever may not write shall not be able to take content away by saying
    /// that it holds it.
    pub(super) fn keepers(&self) -> BTreeMap<PeerKey, MemberId> {
        let keeps = |member: &MemberId| {
            matches!(
                self.role_of(member),
                Some(Role::Safe | Role::Writer | Role::Owner)
            )
        };
        let own = self.own_member();
        let mut found = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (key, peer) in &self.peers {
            let member = peer.member.filter(|_| peer.dismissed.is_none());
            let member = member.filter(|member| Some(*member) != own && keeps(member));
            if let Some(member) = member
                && seen.insert(peer.device)
            {
                found.insert(*key, member);
            }
        }
        found
    }

    /// Asks every member that says that it holds some of the packs to show it; `samples` are in the packs' order. Returns whom, and
    /// for which of them.
    pub(crate) fn ask_keepers(
        &mut self,
        nonce: Nonce,
        samples: &[Sample],
    ) -> BTreeMap<MemberId, Vec<usize>> {
        let mut asked = BTreeMap::new();
        for (peer, member) in self.keepers() {
            let holds = |index: &usize| {
                let mut holders = self.sync.holders(&samples[*index].pack);
                holders.any(|holder| holder == peer)
            };
            let held: Vec<usize> = (0..samples.len()).filter(holds).collect();
            let Some(known) = self.peers.get_mut(&peer) else {
                continue;
            };
            // Who has not answered before is not asked more.
            if held.is_empty() || known.challenged.is_some() || asked.contains_key(&member) {
                continue;
            }
            known.challenged = Some(nonce);
            let samples = held.iter().map(|index| samples[*index].clone());
            let samples = samples.collect();
            self.sync.challenge(peer, nonce, samples);
            asked.insert(member, held);
        }
        if let Some(offloading) = &mut self.offloading {
            offloading.nonce = Some(nonce);
            offloading.answers.clear();
        }
        asked
    }

    /// The answers that came since the last call, and how many connected members have not answered yet.
    pub(crate) fn take_answers(&mut self) -> (Vec<Answer>, usize) {
        let Some(offloading) = &mut self.offloading else {
            return (Vec::new(), 0);
        };
        let asked =
            |challenged: Option<Nonce>| challenged.is_some() && challenged == offloading.nonce;
        let waiting = self.peers.values();
        let waiting = waiting.filter(|peer| asked(peer.challenged)).count();
        (std::mem::take(&mut offloading.answers), waiting)
    }

    pub(super) fn take_answer(
        &mut self,
        peer: PeerKey,
        nonce: Nonce,
        proofs: Vec<Option<Possession>>,
    ) {
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        if known.challenged.take_if(|asked| *asked == nonce).is_none() {
            return;
        }
        let key = PossessionKey::new(&known.exporter, known.side.other(), &self.id, &nonce);
        if let (Some(member), Some(offloading)) = (known.member, &mut self.offloading)
            && offloading.nonce == Some(nonce)
        {
            offloading.answers.push(Answer {
                member,
                key,
                proofs,
            });
        }
    }

    /// Ends an offload: what was given up and is still here is held again.
    pub(crate) fn end_offload(&mut self, given_up: &[PackId]) -> Result<(), EngineError> {
        self.offloading = None;
        let mut here = Vec::new();
        for pack in given_up {
            if self.store.has_pack(*pack)? {
                here.push(*pack);
            }
        }
        self.take_back(&here).map(drop)
    }

    /// Wants packs again that were offloaded. Returns those of them that are not here.
    pub(crate) fn take_back(&mut self, packs: &[PackId]) -> Result<Vec<PackId>, EngineError> {
        let back = self.store.take_back(packs)?;
        let ids: Vec<PackId> = back.iter().map(|back| back.pack).collect();
        self.sync.packs_taken_back(&ids);
        let absent = back.iter().filter(|back| !back.here);
        Ok(absent.map(|back| back.pack).collect())
    }

    /// Fetches offloaded packs that something here waits for.
    pub(super) fn take_back_needed(&mut self) {
        let needed = self
            .readable
            .as_ref()
            .map(|readable| readable.take_needed());
        let needed = needed.unwrap_or_default();
        if needed.is_empty() {
            return;
        }
        match self.take_back(&needed) {
            Ok(fetched) if fetched.is_empty() => {}
            Ok(fetched) => {
                info!(folder = %self.id, packs = fetched.len(), "fetching offloaded content that is needed");
            }
            Err(error) => warn!(folder = %self.id, %error, "can't fetch offloaded content"),
        }
    }

    /// Reads what a peer wants to see, on a thread of its own.
    pub(super) fn show_possession(&mut self, peer: PeerKey, nonce: Nonce, samples: Vec<Sample>) {
        let Some(known) = self.peers.get(&peer) else {
            return;
        };
        let key = PossessionKey::new(&known.exporter, known.side, &self.id, &nonce);
        let (store, sender) = (self.store.clone(), self.sender.clone());
        let show = move || {
            let shown: Vec<_> = samples
                .iter()
                .filter_map(|sample| match offload::read(&store, sample) {
                    Ok(bytes) => Some((sample.pack, offload::show(&key, sample, &bytes))),
                    Err(error) => {
                        warn!(pack = %sample.pack, %error, "can't show a pack");
                        None
                    }
                })
                .collect();
            let job = move |folder: &mut Folder| {
                folder.sync.possession_ready(peer, nonce, &shown);
            };
            sender.send(Command::Run(Box::new(job)));
        };
        // It is not waited for: what it tells a folder that has closed is for nobody.
        let begun = self.surroundings.spawn("folder-show", Box::new(show));
        if let Err(error) = begun {
            warn!(folder = %self.id, %error, "can't show what is held");
            self.sync.possession_ready(peer, nonce, &[]);
        }
    }
}
