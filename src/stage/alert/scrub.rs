//! Finds credentials in plain text by their shape, wherever the text comes from.
//!
//! Two levels: [`strict`] replaces only what cannot be anything else (JSON web tokens, cloud keys, private keys) and is
//! safe for names; [`thorough`] also replaces what stands behind words such as `password=` or `--token`, and is for free
//! text: URIs, commands, annotations.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// What stands where a secret stood. Its length is not told.
pub const REDACTED: &str = "[redacted]";

/// Words that announce a secret right behind them.
const WORDS: &str = "password|passwd|pwd|passphrase|secret|token|api[_-]?key|access[_-]?key|account[_-]?key|private[_-]?key|credentials?";

static SHAPES: LazyLock<Regex> = LazyLock::new(|| {
    pattern(&[
        // JSON web token, with or without its signature
        r"eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)?",
        r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",
        // EKS bearer tokens are presigned URLs in base64
        r"k8s-aws-v1\.[A-Za-z0-9_%=-]{8,}",
        r"\bgh[opsur]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{16,}",
        r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}|\bAIza[A-Za-z0-9_-]{30,}|\bya29\.[A-Za-z0-9_-]{10,}",
        r"\bhvs\.[A-Za-z0-9_-]{20,}|\bnpm_[A-Za-z0-9]{30,}|\bsk-[A-Za-z0-9_-]{32,}",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?s:.*?)(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\z)",
        // the same in base64: "PRIVATE KEY" at any of the three alignments behind "-----BEGIN"
        r"LS0tLS1CRUdJTi[A-Za-z0-9+/]{0,40}(?:UFJJVkFURSBLRV|BSSVZBVEUgS0VZ|QUklWQVRFIEtFW)[A-Za-z0-9+/=\s]*",
    ])
});

