//! Sets of patterns, compiled once: what one text is tested against.
//!
//! A [`Matcher`] is built from all patterns of a call. Calls have constant patterns nearly always, so a [`Cache`] keeps
//! what was built: a batch costs one look-up, however many patterns there are.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::{Arc, RwLock};

use aho_corasick::AhoCorasick;
use hashbrown::{Equivalent, HashMap, HashSet};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use memchr::memmem::Finder;

/// Tests one text against a set of patterns.
pub(in crate::sql) trait Matcher: Send + Sync + Sized + 'static {
    /// Compiles the set. Patterns that mean nothing are left out; [`Matcher::check`] names them beforehand.
    fn build(patterns: &[&str]) -> Self;

    /// Whether any pattern fits; `None` where the text is nothing that could be tested.
    fn test(&self, text: &str) -> Option<bool>;

    /// Why a pattern means nothing, if so.
    fn check(_pattern: &str) -> Result<(), String> {
        Ok(())
    }
}

/// Compiled matchers by their patterns. Lives as long as its planner, so it holds what the loaded detections use.
pub(super) struct Cache<M>(RwLock<HashMap<Vec<String>, Arc<M>>>);

impl<M> Default for Cache<M> {
    fn default() -> Self {
        Cache(RwLock::default())
    }
}

struct Key<'a>(&'a [&'a str]);

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Equivalent<Vec<String>> for Key<'_> {
    fn equivalent(&self, key: &Vec<String>) -> bool {
        self.0.len() == key.len() && self.0.iter().zip(key).all(|(left, right)| left == right)
    }
}

impl<M: Matcher> Cache<M> {
    /// The matcher of these patterns, built if it is not there.
    pub(super) fn get(&self, patterns: &[&str]) -> Arc<M> {
        let read = self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(found) = read.get(&Key(patterns)) {
            return Arc::clone(found);
        }
        drop(read);
        let built = Arc::new(M::build(patterns));
        let key = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let mut write = self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        Arc::clone(write.entry(key).or_insert(built))
    }
}

// --- SQL LIKE --------------------------------------------------------------------------------------------------------

/// LIKE patterns: `%` is any run of characters, `_` any one, `\` takes the next character as it is.
pub(in crate::sql) struct Like(LikeSet);

/// LIKE patterns that ignore case.
pub(in crate::sql) struct ILike(LikeSet);

impl Matcher for Like {
    fn build(patterns: &[&str]) -> Self {
        Like(LikeSet::new(patterns.iter().map(|pattern| Cow::Borrowed(*pattern))))
    }

    fn test(&self, text: &str) -> Option<bool> {
        Some(self.0.matches(text))
    }
}

impl Matcher for ILike {
    fn build(patterns: &[&str]) -> Self {
        ILike(LikeSet::new(patterns.iter().map(|pattern| lower(pattern))))
    }

    fn test(&self, text: &str) -> Option<bool> {
        Some(self.0.matches(&lower(text)))
    }
}

/// Lower case, without a copy where it is so already.
pub(super) fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.to_lowercase())
    }
}

/// The patterns by how they are looked for: whole texts by hash, inner texts all in one pass, the rest one by one.
pub(super) struct LikeSet {
    exact: HashSet<String>,
    inner: Option<AhoCorasick>,
    others: Vec<Pattern>,
}

impl LikeSet {
    pub(super) fn new<'a>(patterns: impl Iterator<Item = Cow<'a, str>>) -> Self {
        let mut set = LikeSet { exact: HashSet::new(), inner: None, others: Vec::new() };
        let mut inner = Vec::new();
        for pattern in patterns {
            let pattern = Pattern::parse(&pattern);
            match (pattern.whole(), pattern.contained()) {
                (Some(text), _) => drop(set.exact.insert(text.to_owned())),
                (_, Some(text)) => inner.push((text.to_owned(), pattern)),
                _ => set.others.push(pattern),
            }
        }
        // One pass pays from two patterns on; it can only fail on absurd sizes, and then each is looked for by itself.
        if inner.len() > 1 {
            set.inner = AhoCorasick::new(inner.iter().map(|(text, _)| text)).ok();
        }
        if set.inner.is_none() {
            set.others.extend(inner.into_iter().map(|(_, pattern)| pattern));
        }
        set
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        (!self.exact.is_empty() && self.exact.contains(text))
            || self.inner.as_ref().is_some_and(|inner| inner.is_match(text))
            || self.others.iter().any(|pattern| pattern.matches(text))
    }
}

