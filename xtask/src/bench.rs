//! `cargo xtask bench`: this program, rsync and syncthing side by side on loopback.
//!
//! Every run begins with new homes. The clock starts when the files appear in the source directory (moved there by one
//! rename, or one byte overwritten) and stops when the destination is seen complete; then both trees are compared byte
//! for byte. The bench runs in network namespaces of its own, so that its counters see nothing else.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;

use self::{measure::Usage, workload::Plan};

pub(crate) mod bounds;
mod http;
mod isolation;
mod measure;
mod ouisync;
mod process;
mod rsync;
pub(crate) mod soak;
mod syncthing;
mod tree;
mod workload;

#[derive(Args)]
pub(crate) struct Options {
    /// Print one JSON list on standard output instead of a table
    #[arg(long)]
    json: bool,
    /// Workloads to run
    #[arg(long, value_delimiter = ',', default_value = "a,b,c,d")]
    only: Vec<Workload>,
    /// Systems to run
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "ouisync,ouisync-safe,rsync,rsync-fsync,syncthing"
    )]
    systems: Vec<SystemName>,
    /// Runs, of which the medians are shown
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Size of the large file in MiB
    #[arg(long, default_value_t = 1024)]
    size_mib: u64,
    /// Number of small files
    #[arg(long, default_value_t = 10_000)]
    files: u32,
    /// Saves timed for the latency
    #[arg(long, default_value_t = 15)]
    saves: u32,
    /// Where homes and files go; wants four times the large file's size
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Bench this program instead of building the release binary
    #[arg(long)]
    binary: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Workload {
    /// One large random file
    A,
    /// Many files of 4 KiB
    B,
    /// One changed byte in the large file
    C,
    /// Latency of saving a small file
    D,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum SystemName {
    Ouisync,
    OuisyncSafe,
    Rsync,
    /// rsync that makes every file durable, as this program does
    RsyncFsync,
    Syncthing,
}

/// Two replicas of a directory, connected and idle, that a workload is tried on.
trait System {
    /// Where changes are made.
    fn source(&self) -> &Path;
    /// Where they must appear.
    fn destination(&self) -> &Path;
    /// The long-lived processes; their descendants count too.
    fn processes(&self) -> Vec<u32>;
    /// What the destination (with a safe: the safe) keeps on disk.
    fn stored(&self) -> Vec<PathBuf>;
    /// Transfers once and returns, for a system that does not watch.
    fn push(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
    /// Bytes that its processes have sent so far.
    fn sent_bytes(&self) -> anyhow::Result<u64> {
        isolation::loopback_bytes()
    }
    /// Ends the processes.
    fn stop(&mut self);
}

/// One line of the result.
#[derive(Clone, Debug, Serialize)]
struct Row {
    workload: Workload,
    system: SystemName,
    /// Seconds; for `d` the median latency.
    wall_s: f64,
    /// User and system seconds of all processes of the system; for `d` of all saves together.
    cpu_s: f64,
    /// Greatest peak of resident memory among the processes, MiB.
    rss_mib: f64,
    sent_bytes: u64,
    stored_bytes: u64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if options.runs == 0 || options.saves == 0 {
        bail!("at least one run and one save");
    }
    let ours = [SystemName::Ouisync, SystemName::OuisyncSafe];
    let binary = if options.systems.iter().any(|system| ours.contains(system)) {
        Some(ouisync::binary(options.binary.as_deref())?)
    } else {
        None
    };
    if isolation::enter()? {
        return Ok(());
    }
    let base = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let plan = Plan {
        size: options.size_mib << 20,
        files: options.files,
        saves: options.saves,
    };
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for &system in &options.systems {
        let mut all: Vec<Row> = Vec::new();
        for number in 1..=options.runs {
            eprintln!("{system:?}: run {number} of {}", options.runs);
            for session in sessions(&options.only) {
                let rsync = [SystemName::Rsync, SystemName::RsyncFsync];
                if session == [Workload::D] && rsync.contains(&system) {
                    continue; // It does not watch, so there is no latency.
                }
                let directory = tempfile::Builder::new()
                    .prefix("ouisync-bench-")
                    .tempdir_in(&base)?;
                match run_session(system, &session, &plan, directory.path(), binary.as_deref()) {
                    Ok(rows) => all.extend(rows),
                    Err(error) => {
                        eprintln!("{system:?}: FAILED: {error:#}");
                        failures.push(format!("{system:?} {session:?}"));
                        if let Ok(kept) = std::env::var("OUISYNC_BENCH_KEEP")
                            && kept == "1"
                        {
                            eprintln!("kept: {}", directory.keep().display());
                        }
                    }
                }
            }
        }
        for workload in &options.only {
            rows.extend(medians(all.iter().filter(|row| row.workload == *workload)));
        }
    }
    rows.sort_by_key(|row| row.workload);
    let mut output = std::io::stdout().lock();
    if options.json {
        serde_json::to_writer_pretty(&mut output, &rows)?;
        writeln!(output)?;
    } else {
        table(&mut output, &rows)?;
    }
    if !failures.is_empty() {
        bail!("failed: {}", failures.join(", "));
    }
    Ok(())
}

/// Workloads that share homes: `c` changes the file of `a`.
fn sessions(only: &[Workload]) -> Vec<Vec<Workload>> {
    let mut sessions = Vec::new();
    if only.contains(&Workload::C) {
        sessions.push(vec![Workload::A, Workload::C]);
    } else if only.contains(&Workload::A) {
        sessions.push(vec![Workload::A]);
    }
    for workload in [Workload::B, Workload::D] {
        if only.contains(&workload) {
            sessions.push(vec![workload]);
        }
    }
    sessions
}

fn run_session(
    name: SystemName,
    session: &[Workload],
    plan: &Plan,
    directory: &Path,
    binary: Option<&Path>,
) -> anyhow::Result<Vec<Row>> {
    let mut system: Box<dyn System> = match (name, binary) {
        (SystemName::Rsync, _) => Box::new(rsync::Rsync::start(directory, false)?),
        (SystemName::RsyncFsync, _) => Box::new(rsync::Rsync::start(directory, true)?),
        (SystemName::Syncthing, _) => Box::new(syncthing::Syncthing::start(directory)?),
        (SystemName::Ouisync, Some(binary)) => Box::new(ouisync::Direct::start(directory, binary)?),
        (SystemName::OuisyncSafe, Some(binary)) => {
            Box::new(ouisync::ThroughSafe::start(directory, binary)?)
        }
        _ => bail!("no binary"),
    };
    let result = (|| {
        let mut rows = Vec::new();
        for &workload in session {
            rows.push(run_workload(name, workload, plan, directory, &mut *system)?);
        }
        Ok(rows)
    })();
    system.stop();
    result
}

fn run_workload(
    name: SystemName,
    workload: Workload,
    plan: &Plan,
    directory: &Path,
    system: &mut dyn System,
) -> anyhow::Result<Row> {
    let prepared = workload::prepare(workload, plan, directory)?;
    let processes = system.processes();
    let before = Usage::now(&processes)?;
    measure::reset_peaks(&processes);
    let sent = system.sent_bytes()?;
    let start = Instant::now();
    let wall_s = prepared
        .perform(system, start)
        .with_context(|| format!("workload {workload:?}"))?;
    let after = Usage::now(&processes)?;
    let row = Row {
        workload,
        system: name,
        wall_s,
        cpu_s: after.cpu_s - before.cpu_s,
        rss_mib: after.peak_mib,
        sent_bytes: system.sent_bytes()? - sent,
        stored_bytes: system
            .stored()
            .iter()
            .map(|path| tree::disk_use(path))
            .sum(),
    };
    eprintln!(
        "  {workload:?}: {:.3} s, {:.2} CPU-s, {:.0} MiB, {:.1} MB sent, {:.1} MB stored",
        row.wall_s,
        row.cpu_s,
        row.rss_mib,
        row.sent_bytes as f64 / 1e6,
        row.stored_bytes as f64 / 1e6
    );
    Ok(row)
}

fn medians<'a>(rows: impl Iterator<Item = &'a Row>) -> Option<Row> {
    let rows: Vec<&Row> = rows.collect();
    let first = *rows.first()?;
    let number = |get: fn(&Row) -> f64| median(rows.iter().map(|row| get(row)).collect());
    Some(Row {
        workload: first.workload,
        system: first.system,
        wall_s: number(|row| row.wall_s),
        cpu_s: number(|row| row.cpu_s),
        rss_mib: number(|row| row.rss_mib),
        sent_bytes: number(|row| row.sent_bytes as f64) as u64,
        stored_bytes: number(|row| row.stored_bytes as f64) as u64,
    })
}

/// The middle value; of an even number, the lower middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

fn table(output: &mut impl Write, rows: &[Row]) -> anyhow::Result<()> {
    writeln!(
        output,
        "| workload | system | wall s | CPU s | RSS MiB | sent MB | stored MB |"
    )?;
    writeln!(output, "|---|---|---|---|---|---|---|")?;
    for row in rows {
        let system = serde_json::to_value(row.system)?;
        let system = system.as_str().unwrap_or_default();
        let workload = serde_json::to_value(row.workload)?;
        let workload = workload.as_str().unwrap_or_default();
        writeln!(
            output,
            "| {workload} | {system} | {:.3} | {:.2} | {:.0} | {:.1} | {:.1} |",
            row.wall_s,
            row.cpu_s,
            row.rss_mib,
            row.sent_bytes as f64 / 1e6,
            row.stored_bytes as f64 / 1e6
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changed_byte_comes_with_its_file() {
        assert_eq!(sessions(&[Workload::C]), [vec![Workload::A, Workload::C]]);
        assert_eq!(
            sessions(&[Workload::D, Workload::A]),
            [vec![Workload::A], vec![Workload::D]]
        );
    }

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0]), 4.0);
        assert_eq!(median(vec![2.0, 1.0]), 1.0);
    }
}
