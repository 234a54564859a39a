//! gzip and base64, with a limit on what comes out.

use std::borrow::Cow;
use std::io::Read;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::bufread::GzDecoder;

/// First bytes of every gzip member.
pub(super) const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Why bytes could not be decompressed in full; what came out before is in the buffer.
#[derive(Debug, thiserror::Error)]
pub(super) enum InflateError {
    #[error("more than {limit} bytes come out")]
    TooLarge { limit: usize },
    #[error("gzip member {member} is broken ({message})")]
    Broken { member: usize, message: String },
    #[error("{count} bytes that are no gzip follow the last member")]
    Trailing { count: usize },
}

/// Decompresses all members that follow one another and appends what comes out, at most `limit` bytes.
pub(super) fn gunzip(bytes: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), InflateError> {
    let mut rest = bytes;
    let mut member = 0;
    while rest.starts_with(&GZIP) {
        let room = limit.saturating_sub(out.len());
        // One byte more than fits tells "exactly full" from "too much".
        let mut reader = GzDecoder::new(&mut rest).take(room as u64 + 1);
        let read = reader.read_to_end(out);
        if out.len() > limit {
            return Err(InflateError::TooLarge { limit });
        }
        if let Err(error) = read {
            return Err(InflateError::Broken { member, message: error.to_string() });
        }
        member += 1;
    }
    let padding = rest.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == 0).count();
    if padding < rest.len() {
        return Err(InflateError::Trailing { count: rest.len() - padding });
    }
    Ok(())
}

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
static STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
static URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Decodes base64 in either alphabet, padded or not, with line breaks or not. `None` where it is not base64.
pub(super) fn unbase64(text: &[u8]) -> Option<Vec<u8>> {
    let compact: Cow<'_, [u8]> = if text.iter().any(u8::is_ascii_whitespace) {
        Cow::Owned(text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect())
    } else {
        Cow::Borrowed(text)
    };
    let engine = if compact.iter().any(|byte| matches!(byte, b'-' | b'_')) { &URL_SAFE } else { &STANDARD };
    engine.decode(compact.as_ref()).ok()
}

/// Whether a text starts like base64 of gzip or of a JSON object.
pub(super) fn starts_like_base64(text: &[u8]) -> bool {
    [b"H4sI".as_slice(), b"eyI", b"eyJ"].iter().any(|start| text.starts_with(start))
}

/// Whether a byte can stand in base64 of either alphabet.
pub(super) fn is_base64_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn members_are_joined_and_padding_is_ignored() {
        let mut bytes = gzip(b"one ");
        bytes.extend(gzip(b"two"));
        bytes.extend(b"\n\0");
        let mut out = Vec::new();
        gunzip(&bytes, 7, &mut out).expect("fits exactly");
        assert_eq!(out, b"one two");
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let mut out = Vec::new();
        let error = gunzip(&gzip(&vec![0; 1 << 20]), 1000, &mut out).expect_err("too large");
        assert!(matches!(error, InflateError::TooLarge { limit: 1000 }) && out.len() == 1001);
    }

    #[test]
    fn a_cut_member_yields_its_head() {
        let bytes = gzip(&(0..100_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
        let mut out = Vec::new();
        let error = gunzip(&bytes[..bytes.len() / 2], 1 << 20, &mut out).expect_err("cut");
        assert!(matches!(error, InflateError::Broken { member: 0, .. }) && out.len() > 1000);
    }

    #[test]
    fn base64_in_every_dress() {
        for text in ["eyI/Pz4+", "eyI_Pz4-", "eyI/\r\nPz4+\n"] {
            assert_eq!(unbase64(text.as_bytes()).as_deref(), Some(b"{\"??>>".as_slice()), "{text}");
        }
        assert_eq!(unbase64(b"e30").as_deref(), Some(b"{}".as_slice()));
        assert_eq!(unbase64(b"{}"), None);
    }
}