/// What stands between two `%`.
enum Segment {
    /// Text without `_`.
    Text(Box<Finder<'static>>),
    /// Characters, `None` for `_`.
    Characters(Vec<Option<char>>),
}

/// One LIKE pattern, cut at its `%`.
struct Pattern {
    segments: Vec<Segment>,
    anchored_start: bool,
    anchored_end: bool,
}

impl Pattern {
    fn parse(pattern: &str) -> Self {
        let mut pieces: Vec<Vec<Option<char>>> = vec![Vec::new()];
        let mut characters = pattern.chars();
        while let Some(character) = characters.next() {
            let piece = match character {
                '%' => {
                    pieces.push(Vec::new());
                    continue;
                }
                '_' => None,
                '\\' => Some(characters.next().unwrap_or('\\')),
                other => Some(other),
            };
            if let Some(last) = pieces.last_mut() {
                last.push(piece);
            }
        }
        let anchored_start = pieces.first().is_some_and(|piece| !piece.is_empty()) || pieces.len() == 1;
        let anchored_end = pieces.last().is_some_and(|piece| !piece.is_empty()) || pieces.len() == 1;
        let segments = pieces.into_iter().filter(|piece| !piece.is_empty()).map(Segment::new).collect();
        Pattern { segments, anchored_start, anchored_end }
    }

    /// The text, if there is no wildcard at all.
    fn whole(&self) -> Option<&str> {
        match self.segments.as_slice() {
            [] if self.anchored_start => Some(""),
            [segment] if self.anchored_start && self.anchored_end => segment.text(),
            _ => None,
        }
    }

    /// The text, if this is `%text%`.
    fn contained(&self) -> Option<&str> {
        match self.segments.as_slice() {
            [segment] if !self.anchored_start && !self.anchored_end => segment.text(),
            _ => None,
        }
    }

    fn matches(&self, text: &str) -> bool {
        let mut segments = self.segments.as_slice();
        let mut rest = text;
        if self.anchored_start {
            let Some((first, others)) = segments.split_first() else { return text.is_empty() };
            let Some(end) = first.at_start(rest) else { return false };
            (rest, segments) = (rest.get(end..).unwrap_or_default(), others);
            // Without any `%`, the first segment is the last too and must reach the end.
            if segments.is_empty() && self.anchored_end {
                return rest.is_empty();
            }
        }
        if self.anchored_end
            && let Some((last, others)) = segments.split_last()
        {
            let Some(start) = last.at_end(rest) else { return false };
            (rest, segments) = (rest.get(..start).unwrap_or_default(), others);
        }
        // Between the anchors the leftmost place of each segment leaves most room for the next.
        segments.iter().all(|segment| match segment.find(rest) {
            Some(end) => {
                rest = rest.get(end..).unwrap_or_default();
                true
            }
            None => false,
        })
    }
}

impl Segment {
    fn new(characters: Vec<Option<char>>) -> Self {
        match characters.iter().copied().collect::<Option<String>>() {
            Some(text) => Segment::Text(Box::new(Finder::new(&text).into_owned())),
            None => Segment::Characters(characters),
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Segment::Text(finder) => std::str::from_utf8(finder.needle()).ok(),
            Segment::Characters(_) => None,
        }
    }

    /// Where the segment ends that starts at the start of the text.
    fn at_start(&self, text: &str) -> Option<usize> {
        match self {
            Segment::Text(finder) => text.as_bytes().starts_with(finder.needle()).then_some(finder.needle().len()),
            Segment::Characters(characters) => {
                let mut left = text.chars();
                for wanted in characters {
                    let found = left.next()?;
                    if wanted.is_some_and(|wanted| wanted != found) {
                        return None;
                    }
                }
                Some(text.len() - left.as_str().len())
            }
        }
    }

