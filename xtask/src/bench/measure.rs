//! What processes used, from `/proc`: CPU time with all descendants, and peaks of memory.

use std::{collections::HashMap, fs};

use anyhow::Context;

/// Clock ticks in a second, as Linux shows them to programs on every architecture in use.
const TICKS: f64 = 100.0;

/// Used up to now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// User and system seconds, ended descendants included once they were waited for.
    pub(super) cpu_s: f64,
    /// The greatest peak of resident memory of a single process, MiB.
    pub(super) peak_mib: f64,
}

struct Stat {
    parent: u32,
    /// Own time in ticks.
    own: u64,
    /// Time of ended children that were waited for, in ticks.
    ended: u64,
}

fn stat(process: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold anything; what follows the last one is state, parent, …
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: number(11)? + number(12)?,
        ended: number(13)? + number(14)?,
    })
}

/// All live processes of this machine that descend from `roots`, these included.
fn family(roots: &[u32]) -> Vec<u32> {
    let mut parents = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(process) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
            && let Some(stat) = stat(process)
        {
            parents.insert(process, stat.parent);
        }
    }
    let descends = |mut process: u32| {
        loop {
            if roots.contains(&process) {
                return true;
            }
            match parents.get(&process) {
                Some(parent) => process = *parent,
                None => return false,
            }
        }
    };
    parents
        .keys()
        .copied()
        .filter(|process| descends(*process))
        .collect()
}

impl Usage {
    /// What the long-lived `processes`, their descendants, and this program's own ended children used.
    pub(super) fn now(processes: &[u32]) -> anyhow::Result<Self> {
        // Clients that a workload starts are children of this process and ended by now.
        let own = stat(std::process::id()).context("/proc/self/stat")?;
        let mut usage = Self {
            cpu_s: own.ended as f64 / TICKS,
            peak_mib: 0.0,
        };
        for process in family(processes) {
            if let Some(stat) = stat(process) {
                usage.cpu_s += (stat.own + stat.ended) as f64 / TICKS;
            }
            usage.peak_mib = usage.peak_mib.max(peak_mib(process));
        }
        Ok(usage)
    }
}

/// Peak of resident memory in MiB, 0 when the process is gone.
pub(super) fn peak_mib(process: u32) -> f64 {
    status(process, "VmHWM").unwrap_or(0) as f64 / 1024.0
}

/// The number after `name:` in `/proc/*/status`: KiB, or a count.
pub(super) fn status(process: u32, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(found, _)| *found == name)?;
    value.split_whitespace().next()?.parse().ok()
}

/// Open descriptors of a process of the same user.
pub(super) fn descriptors(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

/// User and system seconds of one process up to now, its children apart.
pub(super) fn cpu_s(process: u32) -> f64 {
    stat(process).map_or(0.0, |stat| stat.own as f64 / TICKS)
}

/// Lets peaks count from now.
pub(super) fn reset_peaks(processes: &[u32]) {
    for process in family(processes) {
        // Where it can't be done, the peak counts from the start of the process.
        let _ = fs::write(format!("/proc/{process}/clear_refs"), "5");
    }
}
