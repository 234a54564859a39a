//! Made-up audit load, and the envelopes that clouds put around audit events.
//!
//! For benches, demonstrations and the tests of detections. Nothing of a real cluster is in it, nothing here reads a
//! clock or a file, and the same options give the same bytes (as long as `rand` keeps its generator: a new major
//! version may change it).
//!
//! * [`Generator`] makes canonical events: what components, nodes, controllers, delivery tools and people ask, in the
//!   proportions and sizes of a real log (mean 3 kB, one in a hundred over 20 kB, the largest some 300 kB), with attacks
//!   strewn in.
//! * [`wire`] wraps canonical events as EKS, AKS and GKE deliver them.
//!
//! Reading order: `world` draws a cluster, `events` and `attacks` fill in a `draft` with `objects`, `draft` writes events.

mod attacks;
mod draft;
mod events;
mod json;
mod objects;
mod world;

pub mod wire;

use std::fmt;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use attacks::Attack;
use draft::{Draft, Stage};
use events::{MIX, Scene};
use objects::At;
use world::{World, uid};

/// How often an attack comes where only kinds are asked for: one request in a hundred.
pub const ATTACK_SHARE: f64 = 0.01;

/// What to make.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorOptions {
    pub seed: u64,
    /// When the first request is received, microseconds since the epoch.
    pub start_time_us: i64,
    /// Requests in a second of event time.
    pub rate: f64,
    /// How many clusters the requests are spread over; at least one is made.
    pub clusters: usize,
    /// Share of requests that are attacks, 0 to 1.
    pub attack_share: f64,
    /// The kinds of attacks, in turn; none where empty.
    pub attacks: Vec<Attack>,
    /// Events for every stage of a request, instead of its last alone.
    pub all_stages: bool,
}

impl Default for GeneratorOptions {
    fn default() -> GeneratorOptions {
        GeneratorOptions {
            seed: 1,
            // 2026-01-05T08:00:00Z
            start_time_us: 1_767_600_000_000_000,
            rate: 150.0,
            clusters: 1,
            attack_share: ATTACK_SHARE,
            attacks: Attack::ALL.to_vec(),
            all_stages: false,
        }
    }
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Which cluster's event it is, counted from 0.
    pub cluster: usize,
    pub attack: Option<Attack>,
    /// When the request was received, microseconds since the epoch.
    pub time_us: i64,
}

/// Makes audit events without end.
pub struct Generator {
    options: GeneratorOptions,
    rng: StdRng,
    worlds: Vec<World>,
    draft: Draft,
    made: Made,
    /// Stages of the last request that are still to be written.
    stages: std::slice::Iter<'static, Stage>,
    now_us: f64,
    version: u64,
    attacks_made: usize,
}

impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Generator {
    /// Draws the clusters.
    pub fn new(options: GeneratorOptions) -> Generator {
        let mut rng = StdRng::seed_from_u64(options.seed);
        let worlds = (0..options.clusters.max(1)).map(|_| World::draw(&mut rng)).collect();
        Generator {
            rng,
            worlds,
            draft: Draft::default(),
            made: Made { cluster: 0, attack: None, time_us: options.start_time_us },
            stages: std::slice::Iter::default(),
            now_us: 0.0,
            version: 10_000_000,
            attacks_made: 0,
            options,
        }
    }

    /// Appends the next event, one JSON object without a line end.
    pub fn write_next(&mut self, out: &mut Vec<u8>) -> Made {
        let stage = match self.stages.next() {
            Some(stage) => *stage,
            None => {
                self.request();
                self.stages = self.draft.stages(self.options.all_stages).iter();
                *self.stages.next().expect("every request has a last stage")
            }
        };
        self.draft.write(stage, out);
        self.made
    }

    /// Makes the next request.
    fn request(&mut self) {
        // Requests come independently of each other.
        self.now_us -= (1.0 - self.rng.random::<f64>()).ln() * 1_000_000.0 / self.options.rate.max(1e-6);
        let time_us = self.options.start_time_us + self.now_us as i64;
        let cluster = self.rng.random_range(0..self.worlds.len());
        let attack = self.next_attack();
        self.version += 1 + self.rng.random_range(0..4u64);
        self.draft.id = Some(uid(&mut self.rng));
        self.draft.received_us = time_us;
        self.draft.took_us = 800 + (-(1.0 - self.rng.random::<f64>()).ln() * 5_000.0) as i64;
        let kind = self.rng.random_range(0..MIX.iter().map(|(weight, _)| weight).sum::<u32>());
        let mut scene = Scene {
            rng: &mut self.rng,
            world: &self.worlds[cluster],
            draft: &mut self.draft,
            at: At { now_us: time_us, version: self.version },
        };
        match attack {
            Some(attack) => attack.make(&mut scene),
            None => at_weight(kind)(&mut scene),
        }
        self.made = Made { cluster, attack, time_us };
    }

    fn next_attack(&mut self) -> Option<Attack> {
        // Always drawn, so that the traffic around attacks does not depend on how many kinds there are.
        let is_attack = self.rng.random::<f64>() < self.options.attack_share;
        let attack = *self.options.attacks.get(self.attacks_made % self.options.attacks.len().max(1))?;
        self.attacks_made += usize::from(is_attack);
        is_attack.then_some(attack)
    }
}

/// The kind of request at a point of all weights laid end to end.
fn at_weight(mut point: u32) -> events::Kind {
    for (weight, kind) in MIX {
        if point < weight {
            return kind;
        }
        point -= weight;
    }
    MIX[0].1
}

impl Iterator for Generator {
    type Item = Vec<u8>;

    /// The next event; there always is one.
    fn next(&mut self) -> Option<Vec<u8>> {
        let mut event = Vec::with_capacity(4_096);
        self.write_next(&mut event);
        Some(event)
    }
}

#[cfg(test)]
mod tests;
