//! How long history is kept: the rules, apart from any folder. Pure: times and ages come from the caller.
//!
//! A holder obeys the folder's policy, but not at once when it asks for less: [`Obeyed`]. Staggered retention keeps some versions of
//! each file and thins out others: [`thinned`]. What is asked of owners and hosts, and what they are told, is here too.

use std::time::Duration;

pub use ouisync_crypto::roster::policy::{FolderPolicy, Keep, PolicyInForce};
use ouisync_model::id::{Stamp, Timestamp};
use serde::{Deserialize, Serialize};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;
/// For so long what was deleted, and what was given up when a conflict was settled, is never thinned out.
const MONTH: i64 = 30 * DAY;

/// What a host allows a safe; members have no say in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Most bytes of packs.
    pub quota: Option<u64>,
    /// Seconds for which nothing that was stored goes, whatever members say; `None`: [`Housekeeping::floor`].
    ///
    /// [`Housekeeping::floor`]: crate::housekeeping::Housekeeping::floor
    pub floor: Option<u64>,
}

impl Limits {
    /// For how long history makes no room above the quota: the host's floor, else a day. In less somebody who took over a writer
    /// could have everything released, and pushed out by garbage, before anybody looks; in much more a safe that is nearly full
    /// would stop taking in what is new for the sake of what is old.
    pub(crate) fn quota_floor(&self) -> Duration {
        Duration::from_secs(self.floor.unwrap_or(DAY.unsigned_abs()))
    }
}

/// A change of the folder's policy: what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyChange {
    /// What every holder keeps.
    pub keep: Option<Keep>,
    /// What devices keep; `Some(None)`: the same as safes.
    pub devices: Option<Option<Keep>>,
    /// Wanted replicas.
    pub replicas: Option<u16>,
}

/// A folder's retention as this device sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What owners decided.
    pub policy: PolicyInForce,
    /// This device is a safe.
    pub is_safe: bool,
    /// What this device is asked to keep.
    pub keep: Keep,
    /// What it still keeps beside that for a time, since a policy asked for less, and for how long.
    pub held: Option<(Keep, Duration)>,
    /// Nothing that stopped being live goes sooner.
    pub least: Duration,
    /// What the host allows a safe.
    pub limits: Limits,
    /// Bytes of live packs here.
    pub live_bytes: u64,
    /// Bytes of other packs here.
    pub history_bytes: u64,
    /// Packs here that members said to forget, and that go once they were so for long enough.
    pub forgotten: PackCount,
    /// Members that are safes.
    pub safes: u64,
}

/// Packs and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackCount {
    /// Number of packs.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A version of a file that is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoingVersion {
    /// The file's present path, or its last.
    pub path: String,
    /// When the version was written.
    pub written: Timestamp,
    /// Its bytes.
    pub size: u64,
}

/// What a change of the policy would do, beyond what happens anyway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// The policy as it is.
    pub before: FolderPolicy,
    /// As it would be.
    pub after: FolderPolicy,
    /// Some holder would keep less.
    pub shortens: bool,
    /// What would go here.
    pub here: PackCount,
    /// What would go at each safe that holds all history: an estimate.
    pub each_safe: PackCount,
    /// Members that are safes.
    pub safes: u64,
    /// Safes drop nothing sooner than this after they learned of the change.
    pub safes_after: Duration,
    /// Versions that would no longer be kept by safes (by this device where there is none), and how many would stay.
    pub going: u64,
    /// Versions that would still be kept, the present ones not counted.
    pub staying: u64,
    /// Some of those that would go, the newest first.
    pub examples: Vec<GoingVersion>,
}

/// What forgetting the former versions of a file does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgetting {
    /// Former versions of the file.
    pub versions: u64,
    /// Those of them whose content is so small that it is in the commits themselves, which stay.
    pub inline: u64,
    /// Packs that may go, as far as they are here.
    pub packs: PackCount,
    /// Packs that hold some of it and stay, since they hold other things, too.
    pub shared: u64,
    /// Every holder keeps them for this time at least.
    pub least: Duration,
}

