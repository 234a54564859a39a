//! Times as audit logs write them.

/// Microseconds since the epoch of an RFC 3339 time, with 0 to 9 decimals, `Z` or an offset; also of the forms that
/// collectors rewrite it to: a space for the `T`, no zone (then UTC).
pub(super) fn parse(text: &[u8]) -> Option<i64> {
    let digits = |from: usize, count: usize| -> Option<i64> {
        text.get(from..from + count)?.iter().try_fold(0i64, |sum, byte| match byte {
            b'0'..=b'9' => Some(sum * 10 + i64::from(byte - b'0')),
            _ => None,
        })
    };
    if text.get(4) != Some(&b'-') || text.get(7) != Some(&b'-') || !matches!(text.get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 2)?, digits(8, 2)?);
    let (hour, minute, second) = (digits(11, 2)?, digits(14, 2)?, digits(17, 2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = fraction(text.get(19..)?)?;
    let offset = zone_seconds(zone)?;
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    Some(seconds * 1_000_000 + fraction)
}

/// Microseconds behind the seconds' point, and the rest.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.' | b',', digits)) = text.split_first() else { return Some((0, text)) };
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let micros = (0..6).fold(0i64, |sum, at| sum * 10 + digits[..end].get(at).map_or(0, |byte| i64::from(byte - b'0')));
    (end > 0).then(|| (micros, &digits[end..]))
}

fn zone_seconds(zone: &[u8]) -> Option<i64> {
    match zone {
        b"" | b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let digits: Vec<i64> =
                rest.iter().filter(|byte| **byte != b':').map(|byte| i64::from(byte.wrapping_sub(b'0'))).collect();
            let [h1, h2, m1, m2] = digits[..] else { return None };
            if digits.iter().any(|digit| *digit > 9) {
                return None;
            }
            let seconds = (h1 * 10 + h2) * 3_600 + (m1 * 10 + m2) * 60;
            Some(if *sign == b'+' { seconds } else { -seconds })
        }
        _ => None,
    }
}

/// Days from 1970-01-01 of a date in the proleptic Gregorian calendar: whole 400-year cycles, then years that begin in
/// March, so that the leap day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let cycle = year.div_euclid(400);
    let year_of_cycle = year - cycle * 400;
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_cycle = year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year;
    cycle * 146_097 + day_of_cycle - 719_468
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn agrees_with_chrono() {
        for text in [
            "2026-11-24T03:15:54.370586Z",
            "2026-11-24T03:15:54Z",
            "1999-12-31T23:59:59.999999999Z",
            "2000-02-29T00:00:00.1Z",
            "2026-03-04T10:15:30.1500010Z",
            "2026-03-04T10:15:30+02:00",
            "1969-12-31T23:59:59.5-0030",
        ] {
            let padded = if text.ends_with("-0030") { text.replace("-0030", "-00:30") } else { text.to_owned() };
            let expected = chrono::DateTime::parse_from_rfc3339(&padded).expect("valid").timestamp_micros();
            assert_eq!(parse(text.as_bytes()), Some(expected), "{text}");
        }
        assert_eq!(parse(b"2026-03-04 10:15:30.15"), parse(b"2026-03-04T10:15:30.150Z"));
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in [
            "",
            "2026-03-04",
            "2026-13-04T10:15:30Z",
            "2026-03-04T10:15:30.Z",
            "2026-03-04T10:15:3xZ",
            "1772619330",
            "2026-03-04T10:15:30+xx:00",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
