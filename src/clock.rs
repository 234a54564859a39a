//! The only reader of the wall clock.
//!
//! Stages are handed time, so that a replay decides as the live run did; whoever hands it to them reads it here.
//! `clippy.toml` refuses the standard readers everywhere else, which keeps the list of places that know the time short.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};

/// Microseconds since the epoch, UTC.
#[expect(clippy::disallowed_methods, reason = "the one place that may")]
pub fn now_us() -> i64 {
    Utc::now().timestamp_micros()
}

/// Milliseconds since the epoch, UTC.
pub fn now_ms() -> i64 {
    now_us().div_euclid(1_000)
}

/// Today's date in UTC, which decides whether an exception has expired.
pub fn today() -> NaiveDate {
    DateTime::<Utc>::from_timestamp_micros(now_us()).map_or(NaiveDate::MAX, |time| time.date_naive())
}

/// A point on the monotonic clock: for durations and deadlines, never for what an event says about time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(std::time::Instant);

impl Instant {
    /// Now.
    #[expect(clippy::disallowed_methods, reason = "the one place that may")]
    pub fn now() -> Instant {
        Instant(std::time::Instant::now())
    }

    /// Time since then.
    pub fn elapsed(self) -> Duration {
        Instant::now().0.saturating_duration_since(self.0)
    }

    /// Seconds since then, as metrics want them.
    pub fn elapsed_seconds(self) -> f64 {
        self.elapsed().as_secs_f64()
    }

    /// Time from `earlier` to this point, zero when `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }

    /// This point plus `duration`: a deadline. Stays where it is if the clock cannot reach that far.
    pub fn after(self, duration: Duration) -> Instant {
        Instant(self.0.checked_add(duration).unwrap_or(self.0))
    }

    /// How long until this point, zero when it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now().0)
    }

    /// The same point for calls that want the standard type, such as timers.
    pub fn into_std(self) -> std::time::Instant {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_agree_with_each_other() {
        let (ms, us) = (now_ms(), now_us());
        assert!((us / 1_000 - ms).abs() < 10_000);
        assert!(today() > NaiveDate::from_ymd_opt(2024, 1, 1).expect("a date"));
    }

    #[test]
    fn a_deadline_that_passed_leaves_nothing() {
        let start = Instant::now();
        assert!(start.after(Duration::from_secs(60)).remaining() > Duration::from_secs(50));
        assert_eq!(start.remaining(), Duration::ZERO);
        assert_eq!(start.since(start.after(Duration::from_secs(1))), Duration::ZERO);
    }
}
