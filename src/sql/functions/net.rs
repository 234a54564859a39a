//! Addresses: `cidr_contains`, `is_public_ip` and `ip_network`; `ip_in` is a test of text against networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, StringArray};
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::scalar::ScalarValue;
use ipnet::IpNet;

use super::Kernel;
use super::arguments::{Arguments, Param, scalar_text};
use super::matcher::{Matcher, Networks, parse_ip, parse_network};

/// `cidr_contains(cidr, ip)`.
#[derive(Debug)]
pub(super) struct CidrContains;

impl Kernel for CidrContains {
    fn params(&self) -> &[Param] {
        &[Param::Text, Param::Text]
    }

    fn check(&self, _types: &[&DataType], constants: &[Option<&ScalarValue>]) -> Result<(), String> {
        match constants.first().copied().flatten().and_then(scalar_text) {
            Some(network) => Networks::check(network),
            None => Ok(()),
        }
    }

    fn evaluate(&self, arguments: &Arguments<'_>) -> Result<ArrayRef> {
        let (networks, addresses) = (arguments.text(0)?, arguments.text(1)?);
        let constant = arguments.constant_text(0).and_then(parse_network);
        let answers: BooleanArray = (0..arguments.rows())
            .map(|row| {
                let network = match constant {
                    Some(network) => network,
                    None => parse_network(networks.value(row)?)?,
                };
                Some(network.contains(&parse_ip(addresses.value(row)?)?))
            })
            .collect();
        Ok(Arc::new(answers))
    }
}

/// Whether the address belongs to one host on the internet; `None` where it is none.
pub(in crate::sql) fn is_public_ip(text: &str) -> Option<bool> {
    parse_ip(text).map(is_public)
}

/// `is_public_ip(ip)`.
#[derive(Debug)]
pub(super) struct IsPublicIp;

impl Kernel for IsPublicIp {
    fn params(&self) -> &[Param] {
        &[Param::Text]
    }

    fn evaluate(&self, arguments: &Arguments<'_>) -> Result<ArrayRef> {
        let addresses = arguments.text(0)?;
        let answers: BooleanArray = (0..arguments.rows()).map(|row| is_public_ip(addresses.value(row)?)).collect();
        Ok(Arc::new(answers))
    }
}

/// `ip_network(ip, length)`.
#[derive(Debug)]
pub(super) struct IpNetwork;

/// IPv6 networks are of this length whatever is asked for IPv4: it is what one customer gets.
const V6_LENGTH: u8 = 48;

impl Kernel for IpNetwork {
    fn params(&self) -> &[Param] {
        &[Param::Text, Param::Text]
    }

    fn returns(&self) -> DataType {
        DataType::Utf8
    }

    fn check(&self, _types: &[&DataType], constants: &[Option<&ScalarValue>]) -> Result<(), String> {
        match constants.get(1).copied().flatten().and_then(scalar_text) {
            Some(length) if prefix_length(length).is_none() => {
                Err(format!("'{length}' is no length of a network such as '/24'"))
            }
            _ => Ok(()),
        }
    }

    fn evaluate(&self, arguments: &Arguments<'_>) -> Result<ArrayRef> {
        let (addresses, lengths) = (arguments.text(0)?, arguments.text(1)?);
        let answers: StringArray = (0..arguments.rows())
            .map(|row| {
                let (address, length) = (parse_ip(addresses.value(row)?)?, prefix_length(lengths.value(row)?)?);
                let length = if address.is_ipv4() { length } else { V6_LENGTH };
                Some(IpNet::new(address, length).ok()?.trunc().to_string())
            })
            .collect();
        Ok(Arc::new(answers))
    }
}

/// The number in `/24`.
fn prefix_length(text: &str) -> Option<u8> {
    text.strip_prefix('/')?.parse().ok().filter(|length| (1..=32).contains(length))
}

/// Whether the address is routed on the internet and belongs to one host, by the IANA special-purpose registries.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    let special = a == 0
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        // Shared space of carriers, also used inside managed clusters.
        || (a == 100 && b & 0xc0 == 64)
        // Protocol assignments, but for the two anycast addresses in them.
        || (a == 192 && b == 0 && c == 0 && d != 9 && d != 10)
        // Benchmarking.
        || (a == 198 && b & 0xfe == 18);
    // From 224 on: multicast, reserved, broadcast.
    !special && a < 224
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [a, b, c, ..] = segments;
    match a {
        // NAT64: public where the address inside is.
        0x64 if b == 0xff9b && segments[2..6] == [0; 4] => {
            let [.., high, low] = segments;
            let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        // Protocol assignments, but for those that are global: anycast, AMT, AS112, ORCHIDv2, drone identifiers.
        0x2001 if b < 0x200 => match b {
            1 => c == 0 && segments[3..7] == [0; 4] && matches!(segments[7], 1..=3),
            3 => true,
            4 => c == 0x112,
            0x20..=0x3f => true,
            _ => false,
        },
        // Documentation.
        0x2001 if b == 0xdb8 => false,
        0x3fff if b < 0x1000 => false,
        // 6to4, no longer routed on its own.
        0x2002 => false,
        _ => a & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_are_those_of_the_internet() {
        for (address, expected) in [
            ("8.8.8.8", true),
            ("192.0.0.9", true),
            ("172.32.0.1", true),
            ("10.0.0.1", false),
            ("172.16.0.1", false),
            ("192.168.0.1", false),
            ("100.64.0.1", false),
            ("100.128.0.1", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("0.0.0.0", false),
            ("198.19.0.1", false),
            ("203.0.113.5", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("2606:4700::1111", true),
            ("2001:4860:4860::8888", true),
            ("::ffff:8.8.8.8", true),
            ("::ffff:10.0.0.1", false),
            ("64:ff9b::808:808", true),
            ("64:ff9b::a00:1", false),
            ("::1", false),
            ("::", false),
            ("fe80::1", false),
            ("fd00::1", false),
            ("ff02::1", false),
            ("2001:db8::1", false),
            ("2001::1", false),
        ] {
            assert_eq!(parse_ip(address).map(is_public), Some(expected), "{address}");
        }
    }
}
