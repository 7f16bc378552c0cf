//! Claims: by one native command where that is enough, and by the script.

use std::time::Duration;

use bytes::Bytes;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    Abandon, Claim, ClaimOutcome, ErrorKind, FencingToken, Grant, Known, OnInterrupted, OnRetired,
    StoreError,
};
use redis::Value;

use crate::check::Server;
use crate::fault::{Purpose, is_full};
use crate::layout::{Kind, Stored};
use crate::link;
use crate::shared::{Shared, flag, number, set_command};
use crate::time::{GRACE, LATEST, Moment, millis};

const CLAIM: Purpose = Purpose::new_key("claim");
/// How often a claim looks at saved progress that changes, before it gives up.
const LOOKS: usize = 8;

/// What a claim without a script came to.
enum AtOnce {
    Answer(ClaimOutcome),
    /// The script decides. What is there is whole, and its content has this check.
    Found([u8; 8]),
}

impl AtOnce {
    const NOTHING: Self = Self::Found([0; 8]);
}
impl Shared {
    pub(crate) async fn claim(
        &self,
        name: &[u8],
        claim: &Claim,
    ) -> Result<ClaimOutcome, StoreError> {
        let server = self.standing.for_a_claim(&*self.link, self.demands()).await?;
        match self.claim_at_once(name, claim, server).await? {
            AtOnce::Answer(outcome) => Ok(outcome),
            // Boxed, as all that is seldom needed: the future stays small.
            AtOnce::Found(check) => Box::pin(self.claim_by_script(name, claim, check)).await,
        }
    }

    /// Claims by `SET .. NX GET`: granted if there is no key, and answered if what is there says enough.
    async fn claim_at_once(
        &self,
        name: &[u8],
        claim: &Claim,
        server: Server,
    ) -> Result<AtOnce, StoreError> {
        let lease = millis(claim.lease);
        let remembered = lease + millis(claim.hold);
        if !self.native || !server.has_one_clock || remembered < GRACE {
            return Ok(AtOnce::NOTHING);
        }
        // Before the token: a pause in between makes it late, too.
        let begun = Moment::now();
        let Some(token) = self.clock.token(begun) else { return Ok(AtOnce::NOTHING) };
        let record = Stored::granted(claim, token).encode();
        let mut set = set_command(name, record.len());
        // The key is there until its expiry is over.
        set.arg(&record[..]).arg("NX").arg("GET").arg("PX").arg(remembered - 1);
        let found = match link::write(&*self.link, &set, name, self.replicas).await {
            Ok(Value::Nil) if begun.elapsed() > LATEST => {
                // Others may have come and gone since its token was made. Nothing was done under it.
                let grant = Grant { token, attempt: claim.attempt };
                let known = Known::NotStarted { hold: Duration::ZERO };
                let _ = Box::pin(self.abandon(name, &Abandon { grant, known })).await;
                let message =
                    "the grant came too late for its token, and was given back; ask again";
                return Err(CLAIM.error(ErrorKind::OutcomeUnknown, message));
            }
            Ok(Value::Nil) => {
                self.own.put(claim.attempt, record);
                return Ok(AtOnce::Answer(ClaimOutcome::Acquired {
                    grant: Grant { token, attempt: claim.attempt },
                    number: 1,
                    lease_left: left_of_all_time(token).min(claim.lease),
                    previous: None,
                }));
            }
            Ok(Value::BulkString(found)) => Bytes::from(found),
            Ok(_) => return Err(CLAIM.no_answer()),
            Err(failed) if is_full(&failed) => return Ok(AtOnce::NOTHING),
            Err(failed) => return Err(self.error(CLAIM, failed)),
        };
        let found = Stored::decode(&found).map_err(|why| CLAIM.unreadable(why))?;
        let is_same = found.fingerprint() == claim.fingerprint;
        Ok(match found.kind {
            Kind::Completed | Kind::Digest if found.is_gone_when_retired() => {
                AtOnce::Answer(if is_same {
                    ClaimOutcome::Replay(found.replay())
                } else {
                    ClaimOutcome::Mismatch
                })
            }
            Kind::InProgress | Kind::GaveUp | Kind::Released
                if found.is_gone_when_forgotten() && !is_same =>
            {
                AtOnce::Answer(ClaimOutcome::Mismatch)
            }
            _ => AtOnce::Found(found.check()),
        })
    }

    /// Claims by the script. What progress it hands on has the check that is in `seen`; other progress is
    /// looked at first.
    async fn claim_by_script(
        &self,
        name: &[u8],
        claim: &Claim,
        mut seen: [u8; 8],
    ) -> Result<ClaimOutcome, StoreError> {
        let algorithm = claim.fingerprint.algorithm().to_string();
        let (lease, hold) = (number(millis(claim.lease)), number(millis(claim.hold)));
        for _ in 0..LOOKS {
            let mut arguments: [&[u8]; 9] = [
                claim.attempt.as_bytes(),
                algorithm.as_bytes(),
                claim.fingerprint.digest(),
                lease.as_bytes(),
                hold.as_bytes(),
                flag(claim.on_interrupted == OnInterrupted::TakeOver),
                flag(claim.on_retired == OnRetired::Tell),
                flag(false),
                &seen,
            ];
            // A full server takes no new key.
            let less = (7, flag(true));
            let mut answer = self.bring(CLAIM, |s| &s.claim, name, &mut arguments, less).await?;
            if let Some(check) = answer.look(CLAIM)? {
                seen = check;
                continue;
            }
            let (outcome, granted) = answer.claim(CLAIM)?;
            if let Some((raw, stored)) = granted
                && stored.is_gone_when_forgotten()
                // Whoever waits is told by the script that completes it.
                && !stored.is_watched()
            {
                self.own.put(claim.attempt, raw);
            }
            return Ok(outcome);
        }
        let message = "the saved progress was another one each time that it was looked at";
        Err(CLAIM.error(ErrorKind::OutcomeUnknown, message))
    }
}

/// For how long a lease can last that was granted with that token now.
fn left_of_all_time(token: FencingToken) -> Duration {
    Timestamp::MAX.saturating_since(Timestamp::from_micros(token.get()))
}
