//! A member that speaks the protocol by hand, over a real connection, and says what it likes.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use ouisync_crypto::{
    commit::{Commit, CommitDraft, LiveDigest},
    identity::MemberIdentity,
    invitation::{InvitationLink, InvitationSecret},
    keys::{FolderKeys, PeerAuthKey},
    proof::{ChannelId, Exporter, MemberProof, Side},
    roster::{Roster, secrets::Holder, statement::RosterEntry},
    secret::ReadSecret,
};
use ouisync_model::{
    id::{CommitId, FolderId, Lamport, PackId, Sequence},
    operation::CommitBody,
};
use ouisync_net::{
    address::DeviceAddress,
    bulk::BulkHeader,
    connection::{Closed, Connection},
    control::MAX_CONTROL_MESSAGE,
    endpoint::{Endpoint, NetOptions},
    key::DeviceKey,
};
use ouisync_sync::{
    codec::{self, Blob, Chain, FolderMessage, Message},
    folder::Rights,
    handshake::{Credential, CredentialKind, Handshake, HandshakeOutput},
};
use rand::{SeedableRng, rngs::StdRng};
use tokio::time::timeout;

use crate::device::{DEADLINE, Device};

/// An endpoint of its own on loopback.
pub(super) async fn endpoint() -> Endpoint {
    let options = NetOptions {
        key: DeviceKey::from_bytes(rand::random()),
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        lan: false,
    };
    Endpoint::bind(options).await.unwrap()
}

/// Dials a device.
pub(super) async fn dial(endpoint: &Endpoint, target: &Device) -> Connection {
    let info = target.engine().device();
    let address = DeviceAddress::new(info.device, info.sockets.clone());
    endpoint.connect(&address).await.unwrap()
}

pub(super) struct Attacker {
    endpoint: Endpoint,
    pub(super) folder: FolderId,
    pub(super) identity: MemberIdentity,
    pub(super) roster: Roster,
    pub(super) keys: FolderKeys,
    secret: InvitationSecret,
    joined: bool,
    link: Option<Link>,
    pub(super) rng: StdRng,
    /// What the others' commits are, in the order in which they came.
    pub(super) commits: Vec<Commit>,
}

/// The connection of the moment.
struct Link {
    connection: Connection,
    handshake: Handshake,
    channel: Option<ChannelId>,
    current: bool,
}

impl Attacker {
    /// Joins by the link, as any newcomer does.
    pub(super) async fn enrol(link: &str, target: &Device) -> Self {
        let link = InvitationLink::parse(link).unwrap();
        let mut rng = StdRng::from_rng(&mut rand::rng());
        let mut attacker = Self {
            endpoint: endpoint().await,
            folder: link.folder,
            identity: MemberIdentity::generate(&mut rng),
            roster: Roster::new(link.folder),
            keys: FolderKeys::new(),
            secret: link.secret,
            joined: false,
            link: None,
            rng,
            commits: Vec::new(),
        };
        attacker.connect(target).await;
        attacker
    }

    /// Connects anew and waits for a channel with full rights.
    pub(super) async fn connect(&mut self, target: &Device) {
        self.link = None;
        let connection = dial(&self.endpoint, target).await;
        let exporter = Exporter(connection.exporter());
        let credentials = self.credentials();
        let handshake = Handshake::new(Side::Dialer, exporter, credentials, &mut self.rng);
        self.link = Some(Link {
            connection,
            handshake,
            channel: None,
            current: false,
        });
        self.drain().await;
        while !self.link().current {
            self.next().await.unwrap();
        }
        let proof = MemberProof::new(&self.identity, &exporter, Side::Dialer, &self.folder);
        self.say(FolderMessage::Member { proof }).await;
        self.tell_roster().await;
    }

    /// Gets through the opening until commits may be sent, claiming to have `chains`; keeps the commits that come at once.
    pub(super) async fn open(&mut self, chains: Vec<Chain>) {
        self.say(FolderMessage::Heads { chains }).await;
        self.say(FolderMessage::Accepted { commits: 0 }).await;
        while !matches!(self.next().await.unwrap(), FolderMessage::Accepted { .. }) {}
    }

