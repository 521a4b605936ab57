//! Spans of time as people write them: `90s`, `15m`, `36h`, `7d`, `2w`.

use std::time::Duration;

use thiserror::Error;

/// The text is no span of time.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("'{0}' is no span of time: write a number and a unit, such as 90s, 15m, 36h, 7d or 2w")]
pub struct DurationFormatError(pub String);

/// Reads a whole number with a unit (`s`, `m`, `h`, `d`, `w`); without a unit it is seconds. Zero is refused.
pub fn parse(text: &str) -> Result<Duration, DurationFormatError> {
    let error = || DurationFormatError(text.to_owned());
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(error()),
    };
    let number: u64 = digits.parse().map_err(|_| error())?;
    let seconds = number
        .checked_mul(unit)
        .filter(|seconds| *seconds > 0)
        .ok_or_else(error)?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (text, seconds) in [
            ("5", 5),
            ("90s", 90),
            ("15m", 900),
            ("2min", 120),
            ("36h", 129_600),
            ("7d", 604_800),
            ("2w", 1_209_600),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "d",
            "0d",
            "-1d",
            "1.5h",
            "7 d",
            "7y",
            "99999999999999999999s",
            "9999999999999999999w",
            "é",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
