//! What is known of the server, and for how long that is believed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use oncekey::store::StoreError;
use tokio::sync::OnceCell;

use crate::check::{self, Demands, Look, Server};
use crate::link::Link;

/// For how long a server is believed to be what it was, if no call fails.
const FRESH: Duration = Duration::from_secs(60);
/// The same for one that was refused.
const REFUSED: Duration = Duration::from_secs(1);
/// The same if some nodes of a cluster said nothing: when they do, they may have changed.
const UNSEEN: Duration = Duration::from_secs(5);
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

impl Last {
    fn verdict(&self) -> Result<Server, StoreError> {
        self.refusal.clone().map_or(Ok(self.server), Err)
    }
}

impl Standing {
    /// Checks the server, if none was found fit yet.
    pub(crate) async fn once(
        &self,
        link: &dyn Link,
        demands: Demands<'_>,
    ) -> Result<Server, StoreError> {
        if !self.checked.initialized() {
            // Boxed, as all that is seldom needed: the future of a call stays small.
            Box::pin(self.checked.get_or_try_init(|| self.check(link, demands))).await?;
        }
        Ok(self.last().as_ref().map(|last| last.server).unwrap_or_default())
    }

    /// Checks the server, whatever was known. If it is not fit any more, the next claim looks, too.
    pub(crate) async fn anew(
        &self,
        link: &dyn Link,
        demands: Demands<'_>,
    ) -> Result<(), StoreError> {
        if self.checked.initialized() {
            self.check(link, demands).await.inspect_err(|_| self.suspect())
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
        if !self.checked.initialized() {
            return self.once(link, demands).await;
        }
        if let Some(known) = self.known_or_look(Instant::now()) {
            return known;
        }
        match Box::pin(check::again(link, demands)).await {
            Ok(look) => self.note(look, Instant::now()),
            Err(error) => {
                self.suspect();
                return Err(error);
            }
        }
        self.last().as_ref().map_or_else(|| Ok(Server::default()), Last::verdict)
    }

    /// The next claim looks: the connection may lead to another server now.
    pub(crate) fn suspect(&self) {
        if let Some(last) = &mut *self.last() {
            last.due = last.due.min(Instant::now());
        }
    }

    /// What is known, or `None` if it is time to look: whoever is told so does, and others go on with what
    /// is known.
    fn known_or_look(&self, now: Instant) -> Option<Result<Server, StoreError>> {
        let mut last = self.last();
        let last = last.as_mut()?;
        if last.due > now {
            return Some(last.verdict());
        }
        last.due = now + LOOKING;
        None
    }

    fn note(&self, Look { verdict, is_whole }: Look, now: Instant) {
        if let Some(last) = &mut *self.last() {
            match verdict {
                Ok(server) if is_whole => {
                    *last = Last { server, refusal: None, due: now + FRESH };
                }
                Ok(seen) => {
                    let server = seen.and(last.server);
                    *last = Last { server, refusal: None, due: now + UNSEEN };
                }
                Err(refusal) => {
                    last.refusal = Some(refusal);
                    last.due = now + REFUSED;
                }
            }
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

    const fn saw(verdict: Result<Server, StoreError>) -> Look {
        Look { verdict, is_whole: true }
    }

    fn checked(now: Instant) -> Standing {
        let last = Last { server: Server::default(), refusal: None, due: now + FRESH };
        Standing { checked: OnceCell::new_with(Some(())), last: Mutex::new(Some(last)) }
    }

    #[test]
    fn one_call_looks_when_it_is_time() {
        let now = Instant::now();
        let standing = checked(now);
        let is_known = |at| standing.known_or_look(at).is_some();
        assert!(is_known(now + FRESH / 2));
        assert!(!is_known(now + FRESH));
        assert!(is_known(now + FRESH), "somebody looks already");
        // It was dropped meanwhile.
        assert!(!is_known(now + FRESH + LOOKING));
        standing.note(saw(Ok(Server::default())), now + 2 * FRESH);
        assert!(is_known(now + 3 * FRESH - LOOKING));
    }

    #[test]
    fn a_call_that_failed_makes_it_time() {
        let standing = checked(Instant::now());
        standing.suspect();
        assert!(standing.known_or_look(Instant::now()).is_none());
    }

    #[test]
    fn a_refusal_lasts_until_the_next_look() {
        let now = Instant::now();
        let standing = checked(now);
        let refusal = StoreError::new(ErrorKind::Misconfigured, "check the server");
        standing.note(saw(Err(refusal)), now);
        let is_refused = |at| standing.known_or_look(at).map(|known| known.is_err());
        assert_eq!(is_refused(now), Some(true));
        assert_eq!(is_refused(now + REFUSED), None);
        assert_eq!(is_refused(now + REFUSED), Some(true), "while somebody looks, too");
        standing.note(saw(Ok(Server::default())), now + REFUSED);
        assert_eq!(is_refused(now + REFUSED), Some(false));
    }

    /// What they are is as little known as whether they are still fit.
    #[test]
    fn nodes_that_were_not_seen_are_looked_at_soon() {
        let now = Instant::now();
        let standing = checked(now);
        let server = Server { compares: true, has_one_clock: true };
        standing.note(saw(Ok(server)), now);
        assert!(standing.known_or_look(now + UNSEEN).unwrap().unwrap().compares);
        let verdict = Ok(Server { compares: false, has_one_clock: true });
        standing.note(Look { verdict, is_whole: false }, now);
        let verdict = Ok(server);
        standing.note(Look { verdict, is_whole: false }, now);
        let known = standing.known_or_look(now).unwrap().unwrap();
        assert!(!known.compares && known.has_one_clock);
        assert!(standing.known_or_look(now + UNSEEN).is_none());
    }
}