    /// Takes in commits until there are so many.
    pub(super) async fn fetch_commits(&mut self, count: usize) {
        while self.commits.len() < count {
            self.next().await.unwrap();
        }
    }

    pub(super) async fn say(&mut self, message: FolderMessage) {
        let link = self.link.as_mut().unwrap();
        let channel = link.channel.unwrap();
        let bytes = codec::encode(&Message::Folder { channel, message }).unwrap();
        // Whoever is dropped hears of it when it listens.
        let _ = link.connection.control_sender.send(bytes.slice(4..)).await;
    }

    pub(super) async fn send_commits(&mut self, commits: &[Commit], lacking: Vec<PackId>) {
        let commits = commits
            .iter()
            .map(|commit| Blob(Bytes::copy_from_slice(commit.as_bytes())))
            .collect();
        self.say(FolderMessage::Commits { commits, lacking }).await;
    }

    pub(super) async fn send_frames(&mut self, pack: PackId, first: u32, data: Bytes) {
        let link = self.link.as_mut().unwrap();
        let header = BulkHeader {
            channel: link.channel.unwrap().0,
            pack,
            first_frame: first,
            frames: u32::try_from(data.len() / 65_536).unwrap(),
        };
        let _ = link.connection.bulk_sender.send(header, data).await;
    }

    /// The next message of the folder. What keeps an exchange going, the roster and the counting of commits, is answered.
    pub(super) async fn next(&mut self) -> Result<FolderMessage, Closed> {
        loop {
            let link = self.link.as_mut().unwrap();
            let received = timeout(
                DEADLINE,
                link.connection.control_receiver.recv(MAX_CONTROL_MESSAGE),
            )
            .await
            .expect("an answer or an end");
            let Ok(Some(bytes)) = received else {
                return Err(link.connection.handle.closed().await);
            };
            let message = codec::decode(&bytes).unwrap();
            link.handshake.message(&message).unwrap();
            self.drain().await;
            let Message::Folder { channel, message } = message else {
                continue;
            };
            if self.link().channel == Some(channel) {
                self.heard(&message).await;
                return Ok(message);
            }
        }
    }

    /// Listens until it is dropped; says why.
    pub(super) async fn until_dropped(&mut self) -> Closed {
        loop {
            if let Err(closed) = self.next().await {
                return closed;
            }
        }
    }

    /// Listens for a while; it must not be dropped.
    pub(super) async fn listen(&mut self, time: Duration) {
        let closed = timeout(time, self.until_dropped()).await;
        assert!(closed.is_err(), "dropped: {closed:?}");
    }

    /// A commit with everything right, which the caller may spoil.
    pub(super) fn draft(&self) -> CommitDraft {
        let headers = || self.commits.iter().map(Commit::header);
        let is_parent =
            |commit: &&Commit| headers().all(|header| !header.parents.contains(&commit.id()));
        let heads: Vec<&Commit> = self.commits.iter().filter(is_parent).collect();
        let last = heads.iter().map(|commit| commit.header().lamport).max();
        let own = headers()
            .filter(|header| header.author == self.identity.member())
            .map(|header| header.sequence)
            .max();
        CommitDraft {
            folder: self.folder,
            sequence: Sequence(own.unwrap_or_default().0 + 1),
            lamport: Lamport(last.unwrap_or_default().0 + 1),
            parents: heads.iter().map(|commit| commit.id()).collect(),
            roster: self.roster.heads(),
            epoch: self.roster.state().current_epoch().unwrap().epoch,
            time_hours: 490_000,
            added: Vec::new(),
            released: Vec::new(),
            forgotten: Vec::new(),
            live: LiveDigest::default(),
            checkpoint: None,
        }
    }