/// Group 1 stays, group 2 goes, group 3 (if any) stays.
static BEHIND_WORDS: LazyLock<[Regex; 7]> = LazyLock::new(|| {
    [
        // password=x, "token":"x", SECRET: x, and the escaped forms of a query string or of JSON inside JSON
        pattern(&[&format!(
            r#"(?i)((?:{WORDS})(?:\\?["'])?(?:\s*=\s*|%3d|:\s+|\s*:\s*\\?["']|\\?["']\s*:\s*)(?:\\?["'])?)([^\s"'\\&,;<>{{}}\[\]]+)"#
        )]),
        // --password x, also as arguments of an exec's query string
        pattern(&[&format!(
            r#"(?i)(--?[a-z0-9_-]*(?:{WORDS})(?:\s+|&command=|["'],\s*["']))([^\s"'&\[\]-][^\s"'&]*)"#
        )]),
        pattern(&[concat!(
            r#"(?i)(\bauthorization(?:["']?\s*[:=]\s*["']?|%3a|%3d)(?:\s|\+|%20)*"#,
            r#"(?:basic|bearer|token|digest|negotiate)(?:\s|\+|%20)+)([^\s"'&,;\[\]+]{4,})"#
        )]),
        // long enough not to take the name of the scheme for the secret
        pattern(&[r#"(?i)(\bauthorization(?:["']?\s*[:=]\s*["']?|%3a|%3d)(?:\s|\+|%20)*)([^\s"'&,;\[\]+]{12,})"#]),
        pattern(&[r"(?i)(\bbearer(?:\s|\+|%20)+)([A-Za-z0-9._~+/=%-]{8,})"]),
        // signatures of presigned URLs
        pattern(&[r#"(?i)([?&](?:sig|x-amz-(?:signature|credential|security-token))=)([^\s"'&\[\]]+)"#]),
        // user:password@ of a URL
        pattern(&[r#"(://[^/\s:@"']*:)([^/\s@"'\[\]]+)(@)"#]),
    ]
});

/// Flags whose value is the next argument.
static FLAG: LazyLock<Regex> = LazyLock::new(|| pattern(&[&format!(r"(?i)^--?[a-z0-9_-]*(?:{WORDS})$")]));

fn pattern(alternatives: &[&str]) -> Regex {
    Regex::new(&alternatives.join("|")).expect("the pattern is a literal of this file and tested")
}

/// Replaces what is a credential by its shape alone.
pub fn strict(text: &str) -> Cow<'_, str> {
    const SHAPE_BYTES_MIN: usize = 15;
    if text.len() < SHAPE_BYTES_MIN {
        return text.into();
    }
    SHAPES.replace_all(text, REDACTED)
}

/// Replaces what is a credential by its shape or by the words before it.
pub fn thorough(text: &str) -> Cow<'_, str> {
    thorough_found(text, &mut |_| {})
}

/// The same, and tells what stood behind a word: without the word nobody could tell that it is a secret.
pub fn thorough_found<'t>(text: &'t str, found: &mut dyn FnMut(&str)) -> Cow<'t, str> {
    let mut text = strict(text);
    // every pattern needs one of these behind its word; most names have none of them
    if !text.bytes().any(|byte| matches!(byte, b'=' | b':' | b'%' | b'&' | b'+' | b'"' | b'\'' | b' ' | b'\t' | b'\n'))
    {
        return text;
    }
    for regex in BEHIND_WORDS.iter() {
        let replaced = regex.replace_all(&text, |groups: &Captures<'_>| {
            let group = |index| groups.get(index).map_or("", |group| group.as_str());
            found(group(2));
            format!("{}{REDACTED}{}", group(1), group(3))
        });
        if let Cow::Owned(replaced) = replaced {
            text = Cow::Owned(replaced);
        }
    }
    text
}

/// Whether an argument announces that the next one is a secret.
pub fn is_secret_flag(argument: &str) -> bool {
    argument.starts_with('-') && argument.len() < 64 && FLAG.is_match(argument)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_what_announces_them_stays() {
        let cases = [
            ("curl -H 'Authorization: Bearer abcdefgh12345'", "curl -H 'Authorization: Bearer [redacted]'"),
            ("Authorization:%20Basic%20dXNlcjpwYXNz", "Authorization:%20Basic%20[redacted]"),
            (
                "/exec?command=mysql&command=--password&command=hunter2&x=1",
                "/exec?command=mysql&command=--password&command=[redacted]&x=1",
            ),
            ("PGPASSWORD=hunter2 psql", "PGPASSWORD=[redacted] psql"),
            ("login --token abc123 --user x", "login --token [redacted] --user x"),
            ("token: abc123\nuser: x", "token: [redacted]\nuser: x"),
            (r#"{"client_secret":"s3","a":1}"#, r#"{"client_secret":"[redacted]","a":1}"#),
            (r#"{\"password\":\"s3\"}"#, r#"{\"password\":\"[redacted]\"}"#),
            ("https://joe:pw@example.com:8443/x", "https://joe:[redacted]@example.com:8443/x"),
            ("https://x.blob/y?sv=1&sig=abc%2Fdef", "https://x.blob/y?sv=1&sig=[redacted]"),
            ("AccountKey=abc/def==;Suffix=core", "AccountKey=[redacted];Suffix=core"),
            ("got eyJhbGciOi.eyJzdWIiOi.c2ln done", "got [redacted] done"),
            ("AKIAIOSFODNN7EXAMPLE", "[redacted]"),
            ("-----BEGIN RSA PRIVATE KEY-----\nabc", "[redacted]"),
            ("LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQpNSUlF", "[redacted]"),
            ("LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCk1JSUV", "[redacted]"),
            ("LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS0tLS0tCk1J", "[redacted]"),
        ];
        for (given, wanted) in cases {
            assert_eq!(thorough(given), wanted);
            assert_eq!(thorough(wanted), wanted, "not stable");
        }
    }

    #[test]
    fn what_only_looks_like_a_secret_stays() {
        for text in [
            "system:serviceaccount:secret:default",
            "system:serviceaccount:kube-system:token-cleaner",
            "/api/v1/namespaces/x/serviceaccounts/y/token",
            "/api/v1/secrets?limit=500&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MTJ9",
            "https://example.com:8443/x",
            "RBAC: allowed by ClusterRoleBinding \"token-reader\" of ClusterRole \"secret-reader\" to User \"x\"",
            "JTI=12c6351a-edf8-4c92-a005-139c113895af",
            "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K",
            "registry.example.com/task-runner@sha256:0123456789abcdef",
        ] {
            assert_eq!(thorough(text), text);
        }
        assert!(is_secret_flag("--db-password") && is_secret_flag("-token") && !is_secret_flag("--token=x"));
    }
}
