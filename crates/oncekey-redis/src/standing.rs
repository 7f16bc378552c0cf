//! What is known of the server, and for how long that is believed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use oncekey::store::StoreError;
use tokio::sync::OnceCell;

use crate::check::{self, Demands, Server};
use crate::link::Link;

/// For how long a server is believed to be what it was, if no call fails.
const FRESH: Duration = Duration::from_secs(60);
/// The same for one that was refused.
const REFUSED: Duration = Duration::from_secs(1);
/// How long a look may take before another call looks, too.
const LOOKING: Duration = Duration::from_secs(10);

/// What is known of the server: nothing before it was checked, and then what the last look said.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// There when the server was found fit once.
    checked: OnceCell<()>,
    last: Mutex<Option<Last>>,
}

#[derive(Debug, Clone)]
struct Last {
    server: Server,
    /// Why no claim is made; what was granted is ended all the same.
    refusal: Option<StoreError>,
    due: Instant,
}

impl Standing {
    /// Checks the server, if none was found fit yet.
    pub(crate) async fn once(
        &self,
        link: &dyn Link,
        demands: Demands<'_>,
    ) -> Result<Server, StoreError> {
        self.checked.get_or_try_init(|| self.check(link, demands)).await?;
        Ok(self.last().as_ref().map(|last| last.server).unwrap_or_default())
    }

    /// Checks the server, whatever was known.
    pub(crate) async fn anew(
        &self,
        link: &dyn Link,
        demands: Demands<'_>,
    ) -> Result<(), StoreError> {
        if self.checked.initialized() {
            self.check(link, demands).await
        } else {
            self.once(link, demands).await.map(drop)
        }
    }

    async fn check(&self, link: &dyn Link, demands: Demands<'_>) -> Result<(), StoreError> {
        let server = check::server(link, demands).await?;
        let due = Instant::now() + FRESH;
        *self.last() = Some(Last { server, refusal: None, due });
        Ok(())
    }

    /// The same for a claim: if the last look was a while ago, or a call has failed since, looks again.
    pub(crate) async fn for_a_claim(
        &self,
        link: &dyn Link,
        demands: Demands<'_>,
    ) -> Result<Server, StoreError> {
        self.once(link, demands).await?;
        if !self.begin_to_look(Instant::now()) {
            return self.known();
        }
        match check::again(link, demands).await {
            Ok(verdict) => self.note(verdict, Instant::now()),
            Err(error) => {
                self.suspect();
                return Err(error);
            }
        }
        self.known()
    }

    /// The next claim looks: the connection may lead to another server now.
    pub(crate) fn suspect(&self) {
        if let Some(last) = &mut *self.last() {
            last.due = last.due.min(Instant::now());
        }
    }

    /// Whether it is time to look. Whoever is told so does; others go on with what is known.
    fn begin_to_look(&self, now: Instant) -> bool {
        let mut last = self.last();
        let Some(last) = &mut *last else { return false };
        let is_due = last.due <= now;
        if is_due {
            last.due = now + LOOKING;
        }
        is_due
    }

    fn note(&self, verdict: Result<Server, StoreError>, now: Instant) {
        if let Some(last) = &mut *self.last() {
            match verdict {
                Ok(server) => *last = Last { server, refusal: None, due: now + FRESH },
                Err(refusal) => {
                    last.refusal = Some(refusal);
                    last.due = now + REFUSED;
                }
            }
        }
    }

    fn known(&self) -> Result<Server, StoreError> {
        match &*self.last() {
            Some(Last { refusal: Some(refusal), .. }) => Err(refusal.clone()),
            Some(last) => Ok(last.server),
            None => Ok(Server::default()),
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<Last>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use oncekey::store::ErrorKind;

    use super::*;

    fn checked(now: Instant) -> Standing {
        let last = Last { server: Server::default(), refusal: None, due: now + FRESH };
        Standing { checked: OnceCell::new_with(Some(())), last: Mutex::new(Some(last)) }
    }

    #[test]
    fn one_call_looks_when_it_is_time() {
        let now = Instant::now();
        let standing = checked(now);
        assert!(!standing.begin_to_look(now + FRESH / 2));
        assert!(standing.begin_to_look(now + FRESH));
        assert!(!standing.begin_to_look(now + FRESH), "somebody looks already");
        // It was dropped meanwhile.
        assert!(standing.begin_to_look(now + FRESH + LOOKING));
        standing.note(Ok(Server::default()), now + 2 * FRESH);
        assert!(!standing.begin_to_look(now + 3 * FRESH - LOOKING));
    }

    #[test]
    fn a_call_that_failed_makes_it_time() {
        let now = Instant::now();
        let standing = checked(now);
        standing.suspect();
        assert!(standing.begin_to_look(Instant::now()));
    }

    #[test]
    fn a_refusal_lasts_until_the_next_look() {
        let now = Instant::now();
        let standing = checked(now);
        let refusal = StoreError::new(ErrorKind::Misconfigured, "check the server");
        standing.note(Err(refusal), now);
        assert_eq!(standing.known().unwrap_err().kind(), ErrorKind::Misconfigured);
        assert!(!standing.begin_to_look(now + REFUSED / 2));
        assert!(standing.begin_to_look(now + REFUSED));
        assert!(standing.known().is_err(), "while somebody looks, too");
        standing.note(Ok(Server::default()), now + REFUSED);
        assert!(standing.known().is_ok());
    }
}
