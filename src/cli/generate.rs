//! `kubetide generate`: made-up audit load into a file, a pipe or a topic.

mod output;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use chrono::DateTime;

use super::exit::Failure;
use crate::clock::{self, Instant};
use crate::detection::suggest;
use crate::generate::wire::{WireFormat, wrap};
use crate::generate::{ATTACK_SHARE, Attack, Generator, GeneratorOptions, Made};
use output::Output;

/// Most events in one envelope.
const BATCH_EVENTS: usize = 16;
/// Most bytes of events in one envelope, so that it stays below a topic's usual limit when escaped and wrapped. A single
/// event may be larger.
const BATCH_BYTES: usize = 256 << 10;
/// Being less early than this is not worth a nap.
const EARLY: Duration = Duration::from_millis(5);

/// Make up audit load: realistic requests with attacks strewn in
///
/// The same options make the same bytes, unless `--rate` is given: then events are of now.
#[derive(Debug, clap::Args)]
pub struct GenerateArgs {
    /// Where events go: `-`, a file (`.gz` and `.zst` are compressed) or `kafka://host:port/topic`
    #[arg(value_name = "OUTPUT", default_value = "-")]
    output: String,
    /// How many events
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    events: u64,
    /// Requests a second, at their time (default: as fast as possible)
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// Whose wire format
    #[arg(long, value_enum, default_value = "native")]
    cloud: CloudChoice,
    /// `all` kinds of attacks, `none`, a share of requests such as `0.01`, or kinds separated by commas
    #[arg(long, value_name = "WHICH", default_value = "all", value_parser = attacks)]
    attacks: Attacks,
    /// Start of the random numbers
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// How many clusters (default: 1, or 4 where clouds are mixed)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    clusters: Option<u32>,
    /// Time of the first event, RFC 3339 (default: now with `--rate`, else a fixed day)
    #[arg(long, value_name = "TIME", value_parser = time)]
    start: Option<i64>,
    /// Write an event for every stage of a request, not only for its last
    #[arg(long)]
    all_stages: bool,
}

/// Which wire format each cluster's events have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CloudChoice {
    /// Bare events of a kube-apiserver
    Native,
    /// CloudWatch envelopes: lines of JSON, in Kafka compressed as Kinesis hands them on
    Eks,
    /// Event Hubs messages
    Aks,
    /// Cloud Logging entries
    Gke,
    /// Clusters take turns
    Mixed,
}

impl CloudChoice {
    fn of_cluster(self, cluster: usize, is_kafka: bool) -> WireFormat {
        match self {
            CloudChoice::Native => WireFormat::Native,
            CloudChoice::Eks if is_kafka => WireFormat::EksGzip,
            CloudChoice::Eks => WireFormat::Eks,
            CloudChoice::Aks => WireFormat::Aks,
            CloudChoice::Gke => WireFormat::Gke,
            CloudChoice::Mixed => {
                let turns = [CloudChoice::Native, CloudChoice::Eks, CloudChoice::Aks, CloudChoice::Gke];
                turns[cluster % turns.len()].of_cluster(cluster, is_kafka)
            }
        }
    }
}

/// What `--attacks` asks for.
#[derive(Debug, Clone, PartialEq)]
struct Attacks {
    share: f64,
    kinds: Vec<Attack>,
}

fn attacks(text: &str) -> Result<Attacks, String> {
    match text {
        "all" => return Ok(Attacks { share: ATTACK_SHARE, kinds: Attack::ALL.to_vec() }),
        "none" => return Ok(Attacks { share: 0.0, kinds: Vec::new() }),
        _ => {}
    }
    if let Ok(share) = text.parse::<f64>() {
        return match (0.0..=1.0).contains(&share) {
            true => Ok(Attacks { share, kinds: Attack::ALL.to_vec() }),
            false => Err("a share of requests is from 0 to 1".to_owned()),
        };
    }
    let kind = |name: &str| {
        Attack::from_name(name).ok_or_else(|| {
            let names = Attack::ALL.map(Attack::as_str);
            let help = suggest(name, names).unwrap_or_else(|| format!("kinds are {}", names.join(", ")));
            format!("no kind of attack is called `{name}`: {help}")
        })
    };
    Ok(Attacks { share: ATTACK_SHARE, kinds: text.split(',').map(|name| kind(name.trim())).collect::<Result<_, _>>()? })
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("a number of requests a second above 0".to_owned()),
    }
}

