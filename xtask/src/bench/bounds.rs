//! `cargo xtask bounds`: what a device may use at most, measured on two devices on loopback.
//!
//! Many small files: resident memory of each. One large file: peak of memory, beside that of a smaller one. Idle: CPU
//! time, descriptors and threads. Trees are compared byte for byte before anything counts.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{System, isolation, measure, ouisync, tree};

/// Owed: less than this many bytes resident a file.
const BYTES_PER_FILE: f64 = 1024.0;
/// Owed: less than this percentage of one core when nothing happens.
const IDLE_PERCENT: f64 = 1.0;
/// What the peak with the large file may be above the peak with the file of 1 GiB: buffers and caches fill by chance.
const PEAK_GROWTH_MIB: f64 = 64.0;
/// Size that the large file is compared with, GiB.
const BASE_GIB: u64 = 1;
const DIRECTORIES: u32 = 1000;
/// Longer than this and a transfer has failed.
const DEADLINE: Duration = Duration::from_secs(1800);
/// Disk for one byte of a file: it and its packs, on both devices.
const COPIES: u64 = 4;

#[derive(Args)]
pub(crate) struct Options {
    /// Print one JSON list on standard output instead of a table
    #[arg(long)]
    json: bool,
    /// What to measure
    #[arg(long, value_delimiter = ',', default_value = "files,idle,large")]
    only: Vec<Part>,
    /// Number of small files
    #[arg(long, default_value_t = 100_000)]
    files: u32,
    /// Size of the large file in GiB; wants four times as much of disk
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..))]
    big_gib: u64,
    /// Seconds over which idle daemons are watched
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    idle_seconds: u64,
    /// Where homes and files go
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Measure this program instead of building the release binary
    #[arg(long)]
    binary: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Memory with many small files
    Files,
    /// Peak of memory with one large file
    Large,
    /// CPU time of daemons that have nothing to do
    Idle,
}

/// One line of the result.
#[derive(Debug, Serialize)]
struct Line {
    measure: String,
    device: &'static str,
    value: f64,
    unit: &'static str,
    /// The value must be below; nothing is promised where there is none.
    limit: Option<f64>,
    held: bool,
}

impl Line {
    fn new(
        measure: impl Into<String>,
        device: &'static str,
        value: f64,
        unit: &'static str,
        limit: Option<f64>,
    ) -> Self {
        Self {
            measure: measure.into(),
            device,
            value,
            unit,
            limit,
            held: limit.is_none_or(|limit| value < limit),
        }
    }
}

const NAMES: [&str; 2] = ["source", "destination"];

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let base = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    if options.only.contains(&Part::Large) {
        check_space(&base, options.big_gib)?;
    }
    let binary = ouisync::binary(options.binary.as_deref())?;
    if isolation::enter()? {
        return Ok(());
    }
    let mut lines = Vec::new();
    if options.only.contains(&Part::Files) || options.only.contains(&Part::Idle) {
        lines.extend(small_files(options, &base, &binary).context("small files and idling")?);
    }
    if options.only.contains(&Part::Large) {
        let small = large_file(BASE_GIB, &base, &binary)?;
        let large = large_file(options.big_gib, &base, &binary)?;
        for ((device, small), large) in NAMES.into_iter().zip(small).zip(large) {
            let size = options.big_gib;
            lines.extend([
                Line::new(format!("peak, {BASE_GIB} GiB"), device, small, "MiB", None),
                Line::new(format!("peak, {size} GiB"), device, large, "MiB", None),
                Line::new(
                    "growth of the peak",
                    device,
                    large - small,
                    "MiB",
                    Some(PEAK_GROWTH_MIB),
                ),
            ]);
        }
    }
    print(options.json, &lines)?;
    let broken = lines.iter().filter(|line| !line.held).count();
    if broken > 0 {
        bail!("{broken} bounds broken");
    }
    Ok(())
}

/// Fails when the large file will not fit.
fn check_space(base: &Path, gib: u64) -> anyhow::Result<()> {
    let output = Command::new("df")
        .args(["--output=avail", "--block-size=1"])
        .arg(base)
        .output()
        .context("df")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let free: u64 = text
        .lines()
        .nth(1)
        .and_then(|line| line.trim().parse().ok())
        .with_context(|| format!("df says nothing of {}", base.display()))?;
    let wanted = ((gib * COPIES) << 30) + (2 << 30);
    eprintln!(
        "{}: {:.1} GB free, {:.1} GB wanted for a file of {gib} GiB",
        base.display(),
        free as f64 / 1e9,
        wanted as f64 / 1e9
    );
    if free < wanted {
        bail!("too little disk: --big-gib takes a smaller size, --dir another disk");
    }
    Ok(())
}

