//! Small values that people write in URLs and flags: option lists, sizes, times. Errors are lower-case fragments that
//! show the value and a right one.

use std::time::Duration;

/// `a=1&b=2`, percent-decoded, in order. `+` stays `+`: these are no HTML forms.
///
/// # Errors
/// A part without `=`, or with a `%` that is no percent-encoding.
pub fn pairs(query: &str) -> Result<Vec<(String, String)>, String> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| match part.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((decode(key)?, decode(value)?)),
            _ => Err(format!("option `{part}` has no `=`")),
        })
        .collect()
}

/// Percent-decoding.
///
/// # Errors
/// A `%` without two hexadecimal digits after it, or bytes that are not UTF-8.
pub fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.filter(|hex| !hex.starts_with('+')).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.ok_or_else(|| format!("`%` in `{text}` needs two hexadecimal digits; write %25 for `%`"))?);
        rest = tail.get(2..).unwrap_or_default();
    }
    String::from_utf8(bytes).map_err(|_| format!("`{text}` is not UTF-8 once decoded"))
}

/// `100MB`, `64 KiB`, `1g` or plain bytes; decimal and binary units. Never zero.
///
/// # Errors
/// Anything else.
pub fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" => Some(1_000),
        "m" | "mb" => Some(1_000_000),
        "g" | "gb" => Some(1_000_000_000),
        "kib" => Some(1 << 10),
        "mib" => Some(1 << 20),
        "gib" => Some(1 << 30),
        _ => None,
    };
    let value = factor.and_then(|factor: u64| number.parse::<u64>().ok()?.checked_mul(factor));
    value.filter(|&v| v > 0).ok_or_else(|| format!("`{text}` is not a size; write 100MB or 64MiB"))
}

/// `500ms`, `30s`, `15m`, `6h`, `1d`. Never zero.
///
/// # Errors
/// Anything else.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor_ms = match unit.trim() {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let ms = factor_ms.and_then(|factor: u64| number.parse::<u64>().ok()?.checked_mul(factor));
    ms.filter(|&v| v > 0)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is not a time; write 30s, 6h or 1d"))
}

/// A plain number.
///
/// # Errors
/// Anything else.
pub fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

/// Says that a word is not known and which known one it may stand for; `what` is such as `option`.
pub fn unknown(what: &str, given: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|name| (strsim::jaro_winkler(given, name), name))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(score, _)| *score > 0.75);
    match nearest {
        Some((_, name)) => format!("unknown {what} `{given}`, did you mean `{name}`?"),
        None => format!("unknown {what} `{given}`, known are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units() {
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("1 kB"), Ok(1_000));
        assert_eq!(bytes("17"), Ok(17));
        assert!(bytes("-1").is_err() && bytes("1XB").is_err() && bytes("99999999999999999GB").is_err());
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7_200)));
        assert!(duration("5").is_err() && duration("0s").is_err() && duration("s").is_err());
    }

    #[test]
    fn pairs_are_percent_decoded_and_keep_plus() {
        assert_eq!(pairs("a=%24b+c&d=e=f"), Ok(vec![("a".into(), "$b+c".into()), ("d".into(), "e=f".into())]));
        assert!(pairs("a").is_err() && pairs("a=%2").is_err() && pairs("a=%ff").is_err());
    }

    #[test]
    fn a_near_word_is_suggested() {
        assert_eq!(unknown("option", "kep", &["rotate", "keep"]), "unknown option `kep`, did you mean `keep`?");
        assert_eq!(unknown("option", "zzz", &["rotate", "keep"]), "unknown option `zzz`, known are rotate, keep");
    }
}
