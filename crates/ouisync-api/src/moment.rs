//! Moments as people and programs write them.
//!
//! People write the end of what they mean: a day, a minute, a second. Programs write RFC 3339, exactly.

use chrono::{
    DateTime, Days, Local, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc,
};
use thiserror::Error;

/// The text is no time.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error(
    "'{0}' is no time: write one like '2026-11-23', '2026-11-23 14:30', '2026-11-23T14:30:00+01:00', '2 hours ago' or 'yesterday'"
)]
pub struct MomentFormatError(pub String);

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(DateTime<Utc>);

/// What a text names: a second, a minute, a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its first moment.
    pub first: Moment,
    /// Its last one.
    pub last: Moment,
}

impl Moment {
    /// From seconds since 1970 and nanoseconds; `None` beyond what a calendar shows.
    pub fn new(seconds: i64, nanoseconds: u32) -> Option<Self> {
        DateTime::from_timestamp(seconds, nanoseconds).map(Self)
    }

    /// Now.
    pub fn now() -> Self {
        Self(Utc::now())
    }

    /// Seconds since 1970.
    pub fn seconds(&self) -> i64 {
        self.0.timestamp()
    }

    /// Nanoseconds within the second.
    pub fn nanoseconds(&self) -> u32 {
        self.0.timestamp_subsec_nanos().min(999_999_999)
    }

    /// Reads RFC 3339.
    pub fn parse(text: &str) -> Result<Self, MomentFormatError> {
        let parsed = DateTime::parse_from_rfc3339(text);
        let parsed = parsed.map_err(|_| MomentFormatError(text.to_owned()))?;
        Ok(Self(parsed.with_timezone(&Utc)))
    }

    /// As RFC 3339 in UTC, exactly.
    pub fn to_rfc3339(&self) -> String {
        let text = self.0.format("%Y-%m-%dT%H:%M:%S%.9f").to_string();
        let text = text.trim_end_matches('0').trim_end_matches('.');
        format!("{text}Z")
    }

    /// For people: local time to the second.
    pub fn to_local(&self) -> String {
        let local = self.0.with_timezone(&Local);
        local.format("%Y-%m-%d %H:%M:%S").to_string()
    }
}

impl Named {
    fn from(first: DateTime<Utc>, length: TimeDelta) -> Option<Self> {
        let last = first.checked_add_signed(length)?;
        let last = last.checked_sub_signed(TimeDelta::nanoseconds(1))?;
        Some(Self {
            first: Moment(first),
            last: Moment(last.max(first)),
        })
    }

    fn exactly(at: DateTime<Utc>) -> Self {
        Self {
            first: Moment(at),
            last: Moment(at),
        }
    }

    /// Reads what a person writes: RFC 3339; a local date, with or without a time; `now`, `today`, `yesterday`; `2 hours ago`.
    pub fn parse(text: &str, now: Moment) -> Result<Self, MomentFormatError> {
        let trimmed = text.trim();
        let lower = trimmed.to_ascii_lowercase();
        let found = match lower.as_str() {
            "now" => Some(Self::exactly(now.0)),
            "today" => day(now.0.with_timezone(&Local).date_naive()),
            "yesterday" => {
                let today = now.0.with_timezone(&Local).date_naive();
                today.checked_sub_days(Days::new(1)).and_then(day)
            }
            lower => ago(lower, now)
                .or_else(|| zoned(trimmed))
                .or_else(|| local(trimmed)),
        };
        found.ok_or_else(|| MomentFormatError(text.to_owned()))
    }
}

fn zoned(text: &str) -> Option<Named> {
    let at = DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
    if text.contains('.') {
        Some(Named::exactly(at))
    } else {
        Named::from(at, TimeDelta::seconds(1))
    }
}

fn local(text: &str) -> Option<Named> {
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return day(date);
    }
    let text = text.replacen('T', " ", 1);
    let forms = [
        ("%Y-%m-%d %H:%M", TimeDelta::minutes(1)),
        ("%Y-%m-%d %H:%M:%S", TimeDelta::seconds(1)),
        ("%Y-%m-%d %H:%M:%S%.f", TimeDelta::zero()),
    ];
    forms.into_iter().find_map(|(form, length)| {
        let at = NaiveDateTime::parse_from_str(&text, form).ok()?;
        Named::from(utc(at)?, length)
    })
}

