//! What goes wrong between instances that share their memory, counted and logged.

use super::events::Event;
use super::metrics::Metrics;

/// The exchange's topic does not take a record for its size.
#[derive(Debug)]
pub struct ExchangeRefused<'a> {
    pub cluster: &'a str,
    pub bytes: usize,
}

impl Event for ExchangeRefused<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.series().exchange_refused.with_label_values::<&str>(&[]).inc();
        if let Some(held_back) = metrics.throttle().pass("exchange_refused", self.cluster) {
            let ExchangeRefused { cluster, bytes } = self;
            tracing::error!(
                event = "exchange_refused",
                cluster,
                bytes,
                held_back,
                "an event is too large for the exchange's topic, so no memory sees it: raise its max.message.bytes"
            );
        }
    }
}

/// Rows came for detections that are not loaded here, or mean something else.
#[derive(Debug)]
pub struct ExchangeUnknown<'a> {
    pub cluster: &'a str,
    pub matches: u64,
}

impl Event for ExchangeUnknown<'_> {
    fn emit(self, metrics: &Metrics) {
        metrics.series().exchange_unknown.with_label_values::<&str>(&[]).inc_by(self.matches);
        if let Some(held_back) = metrics.throttle().pass("exchange_unknown", self.cluster) {
            let ExchangeUnknown { cluster, matches } = self;
            tracing::warn!(
                event = "exchange_unknown",
                cluster,
                matches,
                held_back,
                "another instance sends rows for detections that are not loaded here or mean something else: give all \
                 instances of a group the same detections"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_or_unknown_moves_its_series() {
        let metrics = Metrics::new();
        metrics.emit(ExchangeRefused { cluster: "prod", bytes: 9 });
        metrics.emit(ExchangeUnknown { cluster: "prod", matches: 3 });
        let text = metrics.render();
        for line in ["kubetide_exchange_refused_total 1", "kubetide_exchange_unknown_matches_total 3"] {
            assert!(text.contains(line), "{line}");
        }
    }
}
