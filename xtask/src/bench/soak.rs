//! `cargo xtask soak`: two devices and a safe under churn for a long time, watched for what grows and ended by a comparison of everything.
//!
//! Files are made, changed, moved and deleted on both devices, whose folder is paused and resumed now and then. With `--kill-every` the
//! processes are killed in turn instead of watched. What is done comes from the seed; when it happens does not.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;

use super::{isolation, measure, ouisync, process, tree};

/// What may come on top between the second and the last third: the memory by chance of what is kept in caches, MiB.
const GROWTH_MIB: u64 = 24;
const GROWTH_DESCRIPTORS: u64 = 8;
const GROWTH_THREADS: u64 = 4;
/// More files are not made in one directory than this.
const CROWD: usize = 200;
/// For the devices to be equal after the last act.
const DEADLINE: Duration = Duration::from_secs(300);
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Where files are: one directory of each device, one of both.
const DIRECTORIES: [[&str; 2]; 2] = [["alice", "both"], ["bob", "both"]];

#[derive(Args)]
pub(crate) struct Options {
    /// For so long
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// What is done
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Kill one of the processes with SIGKILL every so many seconds and start it again; nothing is measured then
    #[arg(long)]
    kill_every: Option<u64>,
    /// Where homes and files go
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Use this program instead of building the release binary
    #[arg(long)]
    binary: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let binary = ouisync::binary(options.binary.as_deref())?;
    if isolation::enter()? {
        return Ok(());
    }
    let directory = tempfile::Builder::new()
        .prefix("ouisync-soak-")
        .tempdir_in(options.dir.clone().unwrap_or_else(std::env::temp_dir))?;
    let mut trio = ouisync::Trio::start(directory.path(), &binary)?;
    let start = Instant::now();
    let end = start + Duration::from_secs(options.minutes * 60);
    let mut churn = Churn::new(options.seed);
    for (device, names) in DIRECTORIES.into_iter().enumerate() {
        for name in names {
            fs::create_dir_all(trio.files(device).join(name))?;
        }
    }
    let mut samples = Vec::new();
    let (mut sampled, mut killed) = (start, start);
    let mut kills = 0;
    while Instant::now() < end {
        let device = churn.below(2) as usize;
        churn.act(trio.files(device), DIRECTORIES[device])?;
        if churn.below(400) == 0 {
            trio.pause(device)?;
        }
        sleep(Duration::from_millis(churn.below(100)));
        if let Some(seconds) = options.kill_every
            && killed.elapsed() > Duration::from_secs(seconds)
        {
            trio.kill(churn.below(3) as usize)?;
            kills += 1;
            killed = Instant::now();
        }
        if sampled.elapsed() > SAMPLE_EVERY {
            sampled = Instant::now();
            samples.push(trio.processes().map(Sample::of));
            if samples.len() % 6 == 1 {
                let now = samples.last().map(|now| now.map(|sample| sample.mib));
                eprintln!(
                    "{:5.1} min: {} acts, {kills} kills, resident {now:?} MiB",
                    start.elapsed().as_secs_f64() / 60.0,
                    churn.acts
                );
            }
        }
    }
    eprintln!("{} acts, {kills} kills; comparing", churn.acts);
    process::until("equal trees", DEADLINE, || {
        trio.settle()?;
        tree::compare(trio.files(0), trio.files(1)).map(Some)
    })?;
    trio.verify()?;
    trio.stop();
    if options.kill_every.is_none() {
        let grown = growth(&samples);
        ensure!(grown.is_empty(), "grown: {}", grown.join("; "));
    }
    eprintln!("held: trees are equal, every device verifies, nothing grew");
    Ok(())
}

/// What a process has at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    mib: u64,
    descriptors: u64,
    threads: u64,
}

impl Sample {
    fn of(process: u32) -> Self {
        let status = |name| measure::status(process, name).unwrap_or(0);
        Self {
            mib: status("RssAnon") / 1024,
            descriptors: measure::descriptors(process) as u64,
            threads: status("Threads"),
        }
    }
}

/// What each process had at most in the last third of the time beyond what it had at most in the second, where that is too much.
fn growth(samples: &[[Sample; 3]]) -> Vec<String> {
    let third = samples.len() / 3;
    let (second, last) = (&samples[third..2 * third], &samples[2 * third..]);
    let mut grown = Vec::new();
    for (index, name) in ["alice", "bob", "safe"].into_iter().enumerate() {
        for (what, limit, value) in [
            (
                "MiB",
                GROWTH_MIB,
                (|sample| sample.mib) as fn(&Sample) -> u64,
            ),
            ("descriptors", GROWTH_DESCRIPTORS, |sample| {
                sample.descriptors
            }),
            ("threads", GROWTH_THREADS, |sample| sample.threads),
        ] {
            let most = |samples: &[[Sample; 3]]| {
                samples
                    .iter()
                    .map(|sample| value(&sample[index]))
                    .max()
                    .unwrap_or(0)
            };
            let (before, after) = (most(second), most(last));
            eprintln!("{name}: {before} {what}, then {after}");
            if after > before + limit {
                grown.push(format!("{name} from {before} to {after} {what}"));
            }
        }
    }
    grown
}

/// What people and programs do to a directory, at random.
struct Churn {
    random: tree::Noise,
    acts: u64,
}

impl Churn {
    fn new(seed: u64) -> Self {
        Self {
            random: tree::Noise::new(seed),
            acts: 0,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.below(limit)
    }

    fn act(&mut self, root: &Path, directories: [&str; 2]) -> anyhow::Result<()> {
        self.acts += 1;
        let directory = root.join(directories[self.below(2) as usize]);
        let mut present: Vec<PathBuf> = tree::files(&directory)?.into_values().collect();
        present.sort();
        let chance = self.below(100);
        if present.is_empty() || (chance < 40 && present.len() < CROWD) {
            let path = directory.join(format!("{}/file {}", self.below(5), self.below(1_000)));
            fs::create_dir_all(path.parent().context("a directory")?)?;
            let length = self.length();
            return self.random.write(&path, length);
        }
        let index = self.below(present.len() as u64) as usize;
        let chosen = &present[index];
        // The other device may take the file away at any moment.
        let gone = |result: std::io::Result<()>| match result {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result,
        };
        match chance {
            0..70 => {
                let length = self.length();
                self.random.write(chosen, length)?;
            }
            70..85 => {
                let to = chosen.with_file_name(format!("moved {}", self.below(1_000)));
                gone(fs::rename(chosen, to))?;
            }
            _ => gone(fs::remove_file(chosen))?,
        }
        Ok(())
    }

    /// Mostly small, now and then some MiB.
    fn length(&mut self) -> u64 {
        let bits = self.below(100);
        let limit = match bits {
            0..80 => 4_000,
            80..98 => 100_000,
            _ => 4_000_000,
        };
        self.below(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_goes_on_growing_is_found() {
        let sample = |mib, descriptors| Sample {
            mib,
            descriptors,
            threads: 9,
        };
        let all = |sample: Sample| [sample; 3];
        let level = [sample(20, 30), sample(90, 40), sample(100, 41)].map(all);
        assert_eq!(growth(&level), Vec::<String>::new());
        let leaks = [sample(20, 30), sample(60, 40), sample(100, 80)].map(all);
        assert_eq!(growth(&leaks).len(), 6);
    }
}
