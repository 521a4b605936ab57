//! What happens in the demo, in order. Every wait has a deadline.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use ouisync_api::{
    client::Client,
    data::{CreateRequest, FolderState, InviteRequest, JoinRequest, Role},
    error::ErrorBody,
};

use super::{
    blind::{self, Disk, Needles},
    edits,
    narrator::Narrator,
    sample,
    stage::{Player, Stage},
    tree,
};
use crate::{
    context::{failure, refused, usage},
    output::size,
};

/// The folder's name, which the Pi must not learn either.
const FOLDER: &str = "Alice's papers";
/// Time for a step with little data.
const STEP_LIMIT: Duration = Duration::from_secs(120);
/// Slowest transfer that is waited for, in bytes a second.
const SLOWEST: u64 = 2_000_000;
/// Differences that are shown.
const SHOWN: usize = 5;

fn disk_failed(error: io::Error) -> ErrorBody {
    failure(format!("a file of the demo can't be used: {error}"))
}

/// Runs blocking work elsewhere, so that Ctrl-C is heard.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ErrorBody> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| failure(error.to_string()))?
        .map_err(disk_failed)
}

/// Plays everything; gives what the Pi's disk shows at the end.
pub(super) async fn tell(
    stage: &mut Stage,
    narrator: &mut Narrator,
    path: Option<&Path>,
) -> Result<Disk, ErrorBody> {
    narrator.say(&format!(
        "Three devices on this machine, in {}.",
        stage.path().display()
    ));
    let limit = prepare(stage, narrator, path).await?;

    narrator.chapter("Alice, her Pi and Bob are switched on");
    let alice = stage.alice.start().await?;
    let pi = stage.pi.start().await?;
    let bob = stage.bob.start().await?;
    narrator.fact("Three 'ouisync serve' processes answer; each listens on loopback only.");

    let mut disk = to_the_pi(stage, narrator, (&alice, &pi), limit).await?;
    through_the_pi(stage, narrator, (&alice, &pi, &bob), limit).await?;
    let alice = apart(stage, narrator, (&pi, &bob), limit).await?;

    narrator.chapter("Every stored byte is checked");
    for (name, client) in [("Alice", &alice), ("the Pi", &pi), ("Bob", &bob)] {
        let checking = client.verify(None).await.map_err(refused)?;
        let outcome = within(limit, "the check", checking.outcome(|_, _| {}))
            .await?
            .map_err(refused)?;
        narrator.check(
            outcome.ok,
            format!(
                "{name}: packs checked: {}, {}: all sound",
                outcome.packs,
                size(outcome.bytes)
            ),
        );
        outcome
            .problems
            .iter()
            .take(SHOWN)
            .for_each(|problem| narrator.fact(problem));
    }
    disk = look_at_disk(
        stage,
        narrator,
        "After all this the Pi still can't read anything",
    )
    .await
    .unwrap_or(disk);
    for (name, player) in [
        ("Alice", &mut stage.alice),
        ("The Pi", &mut stage.pi),
        ("Bob", &mut stage.bob),
    ] {
        let clean = player.stop().await;
        narrator.check(clean, format!("{name} ended cleanly"));
    }
    let verdict = if narrator.all_held() {
        "all held"
    } else {
        "NOT all held"
    };
    narrator.say(&format!("\n{} checks: {verdict}.", narrator.count()));
    Ok(disk)
}

/// Puts files into Alice's directory; gives the time that a step with all of them may take.
async fn prepare(
    stage: &Stage,
    narrator: &mut Narrator,
    path: Option<&Path>,
) -> Result<Duration, ErrorBody> {
    narrator.chapter("Alice has some files");
    let directory = stage.alice.directory.clone();
    if let Some(path) = path {
        if !path.is_dir() {
            return Err(usage(
                format!("{} is not a directory", path.display()),
                "Give a directory with --path.",
            ));
        }
        let (from, to) = (path.to_owned(), directory.clone());
        let left_out = blocking(move || sample::copy(&from, &to)).await?;
        narrator.fact(&format!(
            "A copy of {} (the original is not touched).",
            path.display()
        ));
        left_out
            .iter()
            .take(SHOWN)
            .for_each(|reason| narrator.fact(&format!("left out: {reason}")));
    }
    let own = directory.clone();
    blocking(move || sample::make(&own)).await?;
    let tree = blocking(move || tree::read(&directory)).await?;
    let (files, bytes) = tree::measure(&tree);
    narrator.fact(&format!(
        "{files} files, {}, in {} entries: text, pictures, a script, a link, an empty directory, names in several scripts.",
        size(bytes),
        tree.len()
    ));
    Ok(STEP_LIMIT + Duration::from_secs(bytes / SLOWEST))
}