    /// Where the segment starts that ends at the end of the text.
    fn at_end(&self, text: &str) -> Option<usize> {
        match self {
            Segment::Text(finder) => {
                text.as_bytes().ends_with(finder.needle()).then(|| text.len() - finder.needle().len())
            }
            Segment::Characters(characters) => {
                let mut left = text.chars();
                for wanted in characters.iter().rev() {
                    let found = left.next_back()?;
                    if wanted.is_some_and(|wanted| wanted != found) {
                        return None;
                    }
                }
                Some(left.as_str().len())
            }
        }
    }

    /// Where the leftmost occurrence ends.
    fn find(&self, text: &str) -> Option<usize> {
        match self {
            Segment::Text(finder) => finder.find(text.as_bytes()).map(|start| start + finder.needle().len()),
            Segment::Characters(_) => text
                .char_indices()
                .map(|(start, _)| start)
                .find_map(|start| Some(start + self.at_start(text.get(start..)?)?)),
        }
    }
}

// --- equality --------------------------------------------------------------------------------------------------------

/// Equal to one of the values.
pub(in crate::sql) struct Equal(HashSet<String>);

impl Matcher for Equal {
    fn build(patterns: &[&str]) -> Self {
        Equal(patterns.iter().map(|pattern| (*pattern).to_owned()).collect())
    }

    fn test(&self, text: &str) -> Option<bool> {
        Some(self.0.contains(text))
    }
}

// --- paths -----------------------------------------------------------------------------------------------------------

/// A path without the slashes at its end; the root is the empty text.
fn trimmed(path: &str) -> &str {
    path.trim_end_matches('/')
}

/// A path and all that it lies in, from the path to the root.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(trimmed(path)), |path| path.rfind('/').and_then(|slash| path.get(..slash)))
}

/// The path equals one of the directories or lies below it.
pub(in crate::sql) struct Within(HashSet<String>);

impl Matcher for Within {
    fn build(patterns: &[&str]) -> Self {
        Within(patterns.iter().map(|pattern| trimmed(pattern).to_owned()).collect())
    }

    fn test(&self, text: &str) -> Option<bool> {
        Some(ancestors(text).any(|path| self.0.contains(path)))
    }
}

/// The path equals one of the paths or is a parent of one.
pub(in crate::sql) struct Covers(HashSet<String>);

impl Matcher for Covers {
    fn build(patterns: &[&str]) -> Self {
        Covers(patterns.iter().flat_map(|pattern| ancestors(pattern)).map(str::to_owned).collect())
    }

    fn test(&self, text: &str) -> Option<bool> {
        Some(self.0.contains(trimmed(text)))
    }
}

// --- addresses -------------------------------------------------------------------------------------------------------

