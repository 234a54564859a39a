//! The exchange of `kubetide run`: how instances of one group share what they remember.

use std::sync::Arc;
use std::time::Duration;

use super::exit::Failure;
use crate::config::{Config, StatePlace};
use crate::flow::live::{LiveSource, Sharing};
use crate::flow::shares::Places;
use crate::flow::work::SourceSettings;
use crate::kafka::{Address, Consuming, InternalTopic, InternalTopicOptions};
use crate::stage::source::kafka::{Comings, KafkaOptions, KafkaSource, Limits};
use crate::state::{Division, StateStore, divide};
use crate::telemetry::{Health, Metrics};

/// What an exchange's address says.
#[derive(Debug)]
struct Wanted {
    address: Address,
    topic: String,
    partitions: Option<u32>,
    group: String,
}

/// Opens the exchange that the configuration asks for; `None` where each instance remembers what it reads.
///
/// # Errors
/// It cannot be had, or does not go with the other settings.
pub async fn open(
    config: &Config,
    properties: &[(String, String)],
    metrics: &Metrics,
    health: &Health,
) -> Result<Option<Sharing>, Failure> {
    let Some(address) = &config.exchange else { return Ok(None) };
    let failed = |error: &dyn std::fmt::Display| Failure::environment(format!("exchange: {error}"));
    let text = address.read().map_err(|error| failed(&error))?;
    let wanted = wanted(&text, config, properties).map_err(|error| failed(&error))?;
    let StatePlace::Given(base) = config.state_place(|name| std::env::var(name).ok()) else {
        let reason =
            "`state` has to be a place that all instances reach, such as s3://bucket/folder or a shared volume";
        return Err(failed(&reason));
    };
    let topic = open_topic(&wanted, properties, metrics).await?;
    let division = Division { topic: wanted.topic.clone(), partitions: topic.partitions() };
    divide(&StateStore::open(&base)?, &division).await?;
    let interval = Duration::from_millis(config.snapshot_interval_ms);
    let places = Arc::new(Places::new(&base, &wanted.topic, interval, tokio::runtime::Handle::current()));
    let source = open_source(&wanted, config, properties, (metrics, health), &places).await?;
    tracing::info!(topic = wanted.topic, partitions = topic.partitions(), state = base, "memory is shared");
    Ok(Some(Sharing { topic, source, places }))
}

/// Checks an exchange's address against the sources.
fn wanted(text: &str, config: &Config, properties: &[(String, String)]) -> Result<Wanted, String> {
    let mut address: Address = text.parse().map_err(|error: crate::kafka::AddressError| error.to_string())?;
    let [topic] = address.topics.as_slice() else {
        return Err("it is one topic".to_owned());
    };
    let topic = topic.clone();
    let mut take = |name: &str| {
        let at = address.options.iter().position(|(known, _)| known == name)?;
        Some(address.options.remove(at).1)
    };
    let partitions = take("partitions").map(|text| {
        let number = text.parse().ok().filter(|number| (1..=4_096).contains(number));
        number.ok_or_else(|| format!("partitions=`{text}` is no number from 1 to 4096"))
    });
    let partitions = partitions.transpose()?;
    let mut group = take("group");
    for source in &config.sources {
        let url = &source.url;
        if !url.starts_with("kafka://") {
            let url = url.split(['?', '#']).next().unwrap_or_default();
            return Err(format!(
                "source {url} is read by this process alone: an exchange is for Kafka sources, whose group shares them"
            ));
        }
        let source: Address = url.parse().map_err(|error: crate::kafka::AddressError| error.to_string())?;
        let options = KafkaOptions::from_address(&source, properties).map_err(|error| error.to_string())?;
        if options.until_end {
            return Err("a run `until=end` has no end together with others: leave one of both out".to_owned());
        }
        if source.topics.contains(&topic) {
            return Err(format!("topic `{topic}` is a source; an exchange needs one of its own"));
        }
        let own = options.properties.get("group.id").unwrap_or("kubetide");
        group = group.or_else(|| Some(format!("{own}.exchange")));
    }
    let group = group.ok_or("there is no source")?;
    Ok(Wanted { address, topic, partitions, group })
}

