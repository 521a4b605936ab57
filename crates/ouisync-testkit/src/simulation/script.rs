//! What happens to a world: a list of steps, each of which means something whatever came before it, so that any may be left out.

use std::fmt;

use rand::{RngExt, rngs::StdRng};
use serde::{Deserialize, Serialize};

#[expect(missing_docs, reason = "what a step says is said of it as a whole")]
/// One step. Devices and links are numbers that are taken modulo how many there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Time passes.
    Pass { milliseconds: u32 },
    /// A person at a device does something that `choice` decides.
    Edit { device: usize, choice: u64 },
    /// The connection of a link breaks, with all that is on its way.
    Break { link: usize },
    /// A link is down for a while.
    Cut { link: usize, seconds: u32 },
    /// A link is slow for a while.
    Slow { link: usize, seconds: u32 },
    /// A device stops, after so many operations of its disk, and starts again after a while.
    Crash {
        device: usize,
        after: u64,
        power: Option<u64>,
        seconds: u32,
    },
    /// A device's disk has only so much room for a while.
    Full {
        device: usize,
        room: u64,
        seconds: u32,
    },
    /// A bit of a pack that others have, too, flips.
    Rot { device: usize, choice: u64 },
    /// A device's wall clock jumps.
    Jump { device: usize, seconds: i64 },
    /// A device's home is copied.
    Backup { device: usize },
    /// The last copy is put back.
    Restore { device: usize },
    /// A device locks its folder for a while.
    Lock { device: usize, seconds: u32 },
    /// A device pauses its folder for a while.
    Pause { device: usize, seconds: u32 },
    /// An owner lets another device in.
    Join { role: u64 },
    /// An owner removes a device.
    Remove { device: usize },
    /// An owner sets what is kept.
    Policy { choice: u64 },
    /// A person brings something of the past back into the folder.
    Revive { device: usize, choice: u64 },
    /// A device gives up packs of some files that others hold.
    Offload { device: usize, choice: u64 },
    /// A device fetches what it lacks of some files.
    Fetch { device: usize, choice: u64 },
    /// A person settles a conflict.
    Resolve { device: usize, choice: u64 },
    /// A person has former versions of a file forgotten.
    Forget { device: usize, choice: u64 },
    /// The host of a safe sets its quota.
    Quota { device: usize, bytes: Option<u64> },
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}

/// Draws a step.
fn draw(rng: &mut StdRng) -> Step {
    let device = rng.random_range(0..60);
    let link = rng.random_range(0..60);
    let seconds = rng.random_range(1..30);
    match rng.random_range(0..1000) {
        0..190 => Step::Pass {
            milliseconds: 1 << rng.random_range(2..16),
        },
        190..530 => Step::Edit {
            device,
            choice: rng.random(),
        },
        530..560 => Step::Revive {
            device,
            choice: rng.random(),
        },
        560..585 => Step::Offload {
            device,
            choice: rng.random(),
        },
        585..595 => Step::Fetch {
            device,
            choice: rng.random(),
        },
        595..610 => Step::Resolve {
            device,
            choice: rng.random(),
        },
        610..620 => Step::Forget {
            device,
            choice: rng.random(),
        },
        620..660 => Step::Break { link },
        660..710 => Step::Cut { link, seconds },
        710..730 => Step::Slow { link, seconds },
        730..800 => Step::Crash {
            device,
            after: match rng.random_range(0..3) {
                0 => 0,
                _ => rng.random_range(1..40),
            },
            power: rng.random::<bool>().then(|| rng.random()),
            seconds: rng.random_range(0..10),
        },
        800..820 => Step::Full {
            device,
            room: rng.random_range(0..400_000),
            seconds,
        },
        820..840 => Step::Rot {
            device,
            choice: rng.random(),
        },
        840..855 => Step::Jump {
            device,
            seconds: match rng.random_range(0..3) {
                0 => rng.random_range(-100..100),
                1 => rng.random_range(-400..400) * 86_400,
                _ => 10 * 365 * 86_400,
            },
        },
        855..880 => Step::Backup { device },
        880..905 => Step::Restore { device },
        905..925 => Step::Lock { device, seconds },
        925..940 => Step::Pause { device, seconds },
        940..955 => Step::Join { role: rng.random() },
        955..967 => Step::Remove { device },
        967..982 => Step::Quota {
            device,
            bytes: rng.random::<bool>().then(|| rng.random_range(0..2_000_000)),
        },
        _ => Step::Policy {
            choice: rng.random(),
        },
    }
}

/// Draws a script.
pub(super) fn script(rng: &mut StdRng, steps: usize) -> Vec<Step> {
    (0..steps).map(|_| draw(rng)).collect()
}