    pub(super) fn sign(&mut self, draft: CommitDraft, body: &CommitBody) -> Commit {
        // A safe has no secret to seal with: any will do, as nobody gets to opening it.
        let any = ReadSecret::generate(&mut self.rng);
        let secret = self.keys.read_secret(&draft.epoch).unwrap_or(&any);
        Commit::create(draft, body, secret, &self.identity, &mut self.rng).unwrap()
    }

    /// Claims to have a commit.
    pub(super) fn chain(&self, sequence: u64, head: CommitId) -> Chain {
        Chain {
            author: self.identity.member(),
            sequence: Sequence(sequence),
            head,
        }
    }

    fn link(&self) -> &Link {
        self.link.as_ref().unwrap()
    }

    fn credentials(&self) -> Vec<Credential> {
        let current = self.roster.state().current_epoch();
        let epochs = self.keys.epochs().map(|(epoch, keys)| Credential {
            folder: self.folder,
            kind: CredentialKind::Epoch {
                generation: keys.generation,
                epoch: *epoch,
                current: current.is_some_and(|current| current.epoch == *epoch),
            },
            key: keys.secret.store_secret().peer_auth_key(),
        });
        let invitation = self.secret.invitation();
        epochs
            .chain((!self.joined).then(|| Credential {
                folder: self.folder,
                kind: CredentialKind::Invitation(invitation),
                key: PeerAuthKey::of_invitation(&invitation),
            }))
            .collect()
    }

    async fn drain(&mut self) {
        while let Some(output) = self.link.as_mut().unwrap().handshake.poll_output() {
            match output {
                HandshakeOutput::Send(message) => {
                    let bytes = codec::encode(&message).unwrap();
                    let link = self.link.as_mut().unwrap();
                    let _ = link.connection.control_sender.send(bytes.slice(4..)).await;
                }
                HandshakeOutput::Opened(opened) => {
                    let link = self.link.as_mut().unwrap();
                    link.channel = Some(opened.channel);
                    link.current = opened.rights == Rights::Current;
                    self.tell_roster().await;
                }
                _ => {}
            }
        }
    }

    async fn tell_roster(&mut self) {
        let heads = self.roster.heads();
        self.say(FolderMessage::Roster { heads }).await;
    }

    async fn heard(&mut self, message: &FolderMessage) {
        match message {
            FolderMessage::Roster { heads }
                if heads.iter().any(|head| !self.roster.contains(head)) =>
            {
                let have = self.roster.heads();
                self.say(FolderMessage::RosterWant { have }).await;
            }
            FolderMessage::RosterEntries { entries, .. } => {
                for Blob(bytes) in entries {
                    let entry = RosterEntry::verified(bytes.to_vec()).unwrap();
                    self.roster.add(entry).unwrap();
                }
                if !std::mem::replace(&mut self.joined, true) {
                    self.join().await;
                }
                self.tell_roster().await;
            }
            FolderMessage::Commits { commits, .. } => {
                for Blob(bytes) in commits {
                    let commit = Commit::verified(bytes.to_vec()).unwrap();
                    self.commits.push(commit);
                }
                let commits = u32::try_from(commits.len()).unwrap();
                self.say(FolderMessage::Accepted { commits }).await;
            }
            _ => {}
        }
    }

    async fn join(&mut self) {
        let entry = self.roster.join(&self.identity, &self.secret, "mallory");
        let entry = entry.unwrap();
        let bytes = Bytes::copy_from_slice(entry.as_bytes());
        self.roster.add(entry).unwrap();
        self.say(FolderMessage::RosterEntries {
            entries: vec![Blob(bytes)],
            more: false,
        })
        .await;
        let holders = [
            Holder::Member(&self.identity),
            Holder::Invitation(&self.secret),
        ];
        assert!(self.roster.unseal_epochs(&holders, &mut self.keys));
        let credentials = self.credentials();
        let handshake = &mut self.link.as_mut().unwrap().handshake;
        handshake.credentials_changed(credentials, &mut self.rng);
        self.drain().await;
    }
}
