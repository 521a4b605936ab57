//! The brake: a burst that deletes or rewrites much of the folder is not recorded, and so reaches nobody, until a person has said
//! what it was.
//!
//! Holds the settings, what happened lately, and the decision; finding out what a rewritten file looks like is in `scan::burst`.
//! While the brake holds, nothing local is recorded; what others change is applied, except over what was changed here.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ouisync_engine::view::FolderView;
use ouisync_model::name::Name;
use serde::{Deserialize, Serialize};

use crate::{directories::Slot, error::StepError, record, runner::Runner};

/// A file whose content became scrambled counts as so many.
const SCRAMBLED_WEIGHT: u64 = 5;

/// When a burst is held back. Kept with the directory, on this device only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrakeSettings {
    /// Whether it ever is.
    pub enabled: bool,
    /// At least so many files must be deleted or rewritten.
    pub files: u64,
    /// And at least this share of the folder's files, 0 to 100.
    pub percent: u8,
    /// Within this time.
    pub window: Duration,
}

impl Default for BrakeSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            files: 100,
            percent: 50,
            window: Duration::from_secs(30),
        }
    }
}

/// A burst that is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Burst {
    /// When it began, in seconds since 1970.
    pub since: u64,
    /// Files deleted.
    pub deleted: u64,
    /// Files rewritten.
    pub rewritten: u64,
    /// Those of them whose content looked like text or a document and now looks encrypted.
    pub scrambled: u64,
    /// Files of the folder when it began.
    pub of: u64,
}

/// What an undo did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// Files that come back from the folder.
    pub put_back: u64,
    /// Changed versions that were set aside.
    pub set_aside: u64,
    /// Where they are; not synced.
    pub kept_in: Option<PathBuf>,
}

/// The brake of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrakeState {
    /// When it holds.
    pub settings: BrakeSettings,
    /// What it holds back now.
    pub burst: Option<Burst>,
    /// An undo is going on: files come back.
    pub undoing: bool,
    /// The last undo since the directory was attached.
    pub undone: Option<Undone>,
}

/// What the user wants of the brake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrakeOrder {
    /// Other settings.
    Set(BrakeSettings),
    /// The burst was meant: record it.
    Allow,
    /// It was not: put the files back.
    Undo,
}

/// What is kept across restarts.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    settings: BrakeSettings,
    burst: Option<Burst>,
}

/// What became of a file. The worse comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Loss {
    Deleted,
    Rewritten,
    /// Rewritten by what looks encrypted.
    Scrambled,
}

impl Loss {
    /// As how many files it counts.
    pub(crate) fn weight(self) -> u64 {
        match self {
            Self::Deleted | Self::Rewritten => 1,
            Self::Scrambled => SCRAMBLED_WEIGHT,
        }
    }

    /// As how many it may count at most, before a rewritten file was looked at.
    pub(crate) fn heaviest(self) -> u64 {
        match self {
            Self::Deleted => 1,
            Self::Rewritten | Self::Scrambled => SCRAMBLED_WEIGHT,
        }
    }
}

/// A file, by a hash of its place: one that is saved again and again is one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place(u64);