/// Of two local times of one name the earlier; where there is none, the moment at which the clock is set forward.
fn utc(at: NaiveDateTime) -> Option<DateTime<Utc>> {
    let found = Local.from_local_datetime(&at).earliest();
    let found = found.or_else(|| {
        let later = at.checked_add_signed(TimeDelta::hours(1))?;
        Local.from_local_datetime(&later).earliest()
    });
    found.map(|at| at.with_timezone(&Utc))
}

fn day(date: NaiveDate) -> Option<Named> {
    let next = date.checked_add_days(Days::new(1))?;
    let first = utc(date.and_time(NaiveTime::MIN))?;
    let length = utc(next.and_time(NaiveTime::MIN))? - first;
    Named::from(first, length)
}

/// `2 hours ago`, `2h ago`, `an hour ago`.
fn ago(lower: &str, now: Moment) -> Option<Named> {
    let span = lower.strip_suffix("ago")?.trim();
    let (number, unit) = match span.split_once(char::is_whitespace) {
        Some(("a" | "an" | "one", unit)) => (1, unit.trim()),
        Some((number, unit)) => (number.parse().ok()?, unit.trim()),
        None => {
            let unit = span.trim_start_matches(|character: char| character.is_ascii_digit());
            (span[..span.len() - unit.len()].parse().ok()?, unit)
        }
    };
    let number: u32 = number;
    let seconds = |each: i64| {
        let span = TimeDelta::try_seconds(each.checked_mul(i64::from(number))?)?;
        now.0.checked_sub_signed(span)
    };
    let at = match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => seconds(1),
        "m" | "min" | "mins" | "minute" | "minutes" => seconds(60),
        "h" | "hour" | "hours" => seconds(3600),
        "d" | "day" | "days" => seconds(86_400),
        "w" | "week" | "weeks" => seconds(7 * 86_400),
        "month" | "months" => now.0.checked_sub_months(Months::new(number)),
        "y" | "year" | "years" => now
            .0
            .checked_sub_months(Months::new(number.checked_mul(12)?)),
        _ => None,
    };
    at.map(Named::exactly)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn noon() -> Moment {
        Moment::parse("2026-11-23T12:00:00Z").unwrap()
    }

    fn last(text: &str) -> String {
        Named::parse(text, noon()).unwrap().last.to_rfc3339()
    }

    #[test]
    fn spans_back_from_now() {
        for (text, expected) in [
            ("now", "2026-11-23T12:00:00Z"),
            ("2 hours ago", "2026-11-23T10:00:00Z"),
            ("2h ago", "2026-11-23T10:00:00Z"),
            ("90 Minutes ago", "2026-11-23T10:30:00Z"),
            ("an hour ago", "2026-11-23T11:00:00Z"),
            ("3 days ago", "2026-11-20T12:00:00Z"),
            ("1 month ago", "2026-10-23T12:00:00Z"),
            ("2 years ago", "2024-11-23T12:00:00Z"),
        ] {
            assert_eq!(last(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_named_reaches_to_its_end() {
        assert_eq!(
            last("2026-11-20T10:00:00+01:00"),
            "2026-11-20T09:00:00.999999999Z"
        );
        assert_eq!(last("2026-11-20T10:00:00.25Z"), "2026-11-20T10:00:00.25Z");
        for (text, seconds) in [
            ("2026-11-20", 86_400),
            ("yesterday", 86_400),
            ("2026-11-20 10:00", 60),
            ("2026-11-20T10:00:07", 1),
        ] {
            let named = Named::parse(text, noon()).unwrap();
            let length = named.last.0 - named.first.0 + TimeDelta::nanoseconds(1);
            assert_eq!(length.num_seconds(), seconds, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "ago",
            "hours ago",
            "-2 hours ago",
            "2 parsecs ago",
            "2026-13-01",
            "2026-02-30",
            "99999999999 years ago",
            "4000000000 years ago",
            "23.11.2026",
        ] {
            assert!(Named::parse(text, noon()).is_err(), "{text}");
        }
    }

    #[test]
    fn exact_times_survive() {
        for text in ["2026-11-23T12:00:00Z", "2026-11-23T12:00:00.000000001Z"] {
            let moment = Moment::parse(text).unwrap();
            assert_eq!(moment.to_rfc3339(), text);
            assert_eq!(
                Moment::new(moment.seconds(), moment.nanoseconds()),
                Some(moment)
            );
        }
    }
}
