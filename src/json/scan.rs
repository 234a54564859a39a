//! The two loops that everything else in the decoder waits for: the end of a string, and the end of a bracketed value.
//!
//! Both look at many bytes at once (AVX2 where the processor has it, SSE2 on any other x86-64, plain integers
//! elsewhere) and answer exactly what the one-byte-at-a-time versions in the tests answer. This is the only module
//! with `unsafe`: loads from a slice whose length was just checked, and calls into functions whose processor feature
//! was just detected.
#![allow(unsafe_code)]

/// Where a string literal ends, given the position after its opening quote.
///
/// Returns the position of the closing quote and whether a backslash was passed; `None` where the text ends first.
#[inline]
pub(super) fn string_end(buf: &[u8], mut at: usize) -> Option<(usize, bool)> {
    let mut escaped = false;
    loop {
        at = find_quote_or_backslash(buf, at)?;
        if buf[at] == b'"' {
            return Some((at, escaped));
        }
        escaped = true;
        at += 2;
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn find_quote_or_backslash(buf: &[u8], mut at: usize) -> Option<usize> {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8};
    while at + 16 <= buf.len() {
        // SAFETY: 16 bytes from `at` are inside `buf` by the loop's condition, and SSE2 is part of x86-64.
        let mask = unsafe {
            let block = _mm_loadu_si128(buf.as_ptr().add(at).cast());
            let quote = _mm_cmpeq_epi8(block, _mm_set1_epi8(b'"' as i8));
            let backslash = _mm_cmpeq_epi8(block, _mm_set1_epi8(b'\\' as i8));
            _mm_movemask_epi8(_mm_or_si128(quote, backslash))
        };
        if mask != 0 {
            return Some(at + mask.trailing_zeros() as usize);
        }
        at += 16;
    }
    let rest = buf.get(at..)?;
    rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).map(|found| at + found)
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn find_quote_or_backslash(buf: &[u8], at: usize) -> Option<usize> {
    memchr::memchr2(b'"', b'\\', buf.get(at..)?).map(|found| at + found)
}

/// Where the object or array that starts at `start` ends: the position after its closing bracket, or `None` where the
/// text ends first. Brackets inside strings do not count; nothing else is checked.
#[inline]
pub(super) fn container_end(buf: &[u8], start: usize) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was just detected.
        return unsafe { container_end_avx2(buf, start) };
    }
    container_end_with(buf, start, classify_portable)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,popcnt,bmi1")]
fn container_end_avx2(buf: &[u8], start: usize) -> Option<usize> {
    // The closure is compiled with this function's features.
    container_end_with(buf, start, |block| classify_avx2(block))
}

/// Where a block of 64 bytes has quotes, backslashes, opening and closing brackets; bit n is byte n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Classes {
    quote: u64,
    backslash: u64,
    open: u64,
    close: u64,
}

#[inline(always)]
fn container_end_with(buf: &[u8], start: usize, classify: impl Fn(&[u8; 64]) -> Classes) -> Option<usize> {
    let mut at = start;
    let mut depth: usize = 0;
    // All ones while the block starts inside a string; bit 0 where its first byte is escaped.
    let mut in_string: u64 = 0;
    let mut escape_carry: u64 = 0;
    let mut tail = [b' '; 64];
    while at < buf.len() {
        let block: &[u8; 64] = match buf[at..].first_chunk::<64>() {
            Some(block) => block,
            None => {
                tail[..buf.len() - at].copy_from_slice(&buf[at..]);
                &tail
            }
        };
        let classes = classify(block);
        let escaped =
            if classes.backslash | escape_carry == 0 { 0 } else { escaped_bytes(classes.backslash, &mut escape_carry) };
        let quotes = classes.quote & !escaped;
        let string = prefix_xor(quotes) ^ in_string;
        in_string = ((string as i64) >> 63) as u64;
        let open = classes.open & !string;
        let close = classes.close & !string;
        let closes = close.count_ones() as usize;
        if closes >= depth {
            // The value may end in this block: walk its brackets.
            let mut brackets = open | close;
            while brackets != 0 {
                let bit = brackets & brackets.wrapping_neg();
                if open & bit != 0 {
                    depth += 1;
                } else {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return Some(at + bit.trailing_zeros() as usize + 1);
                    }
                }
                brackets ^= bit;
            }
        } else {
            depth = depth + open.count_ones() as usize - closes;
        }
        at += 64;
    }
    None
}

/// The bytes that a backslash before them escapes. `carry` is 1 where the previous block ended in such a backslash.
#[inline(always)]
fn escaped_bytes(backslash: u64, carry: &mut u64) -> u64 {
    // A run of backslashes escapes what follows it where the run's length is odd. Adding a bit at the start of each run
    // carries to just behind its end; the parity of that place against the run's start tells odd from even.
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let backslash = backslash & !*carry;
    let follows = (backslash << 1) | *carry;
    let odd_starts = backslash & !EVEN & !follows;
    let (sequences, overflow) = odd_starts.overflowing_add(backslash);
    *carry = u64::from(overflow);
    let invert = sequences << 1;
    (EVEN ^ invert) & follows
}