impl Place {
    pub(crate) fn of(slot: Slot, name: &Name) -> Self {
        let mut hasher = DefaultHasher::new();
        (slot, name).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// The brake, on the directory's thread.
pub(crate) struct Brake {
    pub(crate) state: BrakeState,
    /// The files hit within the window, and when last.
    lately: HashMap<Place, (Instant, Loss)>,
    /// The next full scan records everything.
    allowed: bool,
    /// The directory is being taken in for the first time.
    pub(crate) importing: bool,
}

impl Brake {
    pub(crate) fn load(view: &FolderView, importing: bool) -> Self {
        // Without a record, or with one that can't be read, the defaults are right.
        let kept = view.record(&record::brake_key()).ok().flatten();
        let kept = kept.and_then(|bytes| record::decode::<Kept>(&bytes).ok());
        let Kept { settings, burst } = kept.unwrap_or_default();
        Self {
            state: BrakeState {
                settings,
                burst,
                ..BrakeState::default()
            },
            lately: HashMap::new(),
            allowed: false,
            importing,
        }
    }

    /// Nothing local is to be recorded now.
    pub(crate) fn holds(&self) -> bool {
        self.state.burst.is_some() && !self.allowed && !self.state.undoing
    }

    /// The files of a burst are to come back.
    pub(crate) fn undoes(&self) -> bool {
        self.state.burst.is_some() && self.state.undoing
    }

    /// Bursts are looked for.
    pub(crate) fn watches(&self) -> bool {
        self.state.settings.enabled && !self.importing && self.state.burst.is_none()
    }

    /// How much the files weigh that were hit within the window.
    fn recent(&mut self, now: Instant) -> u64 {
        let window = self.state.settings.window;
        self.lately
            .retain(|_, (at, _)| now.duration_since(*at) <= window);
        self.lately.values().map(|(_, loss)| loss.weight()).sum()
    }

    /// Whether a pass could be a burst, together with what happened lately.
    pub(crate) fn may_burst(&mut self, heaviest: u64, files: u64) -> bool {
        let recent = self.recent(Instant::now());
        self.reaches(recent + heaviest, files)
    }

    fn reaches(&self, weight: u64, files: u64) -> bool {
        let BrakeSettings {
            files: least,
            percent,
            ..
        } = self.state.settings;
        weight >= least.max(1) && weight.saturating_mul(100) >= files.saturating_mul(percent.into())
    }

    /// Judges what a pass is about to record; gives the burst if it is one. What of it can't be recorded yet is found again by the
    /// next pass, and still counts once.
    pub(crate) fn judge(&mut self, hit: &[(Place, Loss)], files: u64) -> Option<Burst> {
        let now = Instant::now();
        for (place, loss) in hit {
            let known = self.lately.entry(*place).or_insert((now, *loss));
            *known = (now, known.1.max(*loss));
        }
        let weight = self.recent(now);
        if hit.is_empty() || !self.reaches(weight, files) {
            return None;
        }
        let count = |loss| {
            let hit = self.lately.values().filter(|(_, found)| *found == loss);
            hit.count() as u64
        };
        let scrambled = count(Loss::Scrambled);
        let began = self.lately.values().map(|(at, _)| *at).min();
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let since = wall.saturating_sub(now.duration_since(began.unwrap_or(now)));
        Some(Burst {
            since: since.as_secs(),
            deleted: count(Loss::Deleted),
            rewritten: count(Loss::Rewritten) + scrambled,
            scrambled,
            of: files,
        })
    }
}

impl Runner {
    /// Does what the user wants of the brake.
    pub(crate) fn order_brake(&mut self, order: BrakeOrder) -> Result<(), StepError> {
        match order {
            BrakeOrder::Set(settings) => self.brake.state.settings = settings,
            BrakeOrder::Allow | BrakeOrder::Undo if self.brake.state.burst.is_none() => {}
            BrakeOrder::Allow => self.brake.allowed = true,
            BrakeOrder::Undo => {
                self.brake.state.undoing = true;
                self.brake.state.undone = Some(Undone::default());
            }
        }
        if self.brake.state.burst.is_some() && !self.brake.holds() {
            self.full_scan = true;
            self.retry_at = Instant::now();
        }
        self.save_brake()
    }

    /// From here on nothing local is recorded.
    pub(crate) fn hold(&mut self, burst: Burst) -> Result<(), StepError> {
        tracing::warn!(?burst, "a burst of changes is held back");
        self.brake.state.burst = Some(burst);
        self.brake.state.undoing = false;
        self.save_brake()?;
        // Nothing of what the pass found may be recorded with something else later.
        self.load()
    }

    /// A full scan has recorded, or put back, what was held.
    pub(crate) fn release_brake(&mut self) -> Result<(), StepError> {
        if self.brake.state.burst.is_none() || self.brake.holds() {
            return Ok(());
        }
        self.brake.state.burst = None;
        self.brake.allowed = false;
        self.brake.lately.clear();
        let again = std::mem::take(&mut self.blocked);
        self.behind
            .extend(again.into_iter().map(|slot| (slot, Vec::new())));
        self.save_brake()
    }

    fn save_brake(&mut self) -> Result<(), StepError> {
        let kept = Kept {
            settings: self.brake.state.settings,
            burst: self.brake.state.burst,
        };
        let bytes = record::encode(&kept)?;
        self.view
            .update(vec![(record::brake_key(), Some(bytes))], &[])?;
        self.control.tell_brake(&self.brake.state);
        Ok(())
    }

    /// What the user is told.
    pub(crate) fn tell_of_brake(&mut self) {
        let message = self.brake.state.burst.map(|burst| {
            let Burst {
                since,
                deleted,
                rewritten,
                scrambled,
                of,
            } = burst;
            let looks = match scrambled {
                0 => String::new(),
                some => format!(" ({some} of them look encrypted now)"),
            };
            let seconds = self.brake.state.settings.window.as_secs();
            format!(
                "{deleted} files were deleted and {rewritten} rewritten{looks} within {seconds} s, of {of}. From then on no change of this directory is recorded or sent; \
                 others keep their files. If it was meant: 'ouisync brake FOLDER --allow'. If not, end the program that does it; then 'ouisync brake FOLDER --undo' \
                 puts the files back here and keeps the changed versions aside. What went out before is brought back by 'ouisync restore FOLDER --at {}'.",
                time_text(since)
            )
        });
        self.problems.set_general("brake", message);
    }
}

/// Seconds since 1970 as `2026-11-23T12:00:00Z`.
pub(crate) fn time_text(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    // Counted in eras of 400 years from the first of March of the year 0, so that leap days come last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(time_text(0), "1970-01-01T00:00:00Z");
        assert_eq!(time_text(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(time_text(1_795_435_199), "2026-11-23T11:59:59Z");
    }

    fn brake() -> Brake {
        Brake {
            state: BrakeState::default(),
            lately: HashMap::new(),
            allowed: false,
            importing: false,
        }
    }

    fn hit(numbers: std::ops::Range<u64>, loss: Loss) -> Vec<(Place, Loss)> {
        numbers.map(|number| (Place(number), loss)).collect()
    }

    #[test]
    fn a_burst_needs_files_and_a_share() {
        let mut brake = brake();
        assert_eq!(brake.judge(&hit(0..99, Loss::Deleted), 110), None);
        let burst = brake.judge(&hit(99..100, Loss::Deleted), 110).unwrap();
        assert_eq!((burst.deleted, burst.of), (100, 110), "99 and one");
        brake.lately.clear();
        assert_eq!(brake.judge(&hit(0..400, Loss::Rewritten), 1000), None);
        assert!(brake.judge(&hit(400..500, Loss::Deleted), 1000).is_some());
        brake.lately.clear();
        assert!(brake.judge(&hit(0..20, Loss::Scrambled), 200).is_some());
    }

    #[test]
    fn a_file_counts_once_and_as_the_worst_that_became_of_it() {
        let mut brake = brake();
        for _ in 0..100 {
            assert_eq!(brake.judge(&hit(0..3, Loss::Rewritten), 3), None);
        }
        assert_eq!(brake.judge(&hit(0..19, Loss::Scrambled), 25), None);
        assert_eq!(brake.judge(&hit(0..19, Loss::Rewritten), 25), None);
        let burst = brake.judge(&hit(19..24, Loss::Deleted), 25).unwrap();
        assert_eq!(
            (burst.deleted, burst.rewritten, burst.scrambled),
            (5, 19, 19)
        );
    }
}
