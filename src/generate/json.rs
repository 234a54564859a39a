//! Appends parts of events to a buffer: texts, numbers, times, ids.

use crate::json::write::escape_where;

/// Something that is appended as it is.
pub(super) trait Put {
    fn put(&self, out: &mut Vec<u8>);
}

/// Appends each of the parts: `put!(out, "text", number, …)`.
macro_rules! put {
    ($out:expr, $($part:expr),+ $(,)?) => {{
        let buffer: &mut Vec<u8> = $out;
        $( $crate::generate::json::Put::put(&$part, buffer); )+
    }};
}
pub(super) use put;

impl<T: Put + ?Sized> Put for &T {
    fn put(&self, out: &mut Vec<u8>) {
        (**self).put(out);
    }
}

impl Put for str {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl Put for String {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl Put for Vec<u8> {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl Put for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        let width = self.checked_ilog10().map_or(1, |log| log as usize + 1);
        decimal(out, *self, width);
    }
}

/// Text as the API server's encoder escapes it: also what HTML takes for markup.
pub(super) struct Escaped<'t>(pub &'t str);

impl Put for Escaped<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        escape_where(out, self.0.as_bytes(), |byte| matches!(byte, b'"' | b'\\' | b'&' | b'<' | b'>' | 0..0x20));
    }
}

/// The lowest `1` digits of a number in hexadecimal.
pub(super) struct Hex(pub u64, pub usize);

impl Put for Hex {
    fn put(&self, out: &mut Vec<u8>) {
        for at in (0..self.1).rev() {
            out.push(b"0123456789abcdef"[(self.0 >> (4 * at)) as usize & 15]);
        }
    }
}

/// A random identifier, written as a UUID of version 4.
#[derive(Debug, Clone, Copy)]
pub(super) struct Uid(pub u64, pub u64);

impl Put for Uid {
    fn put(&self, out: &mut Vec<u8>) {
        let Uid(high, low) = *self;
        put!(out, Hex(high >> 32, 8), "-", Hex(high >> 16, 4), "-4", Hex(high, 3), "-a", Hex(low >> 48, 3), "-");
        put!(out, Hex(low, 12));
    }
}

/// Microseconds since the epoch, written with six decimals.
#[derive(Clone, Copy)]
pub(super) struct Micros(pub i64);

/// Microseconds since the epoch, written in whole seconds.
#[derive(Clone, Copy)]
pub(super) struct Seconds(pub i64);

impl Put for Micros {
    fn put(&self, out: &mut Vec<u8>) {
        date(out, self.0.div_euclid(1_000_000));
        out.push(b'.');
        decimal(out, self.0.rem_euclid(1_000_000).unsigned_abs(), 6);
        out.push(b'Z');
    }
}

impl Put for Seconds {
    fn put(&self, out: &mut Vec<u8>) {
        date(out, self.0.div_euclid(1_000_000));
        out.push(b'Z');
    }
}

/// The lowest `width` digits, with zeros in front.
fn decimal(out: &mut Vec<u8>, number: u64, width: usize) {
    let start = out.len();
    out.resize(start + width, b'0');
    let mut rest = number;
    for digit in out.iter_mut().skip(start).rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// `2026-03-04T10:15:30` of seconds since the epoch; the calendar is counted from 1 March of year 0, so that the leap
/// day is a year's last.
fn date(out: &mut Vec<u8>, seconds: i64) {
    let (days, second) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let parts = [
        (era * 400 + year + next, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (second / 3_600, 2, b':'),
        (second / 60 % 60, 2, b':'),
        (second % 60, 2, b' '),
    ];
    for (number, width, separator) in parts {
        decimal(out, number.unsigned_abs(), width);
        out.push(separator);
    }
    out.pop();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_appended_as_text() {
        let mut out = Vec::new();
        put!(&mut out, "n=", 0u64, ",", 1_234u64, ",", Hex(0xabc, 4), ",", Escaped("a&b<\"\n"), ",", Uid(1, 2));
        let expected = "n=0,1234,0abc,a\\u0026b\\u003c\\\"\\n,00000000-0000-4001-a000-000000000002";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for micros in [0, 951_782_400_000_001, 1_772_619_330_150_001, 1_835_481_599_999_999, 4_107_542_400_000_000] {
            let mut out = Vec::new();
            put!(&mut out, Micros(micros), " ", Seconds(micros));
            let time = chrono::DateTime::from_timestamp_micros(micros).expect("in range");
            let expected = format!("{} {}", time.format("%Y-%m-%dT%H:%M:%S%.6fZ"), time.format("%Y-%m-%dT%H:%M:%SZ"));
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }
}