fn time(text: &str) -> Result<i64, String> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.timestamp_micros())
        .map_err(|_| "a time as in 2026-03-04T10:15:30Z".to_owned())
}

/// Makes events until there are enough.
///
/// # Errors
/// Exit code 3 where the output cannot be written.
pub fn run(args: &GenerateArgs) -> Result<ExitCode, Failure> {
    let mut output = Output::open(&args.output).with_context(|| format!("cannot write to `{}`", args.output))?;
    match generate(args, &mut output) {
        Ok(totals) => {
            anstream::eprintln!(
                "{} events ({} attacks) in {} records, {:.1} MB, seed {}",
                totals.events,
                totals.attacks,
                totals.records,
                totals.bytes as f64 / 1e6,
                args.seed
            );
            Ok(ExitCode::SUCCESS)
        }
        // Whoever read it has enough.
        Err(error) if output::is_reader_gone(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error.context(format!("cannot write to `{}`", args.output)).into()),
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    events: u64,
    attacks: u64,
    records: u64,
    bytes: u64,
}

fn generate(args: &GenerateArgs, output: &mut Output) -> anyhow::Result<Totals> {
    let defaults = GeneratorOptions::default();
    let clusters = args.clusters.map_or(if args.cloud == CloudChoice::Mixed { 4 } else { 1 }, |count| count as usize);
    let start_time_us =
        args.start.unwrap_or_else(|| if args.rate.is_some() { clock::now_us() } else { defaults.start_time_us });
    let mut generator = Generator::new(GeneratorOptions {
        seed: args.seed,
        start_time_us,
        rate: args.rate.unwrap_or(defaults.rate),
        clusters,
        attack_share: args.attacks.share,
        attacks: args.attacks.kinds.clone(),
        all_stages: args.all_stages,
    });
    let is_kafka = output.is_kafka();
    let mut batches: Vec<Batch> = (0..clusters)
        .map(|cluster| Batch {
            wire: args.cloud.of_cluster(cluster, is_kafka),
            cluster: format!("cluster-{}", cluster + 1),
            bytes: Vec::new(),
            ends: Vec::new(),
        })
        .collect();
    let mut totals = Totals::default();
    let mut event = Vec::new();
    let started = Instant::now();
    for _ in 0..args.events {
        event.clear();
        let made = generator.write_next(&mut event);
        if args.rate.is_some() {
            wait(started, start_time_us, &made, &mut batches, output, &mut totals)?;
        }
        totals.events += 1;
        totals.attacks += u64::from(made.attack.is_some());
        batches[made.cluster].add(&event, output, &mut totals)?;
    }
    for batch in &mut batches {
        batch.send(output, &mut totals)?;
    }
    output.finish()?;
    Ok(totals)
}

/// Waits for an event's time, after sending what was gathered before it.
fn wait(
    started: Instant,
    start_time_us: i64,
    made: &Made,
    batches: &mut [Batch],
    output: &mut Output,
    totals: &mut Totals,
) -> anyhow::Result<()> {
    let since_start = u64::try_from(made.time_us - start_time_us).unwrap_or_default();
    let due = started.after(Duration::from_micros(since_start));
    if due.remaining() > EARLY {
        for batch in batches {
            batch.send(output, totals)?;
        }
        output.flush()?;
        std::thread::sleep(due.remaining());
    }
    Ok(())
}

/// Events of one cluster that will share an envelope.
#[derive(Debug)]
struct Batch {
    wire: WireFormat,
    cluster: String,
    bytes: Vec<u8>,
    /// Where each event ends.
    ends: Vec<usize>,
}

impl Batch {
    fn add(&mut self, event: &[u8], output: &mut Output, totals: &mut Totals) -> anyhow::Result<()> {
        if self.wire == WireFormat::Native {
            totals.records += 1;
            totals.bytes += event.len() as u64;
            return output.send(event, &self.cluster);
        }
        if self.bytes.len() + event.len() > BATCH_BYTES {
            self.send(output, totals)?;
        }
        self.bytes.extend_from_slice(event);
        self.ends.push(self.bytes.len());
        if self.ends.len() == BATCH_EVENTS {
            self.send(output, totals)?;
        }
        Ok(())
    }

    fn send(&mut self, output: &mut Output, totals: &mut Totals) -> anyhow::Result<()> {
        let mut start = 0;
        let events: Vec<&[u8]> = self
            .ends
            .iter()
            .map(|end| self.bytes.get(std::mem::replace(&mut start, *end)..*end).unwrap_or_default())
            .collect();
        for record in wrap(self.wire, &events, &self.cluster) {
            totals.records += 1;
            totals.bytes += record.len() as u64;
            output.send(&record, &self.cluster)?;
        }
        self.bytes.clear();
        self.ends.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: GenerateArgs,
    }

    fn parse(words: &[&str]) -> Result<GenerateArgs, clap::Error> {
        Line::try_parse_from(std::iter::once("generate").chain(words.iter().copied())).map(|line| line.args)
    }

    #[test]
    fn attacks_are_a_word_a_share_or_kinds() {
        assert_eq!(attacks("none").map(|attacks| attacks.kinds.len()), Ok(0));
        assert_eq!(attacks("0.2").map(|attacks| (attacks.share, attacks.kinds.len())), Ok((0.2, Attack::ALL.len())));
        let two = attacks("miner, webhook").map(|attacks| attacks.kinds);
        assert_eq!(two, Ok(vec![Attack::Miner, Attack::Webhook]));
        assert!(attacks("1.5").is_err());
        let error = parse(&["--attacks", "minr"]).expect_err("no such kind").to_string();
        assert!(error.contains("miner"), "{error}");
    }

    #[test]
    fn mistakes_in_numbers_are_refused() {
        for words in
            [["--rate", "0"], ["--rate", "x"], ["--clusters", "0"], ["--start", "yesterday"], ["--events", "-1"]]
        {
            assert!(parse(&words).is_err(), "{words:?}");
        }
        assert!(
            parse(&["--events", "1000000", "--rate", "500", "--attacks", "all", "kafka://kafka:9092/audit"]).is_ok()
        );
    }

    #[test]
    fn files_are_compressed_by_their_names() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let make = |name: &str, cloud: &str| {
            let path = folder.path().join(name);
            let path = path.to_str().expect("UTF-8");
            let args = parse(&["--events", "200", "--cloud", cloud, path]).expect("it is right");
            run(&args).unwrap_or_else(|failure| panic!("{failure}"));
            std::fs::read(path).expect("it was written")
        };
        let plain = make("a.ndjson", "native");
        assert_eq!(plain.iter().filter(|byte| **byte == b'\n').count(), 200);
        let mut gzip = Vec::new();
        flate2::read::GzDecoder::new(make("a.gz", "native").as_slice()).read_to_end(&mut gzip).expect("gzip");
        assert_eq!(gzip, plain);
        assert_eq!(zstd::decode_all(make("a.zst", "native").as_slice()).expect("zstd"), plain);
        for cloud in ["eks", "aks", "mixed", "gke"] {
            let lines = make(cloud, cloud);
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                assert!(serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok(), "{cloud}");
            }
        }
    }

    #[test]
    fn an_output_that_cannot_be_opened_is_named() {
        let args = parse(&["/nowhere/at/all.ndjson"]).expect("it is right");
        let failure = run(&args).expect_err("no such folder").to_string();
        assert!(failure.contains("/nowhere/at/all.ndjson"), "{failure}");
    }
}
