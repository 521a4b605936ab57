//! Encoding round trips, limits, and hostile bytes.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use bytes::Bytes;
use ouisync_crypto::{
    frame_hash::FrameHash,
    possession::{Nonce, Possession},
    proof::{ChannelId, MAX_TAGS, MemberProof, Tag},
};
use ouisync_model::id::{CommitId, DeviceId, MemberId, PackId, RosterEntryId, Sequence};
use ouisync_sync::codec::{
    Blob, Chain, ClosedReason, CodecError, Contact, Decoder, FolderMessage, MAX_MESSAGE, Message,
    Sample, decode, encode,
};
use proptest::{collection::vec, prelude::*};

fn id() -> impl Strategy<Value = [u8; 32]> {
    any::<[u8; 32]>()
}

fn packs() -> impl Strategy<Value = Vec<PackId>> {
    vec(id().prop_map(PackId::from_bytes), 0..20)
}

fn heads() -> impl Strategy<Value = Vec<RosterEntryId>> {
    vec(id().prop_map(RosterEntryId::from_bytes), 0..8)
}

fn blobs() -> impl Strategy<Value = Vec<Blob>> {
    vec(
        vec(any::<u8>(), 0..300).prop_map(|bytes| Blob(Bytes::from(bytes))),
        0..6,
    )
}

fn folder_message() -> impl Strategy<Value = FolderMessage> {
    let chain = (id(), any::<u64>(), id()).prop_map(|(author, sequence, head)| Chain {
        author: MemberId::from_bytes(author),
        sequence: Sequence(sequence),
        head: CommitId::from_bytes(head),
    });
    let contact = (id(), vec("[0-9.:]{0,30}", 0..4)).prop_map(|(device, addresses)| Contact {
        device: DeviceId::from_bytes(device),
        addresses,
    });
    prop_oneof![
        (id(), id(), id()).prop_map(|(member, low, high)| {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&low);
            signature[32..].copy_from_slice(&high);
            FolderMessage::Member {
                proof: MemberProof {
                    member: MemberId::from_bytes(member),
                    signature,
                },
            }
        }),
        heads().prop_map(|heads| FolderMessage::Roster { heads }),
        heads().prop_map(|have| FolderMessage::RosterWant { have }),
        (blobs(), any::<bool>())
            .prop_map(|(entries, more)| FolderMessage::RosterEntries { entries, more }),
        vec(chain, 0..9).prop_map(|chains| FolderMessage::Heads { chains }),
        (id(), packs(), any::<bool>()).prop_map(|(author, commits, more)| {
            FolderMessage::AuthorCommits {
                author: MemberId::from_bytes(author),
                commits: commits
                    .iter()
                    .map(|id| CommitId::from_bytes(*id.as_bytes()))
                    .collect(),
                more,
            }
        }),
        (blobs(), packs())
            .prop_map(|(commits, lacking)| FolderMessage::Commits { commits, lacking }),
        any::<u32>().prop_map(|commits| FolderMessage::Accepted { commits }),
        packs().prop_map(|lacking| FolderMessage::Inventory { lacking }),
        packs().prop_map(|packs| FolderMessage::Holds { packs }),
        packs().prop_map(|packs| FolderMessage::Received { packs }),
        (id(), any::<u32>(), any::<u32>(), any::<bool>()).prop_map(
            |(pack, first, count, hashes)| {
                FolderMessage::Want {
                    pack: PackId::from_bytes(pack),
                    first,
                    count,
                    hashes,
                }
            }
        ),
        (id(), vec(id().prop_map(FrameHash::from_bytes), 0..256)).prop_map(|(pack, hashes)| {
            FolderMessage::Hashes {
                pack: PackId::from_bytes(pack),
                hashes,
            }
        }),
        (id(), any::<u32>(), any::<u32>()).prop_map(|(pack, first, count)| {
            FolderMessage::Unavailable {
                pack: PackId::from_bytes(pack),
                first,
                count,
            }
        }),
        vec(contact, 0..5).prop_map(|contacts| FolderMessage::Contacts { contacts }),
        (vec(any::<u8>(), 0..300), any::<u64>()).prop_map(|(commit, length)| {
            FolderMessage::Checkpoint {
                commit: Blob(Bytes::from(commit)),
                length,
            }
        }),
        (id(), any::<u64>()).prop_map(|(checkpoint, offset)| FolderMessage::SkeletonWant {
            checkpoint: CommitId::from_bytes(checkpoint),
            offset,
        }),
        (id(), any::<u64>(), vec(any::<u8>(), 0..300)).prop_map(|(checkpoint, offset, data)| {
            FolderMessage::Skeleton {
                checkpoint: CommitId::from_bytes(checkpoint),
                offset,
                data: Blob(Bytes::from(data)),
            }
        }),
        packs().prop_map(|packs| FolderMessage::Offloaded { packs }),
        (id(), vec((id(), vec(any::<u16>(), 0..9)), 0..9)).prop_map(|(nonce, samples)| {
            let sample = |(pack, groups)| Sample {
                pack: PackId::from_bytes(pack),
                groups,
            };
            FolderMessage::Challenge {
                nonce: Nonce(nonce),
                samples: samples.into_iter().map(sample).collect(),
            }
        }),
        (id(), vec(proptest::option::of(id()), 0..9)).prop_map(|(nonce, proofs)| {
            FolderMessage::Possession {
                nonce: Nonce(nonce),
                proofs: proofs
                    .into_iter()
                    .map(|proof| proof.map(Possession))
                    .collect(),
            }
        }),
        (id(), any::<bool>()).prop_map(|(checkpoint, installed)| FolderMessage::Settled {
            checkpoint: CommitId::from_bytes(checkpoint),
            installed,
        }),
        vec(id().prop_map(CommitId::from_bytes), 0..256)
            .prop_map(|commits| FolderMessage::PastWant { commits }),
        (vec(vec(any::<u8>(), 0..300), 0..9), any::<u32>()).prop_map(|(commits, answered)| {
            let commits = commits.into_iter().map(|commit| Blob(Bytes::from(commit)));
            FolderMessage::Past {
                commits: commits.collect(),
                answered,
            }
        }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (any::<u32>(), any::<u64>())
            .prop_map(|(version, features)| Message::Hello { version, features }),
        vec(any::<[u8; 16]>().prop_map(Tag), 0..64).prop_map(|tags| Message::Proofs { tags }),
        (any::<u64>(), folder_message()).prop_map(|(channel, message)| Message::Folder {
            channel: ChannelId(channel),
            message
        }),
        "[0-9.:]{0,40}".prop_map(|address| Message::Observed { address }),
        any::<(u64, bool)>().prop_map(|(channel, spent)| Message::InvitationClosed {
            channel: ChannelId(channel),
            reason: if spent {
                ClosedReason::Spent
            } else {
                ClosedReason::Expired
            },
        }),
    ]
}

