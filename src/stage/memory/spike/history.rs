//! How much there was in stretches of the past, and what would be too much.

use std::collections::VecDeque;

/// Most stretches that are remembered; the oldest go first.
pub const STRETCHES_MAX: usize = 200;
/// The median absolute deviation of a normal distribution times this is its standard deviation.
const NORMAL: f64 = 1.4826;

/// Counts of stretches in which there was something, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History(VecDeque<u32>);

/// What a history calls normal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normal {
    /// The median.
    pub median: f64,
    /// A robust standard deviation: of the median absolute deviation, but at least what chance alone gives a count of
    /// that size, and at least 1.
    pub deviation: f64,
}

impl Normal {
    pub fn limit(self, deviations: f64) -> f64 {
        self.median + deviations * self.deviation
    }
}

impl History {
    pub fn push(&mut self, count: u32) {
        if self.0.len() == STRETCHES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(count);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn counts(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied()
    }

    /// What is normal, where at least `least` stretches are known.
    pub fn normal(&self, least: usize) -> Option<Normal> {
        if self.0.len() < least.max(1) {
            return None;
        }
        let mut counts: Vec<f64> = self.0.iter().map(|count| f64::from(*count)).collect();
        let middle = median(&mut counts);
        for count in &mut counts {
            *count = (*count - middle).abs();
        }
        let deviation = (NORMAL * median(&mut counts)).max(middle.sqrt()).max(1.0);
        Some(Normal { median: middle, deviation })
    }
}

/// The median of at least one number.
fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let (low, high) = (numbers.get((numbers.len() - 1) / 2), numbers.get(numbers.len() / 2));
    low.zip(high).map_or(0.0, |(low, high)| f64::midpoint(*low, *high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_is_the_median_and_no_outlier_moves_it() {
        let mut history = History::default();
        assert_eq!(history.normal(1), None);
        for count in [4, 4, 5, 6, 6] {
            history.push(count);
        }
        assert_eq!(history.normal(6), None);
        let calm = history.normal(5).expect("enough");
        assert_eq!(calm.median, 5.0);
        assert!((calm.deviation - 5.0_f64.sqrt()).abs() < 1e-9, "chance gives a count of 5 more than its own spread");
        history.push(100_000);
        let after = history.normal(5).expect("enough");
        assert_eq!(after.median, 5.5);
        assert!(after.limit(6.0) < 25.0, "{after:?}");
        for _ in 0..STRETCHES_MAX {
            history.push(50);
        }
        assert_eq!((history.len(), history.normal(5).expect("enough").median), (STRETCHES_MAX, 50.0));
    }

    #[test]
    fn a_wide_past_allows_more() {
        let mut history = History::default();
        (0..50).for_each(|count| history.push(if count % 2 == 0 { 10 } else { 90 }));
        let normal = history.normal(5).expect("enough");
        assert_eq!((normal.median, normal.deviation), (50.0, NORMAL * 40.0));
    }
}
