//! The subject of a certificate signing request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// `CN=…,O=…` in the order of the request, from `spec.request` (base64 of PEM, whose content is DER again in base64).
///
/// Reads just the common names and organisations, which are the user name and the groups that the API server would
/// take from the certificate (RFC 2986; attribute types of RFC 5280 A.1). `None` where the text is no such request.
pub(super) fn subject(request: &str) -> Option<String> {
    let pem = STANDARD.decode(request).ok()?;
    let pem = std::str::from_utf8(&pem).ok()?;
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let der = STANDARD.decode(body).ok()?;
    // CertificationRequest { CertificationRequestInfo { version, subject Name, … } … }
    let (_, request, _) = element(&der)?;
    let (_, info, _) = element(request)?;
    let (_, _version, rest) = element(info)?;
    let (_, mut name, _) = element(rest)?;
    let mut parts = Vec::new();
    while let Some((_, set, rest)) = element(name) {
        name = rest;
        let (_, attribute, _) = element(set)?;
        let (_, kind, value) = element(attribute)?;
        let (_, value, _) = element(value)?;
        let label = match kind {
            [0x55, 4, 3] => "CN",
            [0x55, 4, 10] => "O",
            _ => continue,
        };
        parts.push(format!("{label}={}", String::from_utf8_lossy(value)));
    }
    Some(parts.join(","))
}

/// Tag, content and what follows of a DER element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        let count = usize::from(first & 0x7F);
        let digits = rest.get(..count).filter(|_| count <= 4)?;
        rest = rest.get(count..)?;
        digits.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    Some((tag, rest.get(..length)?, rest.get(length..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_common_name_and_organisations() {
        let set = |oid: u8, text: &str| {
            let mut attribute = vec![0x06, 3, 0x55, 4, oid, 0x0C, text.len() as u8];
            attribute.extend_from_slice(text.as_bytes());
            let mut set = vec![0x31, attribute.len() as u8 + 2, 0x30, attribute.len() as u8];
            set.extend(attribute);
            set
        };
        let name = [set(10, "system:masters"), set(3, "jane")].concat();
        let info = [vec![2, 1, 0, 0x30, name.len() as u8], name].concat();
        let request = [vec![0x30, info.len() as u8], info].concat();
        let der = [vec![0x30, 0x81, request.len() as u8], request].concat();
        let pem = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            STANDARD.encode(der)
        );
        assert_eq!(subject(&STANDARD.encode(pem)).as_deref(), Some("O=system:masters,CN=jane"));
    }

    #[test]
    fn refuses_what_is_no_request() {
        for text in ["", "not base64!", "bm90IFBFTQ==", &STANDARD.encode("-----BEGIN-----\nMIIB\n-----END-----")] {
            assert_eq!(subject(text), None, "{text}");
        }
    }
}