proptest! {
    #[test]
    fn messages_survive_any_fragmentation(messages in vec(message(), 1..6), piece in 1_usize..200) {
        let stream: Vec<u8> = messages.iter().flat_map(|message| encode(message).expect("small")).collect();
        let mut decoder = Decoder::new();
        let mut decoded = Vec::new();
        for bytes in stream.chunks(piece) {
            decoder.push(bytes);
            while let Some(message) = decoder.next().expect("valid") {
                decoded.push(message);
            }
        }
        prop_assert_eq!(decoded, messages);
    }

    #[test]
    fn damaged_messages_never_panic(message in message(), place in any::<usize>(), value in any::<u8>(), cut in any::<usize>()) {
        let mut bytes = encode(&message).expect("small")[4..].to_vec();
        let place = place % bytes.len();
        bytes[place] = value;
        let _ = decode(&bytes);
        let _ = decode(&bytes[..cut % bytes.len()]);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..500)) {
        let _ = decode(&bytes);
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        while let Ok(Some(_)) = decoder.next() {}
    }

    #[test]
    fn size_hints_are_near(message in folder_message()) {
        let hint = message.size_hint();
        let length = encode(&Message::Folder { channel: ChannelId(1), message }).expect("small").len();
        prop_assert!(length <= hint + 32, "{} > {}", length, hint);
    }
}

#[test]
fn lengths_are_checked_before_bytes_come() {
    let mut decoder = Decoder::new();
    decoder.push(&u32::MAX.to_le_bytes());
    assert!(matches!(decoder.next(), Err(CodecError::TooLong { .. })));
    let mut decoder = Decoder::new();
    decoder.push(&(MAX_MESSAGE as u32).to_le_bytes());
    assert_eq!(decoder.next(), Ok(None));
}

#[test]
fn lists_above_their_limit_are_refused() {
    let tags = vec![Tag([0; 16]); MAX_TAGS + 1];
    let bytes = encode(&Message::Proofs { tags }).expect("below the message limit");
    assert!(matches!(decode(&bytes[4..]), Err(CodecError::Malformed(_))));
    // A list that claims more elements than there are bytes.
    assert!(decode(&[1, 0xff, 0xff, 0xff, 0x7f]).is_err());
    // Millions of empty commits.
    let mut bytes = vec![2, 1, 6, 0x80, 0x80, 0x80, 1];
    bytes.resize(1 << 20, 0);
    assert!(decode(&bytes).is_err());
}

#[test]
fn trailing_bytes_are_refused() {
    let bytes = encode(&Message::Hello {
        version: 1,
        features: 0,
    })
    .expect("small");
    assert_eq!(&bytes[..], [3, 0, 0, 0, 0, 1, 0]);
    let longer = [&bytes[4..], &[0]].concat();
    assert_eq!(decode(&longer), Err(CodecError::Trailing { count: 1 }));
}