/// A directory for one pair of devices, gone with the value.
fn directory(base: &Path) -> anyhow::Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new()
        .prefix("ouisync-bounds-")
        .tempdir_in(base)?)
}

fn small_files(options: &Options, base: &Path, binary: &Path) -> anyhow::Result<Vec<Line>> {
    let directory = directory(base)?;
    let mut pair = ouisync::Direct::start(directory.path(), binary)?;
    let processes = pair.processes();
    let mut lines = Vec::new();
    quiet(&processes);
    if options.only.contains(&Part::Files) {
        let empty: Vec<Memory> = processes.iter().map(|id| Memory::of(*id)).collect();
        measure::reset_peaks(&processes);
        eprintln!("making {} files", options.files);
        let staged = directory.path().join("staged");
        make_files(&staged, options.files)?;
        let start = Instant::now();
        fs::rename(&staged, pair.source().join("small"))?;
        let target = pair.destination().join("small");
        let wanted = options.files as usize;
        arrive(&pair, start, || {
            let found = tree::files(&target).map_or(0, |files| files.len());
            (found == wanted, format!("{found} files"))
        })?;
        quiet(&processes);
        for ((device, id), empty) in NAMES.into_iter().zip(&processes).zip(empty) {
            let full = Memory::of(*id);
            let each = |full: f64, empty: f64| {
                (full - empty).max(0.0) * f64::from(1 << 20) / f64::from(options.files.max(1))
            };
            let limit = Some(BYTES_PER_FILE);
            lines.extend([
                Line::new("resident, empty", device, empty.resident, "MiB", None),
                Line::new("resident, full", device, full.resident, "MiB", None),
                Line::new("  of it not of files", device, full.own, "MiB", None),
                Line::new("peak", device, measure::peak_mib(*id), "MiB", None),
                Line::new(
                    "resident a file",
                    device,
                    each(full.resident, empty.resident),
                    "B",
                    limit,
                ),
            ]);
        }
    }
    if options.only.contains(&Part::Idle) {
        lines.extend(idle(&processes, options.idle_seconds));
    }
    pair.stop();
    Ok(lines)
}

/// What idle daemons use.
fn idle(processes: &[u32], seconds: u64) -> Vec<Line> {
    eprintln!("watching idle daemons for {seconds} s");
    let before: Vec<f64> = processes.iter().map(|id| measure::cpu_s(*id)).collect();
    let start = Instant::now();
    sleep(Duration::from_secs(seconds));
    let passed = start.elapsed().as_secs_f64();
    let mut lines = Vec::new();
    for ((device, id), before) in NAMES.into_iter().zip(processes).zip(before) {
        let percent = (measure::cpu_s(*id) - before) / passed * 100.0;
        let count = |name| measure::status(*id, name).unwrap_or(0) as f64;
        lines.extend([
            Line::new(
                "idle CPU",
                device,
                percent,
                "% of a core",
                Some(IDLE_PERCENT),
            ),
            Line::new(
                "descriptors",
                device,
                measure::descriptors(*id) as f64,
                "",
                None,
            ),
            Line::new("threads", device, count("Threads"), "", None),
        ]);
    }
    lines
}

/// Peaks of both devices' memory, MiB, while a file of this size goes from one to the other.
fn large_file(gib: u64, base: &Path, binary: &Path) -> anyhow::Result<[f64; 2]> {
    let directory = directory(base)?;
    let mut pair = ouisync::Direct::start(directory.path(), binary)?;
    let processes = pair.processes();
    eprintln!("making a file of {gib} GiB");
    let staged = directory.path().join("staged");
    let size = gib << 30;
    tree::Noise::new(gib).write(&staged, size)?;
    measure::reset_peaks(&processes);
    let start = Instant::now();
    fs::rename(&staged, pair.source().join("large"))?;
    let target = pair.destination().join("large");
    let arrived = arrive(&pair, start, || {
        let done = fs::metadata(&target).is_ok_and(|metadata| metadata.len() == size);
        let stored: u64 = pair.stored().iter().map(|path| tree::disk_use(path)).sum();
        (
            done,
            format!("{:.1} GB at the destination", stored as f64 / 1e9),
        )
    });
    let peaks = [0, 1].map(|index| measure::peak_mib(processes[index]));
    pair.stop();
    arrived.with_context(|| format!("file of {gib} GiB"))?;
    Ok(peaks)
}

