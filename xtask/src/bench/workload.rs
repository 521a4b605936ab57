//! The workloads: prepare outside the clock, perform, see when the destination is complete.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};

use super::{
    System, Workload, median,
    tree::{self, Noise},
};

/// Longer than this and the run has failed.
const DEADLINE: Duration = Duration::from_secs(300);
/// How often the destination is looked at: cheap, and small beside what is measured.
const POLL: Duration = Duration::from_millis(10);
/// For latency.
const FINE_POLL: Duration = Duration::from_millis(1);

/// Sizes.
pub(super) struct Plan {
    /// Bytes of the large file.
    pub(super) size: u64,
    /// Number of small files.
    pub(super) files: u32,
    /// Saves timed for the latency.
    pub(super) saves: u32,
}

/// Length of a small file in bytes.
const SMALL: u64 = 4096;

/// A workload with its files ready beside the source directory, on the same file system.
pub(super) enum Prepared {
    /// `a`, `b`: to be renamed into the source as `name`; done when `look` says so.
    Appear {
        staged: PathBuf,
        name: &'static str,
        look: Look,
    },
    /// `c`: the byte at `offset` of the large file changes.
    Byte { offset: u64 },
    /// `d`.
    Saves { number: u32 },
}

/// The cheap look at the destination.
#[derive(Clone, Copy)]
pub(super) enum Look {
    /// A file of this many bytes.
    Size(u64),
    /// A directory of this many entries.
    Entries(usize),
}

pub(super) fn prepare(
    workload: Workload,
    plan: &Plan,
    directory: &Path,
) -> anyhow::Result<Prepared> {
    let staged = directory.join("staged");
    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |time| time.as_nanos() as u64);
    let mut noise = Noise::new(seed);
    Ok(match workload {
        Workload::A => {
            noise.write(&staged, plan.size)?;
            Prepared::Appear {
                staged,
                name: "large",
                look: Look::Size(plan.size),
            }
        }
        Workload::B => {
            fs::create_dir(&staged)?;
            for number in 0..plan.files {
                noise.write(&staged.join(format!("{number:06}")), SMALL)?;
            }
            let look = Look::Entries(plan.files as usize);
            Prepared::Appear {
                staged,
                name: "small",
                look,
            }
        }
        Workload::C => Prepared::Byte {
            offset: plan.size / 2 + 12_345,
        },
        Workload::D => Prepared::Saves { number: plan.saves },
    })
}

impl Prepared {
    /// Seconds from `start` until the destination was complete (verified afterwards), or the median latency.
    pub(super) fn perform(self, system: &mut dyn System, start: Instant) -> anyhow::Result<f64> {
        match self {
            Self::Appear { staged, name, look } => {
                fs::rename(&staged, system.source().join(name))?;
                system.push()?;
                let target = system.destination().join(name);
                complete(system, start, || look.done(&target))
            }
            Self::Byte { offset } => {
                let changed = system.source().join("large");
                let file = OpenOptions::new().read(true).write(true).open(&changed)?;
                let mut byte = [0];
                file.read_exact_at(&mut byte, offset)?;
                byte[0] ^= 0xff;
                file.write_all_at(&byte, offset)?;
                drop(file);
                system.push()?;
                let target = system.destination().join("large");
                complete(system, start, || {
                    let mut seen = [0];
                    let file = fs::File::open(&target);
                    file.and_then(|file| file.read_exact_at(&mut seen, offset))
                        .is_ok()
                        && seen == byte
                })
            }
            Self::Saves { number } => saves(system, number),
        }
    }
}

impl Look {
    fn done(self, target: &Path) -> bool {
        match self {
            Self::Size(size) => fs::metadata(target).is_ok_and(|metadata| metadata.len() == size),
            Self::Entries(number) => {
                let visible =
                    |entry: &fs::DirEntry| !entry.file_name().to_string_lossy().starts_with('.');
                let entries = fs::read_dir(target).into_iter().flatten().flatten();
                entries.filter(visible).count() == number
            }
        }
    }
}

/// Waits for the cheap look to succeed, notes the time, and then compares the trees; a difference (a file still being
/// written) means looking again.
fn complete(system: &dyn System, start: Instant, look: impl Fn() -> bool) -> anyhow::Result<f64> {
    loop {
        while !look() {
            if start.elapsed() > DEADLINE {
                bail!("not complete after {DEADLINE:?}");
            }
            sleep(POLL);
        }
        let seconds = start.elapsed().as_secs_f64();
        match tree::compare(system.source(), system.destination()) {
            Ok(()) => return Ok(seconds),
            Err(error) if start.elapsed() > DEADLINE => return Err(error),
            Err(_) => sleep(POLL),
        }
    }
}

/// Saves a note again and again, with pauses between, and times each until the destination shows it.
fn saves(system: &dyn System, number: u32) -> anyhow::Result<f64> {
    let (note, target) = (
        system.source().join("note.txt"),
        system.destination().join("note.txt"),
    );
    let mut latencies = Vec::new();
    for save in 0..=number {
        // Not in step with anybody's timers.
        sleep(Duration::from_millis(1500 + u64::from(save * 137 % 500)));
        let text = format!("save {save}\n").repeat(20);
        let start = Instant::now();
        fs::write(&note, &text)?;
        while fs::read_to_string(&target).ok().as_ref() != Some(&text) {
            if start.elapsed() > DEADLINE / 10 {
                bail!("save {save} has not arrived after {:?}", DEADLINE / 10);
            }
            sleep(FINE_POLL);
        }
        // The first save is of a new file: not what is asked.
        if save > 0 {
            latencies.push(start.elapsed().as_secs_f64());
        }
    }
    tree::compare(system.source(), system.destination()).context("after the saves")?;
    Ok(median(latencies))
}
