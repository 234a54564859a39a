//! The meaning of what a detection keeps, as a short text.
//!
//! Made of what decides which rows are kept and what becomes of them: the canonical text of its query, its window, its
//! key, versions of the forms it is kept in. Severity, texts and suppression are no part of it, so that editing them
//! keeps what was learned.

/// The fingerprint of a list of parts: 32 hexadecimal digits of BLAKE3. Parts are framed, so that no two lists share
/// one text.
pub fn fingerprint(parts: &[&str]) -> String {
    let mut hash = blake3::Hasher::new();
    hash.update(b"kubetide.state.1");
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    let mut hex = hash.finalize().to_hex().to_string();
    hex.truncate(32);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        let all = [&["ab", "c"][..], &["a", "bc"], &["abc"], &["abc", ""], &[], &[""]].map(fingerprint);
        let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn it_is_pinned_because_state_is_found_again_by_it() {
        assert_eq!(fingerprint(&["SELECT 1", "window 5m"]), PINNED);
    }

    const PINNED: &str = "1b5402f86a64b21a8811b782e8b91463";
}