/// Bit n of the result is the parity of bits 0..=n: ones from an opening quote up to, not including, its closing one.
#[inline(always)]
fn prefix_xor(mut bits: u64) -> u64 {
    bits ^= bits << 1;
    bits ^= bits << 2;
    bits ^= bits << 4;
    bits ^= bits << 8;
    bits ^= bits << 16;
    bits ^= bits << 32;
    bits
}

#[inline(always)]
fn classify_portable(block: &[u8; 64]) -> Classes {
    let mut classes = Classes { quote: 0, backslash: 0, open: 0, close: 0 };
    for (index, byte) in block.iter().enumerate() {
        let bit = 1u64 << index;
        match byte {
            b'"' => classes.quote |= bit,
            b'\\' => classes.backslash |= bit,
            b'{' | b'[' => classes.open |= bit,
            b'}' | b']' => classes.close |= bit,
            _ => {}
        }
    }
    classes
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
fn classify_avx2(block: &[u8; 64]) -> Classes {
    use std::arch::x86_64::{
        __m256i, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8,
    };
    // SAFETY: both halves of a 64-byte array are 32 readable bytes.
    let (low, high) =
        unsafe { (_mm256_loadu_si256(block.as_ptr().cast()), _mm256_loadu_si256(block.as_ptr().add(32).cast())) };
    let mask = |low: __m256i, high: __m256i, byte: u8| {
        let wanted = _mm256_set1_epi8(byte as i8);
        let low = _mm256_movemask_epi8(_mm256_cmpeq_epi8(low, wanted)) as u32;
        let high = _mm256_movemask_epi8(_mm256_cmpeq_epi8(high, wanted)) as u32;
        u64::from(low) | (u64::from(high) << 32)
    };
    // `[` and `{`, `]` and `}` differ in bit 5 alone, and no other byte becomes one of them when it is set.
    let case = _mm256_set1_epi8(0x20);
    let (low_case, high_case) = (_mm256_or_si256(low, case), _mm256_or_si256(high, case));
    Classes {
        quote: mask(low, high, b'"'),
        backslash: mask(low, high, b'\\'),
        open: mask(low_case, high_case, b'{'),
        close: mask(low_case, high_case, b'}'),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same answer one byte at a time.
    fn container_end_plain(buf: &[u8], start: usize) -> Option<usize> {
        let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
        for (at, byte) in buf.iter().enumerate().skip(start) {
            if in_string {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => in_string = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Text made of what matters to the scanner, with backslashes only inside strings as JSON has them.
    fn jsonish() -> impl Strategy<Value = String> {
        let string = "[a-z{}\\[\\] ]{0,70}".prop_flat_map(|text| {
            (Just(text), proptest::collection::vec((any::<prop::sample::Index>(), "\\\\[\\\\\"nu]"), 0..6))
        });
        let string = string.prop_map(|(text, escapes)| {
            let mut text = text;
            for (place, escape) in escapes {
                // Never between the two bytes of an earlier escape.
                let places: Vec<usize> = (0..=text.len())
                    .filter(|at| text[..*at].bytes().rev().take_while(|b| *b == b'\\').count() % 2 == 0)
                    .collect();
                text.insert_str(places[place.index(places.len())], &escape);
            }
            format!("\"{text}\"")
        });
        proptest::collection::vec(prop_oneof![string, "[{}\\[\\],:0-9 ]{0,9}"], 0..12)
            .prop_map(|parts| format!("{{{}", parts.concat()))
    }

    proptest! {
        #[test]
        fn block_scanners_agree_with_the_plain_one(text in jsonish(), pad in 0usize..70) {
            let buf = format!("{}{text}", " ".repeat(pad));
            let expected = container_end_plain(buf.as_bytes(), pad);
            prop_assert_eq!(container_end(buf.as_bytes(), pad), expected);
            prop_assert_eq!(container_end_with(buf.as_bytes(), pad, classify_portable), expected);
        }

        #[test]
        fn string_end_agrees_with_the_plain_one(bytes in proptest::collection::vec(prop_oneof![Just(b'"'), Just(b'\\'), Just(b'x')], 0..90)) {
            let mut expected = None;
            let (mut at, mut escaped) = (0, false);
            while at < bytes.len() {
                match bytes[at] {
                    b'"' => { expected = Some((at, escaped)); break; }
                    b'\\' => { escaped = true; at += 2; }
                    _ => at += 1,
                }
            }
            prop_assert_eq!(string_end(&bytes, 0), expected);
        }
    }

    #[test]
    fn classifiers_agree_on_every_byte() {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            for base in 0..=255u8 {
                let block: [u8; 64] = std::array::from_fn(|index| base.wrapping_add(index as u8));
                // SAFETY: AVX2 was just detected.
                assert_eq!(unsafe { classify_avx2(&block) }, classify_portable(&block));
            }
        }
    }
}