/// What a holder goes by, beside its host's floor. It follows a policy that asks for more at once, and one that asks for less only
/// after a time by its own age: so no member, hijacked or hostile, makes it drop anything quickly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Obeyed {
    pub(crate) keep: Keep,
    pub(crate) held: Option<Held>,
}

/// What was asked for before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) keep: Keep,
    /// Age of the store at which it ends.
    pub(crate) until: u64,
}

impl Obeyed {
    /// What holds from the first policy seen on.
    pub(crate) const fn new(keep: Keep) -> Self {
        Self { keep, held: None }
    }

    /// What holds once `asked` is known at this age of the store. Toggling a policy only makes what was held last longer.
    pub(crate) fn follow(self, asked: Keep, age: u64, floor: Duration) -> Self {
        let mut held = self.held.filter(|held| age < held.until);
        if self.keep != asked && outlasts(self.keep, asked) {
            let keep = match held {
                Some(held) if outlasts(held.keep, self.keep) => held.keep,
                _ => self.keep,
            };
            let until = age.saturating_add(floor.as_secs());
            held = Some(Held { keep, until });
        }
        held = held.filter(|held| age < held.until);
        Self { keep: asked, held }
    }

    /// For how long packs that are not live stay, unless they are forgotten; `None`: for ever.
    pub(crate) fn limit(&self) -> Option<Duration> {
        match self.held {
            Some(held) if outlasts(held.keep, self.keep) => held.keep.limit(),
            _ => self.keep.limit(),
        }
    }
}

/// Whether one keeps something for longer than the other.
pub(crate) fn outlasts(one: Keep, other: Keep) -> bool {
    match (one.limit(), other.limit()) {
        (None, None) => one == Keep::All && other == Keep::Staggered,
        (None, Some(_)) => true,
        (Some(_), None) => false,
        (Some(one), Some(other)) => one > other,
    }
}

/// A version of a file, as the rules see it: a value that was in its content register, or is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// When it was written, by the clock of its author's device, in seconds since 1970.
    pub(crate) written: i64,
    pub(crate) stamp: Stamp,
    /// Absent while it is in the register.
    pub(crate) replaced: Option<Replaced>,
}

/// How a version went out of the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replaced {
    /// When, in seconds since 1970.
    pub(crate) at: i64,
    /// By a deletion, or together with others when a conflict was settled: nobody put a successor in its place.
    pub(crate) given_up: bool,
}

/// Distance of the versions that stay, at this age in seconds.
const fn distance(age: i64) -> i64 {
    match age {
        ..HOUR => 30,
        HOUR..DAY => HOUR,
        DAY..MONTH => DAY,
        _ => WEEK,
    }
}

/// The versions of one file that staggered retention no longer keeps at `now`.
///
/// Time since 1970 is cut into spans of 30 s, an hour, a day, or seven days, after the age of the version; a version goes when a later
/// one lies in the same span. So the last version of each span stays, and as the spans nest, thinning by and by leaves the same as
/// thinning at once, whoever does it. What is in the register stays; so does, for a month, what was given up without a successor.
pub(crate) fn thinned(versions: &[Version], now: i64) -> Vec<Stamp> {
    let mut sorted: Vec<&Version> = versions.iter().collect();
    sorted.sort_unstable_by_key(|version| (version.written, version.stamp));
    let mut gone = Vec::new();
    for pair in sorted.windows(2) {
        let (version, next) = (pair[0], pair[1]);
        let Some(replaced) = version.replaced else {
            continue;
        };
        if replaced.given_up && now.saturating_sub(replaced.at) < MONTH {
            continue;
        }
        let span = distance(now.saturating_sub(version.written));
        if version.written.div_euclid(span) == next.written.div_euclid(span) {
            gone.push(version.stamp);
        }
    }
    gone
}

