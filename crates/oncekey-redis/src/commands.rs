//! The commands that a script decides, whatever is there: renew, abandon, settle, evict, get.

use oncekey::store::{
    Abandon, AttemptId, Evict, Expected, Fenced, Known, Observed, Renew, Settle, Settlement,
    StoreError,
};

use crate::complete::completing;
use crate::content::{Content, check};
use crate::fault::Purpose;
use crate::script::FULL_SCRIPTS;
use crate::shared::{ANY_LEN, MAX_WHEN_FULL, Shared, flag, number, sized};
use crate::time::millis;

const GET: Purpose = Purpose::read("get");

impl Shared {
    pub(crate) async fn renew(&self, name: &[u8], renew: &Renew) -> Result<Fenced, StoreError> {
        // It is another one then.
        self.own.take(renew.grant.attempt);
        let progress = renew.progress.as_ref();
        let purpose = match progress {
            Some(progress) => sized(Purpose::content("renew"), progress.data.len())?,
            None => Purpose::write("renew"),
        };
        let sequence = progress.map(|progress| progress.sequence.to_be_bytes());
        let data = progress.map_or(&[][..], |progress| &progress.data);
        let check = check(data);
        let (token, lease) = (number(renew.grant.token.get()), number(millis(renew.lease)));
        let mut arguments: [&[u8]; 7] = [
            renew.grant.attempt.as_bytes(),
            token.as_bytes(),
            lease.as_bytes(),
            sequence.as_ref().map_or(&[][..], |sequence| sequence),
            data,
            &check,
            ANY_LEN,
        ];
        let less = (6, MAX_WHEN_FULL);
        let answer = self.bring(purpose, |s| &s.renew, name, &mut arguments, less).await?;
        answer.fenced(purpose, None)
    }

    pub(crate) async fn abandon(
        &self,
        name: &[u8],
        abandon: &Abandon,
    ) -> Result<Fenced, StoreError> {
        const ABANDON: Purpose = Purpose::write("abandon");
        let Abandon { grant, known } = abandon;
        self.own.take(grant.attempt);
        let (not_started, hold) = match known {
            Known::NotStarted { hold } => (true, millis(*hold)),
            Known::Unknown => (false, 0),
        };
        let (token, hold) = (number(grant.token.get()), number(hold));
        let arguments: [&[u8]; 5] = [
            grant.attempt.as_bytes(),
            token.as_bytes(),
            flag(not_started),
            hold.as_bytes(),
            self.channel.as_bytes(),
        ];
        let answer = self.ask(ABANDON, &FULL_SCRIPTS.abandon, name, &arguments, true).await?;
        answer.fenced(ABANDON, None)
    }

    pub(crate) async fn settle(&self, name: &[u8], settle: &Settle) -> Result<Fenced, StoreError> {
        let (by, which) = expected(&settle.expected);
        let (purpose, content, value, retention, hold) = match &settle.settlement {
            Settlement::Done(completion) => {
                let purpose = completing("settle", completion)?;
                let content = Content::of(completion);
                let (retention, hold) = (millis(completion.retention), millis(completion.hold));
                (purpose, Some(content), Some(&completion.value[..]), retention, hold)
            }
            Settlement::NotDone { hold } => {
                (Purpose::write("settle"), None, None, 0, millis(*hold))
            }
        };
        let kind = content.as_ref().map_or(0, |content| content.kind as u64);
        let (kind, retention, hold) = (number(kind), number(retention), number(hold));
        let mut arguments: [&[u8]; 9] = [
            by,
            &which,
            kind.as_bytes(),
            content.as_ref().map_or(&[][..], |content| &content.bytes),
            content.as_ref().map_or(&[][..], |content| &content.check),
            retention.as_bytes(),
            hold.as_bytes(),
            ANY_LEN,
            self.channel.as_bytes(),
        ];
        let less = (7, MAX_WHEN_FULL);
        let answer = self.bring(purpose, |s| &s.settle, name, &mut arguments, less).await?;
        answer.fenced(purpose, value)
    }

    pub(crate) async fn evict(&self, name: &[u8], evict: &Evict) -> Result<Fenced, StoreError> {
        const EVICT: Purpose = Purpose::write("evict");
        let (by, which) = expected(&evict.expected);
        let arguments: [&[u8]; 4] = [by, &which, flag(evict.force), self.channel.as_bytes()];
        let answer = self.ask(EVICT, &FULL_SCRIPTS.evict, name, &arguments, true).await?;
        answer.fenced(EVICT, None)
    }

    pub(crate) async fn get(&self, name: &[u8]) -> Result<Option<Observed>, StoreError> {
        self.ask(GET, &FULL_SCRIPTS.get, name, &[], false).await?.observed(GET)
    }
}

fn expected(expected: &Expected) -> (&'static [u8], Vec<u8>) {
    match expected {
        Expected::Attempt(attempt) => (b"attempt", AttemptId::as_bytes(attempt).to_vec()),
        Expected::Token(token) => (b"token", number(token.get()).into_bytes()),
        Expected::Any => (b"any", Vec::new()),
    }
}