async fn open_topic(
    wanted: &Wanted,
    properties: &[(String, String)],
    metrics: &Metrics,
) -> Result<InternalTopic, Failure> {
    let given = properties.iter().chain(&wanted.address.options).cloned().collect();
    let options = InternalTopicOptions {
        brokers: wanted.address.brokers.clone(),
        topic: wanted.topic.clone(),
        partitions: wanted.partitions,
        properties: given,
    };
    let (metrics, runtime) = (metrics.clone(), tokio::runtime::Handle::current());
    let opened = tokio::task::spawn_blocking(move || InternalTopic::open(&options, &runtime, Arc::new(metrics))).await;
    let opened = opened.map_err(|error| Failure::environment(format!("opening the exchange failed: {error}")))?;
    opened.map_err(|error| Failure::environment(format!("exchange: {error}")))
}

async fn open_source(
    wanted: &Wanted,
    config: &Config,
    properties: &[(String, String)],
    (metrics, health): (&Metrics, &Health),
    places: &Arc<Places>,
) -> Result<LiveSource, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::environment(format!("exchange: {error}"));
    let limits = Limits {
        records: config.batch.events,
        bytes: config.batch.bytes,
        age: Duration::from_millis(config.batch.age_ms),
    };
    let mut address = wanted.address.clone();
    address.options.push(("group".to_owned(), wanted.group.clone()));
    let mut options = KafkaOptions::with_limits(&address, properties, limits).map_err(|error| failed(&error))?;
    let comers = Arc::clone(places);
    options.comings = Some(Comings(Arc::new(move |partitions| comers.come(partitions))));
    let events = Consuming::of_exchange(metrics.clone(), health.clone(), &wanted.topic);
    let opened = tokio::task::spawn_blocking(move || KafkaSource::open(options, Arc::new(events))).await;
    let opened = opened.map_err(|error| Failure::environment(format!("opening the exchange failed: {error}")))?;
    let (source, committer) = opened.map_err(|error| failed(&error))?;
    let name = wanted.topic.clone();
    Ok(LiveSource { name, source: Box::new(source), committer, settings: SourceSettings::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SourceConfig;

    fn check(exchange: &str, sources: &[&str]) -> Result<Wanted, String> {
        let sources = sources.iter().map(|url| SourceConfig::new(*url)).collect();
        wanted(exchange, &Config { sources, ..Config::default() }, &[])
    }

    #[test]
    fn an_exchange_belongs_to_the_group_of_its_sources() {
        let wanted = check("kafka://b:1/memory?partitions=8", &["kafka://a:1/audit?group=g"]).expect("good");
        assert_eq!(
            (wanted.topic.as_str(), wanted.partitions, wanted.group.as_str()),
            ("memory", Some(8), "g.exchange")
        );
        let wanted = check("kafka://b:1/memory?group=mine", &["kafka://a:1/audit"]).expect("good");
        assert_eq!((wanted.partitions, wanted.group.as_str()), (None, "mine"));
        assert!(wanted.address.options.is_empty());
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        let kafka = "kafka://a:1/audit";
        for (exchange, sources, part) in [
            ("kafka://b:1/one,two", [kafka].as_slice(), "it is one topic"),
            ("memory", &[kafka], "is no Kafka address"),
            ("kafka://b:1/m?partitions=none", &[kafka], "is no number"),
            ("kafka://b:1/m", &[kafka, "audit.log"], "source audit.log is read by this process alone"),
            ("kafka://b:1/m", &["kafka://a:1/audit?until=end"], "until=end"),
            ("kafka://b:1/audit", &[kafka], "needs one of its own"),
        ] {
            let error = check(exchange, sources).expect_err(exchange);
            assert!(error.contains(part), "{error}");
        }
    }
}
