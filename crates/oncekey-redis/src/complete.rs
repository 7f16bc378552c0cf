//! Completions: by comparing with the record that this store wrote, and by the script.

use bytes::Bytes;
use oncekey::store::{Complete, Completion, Fenced, StoreError};
use redis::Value;

use crate::check::Server;
use crate::content::Content;
use crate::fault::{Purpose, is_full, is_unknown};
use crate::layout::Stored;
use crate::link;
use crate::script::SCRIPTS;
use crate::shared::{ANY_LEN, MAX_WHEN_FULL, Shared, number, set_command, sized};
use crate::time::{GRACE, millis};

impl Shared {
    pub(crate) async fn complete(
        &self,
        name: &[u8],
        complete: &Complete,
        server: Server,
    ) -> Result<Fenced, StoreError> {
        let purpose = completing("complete", &complete.completion)?;
        let (expected, made) = self.completed(complete);
        if !expected.is_empty()
            && self.replace(purpose, name, &expected, &made, complete, server).await?
        {
            return Ok(Fenced::Applied);
        }
        Box::pin(self.complete_by_script(purpose, name, &made, complete)).await
    }

    /// The record that this store wrote for the grant, if it knows; and the one that is to replace it.
    fn completed(&self, complete: &Complete) -> (Bytes, Bytes) {
        let Complete { grant, completion } = complete;
        let (retention, hold) = (millis(completion.retention), millis(completion.hold));
        let mut result = Stored::result(*grant, Content::of(completion), hold);
        let own = self
            .own
            .take(grant.attempt)
            .filter(|own| self.native && retention + hold >= GRACE && result.take_over_from(own));
        (own.unwrap_or_default(), result.encode())
    }

    /// Writes the record that was `made`, if what is there is as `expected` to the last byte. Whether it
    /// did.
    async fn replace(
        &self,
        purpose: Purpose,
        name: &[u8],
        expected: &[u8],
        made: &[u8],
        complete: &Complete,
        server: Server,
    ) -> Result<bool, StoreError> {
        let Completion { retention, hold, .. } = complete.completion;
        let expiry = (millis(retention) + millis(hold)).saturating_sub(1);
        let written = if server.compares {
            let mut set = set_command(name, made.len() + expected.len());
            set.arg(made).arg("IFEQ").arg(expected).arg("PX").arg(expiry);
            link::write(&*self.link, &set, name, self.replicas).await
        } else {
            let expiry = number(expiry);
            let arguments = [expected, made, expiry.as_bytes()];
            link::run(&*self.link, &SCRIPTS.replace, name, &arguments, self.replicas).await
        };
        match written {
            Ok(Value::Okay) => Ok(true),
            // Something else is there, for whatever reason.
            Ok(_) => Ok(false),
            // A failover may have led to a server that cannot compare.
            Err(failed) if is_full(&failed) || is_unknown(&failed) => Ok(false),
            Err(failed) => Err(self.error(purpose, failed)),
        }
    }

    async fn complete_by_script(
        &self,
        purpose: Purpose,
        name: &[u8],
        made: &[u8],
        complete: &Complete,
    ) -> Result<Fenced, StoreError> {
        let Completion { retention, hold, .. } = complete.completion;
        let (retention, hold) = (number(millis(retention)), number(millis(hold)));
        let mut arguments: [&[u8]; 5] =
            [made, retention.as_bytes(), hold.as_bytes(), ANY_LEN, self.channel.as_bytes()];
        let less = (3, MAX_WHEN_FULL);
        let answer = self.bring(purpose, |s| &s.complete, name, &mut arguments, less).await?;
        answer.fenced(purpose, Some(&complete.completion.value))
    }
}

pub(crate) fn completing(
    operation: &'static str,
    completion: &Completion,
) -> Result<Purpose, StoreError> {
    if completion.replayable {
        sized(Purpose::content(operation), completion.value.len())
    } else {
        Ok(Purpose::write(operation))
    }
}