/// Alice's files become ciphertext on the Pi.
async fn to_the_pi(
    stage: &Stage,
    narrator: &mut Narrator,
    (alice, pi): (&Client, &Client),
    limit: Duration,
) -> Result<Disk, ErrorBody> {
    narrator.chapter(
        "Alice makes a folder of them and invites her Pi as a safe: it stores, but can't read",
    );
    let path = stage.alice.directory.to_string_lossy().into_owned();
    alice
        .create(&CreateRequest {
            name: FOLDER.to_owned(),
            path: Some(path),
        })
        .await
        .map_err(refused)?;
    let link = invite(alice, Role::Safe).await?;
    let started = Instant::now();
    let joined = pi
        .join(&join(link, None, Some("kept for Alice")))
        .await
        .map_err(refused)?;
    narrator.check(
        joined.role == Some(Role::Safe),
        "the Pi joined by the link, as a safe",
    );
    transfer(
        narrator,
        "Alice → the Pi",
        alice,
        FOLDER,
        (pi, &joined.folder),
        limit,
    )
    .await?;
    narrator.fact(&format!(
        "Everything reached the Pi after {:.1} s.",
        started.elapsed().as_secs_f64()
    ));
    look_at_disk(stage, narrator, "What the Pi's disk shows of it").await
}

/// Bob gets everything while Alice is off.
async fn through_the_pi(
    stage: &mut Stage,
    narrator: &mut Narrator,
    (alice, pi, bob): (&Client, &Client, &Client),
    limit: Duration,
) -> Result<(), ErrorBody> {
    narrator.chapter(
        "Alice writes an invitation for Bob and is switched off; Bob joins through the Pi",
    );
    let link = invite(alice, Role::Writer).await?;
    alice.wait(FOLDER, Some(limit)).await.map_err(refused)?;
    let clean = stage.alice.stop().await;
    narrator.check(clean, "Alice's process ended cleanly");
    let address = pi
        .device()
        .await
        .map_err(refused)?
        .addresses
        .into_iter()
        .next();
    let address = address.ok_or_else(|| failure("the Pi has no address"))?;
    bob.connect(&address).await.map_err(refused)?;
    let started = Instant::now();
    let path = stage.bob.directory.to_string_lossy().into_owned();
    let joined = bob
        .join(&join(link, Some(path), None))
        .await
        .map_err(refused)?;
    narrator.check(
        joined.role == Some(Role::Writer),
        "Bob was let in by the Pi, which can't read the folder's name itself",
    );
    transfer(
        narrator,
        "the Pi → Bob",
        bob,
        &joined.folder,
        (bob, &joined.folder),
        limit,
    )
    .await?;
    agree(narrator, stage, &[(bob, &joined.folder)], limit).await?;
    narrator.fact(&format!(
        "Bob has everything after {:.1} s, and never met Alice.",
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Both change things while apart, and meet; gives the client of Alice's new process.
async fn apart(
    stage: &mut Stage,
    narrator: &mut Narrator,
    (pi, bob): (&Client, &Client),
    limit: Duration,
) -> Result<Client, ErrorBody> {
    narrator.chapter("Both work on the files while they are apart");
    let (alice_directory, bob_directory) =
        (stage.alice.directory.clone(), stage.bob.directory.clone());
    let alice_did = blocking(move || edits::by_alice(&alice_directory)).await?;
    let bob_did = blocking(move || edits::by_bob(&bob_directory)).await?;
    narrator.fact(&format!("{alice_did}."));
    narrator.fact(&format!("{bob_did}."));
    let folder = only_folder(bob).await?;
    bob.wait(&folder, Some(limit)).await.map_err(refused)?;
    narrator.chapter("Alice is switched on again: they meet");
    let alice = stage.alice.start().await?;
    let address = pi
        .device()
        .await
        .map_err(refused)?
        .addresses
        .into_iter()
        .next();
    let address = address.ok_or_else(|| failure("the Pi has no address"))?;
    alice.connect(&address).await.map_err(refused)?;
    agree(narrator, stage, &[(&alice, FOLDER), (bob, &folder)], limit).await?;
    for (name, player) in [("Alice", &stage.alice), ("Bob", &stage.bob)] {
        let directory = player.directory.clone();
        let claims = blocking(move || edits::claims(&directory)).await?;
        for (held, what) in claims {
            narrator.check(held, format!("with {name}: {what}"));
        }
    }
    let status = alice.status(FOLDER).await.map_err(refused)?;
    narrator.check(status.conflicts > 0, "'ouisync status' shows the conflict");
    narrator.check(
        status.state == FolderState::Synced,
        format!("'ouisync status' says: {}", status.state),
    );
    Ok(alice)
}

async fn invite(client: &Client, role: Role) -> Result<String, ErrorBody> {
    let request = InviteRequest {
        role,
        uses: 1,
        expires_seconds: Some(3600),
    };
    Ok(client.invite(FOLDER, &request).await.map_err(refused)?.link)
}

fn join(link: String, path: Option<String>, name: Option<&str>) -> JoinRequest {
    JoinRequest {
        link,
        path,
        name: name.map(str::to_owned),
        timeout_seconds: Some(STEP_LIMIT.as_secs()),
    }
}

async fn only_folder(client: &Client) -> Result<String, ErrorBody> {
    let folders = client.folders().await.map_err(refused)?;
    folders
        .into_iter()
        .next()
        .map(|folder| folder.folder)
        .ok_or_else(|| failure("the folder is gone"))
}

async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = T>,
) -> Result<T, ErrorBody> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| failure(format!("{what} took more than {} s", limit.as_secs())))
}

