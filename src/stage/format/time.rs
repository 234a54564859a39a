//! Times that envelopes carry, as milliseconds since the epoch.
//!
//! Only a fallback for events that have no time of their own, so milliseconds do. Accepts what `formats.md` lists:
//! RFC 3339 with 0 to 9 decimals, a space instead of `T`, no zone (taken as UTC), epoch numbers in any unit.

use crate::json::{Cursor, Kind};

/// The time in a JSON value: a string in RFC 3339, or a number (also as a string) of epoch seconds, milli-, micro- or
/// nanoseconds, told apart by size. `None` for anything else.
pub(super) fn millis(value: &[u8]) -> Option<i64> {
    let mut cursor = Cursor::new(value);
    match cursor.kind().ok()? {
        Kind::String => {
            let text = cursor.text().ok()??;
            rfc3339_ms(text.raw()).or_else(|| epoch_ms(text.raw()))
        }
        Kind::Number => epoch_ms(value),
        _ => None,
    }
}

/// Epoch time in a unit that its size tells.
fn epoch_ms(digits: &[u8]) -> Option<i64> {
    let number: f64 = std::str::from_utf8(digits).ok()?.trim().parse().ok()?;
    // 1e11 seconds is the year 5138, 1e11 milliseconds 1973: no audit log is older or younger.
    let millis = match number {
        n if !(0.0..1e20).contains(&n) => return None,
        n if n < 1e11 => n * 1e3,
        n if n < 1e14 => n,
        n if n < 1e17 => n / 1e3,
        n => n / 1e6,
    };
    Some(millis as i64)
}

/// `2026-03-04T10:15:30[.fraction][Z|±hh:mm]`; a space may stand for `T`, no zone is UTC.
pub(super) fn rfc3339_ms(text: &[u8]) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        text.get(from..to)?
            .iter()
            .try_fold(0i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    };
    let is = |at: usize, wanted: &[u8]| text.get(at).is_some_and(|byte| wanted.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    let mut millis = 0;
    if is(at, b".,") {
        at += 1;
        let mut scale = 100;
        while let Some(digit) = text.get(at).filter(|byte| byte.is_ascii_digit()) {
            millis += i64::from(digit - b'0') * scale;
            scale /= 10;
            at += 1;
        }
    }
    let offset_minutes = match text.get(at) {
        None | Some(b'Z' | b'z') => 0,
        Some(sign @ (b'+' | b'-')) => {
            let minutes = number(at + 1, at + 3)? * 60 + number(at + 4, at + 6)?;
            if *sign == b'-' { -minutes } else { minutes }
        }
        Some(_) => return None,
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset_minutes * 60;
    Some(seconds * 1_000 + millis)
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar, counted in years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_spelling_of_one_moment() {
        for value in [
            r#""2026-03-04T10:15:30.150Z""#,
            r#""2026-03-04T10:15:30.1500010Z""#,
            r#""2026-03-04 10:15:30.15""#,
            r#""2026-03-04T12:15:30.150000001+02:00""#,
            "1772619330.150001",
            "1772619330150",
            "1772619330150001",
            r#""1772619330150001234""#,
        ] {
            assert_eq!(millis(value.as_bytes()), Some(1_772_619_330_150), "{value}");
        }
    }

    #[test]
    fn agrees_with_chrono_around_leap_days() {
        for text in ["1970-01-01T00:00:00Z", "2000-02-29T23:59:59Z", "2024-03-01T00:00:00Z", "2100-12-31T12:00:00Z"] {
            let expected = chrono::DateTime::parse_from_rfc3339(text).expect("valid").timestamp_millis();
            assert_eq!(rfc3339_ms(text.as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_time() {
        for value in
            [r#""yesterday""#, r#""2026-13-04T10:15:30Z""#, "null", "-1", "{}", r#""2026-03-04T10:15:30?""#, "1e300"]
        {
            assert_eq!(millis(value.as_bytes()), None, "{value}");
        }
    }
}
