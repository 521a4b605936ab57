//! The brake: a burst that deletes or rewrites much of the folder is not recorded, and so reaches nobody, until a person has said
//! what it was.
//!
//! Holds the settings, what happened lately, and the decision; finding out what a rewritten file looks like is in `scan::burst`.
//! While the brake holds, nothing local is recorded; what others change is applied, except over what was changed here.

use std::{
    collections::VecDeque,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ouisync_engine::view::FolderView;
use serde::{Deserialize, Serialize};

use crate::{error::StepError, record, runner::Runner};

/// A file whose content became scrambled counts as so many.
const SCRAMBLED_WEIGHT: u64 = 3;

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
            files: 50,
            percent: 50,
            window: Duration::from_secs(60),
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

/// Deleted or rewritten by one pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Toll {
    pub(crate) deleted: u64,
    pub(crate) rewritten: u64,
    pub(crate) scrambled: u64,
}

impl Toll {
    /// How much it weighs as numbers of files.
    pub(crate) fn weight(self) -> u64 {
        self.deleted + self.rewritten + self.scrambled * (SCRAMBLED_WEIGHT - 1)
    }

    /// The most that it may weigh once its rewritten files were looked at.
    pub(crate) fn heaviest(self) -> u64 {
        self.deleted + self.rewritten * SCRAMBLED_WEIGHT
    }

    fn add(&mut self, other: Self) {
        self.deleted += other.deleted;
        self.rewritten += other.rewritten;
        self.scrambled += other.scrambled;
    }
}

/// The brake, on the directory's thread.
pub(crate) struct Brake {
    pub(crate) state: BrakeState,
    /// What was recorded within the window.
    lately: VecDeque<(Instant, Toll)>,
    /// What the running pass was let through with.
    pub(crate) passing: Toll,
    /// Changed files that it has recorded.
    pub(crate) recorded: u64,
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
            lately: VecDeque::new(),
            passing: Toll::default(),
            recorded: 0,
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

    fn recent(&mut self, now: Instant) -> Toll {
        let window = self.state.settings.window;
        while self
            .lately
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) > window)
        {
            self.lately.pop_front();
        }
        let mut sum = Toll::default();
        self.lately.iter().for_each(|(_, toll)| sum.add(*toll));
        sum
    }

    /// Whether a toll could be a burst, together with what happened lately.
    pub(crate) fn may_burst(&mut self, toll: Toll, files: u64) -> bool {
        let recent = self.recent(Instant::now());
        self.reaches(recent.weight() + toll.heaviest(), files)
    }

    fn reaches(&self, weight: u64, files: u64) -> bool {
        let BrakeSettings {
            files: least,
            percent,
            ..
        } = self.state.settings;
        weight >= least.max(1) && weight.saturating_mul(100) >= files.saturating_mul(percent.into())
    }

    /// A pass has recorded what [`Runner::holds_back`] let through, or as much of it as did not change meanwhile: the rest is found
    /// again by the next pass.
    pub(crate) fn passed(&mut self) {
        let mut toll = std::mem::take(&mut self.passing);
        let recorded = std::mem::take(&mut self.recorded).min(toll.rewritten);
        toll.scrambled = (toll.scrambled * recorded)
            .checked_div(toll.rewritten)
            .unwrap_or(0);
        toll.rewritten = recorded;
        if toll.weight() > 0 {
            self.lately.push_back((Instant::now(), toll));
        }
    }

    /// Judges what a pass is about to record; gives the burst if it is one.
    pub(crate) fn judge(&mut self, toll: Toll, files: u64) -> Option<Burst> {
        let now = Instant::now();
        let mut sum = self.recent(now);
        let began = self.lately.front().map_or(now, |(at, _)| *at);
        sum.add(toll);
        if toll.weight() == 0 {
            return None;
        }
        if !self.reaches(sum.weight(), files) {
            return None;
        }
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Some(Burst {
            since: wall.saturating_sub(now.duration_since(began)).as_secs(),
            deleted: sum.deleted,
            rewritten: sum.rewritten,
            scrambled: sum.scrambled,
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

    #[test]
    fn a_burst_needs_files_and_a_share() {
        let state = BrakeState::default();
        let mut brake = Brake {
            state,
            lately: VecDeque::new(),
            passing: Toll::default(),
            recorded: 0,
            allowed: false,
            importing: false,
        };
        let deleted = |deleted| Toll {
            deleted,
            ..Toll::default()
        };
        let pass = |brake: &mut Brake, toll: Toll, files| {
            brake.passing = toll;
            brake.recorded = toll.rewritten;
            assert_eq!(brake.judge(toll, files), None);
            brake.passed();
        };
        pass(&mut brake, deleted(49), 60);
        assert!(brake.judge(deleted(1), 60).is_some(), "49 and one");
        brake.lately.clear();
        pass(&mut brake, deleted(400), 1000);
        assert!(brake.judge(deleted(100), 1000).is_some());
        brake.lately.clear();
        let scrambled = Toll {
            rewritten: 20,
            scrambled: 20,
            ..Toll::default()
        };
        assert!(brake.judge(scrambled, 100).is_some());
        // Files that could not be recorded yet are counted when they are.
        brake.passing = scrambled;
        brake.recorded = 5;
        brake.passed();
        assert_eq!(brake.recent(Instant::now()).weight(), 15);
    }
}
