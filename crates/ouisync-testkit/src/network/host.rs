//! A node's host: does what the state machine wants done, and puts its messages and frames on the links.

use std::time::Duration;

use ouisync_crypto::proof::ChannelId;
use ouisync_sync::{
    codec::{self, Message},
    folder::{Output, PeerKey, Verdict},
};
use rand::RngExt;

use super::{Event, Network};
use crate::facts::checkpoint::Install;

impl Network {
    pub(super) fn perform(&mut self, node: usize, output: Output) {
        match output {
            Output::Send { peer, message } => {
                let size = message.size_hint();
                let message = Message::Folder {
                    channel: ChannelId(0),
                    message,
                };
                let bytes = codec::encode(&message).expect("below the limits");
                if let Some((id, to, done, arrival)) = self.transmit(node, peer, 0, bytes.len()) {
                    self.schedule(
                        done,
                        Event::Sent {
                            connection: id,
                            from: node,
                            bytes: size,
                        },
                    );
                    self.schedule(
                        arrival,
                        Event::Control {
                            connection: id,
                            to,
                            bytes,
                        },
                    );
                }
            }
            Output::Serve {
                peer,
                pack,
                first,
                count,
            } => {
                let Some(data) = self.sync(node).facts().read(&pack, first, count) else {
                    return self.sync_mut(node).serve_failed(peer, pack, first, count);
                };
                if let Some((id, to, done, arrival)) = self.transmit(node, peer, 1, data.len()) {
                    self.schedule(
                        done,
                        Event::Served {
                            connection: id,
                            from: node,
                            count,
                        },
                    );
                    self.schedule(
                        arrival,
                        Event::Bulk {
                            connection: id,
                            to,
                            pack,
                            first,
                            data,
                        },
                    );
                }
            }
            Output::AddRosterEntries { peer, entries } => {
                let sync = self.sync_mut(node);
                let refused = entries
                    .into_iter()
                    .find_map(|entry| sync.facts_mut().accept_entry(entry).err());
                match refused {
                    Some(refused) => sync.roster_refused(peer, refused.to_string()),
                    None => sync.roster_accepted(peer),
                }
            }
            Output::AddCommits { peer, commits } => {
                let sync = self.sync_mut(node);
                let (mut added, mut released, mut refused) = (Vec::new(), Vec::new(), None);
                for bytes in commits {
                    match sync.facts_mut().accept_commit(bytes) {
                        Ok(Some((facts, gone))) => {
                            added.push(facts);
                            released.extend(gone);
                        }
                        Ok(None) => {}
                        Err(reason) => {
                            refused = Some(reason);
                            break;
                        }
                    }
                }
                match refused {
                    Some(reason) => sync.commits_refused(peer, &added, reason.to_string()),
                    None => sync.commits_accepted(peer, &added),
                }
                sync.packs_released(&released);
            }
            Output::JudgeCheckpoint { peer, commit, .. } => {
                let sync = self.sync_mut(node);
                let verdict = match sync.facts().would_install(&commit) {
                    None => Verdict::Known,
                    Some(true) => Verdict::Wanted,
                    Some(false) => Verdict::Refused("not by an owner".to_owned()),
                };
                sync.checkpoint_judged(peer, verdict);
            }
            Output::KeepSkeleton { offset, data } => {
                self.sync_mut(node).facts_mut().keep(offset, &data)
            }
            Output::KeepPast { commit, bytes } => {
                self.sync_mut(node).facts_mut().keep_past(commit, bytes)
            }
            Output::AddCheckpoint { peer, commit } => {
                let sync = self.sync_mut(node);
                match sync.facts_mut().install(commit) {
                    Install::Done => sync.checkpoint_installed(peer),
                    Install::Unusable => sync.checkpoint_unusable(peer),
                    Install::Refused => {
                        sync.checkpoint_refused(peer, "not what it says".to_owned())
                    }
                }
            }
            Output::ProveMember { peer, proof } => {
                self.sync_mut(node).member_proven(peer, proof.member)
            }
            Output::StoreHashes { pack, hashes, .. } => {
                self.sync_mut(node).facts_mut().store_hashes(pack, hashes)
            }
            Output::WriteFrames { pack, first, data } => {
                let sync = self.sync_mut(node);
                sync.facts_mut().write(pack, first, &data);
                sync.frames_written(data.len() as u64);
            }
            Output::FinishPack { pack } => {
                let sync = self.sync_mut(node);
                sync.facts_mut().finish(pack);
                sync.pack_stored(pack);
                let delay = Duration::from_millis(self.rng.random_range(5..200));
                self.schedule(
                    self.now + delay,
                    Event::Durable {
                        node,
                        packs: vec![pack],
                    },
                );
            }
            Output::Disconnect { peer, reason } => {
                let id = self
                    .connections
                    .iter()
                    .find(|(_, one)| one.keys.contains(&peer))
                    .map(|(id, _)| *id);
                if let Some(id) = id {
                    let ends = self.connections[&id].ends;
                    let other = if ends[0] == node { ends[1] } else { ends[0] };
                    self.dropped.push((node, other, reason));
                    self.close(id);
                }
            }
            Output::Prove {
                peer,
                nonce,
                samples,
            } => {
                let delay = Duration::from_millis(self.rng.random_range(0..300));
                self.schedule(
                    self.now + delay,
                    Event::Prove {
                        node,
                        key: peer.0,
                        nonce,
                        samples,
                    },
                );
            }
            Output::Judge {
                peer,
                nonce,
                proofs,
            } => {
                let other = self
                    .connections
                    .values()
                    .find(|one| one.keys.contains(&peer))
                    .map(|one| one.ends[usize::from(one.ends[0] == node)]);
                if let Some(other) = other {
                    self.answers.push((node, other, nonce, proofs));
                }
            }
            Output::Contacts { .. } | Output::StatusChanged => {}
        }
    }

    /// Connection, receiver, when the sender is rid of it, when it arrives.
    fn transmit(
        &mut self,
        node: usize,
        peer: PeerKey,
        stream: usize,
        length: usize,
    ) -> Option<(u64, usize, Duration, Duration)> {
        let (id, connection) = self
            .connections
            .iter_mut()
            .find(|(_, one)| one.keys.contains(&peer))?;
        let direction = connection.ends.iter().position(|end| *end == node)?;
        let to = connection.ends[1 - direction];
        let time = Duration::from_nanos(
            length as u64 * 1_000_000_000 / connection.config.bandwidth.max(1),
        );
        let done = connection.busy[direction][stream].max(self.now) + time;
        connection.busy[direction][stream] = done;
        let jitter = connection.config.jitter.as_nanos() as u64;
        let jitter = Duration::from_nanos(self.rng.random_range(0..=jitter));
        let arrival =
            (done + connection.config.latency + jitter).max(connection.arrived[direction][stream]);
        connection.arrived[direction][stream] = arrival;
        let carried = self.carried.entry((node, to)).or_default();
        *(if stream == 0 {
            &mut carried.control
        } else {
            &mut carried.bulk
        }) += length as u64;
        Some((*id, to, done, arrival))
    }
}
