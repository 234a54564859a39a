//! What one key, one group or everybody did, counted in days that fade.

use std::collections::HashMap;

/// A number of days that fades: `amount` was right on `day`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Faded {
    pub amount: f64,
    pub day: i64,
    /// The first day.
    pub since: i64,
}

impl Faded {
    /// What is left of it on a day, with `fade` left of each day after one more.
    pub fn at(&self, day: i64, fade: f64) -> f64 {
        match i32::try_from(day - self.day) {
            Ok(0) => self.amount,
            Ok(days) => self.amount * fade.powi(days.max(0)),
            Err(_) => 0.0,
        }
    }

    /// Counts a day.
    pub fn add(&mut self, day: i64, fade: f64) {
        if self.amount == 0.0 {
            self.since = day;
        }
        self.amount = self.at(day, fade) + 1.0;
        self.day = day;
    }
}

/// The days and habits of a key, or the sum of those of several keys.
#[derive(Debug, Default)]
pub struct Population {
    /// Days on which there was anything.
    pub days: Faded,
    /// By feature: days on which there was this value.
    values: Vec<HashMap<Box<str>, Faded>>,
}

impl Population {
    pub fn value(&self, feature: usize, value: &str) -> Option<&Faded> {
        self.values.get(feature)?.get(value)
    }

    /// How probable the value is on a day, where `before` is believed as much as `strength` days.
    pub fn smooth(&self, feature: usize, value: &str, day: i64, fade: f64, before: f64, strength: f64) -> f64 {
        let days = self.days.at(day, fade);
        let with = self.value(feature, value).map_or(0.0, |known| known.at(day, fade));
        (with.min(days) + strength * before) / (days + strength)
    }

    /// Counts a day with the value; whether the value is new to it.
    pub fn add(&mut self, feature: usize, value: &str, day: i64, fade: f64) -> bool {
        if self.values.len() <= feature {
            self.values.resize_with(feature + 1, HashMap::new);
        }
        let Some(values) = self.values.get_mut(feature) else { return false };
        if let Some(known) = values.get_mut(value) {
            known.add(day, fade);
            return false;
        }
        values.insert(value.into(), Faded { amount: 1.0, day, since: day });
        true
    }

    /// Puts back what [`Population::values`] gave.
    pub fn put(&mut self, feature: usize, value: &str, known: Faded) {
        if self.values.len() <= feature {
            self.values.resize_with(feature + 1, HashMap::new);
        }
        if let Some(values) = self.values.get_mut(feature) {
            values.insert(value.into(), known);
        }
    }

    /// All values, in order of feature and value.
    pub fn values(&self) -> Vec<(usize, &str, Faded)> {
        let all = self.values.iter().enumerate();
        let mut all: Vec<_> = all
            .flat_map(|(feature, values)| values.iter().map(move |(value, known)| (feature, value.as_ref(), *known)))
            .collect();
        all.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        all
    }

    /// The values of a feature seen on most days, those first.
    pub fn usual(&self, feature: usize, day: i64, fade: f64, most: usize) -> Vec<&str> {
        let Some(values) = self.values.get(feature) else { return Vec::new() };
        let mut values: Vec<_> = values.iter().map(|(value, known)| (known.at(day, fade), value.as_ref())).collect();
        values.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        values.into_iter().take(most).map(|(_, value)| value).collect()
    }

    /// How many values there are.
    pub fn len(&self) -> u64 {
        self.values.iter().map(|values| values.len() as u64).sum()
    }

    /// Forgets values of which less than `least` days are left.
    pub fn tidy(&mut self, day: i64, fade: f64, least: f64) {
        for values in &mut self.values {
            values.retain(|_, known| known.at(day, fade) >= least);
        }
    }
}
