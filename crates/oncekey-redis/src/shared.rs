//! [`Shared`]: what all calls of a store have in common, and how each asks the server.

use std::time::Instant;

use oncekey::store::{ErrorKind, StoreError};
use redis::{Cmd, Value};

use crate::answer::Answer;
use crate::check::{Demands, Server};
use crate::fault::{Purpose, is_full};
use crate::link::{self, Failed, Link, Replicas, may_resend};
use crate::listener::Channel;
use crate::name::Names;
use crate::own::OwnRecords;
use crate::script::{FULL_SCRIPTS, SCRIPTS, Script, Scripts};
use crate::standing::Standing;
use crate::time::{Millis, ServerClock};

/// The longest content. A value of the server may have half a gigabyte, and a record needs some of it.
const MAX_CONTENT_LEN: usize = (512 << 20) - 1024;
/// The longest content that a full server is still asked to take.
pub(crate) const MAX_WHEN_FULL: &[u8] = b"1024";
pub(crate) const ANY_LEN: &[u8] = b"536870912";

/// What the clones of a store share.
pub(crate) struct Shared {
    pub(crate) link: Box<dyn Link>,
    pub(crate) names: Names,
    pub(crate) channel: String,
    pub(crate) replicas: Option<Replicas>,
    pub(crate) allow_eviction: bool,
    pub(crate) native: bool,
    pub(crate) listening: Option<Channel>,
    pub(crate) standing: Standing,
    pub(crate) clock: ServerClock,
    pub(crate) own: OwnRecords,
}
impl Shared {
    /// What was found out about the server, once.
    pub(crate) async fn server(&self) -> Result<Server, StoreError> {
        self.standing.once(&*self.link, self.demands()).await
    }

    pub(crate) fn demands(&self) -> Demands<'_> {
        Demands {
            allow_eviction: self.allow_eviction,
            waits_for_replicas: self.replicas.is_some(),
            channel: self.listening.as_ref().map(|_| self.channel.as_str()),
            probe: self.names.probe(),
        }
    }

    pub(crate) fn error(&self, purpose: Purpose, failed: Failed) -> StoreError {
        if matches!(failed, Failed::Command(_)) {
            self.standing.suspect();
        }
        purpose.failed(failed, may_resend(&*self.link))
    }

    pub(crate) async fn run(
        &self,
        script: &Script,
        name: &[u8],
        arguments: &[&[u8]],
        writes: bool,
    ) -> Result<(Value, Instant), Failed> {
        let asked = Instant::now();
        let replicas = self.replicas.filter(|_| writes);
        Ok((link::run(&*self.link, script, name, arguments, replicas).await?, asked))
    }

    fn read(
        &self,
        purpose: Purpose,
        run: Result<(Value, Instant), Failed>,
    ) -> Result<Answer, StoreError> {
        let (value, asked) = run.map_err(|failed| self.error(purpose, failed))?;
        let answer = Answer::read(purpose, value)?;
        if let Some(micros) = answer.micros {
            self.clock.note(micros, asked);
        }
        Ok(answer)
    }

    /// Runs a script that a full server runs, too.
    pub(crate) async fn ask(
        &self,
        purpose: Purpose,
        script: &Script,
        name: &[u8],
        arguments: &[&[u8]],
        writes: bool,
    ) -> Result<Answer, StoreError> {
        self.read(purpose, self.run(script, name, arguments, writes).await)
    }

    /// Runs a script that brings something. If the server is full, it is asked to make do with less: the
    /// argument at `less.0` becomes `less.1`.
    pub(crate) async fn bring(
        &self,
        purpose: Purpose,
        script: fn(&Scripts) -> &Script,
        name: &[u8],
        arguments: &mut [&[u8]],
        less: (usize, &'static [u8]),
    ) -> Result<Answer, StoreError> {
        let mut run = self.run(script(&SCRIPTS), name, arguments, true).await;
        if run.as_ref().is_err_and(is_full) {
            arguments[less.0] = less.1;
            run = Box::pin(self.run(script(&FULL_SCRIPTS), name, arguments, true)).await;
        }
        self.read(purpose, run)
    }
}

/// The beginning of a command with room for the rest, of which `len` are records.
pub(crate) fn set_command(name: &[u8], len: usize) -> Cmd {
    let mut set = Cmd::with_capacity(7, 64 + name.len() + len);
    set.arg("SET").arg(name);
    set
}

pub(crate) fn sized(purpose: Purpose, len: usize) -> Result<Purpose, StoreError> {
    if len <= MAX_CONTENT_LEN {
        Ok(purpose)
    } else {
        Err(purpose.error(ErrorKind::TooLarge, "it is longer than half a gigabyte"))
    }
}

pub(crate) fn number(number: Millis) -> String {
    number.to_string()
}

pub(crate) const fn flag(flag: bool) -> &'static [u8] {
    if flag { b"1" } else { b"0" }
}
