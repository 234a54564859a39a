//! Sets of rows as bitmaps: one `and` over a batch of 8,192 rows is 128 machine words.

/// A set of row numbers below a fixed bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bits {
    words: Vec<u64>,
    count: usize,
}

impl Bits {
    pub fn none(rows: usize) -> Bits {
        Bits { words: vec![0; rows.div_ceil(64)], count: 0 }
    }

    pub fn all(rows: usize) -> Bits {
        Bits::collect(rows, |_| true)
    }

    /// The rows for which `holds`.
    #[inline]
    pub fn collect(rows: usize, mut holds: impl FnMut(usize) -> bool) -> Bits {
        let mut words = Vec::with_capacity(rows.div_ceil(64));
        let mut count = 0;
        for start in (0..rows).step_by(64) {
            let mut word = 0u64;
            for bit in 0..64.min(rows - start) {
                word |= u64::from(holds(start + bit)) << bit;
            }
            count += word.count_ones() as usize;
            words.push(word);
        }
        Bits { words, count }
    }

    pub fn insert(&mut self, row: usize) {
        let word = &mut self.words[row / 64];
        let bit = 1u64 << (row % 64);
        self.count += usize::from(*word & bit == 0);
        *word |= bit;
    }

    pub fn contains(&self, row: usize) -> bool {
        self.words.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Keeps the rows that are in both.
    #[inline]
    pub fn and(&mut self, other: &Bits) {
        let mut count = 0;
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= other;
            count += word.count_ones() as usize;
        }
        self.count = count;
    }

    /// Takes out the rows that are in `other`.
    pub fn and_not(&mut self, other: &Bits) {
        let mut count = 0;
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= !other;
            count += word.count_ones() as usize;
        }
        self.count = count;
    }

    /// Adds the rows that are in `other`.
    pub fn or(&mut self, other: &Bits) {
        let mut count = 0;
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
            count += word.count_ones() as usize;
        }
        self.count = count;
    }

    /// Keeps the rows for which `holds`.
    #[inline]
    pub fn retain(&mut self, mut holds: impl FnMut(usize) -> bool) {
        for (index, word) in self.words.iter_mut().enumerate() {
            let mut rest = *word;
            while rest != 0 {
                let bit = rest & rest.wrapping_neg();
                if !holds(index * 64 + bit.trailing_zeros() as usize) {
                    *word ^= bit;
                    self.count -= 1;
                }
                rest ^= bit;
            }
        }
    }

    /// The rows in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros() as usize;
                    rest &= rest - 1;
                    index * 64 + bit
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_rows() {
        let mut bits = Bits::collect(200, |row| row % 3 == 0);
        assert_eq!(bits.count(), 67);
        bits.and(&Bits::collect(200, |row| row % 2 == 0));
        assert_eq!(bits.iter().take(3).collect::<Vec<_>>(), vec![0, 6, 12]);
        bits.retain(|row| row > 150);
        assert_eq!((bits.count(), bits.iter().collect::<Vec<_>>()), (8, (156..200).step_by(6).collect()));
        let mut both = Bits::collect(200, |row| row < 10);
        both.or(&Bits::collect(200, |row| row == 199));
        both.and_not(&Bits::collect(200, |row| row % 2 == 0));
        assert_eq!((both.count(), both.iter().collect::<Vec<_>>()), (6, vec![1, 3, 5, 7, 9, 199]));
        let mut one = Bits::none(65);
        one.insert(64);
        one.insert(64);
        assert_eq!((one.count(), one.iter().collect::<Vec<_>>()), (1, vec![64]));
        assert!(one.contains(64) && !one.contains(63) && !one.contains(500));
        assert_eq!(Bits::all(65).count(), 65);
        assert!(Bits::none(0).is_empty());
    }
}
