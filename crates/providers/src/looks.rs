//! Answers that several providers of one environment want, asked for once.
//!
//! For what surrounds the copies: a repository, a site, rights. Whoever asks while another one is waiting for the
//! same answer waits with it. What a copy *holds* is not kept here: before each write it is read anew.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use pgrotate_core::{Error, Result};
use tokio::sync::OnceCell;

/// A place for one answer of any type.
type Slot = Arc<OnceCell<Arc<dyn Any + Send + Sync>>>;

/// The answers so far, by what was asked. They last as long as one command's work on one environment.
#[derive(Default)]
pub struct Looks {
    answers: Mutex<HashMap<String, Slot>>,
    /// Where the environment's copies are, as far as one of them may meet another.
    copies: Mutex<HashSet<String>>,
}

impl fmt::Debug for Looks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Looks(hidden)")
    }
}

impl Looks {
    /// Tells the others of a copy at this place.
    pub(crate) fn claim(&self, place: String) {
        self.copies.lock().expect("no holder of this lock panics").insert(place);
    }

    /// Whether the environment has a copy at this place.
    pub(crate) fn is_claimed(&self, place: &str) -> bool {
        self.copies.lock().expect("no holder of this lock panics").contains(place)
    }

    /// The answer to a question, from whoever asked it first. `question` has to name everything that the answer
    /// depends on.
    ///
    /// # Errors
    /// Those of `ask`. A failure is not kept: the next one asks again.
    pub(crate) async fn once<T: Send + Sync + 'static>(
        &self,
        question: impl Into<String>,
        ask: impl Future<Output = Result<T>>,
    ) -> Result<Arc<T>> {
        let slot = {
            let mut slots = self.answers.lock().expect("no holder of this lock panics");
            Arc::clone(slots.entry(question.into()).or_default())
        };
        let answer = slot.get_or_try_init(async || Ok::<_, Error>(Arc::new(ask.await?) as _)).await?;
        Arc::clone(answer)
            .downcast()
            .map_err(|_| Error::internal("two questions of one name have answers of different types"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use pgrotate_core::Kind;

    use super::*;

    #[tokio::test]
    async fn whoever_asks_meanwhile_gets_the_same_answer() {
        let (looks, asked) = (Looks::default(), AtomicUsize::new(0));
        let ask = async || {
            let ask = async {
                asked.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok(7)
            };
            looks.once("a", ask).await
        };
        let (first, second) = futures::join!(ask(), ask());
        let third = ask().await;
        assert_eq!([first, second, third].map(|answer| *answer.unwrap()), [7; 3]);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(*looks.once("b", async { Ok(8) }).await.unwrap(), 8, "another question");
    }

    #[tokio::test]
    async fn a_failure_is_asked_again() {
        let looks = Looks::default();
        let refused: Result<Arc<u8>> = looks.once("a", async { Err(Error::new(Kind::Throttled, "x")) }).await;
        assert_eq!(refused.unwrap_err().kind(), Kind::Throttled);
        assert_eq!(*looks.once("a", async { Ok(1_u8) }).await.unwrap(), 1);
        assert!(looks.once("a", async { Ok("another type") }).await.is_err());
    }
}