/// The versions that keeping for a time no longer keeps at `now`.
pub(crate) fn outlived(versions: &[Version], keep: Duration, now: i64) -> Vec<Stamp> {
    let keep = i64::try_from(keep.as_secs()).unwrap_or(i64::MAX);
    let is_over = |version: &&Version| {
        version
            .replaced
            .is_some_and(|replaced| now.saturating_sub(replaced.at) >= keep)
    };
    versions
        .iter()
        .filter(is_over)
        .map(|version| version.stamp)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use ouisync_model::id::{CommitId, Lamport, OpId};

    use super::*;

    const START: i64 = 1_800_000_000;
    const FLOOR: Duration = Duration::from_secs(30 * 86_400);

    fn stamp(number: u64) -> Stamp {
        Stamp {
            lamport: Lamport(number),
            op: OpId {
                commit: CommitId::from_bytes([7; 32]),
                index: 0,
            },
        }
    }

    /// A file written at these times, each version replacing the one before.
    fn written(times: &[i64]) -> Vec<Version> {
        let next = |index: usize| {
            times.get(index + 1).map(|at| Replaced {
                at: *at,
                given_up: false,
            })
        };
        (0..times.len())
            .map(|index| Version {
                written: times[index],
                stamp: stamp(index as u64),
                replaced: next(index),
            })
            .collect()
    }

    fn left(versions: &[Version], now: i64) -> BTreeSet<i64> {
        let gone: BTreeSet<_> = thinned(versions, now).into_iter().collect();
        versions
            .iter()
            .filter(|version| !gone.contains(&version.stamp))
            .map(|version| version.written)
            .collect()
    }

    /// The rule in other words: of each span the last.
    fn expected(times: &[i64], now: i64) -> BTreeSet<i64> {
        let mut last: BTreeMap<(i64, i64), i64> = BTreeMap::new();
        for time in times {
            for span in [30, HOUR, DAY, WEEK] {
                let at = last.entry((span, time.div_euclid(span))).or_insert(*time);
                *at = (*at).max(*time);
            }
        }
        let stays = |time: &&i64| {
            let span = distance(now - **time);
            last[&(span, time.div_euclid(span))] == **time
        };
        times.iter().filter(stays).copied().collect()
    }

    #[test]
    fn a_month_of_edits_every_17_seconds_is_thinned_as_the_rule_says() {
        let times: Vec<i64> = (0..)
            .map(|n| START + n * 17)
            .take_while(|t| *t < START + 40 * DAY)
            .collect();
        let versions = written(&times);
        let now = times[times.len() - 1] + 5;
        let left = left(&versions, now);
        assert_eq!(left, expected(&times, now));
        let within = |from: i64, to: i64| {
            left.iter()
                .filter(|t| (from..to).contains(&(now - **t)))
                .count()
        };
        assert!(
            (118..=122).contains(&within(0, HOUR)),
            "30 s: {}",
            within(0, HOUR)
        );
        assert!(
            (22..=24).contains(&within(HOUR, DAY)),
            "hourly: {}",
            within(HOUR, DAY)
        );
        assert!(
            (28..=30).contains(&within(DAY, MONTH)),
            "daily: {}",
            within(DAY, MONTH)
        );
        assert!(
            (1..=3).contains(&within(MONTH, 50 * DAY)),
            "weekly: {}",
            within(MONTH, 50 * DAY)
        );
        assert!(left.contains(&times[times.len() - 1]), "the newest stays");
    }

    #[test]
    fn thinning_day_by_day_leaves_what_thinning_at_once_leaves() {
        // Edits at odd times: bursts, pauses, nights.
        let mut times = Vec::new();
        let (mut at, mut random) = (START, 12345u64);
        while at < START + 100 * DAY {
            times.push(at);
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            at += match random >> 60 {
                0 => 3 * DAY,
                1..4 => 5 * HOUR,
                _ => 1 + (random >> 33) as i64 % 900,
            };
        }
        let (all, end) = (written(&times), START + 130 * DAY);
        let mut versions = all.clone();
        let mut now = START;
        while now < end {
            let known: Vec<Version> = versions
                .iter()
                .filter(|v| v.written <= now)
                .copied()
                .collect();
            let gone: BTreeSet<_> = thinned(&known, now).into_iter().collect();
            versions.retain(|version| !gone.contains(&version.stamp));
            now += 7 * HOUR;
        }
        assert_eq!(left(&versions, end), left(&all, end));
        assert_eq!(left(&all, end), expected(&times, end));
    }

    #[test]
    fn what_was_deleted_or_lost_a_conflict_stays_for_a_month() {
        let mut versions = written(&[START, START + 1, START + 2]);
        versions[0].replaced = Some(Replaced {
            at: START + 1,
            given_up: true,
        });
        versions[1].replaced = Some(Replaced {
            at: START + 2,
            given_up: false,
        });
        assert_eq!(
            left(&versions, START + 20 * DAY),
            BTreeSet::from([START, START + 2])
        );
        assert_eq!(
            left(&versions, START + 31 * DAY),
            BTreeSet::from([START + 2])
        );
    }

    #[test]
    fn the_last_content_of_a_deleted_file_stays() {
        let mut versions = written(&[START, START + 1]);
        versions[1].replaced = Some(Replaced {
            at: START + 2,
            given_up: true,
        });
        assert_eq!(
            left(&versions, START + 1000 * DAY),
            BTreeSet::from([START + 1])
        );
    }

    #[test]
    fn values_in_the_register_stay_however_many() {
        let mut versions = written(&[START, START, START]);
        versions
            .iter_mut()
            .for_each(|version| version.replaced = None);
        assert_eq!(thinned(&versions, START + 1000 * DAY), []);
    }

    #[test]
    fn wrong_clocks_do_no_harm_to_others() {
        // A device that believes to be in 1970 and one in the future.
        let versions = written(&[START, 50, START + 400 * DAY, START + DAY]);
        assert_eq!(left(&versions, START + 2 * DAY).len(), 4);
        assert_eq!(
            thinned(&written(&[i64::MIN, i64::MAX, 0, 0]), 0),
            [stamp(2)]
        );
    }

    #[test]
    fn a_shorter_policy_is_obeyed_after_the_floor_and_a_longer_one_at_once() {
        let days = |days: u64| Keep::For(days * 86_400);
        let limit = |obeyed: Obeyed| obeyed.limit().map(|limit| limit.as_secs() / 86_400);
        let floor = FLOOR.as_secs();
        let first = Obeyed::new(days(90));
        assert_eq!(limit(first), Some(90));
        let shortened = first.follow(days(1), 1000, FLOOR);
        assert_eq!(limit(shortened), Some(90), "held");
        let later = shortened.follow(days(1), 1000 + floor - 1, FLOOR);
        assert_eq!(limit(later), Some(90), "still held");
        assert_eq!(limit(later.follow(days(1), 1000 + floor, FLOOR)), Some(1));
        // Lengthened meanwhile: at once.
        assert_eq!(limit(shortened.follow(Keep::All, 2000, FLOOR)), None);
        // Toggling shortens nothing.
        let toggled = first
            .follow(Keep::All, 10, FLOOR)
            .follow(days(5), 20, FLOOR)
            .follow(days(6), 30, FLOOR)
            .follow(days(1), 40, FLOOR);
        assert_eq!(limit(toggled), None);
        assert_eq!(limit(toggled.follow(days(1), 40 + floor - 1, FLOOR)), None);
        assert_eq!(limit(toggled.follow(days(1), 40 + floor, FLOOR)), Some(1));
        // Without a floor it counts at once.
        assert_eq!(
            limit(first.follow(days(1), 1000, Duration::ZERO).follow(
                days(1),
                1000,
                Duration::ZERO
            )),
            Some(1)
        );
    }

    #[test]
    fn keeping_for_a_time_counts_from_when_a_version_was_replaced() {
        let versions = written(&[START, START + DAY, START + 2 * DAY]);
        let day = Duration::from_secs(86_400);
        assert_eq!(outlived(&versions, day, START + DAY + 5), []);
        assert_eq!(outlived(&versions, day, START + 2 * DAY), [stamp(0)]);
        assert_eq!(
            outlived(&versions, day, START + 900 * DAY),
            [stamp(0), stamp(1)]
        );
    }
}
