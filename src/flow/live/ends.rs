//! The ends of all sources, as they come.

use std::future::Future as _;

use tokio::sync::oneshot;

use crate::stage::source::SourceError;

/// The ends of all sources that are still to come.
pub(super) struct Ends {
    waiting: Vec<(usize, oneshot::Receiver<Result<(), SourceError>>)>,
}

impl Ends {
    pub fn new(ended: Vec<oneshot::Receiver<Result<(), SourceError>>>) -> Ends {
        Ends { waiting: ended.into_iter().enumerate().collect() }
    }

    pub fn all(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next source that ends. Safe to drop while waiting.
    pub async fn next(&mut self) -> (usize, Result<(), SourceError>) {
        let (place, result) = std::future::poll_fn(|context| {
            for (place, (_, wait)) in self.waiting.iter_mut().enumerate() {
                if let std::task::Poll::Ready(result) = std::pin::Pin::new(wait).poll(context) {
                    return std::task::Poll::Ready((place, result));
                }
            }
            std::task::Poll::Pending
        })
        .await;
        let (source, _) = self.waiting.remove(place);
        (source, result.unwrap_or_else(|_| Err(SourceError::external("the source's thread is gone"))))
    }
}
