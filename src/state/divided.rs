//! A place of state that is divided between instances: one place for each partition of a topic, below it.
//!
//! Which cluster is remembered where depends on the number of partitions, so the place says what it was made for. It is
//! written once and never changed.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::store::StateStore;
use super::{StateError, read};

const NAME: &str = "exchange.json";

/// What a divided place was made for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Division {
    pub topic: String,
    pub partitions: u32,
}

/// What a place is divided by; `None` where it is whole.
///
/// # Errors
/// The store fails, or what it says cannot be read.
pub async fn division(store: &StateStore) -> Result<Option<Division>, StateError> {
    let Some(text) = store.get(NAME).await? else { return Ok(None) };
    let division = serde_json::from_slice(&text);
    let wrong = |error: serde_json::Error| divided(store, format!("{NAME} cannot be read: {error}"));
    division.map(Some).map_err(wrong)
}

/// Divides a place, or finds it divided so.
///
/// # Errors
/// It was made for something else, or the store fails.
pub async fn divide(store: &StateStore, wanted: &Division) -> Result<(), StateError> {
    if read::highest(store).await? > 0 {
        let reason = "it holds what a run without `exchange` remembers; give `state` another place, or move that away";
        return Err(divided(store, reason.to_owned()));
    }
    let text = serde_json::to_vec(wanted).expect("names and numbers have a form in JSON");
    if store.put_new(NAME, Bytes::from(text)).await? {
        return Ok(());
    }
    match division(store).await? {
        Some(found) if found == *wanted => Ok(()),
        Some(Division { topic, partitions }) => {
            let reason = format!(
                "it was made for topic `{topic}` with {partitions} partitions, and the exchange is `{}` with {}: which \
                 cluster is remembered where depends on that. Give both anew, or make the topic with {partitions} \
                 partitions",
                wanted.topic, wanted.partitions
            );
            Err(divided(store, reason))
        }
        None => Err(divided(store, format!("{NAME} was there and is gone"))),
    }
}

fn divided(store: &StateStore, reason: String) -> StateError {
    StateError::Divided { place: store.place().to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Keeper, Versions};

    fn division_of(partitions: u32) -> Division {
        Division { topic: "t".to_owned(), partitions }
    }

    #[tokio::test]
    async fn a_place_is_divided_once() {
        let store = StateStore::in_memory();
        assert_eq!(division(&store).await.expect("empty"), None);
        divide(&store, &division_of(8)).await.expect("new");
        divide(&store, &division_of(8)).await.expect("the same");
        assert_eq!(division(&store).await.expect("there"), Some(division_of(8)));
        let error = crate::state::inspect(&store).await.expect_err("it has no epochs itself").to_string();
        assert!(error.contains("one of its 8 places"), "{error}");
        let error = divide(&store, &division_of(9)).await.expect_err("another number").to_string();
        assert!(error.contains("`t` with 8 partitions") && error.contains("`t` with 9"), "{error}");
    }

    #[tokio::test]
    async fn what_one_process_remembers_is_not_divided_silently() {
        let store = StateStore::in_memory();
        let versions = Versions { product: "p".into(), engine: "e".into(), schema: "s".into() };
        Keeper::claim(store.clone(), versions).await.expect("free");
        let error = divide(&store, &division_of(8)).await.expect_err("it holds epochs").to_string();
        assert!(error.contains("without `exchange`"), "{error}");
    }
}
