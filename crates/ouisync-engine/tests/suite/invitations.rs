//! Invitations that can be used, and those that can't.

use std::{
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use ouisync_engine::{
    engine::InvitationOptions,
    error::{EngineError, ErrorKind},
    housekeeping::Housekeeping,
    status::{FolderState, Role},
};

use crate::device::{DEADLINE, Device, eventually, quick};

async fn refused(device: &Device, link: &str, word: &str) {
    let error = device
        .engine()
        .join(link, None, DEADLINE)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, EngineError::Invitation(why) if why.contains(word)),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(device.engine().folders().is_empty(), "nothing of it stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_used_up() {
    let (alice, bob, carol) = (
        Device::start("alice").await,
        Device::start("bob").await,
        Device::start("carol").await,
    );
    let folder = alice.create().await;
    let link = alice.invite(folder, Role::Writer).await;
    bob.join(&link).await;
    assert_eq!(
        alice.engine().members(folder).await.unwrap().len(),
        2,
        "who joined is known where it joined"
    );
    refused(&carol, &link, "used").await;
    let error = bob.engine().join(&link, None, DEADLINE).await.unwrap_err();
    assert!(matches!(error, EngineError::AlreadyMember(_)), "{error}");
    let options = InvitationOptions {
        role: Role::Reader,
        uses: 2,
        expires: None,
    };
    let twice = alice.engine().invite(folder, options).await.unwrap().link;
    carol.join(&twice).await;
    let dave = Device::start("dave").await;
    dave.join(&twice).await;
    assert_eq!(alice.engine().members(folder).await.unwrap().len(), 4);
    refused(&Device::start("eve").await, &twice, "used").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_revoked() {
    let (alice, bob) = (Device::start("alice").await, Device::start("bob").await);
    let folder = alice.create().await;
    let link = alice.invite(folder, Role::Writer).await;
    alice
        .engine()
        .revoke_invitation(folder, &link)
        .await
        .unwrap();
    refused(&bob, &link, "revoked").await;
    let error = bob
        .engine()
        .join("ouisync://join/v1#nonsense", None, DEADLINE)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_expires() {
    let now = Arc::new(AtomicU64::new(1_000_000));
    let clock = now.clone();
    let housekeeping = Housekeeping {
        clock: Arc::new(move || clock.load(Ordering::Relaxed)),
        ..quick()
    };
    let alice = Device::with("alice", housekeeping).await;
    // The joiner's clock says otherwise; the member's counts.
    let early = Housekeeping {
        clock: Arc::new(|| 1_000_000),
        ..quick()
    };
    let bob = Device::with("bob", early).await;
    let folder = alice.create().await;
    let options = InvitationOptions {
        role: Role::Writer,
        uses: 1,
        expires: Some(Duration::from_secs(100)),
    };
    let link = alice.engine().invite(folder, options).await.unwrap().link;
    now.fetch_add(100, Ordering::Relaxed);
    refused(&bob, &link, "expired").await;
    assert_eq!(alice.engine().members(folder).await.unwrap().len(), 1);
}

/// Two devices use the one invitation at two members that don't see each other.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_race_one_wins_everywhere() {
    let (mut alice, mut bob) = (Device::start("alice").await, Device::start("bob").await);
    let (mut carol, dave) = (Device::start("carol").await, Device::start("dave").await);
    let folder = alice.create().await;
    bob.join(&alice.invite(folder, Role::Owner).await).await;
    bob.wait(folder).await;
    alice.meet(&bob).await;
    bob.meet(&alice).await;
    let link = alice.invite(folder, Role::Writer).await;
    alice.wait(folder).await;
    bob.wait(folder).await;
    bob.stop().await;
    carol.join(&link).await;
    carol.wait(folder).await;
    // She would tell Bob.
    carol.stop().await;
    alice.stop().await;
    bob.go_on().await;
    dave.meet(&bob).await;
    dave.join(&link).await;
    eventually("bob lets dave in", async || {
        bob.engine().members(folder).await.unwrap().len() == 3
    })
    .await;
    alice.go_on().await;
    carol.go_on().await;
    alice.meet(&bob).await;

    let mut seen = Vec::new();
    eventually("both agree", async || {
        seen.clear();
        for device in [&alice, &bob] {
            let members = device.engine().members(folder).await.unwrap();
            seen.push(
                members
                    .iter()
                    .map(|member| member.member)
                    .collect::<std::collections::BTreeSet<_>>(),
            );
        }
        seen[0] == seen[1] && seen[0].len() == 3
    })
    .await;
    let (winner, loser) = {
        let members = alice.engine().members(folder).await.unwrap();
        let name = members
            .iter()
            .find(|member| member.role == Role::Writer)
            .unwrap()
            .name
            .clone()
            .unwrap();
        if name == "carol" {
            (&carol, &dave)
        } else {
            (&dave, &carol)
        }
    };
    for other in [&alice, &bob] {
        winner.meet(other).await;
        loser.meet(other).await;
    }
    winner.write(folder, "of the winner", b"hello");
    alice.sees(folder, "of the winner", b"hello").await;
    bob.sees(folder, "of the winner", b"hello").await;
    loser
        .becomes(folder, "told that it lost", |status| {
            status.state == FolderState::Error
                && status
                    .problems
                    .iter()
                    .any(|problem| problem.message.contains("another device"))
        })
        .await;
    let error = loser.view(folder).write("of the loser", b"no").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}