/// Reads an address; one of IPv4 inside IPv6 (`::ffff:10.0.0.1`) becomes IPv4.
pub(super) fn parse_ip(text: &str) -> Option<IpAddr> {
    text.trim().parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Reads `10.0.0.0/8`; a bare address is the network of that address alone.
pub(super) fn parse_network(text: &str) -> Option<IpNet> {
    let text = text.trim();
    match text.parse::<IpNet>() {
        Ok(network) => Some(network.trunc()),
        Err(_) => parse_ip(text).map(IpNet::from),
    }
}

/// The address lies in one of the networks.
pub(in crate::sql) struct Networks {
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

impl Matcher for Networks {
    fn build(patterns: &[&str]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in patterns.iter().filter_map(|pattern| parse_network(pattern)) {
            match network {
                IpNet::V4(network) => v4.push(network),
                IpNet::V6(network) => v6.push(network),
            }
        }
        // Aggregated networks are disjoint, so that after sorting one binary search decides.
        let (mut v4, mut v6) = (Ipv4Net::aggregate(&v4), Ipv6Net::aggregate(&v6));
        v4.sort_unstable_by_key(Ipv4Net::network);
        v6.sort_unstable_by_key(Ipv6Net::network);
        Networks { v4, v6 }
    }

    fn test(&self, text: &str) -> Option<bool> {
        Some(match parse_ip(text)? {
            IpAddr::V4(address) => {
                let after = self.v4.partition_point(|network| network.network() <= address);
                after.checked_sub(1).and_then(|index| self.v4.get(index)).is_some_and(|n| n.contains(&address))
            }
            IpAddr::V6(address) => {
                let after = self.v6.partition_point(|network| network.network() <= address);
                after.checked_sub(1).and_then(|index| self.v6.get(index)).is_some_and(|n| n.contains(&address))
            }
        })
    }

    fn check(pattern: &str) -> Result<(), String> {
        match parse_network(pattern) {
            Some(_) => Ok(()),
            None => Err(format!("'{pattern}' is no address and no network such as '10.0.0.0/8'")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like(pattern: &str, text: &str) -> bool {
        Like::build(&[pattern]).test(text) == Some(true)
    }

    #[test]
    fn like_knows_its_wildcards() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("%", "", true),
            ("%%", "abc", true),
            ("_", "ä", true),
            ("_", "", false),
            ("_", "ab", false),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("ab%", "abc", true),
            ("%bc", "abc", true),
            ("%b%", "abc", true),
            ("%x%", "abc", false),
            ("a%a", "a", false),
            ("a%a", "aa", true),
            ("a%b%c", "a__b__c", true),
            ("a%bb%c", "abc", false),
            ("%ab%ab%", "ab", false),
            ("%ab%ab%", "abab", true),
            ("a_c", "abc", true),
            ("%a_c", "xxabc", true),
            ("%a_c", "xxabd", false),
            ("a_c%", "abcd", true),
            ("%_b%", "b", false),
            ("%_b%", "äb!", true),
            ("100\\%", "100%", true),
            ("100\\%", "100x", false),
            ("a\\_b", "a_b", true),
            ("a\\_b", "axb", false),
            ("a\\\\%", "a\\b", true),
        ] {
            assert_eq!(like(pattern, text), expected, "{text:?} LIKE {pattern:?}");
        }
    }

    #[test]
    fn a_set_of_patterns_is_the_or_of_each() {
        let patterns = ["exact", "%one%", "%two%", "pre%", "%post", "a_c"];
        let set = Like::build(&patterns);
        for text in ["exact", "a one b", "twofold", "prefix", "thepost", "abc", "other", "", "postscript"] {
            let each = patterns.iter().any(|pattern| like(pattern, text));
            assert_eq!(set.test(text), Some(each), "{text}");
        }
        assert_eq!(ILike::build(&["%BASH%", "ÄB_"]).test("/bin/Bash -c"), Some(true));
        assert_eq!(ILike::build(&["%BASH%", "ÄB_"]).test("äbc"), Some(true));
    }

    #[test]
    fn paths_respect_their_slashes() {
        let within = Within::build(&["/var/run/", "/etc"]);
        for (path, expected) in
            [("/var/run", true), ("/var/run/docker.sock", true), ("/var/runner", false), ("/", false)]
        {
            assert_eq!(within.test(path), Some(expected), "{path}");
        }
        assert_eq!(Within::build(&["/"]).test("/anything"), Some(true));
        assert_eq!(Within::build(&["/"]).test("relative"), Some(false));
        let covers = Covers::build(&["/var/run/docker.sock"]);
        for (path, expected) in
            [("/", true), ("/var", true), ("/var/run/", true), ("/var/r", false), ("/var/run/docker.sock/x", false)]
        {
            assert_eq!(covers.test(path), Some(expected), "{path}");
        }
    }

    #[test]
    fn networks_hold_their_addresses() {
        let networks = Networks::build(&["10.0.0.0/8", "10.1.0.0/16", "192.168.1.7", "fd00::/8", "nonsense"]);
        for (address, expected) in [
            ("10.255.0.1", Some(true)),
            ("11.0.0.1", Some(false)),
            ("192.168.1.7", Some(true)),
            ("192.168.1.8", Some(false)),
            ("::ffff:10.0.0.1", Some(true)),
            ("fd12::1", Some(true)),
            ("2001:db8::1", Some(false)),
            ("host", None),
            ("", None),
        ] {
            assert_eq!(networks.test(address), expected, "{address}");
        }
    }

    #[test]
    fn a_cache_builds_each_set_once() {
        let cache = Cache::<Equal>::default();
        let first = cache.get(&["a", "b"]);
        assert!(Arc::ptr_eq(&first, &cache.get(&["a", "b"])));
        assert!(!Arc::ptr_eq(&first, &cache.get(&["b", "a"])));
    }
}