/// Waits for `waiting`, showing how much `receiver` has.
async fn transfer(
    narrator: &mut Narrator,
    label: &str,
    waiting: &Client,
    folder: &str,
    (receiver, received): (&Client, &str),
    limit: Duration,
) -> Result<(), ErrorBody> {
    let outcome = {
        let mut done = std::pin::pin!(waiting.wait(folder, Some(limit)));
        loop {
            tokio::select! {
                outcome = &mut done => break outcome,
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
            // What can't be asked isn't shown.
            if let Ok(status) = receiver.status(received).await {
                narrator.progress(
                    label,
                    status.stored_bytes,
                    status.stored_bytes + status.missing_bytes,
                );
            }
        }
    };
    narrator.clear();
    outcome.map_err(refused)
}

/// Waits until the devices are in sync and Alice's and Bob's directories are equal, byte for byte.
async fn agree(
    narrator: &mut Narrator,
    stage: &Stage,
    devices: &[(&Client, &str)],
    limit: Duration,
) -> Result<(), ErrorBody> {
    let deadline = Instant::now() + limit;
    let differences = loop {
        for (client, folder) in devices {
            let left = deadline
                .saturating_duration_since(Instant::now())
                .max(Duration::from_secs(1));
            client.wait(folder, Some(left)).await.map_err(refused)?;
        }
        let (a, b) = (stage.alice.directory.clone(), stage.bob.directory.clone());
        let differences = blocking(move || tree::differences(&a, &b)).await?;
        if differences.is_empty() || Instant::now() >= deadline {
            break differences;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let directory = stage.alice.directory.clone();
    let entries = blocking(move || tree::read(&directory)).await?.len();
    narrator.check(
        differences.is_empty(),
        format!("Alice's and Bob's {entries} entries are equal: names, contents, times, execute bits, links"),
    );
    differences
        .iter()
        .take(SHOWN)
        .for_each(|difference| narrator.fact(difference));
    Ok(())
}

/// Counts the Pi's packs and searches its whole home and log for anything readable.
async fn look_at_disk(
    stage: &Stage,
    narrator: &mut Narrator,
    title: &str,
) -> Result<Disk, ErrorBody> {
    narrator.chapter(title);
    let Player { home, log, .. } = &stage.pi;
    let (home, log, directory) = (home.clone(), log.clone(), stage.alice.directory.clone());
    let (disk, needles, searched, found) = blocking(move || {
        let tree = tree::read(&directory)?;
        let mut needles = Needles::default();
        needles.tree(&directory, &tree)?;
        for name in [FOLDER, "Alice", "Bob's", sample::OWN] {
            needles.name(name.as_bytes());
        }
        let (searched, found) = needles.search(&[&home, &log])?;
        Ok((blind::packs(&home)?, needles, searched, found))
    })
    .await?;
    narrator.fact(&format!(
        "{}, {} in all, each of {}, a power of two: neither number nor sizes of the files show.",
        if disk.packs == 1 {
            "1 pack file".to_owned()
        } else {
            format!("{} pack files", disk.packs)
        },
        size(disk.bytes),
        if disk.smallest == disk.largest {
            format!("{} KiB", disk.largest >> 10)
        } else {
            format!("{} to {} KiB", disk.smallest >> 10, disk.largest >> 10)
        }
    ));
    narrator.check(
        found.is_empty(),
        format!(
            "searched {} of the Pi's home and log for {} names and {} samples of contents: found nothing",
            size(searched),
            needles.names,
            needles.samples
        ),
    );
    if needles.too_short > 0 {
        narrator.fact(&format!(
            "({} names are too short to tell from chance.)",
            needles.too_short
        ));
    }
    found
        .iter()
        .take(SHOWN)
        .for_each(|what| narrator.fact(what));
    Ok(disk)
}
