//! Writes query strings, for forms that carry a URI's parts in other words.

/// Percent-encodes text as a value of a query string.
pub(super) fn query_value(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_are_encoded() {
        let mut query = String::new();
        query_value(&mut query, "a b&c=é");
        assert_eq!(query, "a%20b%26c%3D%C3%A9");
    }
}