/// Waits until the cheap `look` at the destination succeeds and both trees are equal.
fn arrive(
    pair: &ouisync::Direct<'_>,
    start: Instant,
    mut look: impl FnMut() -> (bool, String),
) -> anyhow::Result<()> {
    let processes = pair.processes();
    let mut told = start;
    loop {
        let (done, said) = look();
        if told.elapsed() > Duration::from_secs(5) || done {
            told = Instant::now();
            let resident: Vec<String> = processes
                .iter()
                .map(|id| format!("{:.0}", Memory::of(*id).resident))
                .collect();
            eprintln!(
                "  {:.0} s: {said}, resident {} MiB",
                start.elapsed().as_secs_f64(),
                resident.join(" and ")
            );
        }
        if done {
            match tree::compare(pair.source(), pair.destination()) {
                Ok(()) => {
                    eprintln!("  trees are equal");
                    return Ok(());
                }
                Err(error) if start.elapsed() > DEADLINE => return Err(error),
                Err(_) => {}
            }
        }
        if start.elapsed() > DEADLINE {
            bail!("not complete after {DEADLINE:?}");
        }
        sleep(Duration::from_millis(500));
    }
}

/// Resident memory in MiB.
struct Memory {
    resident: f64,
    /// The part that is no page of a file.
    own: f64,
}

impl Memory {
    fn of(process: u32) -> Self {
        let mib = |name| measure::status(process, name).unwrap_or(0) as f64 / 1024.0;
        Self {
            resident: mib("VmRSS"),
            own: mib("RssAnon"),
        }
    }
}

/// Waits until the processes have had nothing to do for a while; in vain after two minutes, which idling then shows.
fn quiet(processes: &[u32]) {
    let used = || -> f64 { processes.iter().map(|id| measure::cpu_s(*id)).sum() };
    let end = Instant::now() + Duration::from_secs(120);
    let mut calm = 0;
    let mut before = used();
    while calm < 5 && Instant::now() < end {
        sleep(Duration::from_secs(2));
        let now = used();
        calm = if now - before < 0.05 { calm + 1 } else { 0 };
        before = now;
    }
}

/// Incompressible files of 0.1 to 4 KiB, spread over directories.
fn make_files(root: &Path, number: u32) -> anyhow::Result<()> {
    let mut noise = tree::Noise::new(9);
    for directory in 0..DIRECTORIES {
        fs::create_dir_all(root.join(format!("{directory:03}")))?;
    }
    for file in 0..number {
        let path = root.join(format!("{:03}/file {file:06}", file % DIRECTORIES));
        // Steps of a prime that is no divisor of the range: every length comes up.
        noise.write(&path, 100 + u64::from(file) * 2_741 % 3_997)?;
    }
    Ok(())
}

fn print(json: bool, lines: &[Line]) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut output, lines)?;
        writeln!(output)?;
        return Ok(());
    }
    writeln!(output, "| measure | device | value | limit | |")?;
    writeln!(output, "|---|---|---|---|---|")?;
    for line in lines {
        let limit = line
            .limit
            .map(|limit| format!("{limit} {}", line.unit))
            .unwrap_or_default();
        let verdict = match (line.limit, line.held) {
            (None, _) => "",
            (_, true) => "held",
            (_, false) => "BROKEN",
        };
        writeln!(
            output,
            "| {} | {} | {:.1} {} | {limit} | {verdict} |",
            line.measure, line.device, line.value, line.unit
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_at_its_limit_breaks_it() {
        assert!(Line::new("x", "source", 1.0, "B", None).held);
        assert!(Line::new("x", "source", 0.9, "B", Some(1.0)).held);
        assert!(!Line::new("x", "source", 1.0, "B", Some(1.0)).held);
    }

    #[test]
    fn files_are_mixed_and_spread() -> anyhow::Result<()> {
        let directory = directory(&std::env::temp_dir())?;
        let root = directory.path().join("small");
        make_files(&root, 2_000)?;
        let files = tree::files(&root)?;
        assert_eq!(files.len(), 2_000);
        let lengths: Vec<u64> = files
            .values()
            .map(|path| fs::metadata(path).map_or(0, |metadata| metadata.len()))
            .collect();
        assert!(lengths.iter().all(|length| (100..4_097).contains(length)));
        assert!(lengths.iter().any(|length| *length < 300));
        assert!(lengths.iter().any(|length| *length > 3_900));
        assert_eq!(fs::read_dir(&root)?.count(), DIRECTORIES as usize);
        Ok(())
    }
}
