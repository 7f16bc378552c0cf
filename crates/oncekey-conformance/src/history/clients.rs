//! Clients on threads of their own, who play their parts and write down what they see.

use std::collections::HashMap;
use std::future::Future;
use std::hint;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::thread;

use futures::future::poll_fn;
use oncekey::Key;
use oncekey::store::{AttemptId, ClaimOutcome, ErrorKind, FencingToken, Grant, Store, StoreError};

use super::log::{Call, Reply};
use super::operation::{Answer, Operation};
use crate::Fixture;

/// What one client does, one cue after the other.
pub(super) type Part = Vec<Cue>;

/// One thing to do.
#[derive(Debug, Clone)]
pub(super) struct Cue {
    pub(super) act: Act,
    pub(super) fate: Fate,
    /// To be done at the same moment as the other clients do theirs.
    pub(super) together: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Act {
    Ask { key: usize, operation: Operation },
    Purge,
}

/// What becomes of the reply.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    Arrives,
    /// It is lost; the client may ask again.
    IsLost {
        again: bool,
    },
    /// The client drops the call, if it is not answered the first times that it is polled.
    IsDropped {
        after: usize,
        again: bool,
    },
}

/// What all clients share.
pub(super) struct Stage<'a> {
    pub(super) keys: &'a [Key],
    pub(super) handles: &'a [Arc<dyn Store>],
    /// The next position in the history.
    pub(super) position: &'a AtomicU64,
    /// Whether clients let others run while a call of theirs is under way: calls then overlap on any
    /// machine, but stores are shaken less.
    pub(super) yields: bool,
}

/// What one client wrote down.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) calls: Vec<Call>,
    pub(super) purges: Vec<Purge>,
    tokens: HashMap<(usize, AttemptId), FencingToken>,
}

/// A purge is about every key, and changes what any call may meet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Purge {
    pub(super) client: usize,
    pub(super) invoked: u64,
    pub(super) ended: u64,
}

/// Plays `parts`, each by the client of its number, and adds to what they wrote down before.
pub(super) fn play<F: Fixture>(
    stage: &Stage<'_>,
    parts: &[Part],
    notes: &mut [Notes],
) -> Result<(), StoreError> {
    let meeting = &Meeting::of(parts.len());
    thread::scope(|scope| {
        let clients = parts.iter().zip(notes).enumerate();
        let threads: Vec<_> = clients
            .map(|(number, (part, notes))| {
                scope.spawn(move || {
                    let _leave = Leave(meeting);
                    let mut client = Client { number, stage, notes };
                    client.play::<F>(part, meeting)
                })
            })
            .collect();
        let ends = threads.into_iter().map(|thread| match thread.join() {
            Ok(end) => end,
            Err(panic) => resume_unwind(panic),
        });
        ends.collect()
    })
}

struct Client<'a> {
    number: usize,
    stage: &'a Stage<'a>,
    notes: &'a mut Notes,
}

impl Client<'_> {
    fn play<F: Fixture>(&mut self, part: &Part, meeting: &Meeting) -> Result<(), StoreError> {
        let mut met = 0;
        for cue in part {
            if cue.together {
                met += 1;
                meeting.wait(met);
            }
            match &cue.act {
                Act::Ask { key, operation } => {
                    let operation = self.with_token(*key, operation);
                    let answered = self.ask::<F>(*key, &operation, cue.fate)?;
                    let (Fate::IsLost { again } | Fate::IsDropped { again, .. }) = cue.fate else {
                        continue;
                    };
                    if !answered && again {
                        self.ask::<F>(*key, &operation, Fate::Arrives)?;
                    }
                }
                Act::Purge => self.purge::<F>()?,
            }
        }
        Ok(())
    }

    /// Calls the store, and returns whether the client knows the answer.
    fn ask<F: Fixture>(
        &mut self,
        key: usize,
        operation: &Operation,
        fate: Fate,
    ) -> Result<bool, StoreError> {
        let stage = self.stage;
        let patience = match fate {
            Fate::IsDropped { after, .. } => after,
            Fate::Arrives | Fate::IsLost { .. } => usize::MAX,
        };
        let call = operation.send(&*stage.handles[self.number], &stage.keys[key]);
        let invoked = stage.position.fetch_add(1, SeqCst);
        if stage.yields {
            thread::yield_now();
        }
        let answer = F::block_on(polled_at_most(patience, call));
        if stage.yields {
            thread::yield_now();
        }
        let at = stage.position.fetch_add(1, SeqCst);
        let answer = match answer {
            Some(Ok(answer)) => Some(answer),
            None => None,
            Some(Err(error)) => match error.kind() {
                ErrorKind::OutcomeUnknown => None,
                // These kinds promise that nothing was applied; whoever holds on to them is held to it.
                ErrorKind::Unavailable | ErrorKind::Timeout => return Ok(true),
                _ => return Err(error),
            },
        };
        if let Some(Answer::Claim(ClaimOutcome::Acquired { grant, .. })) = &answer {
            let Grant { token, attempt } = *grant;
            self.notes.tokens.insert((key, attempt), token);
        }
        let is_lost = matches!(fate, Fate::IsLost { .. });
        let reply = answer.filter(|_| !is_lost).map(|answer| Reply { at, answer });
        let answered = reply.is_some();
        self.notes.calls.push(Call {
            client: self.number,
            key,
            operation: operation.clone(),
            invoked,
            reply,
        });
        Ok(answered)
    }

    fn purge<F: Fixture>(&mut self) -> Result<(), StoreError> {
        let stage = self.stage;
        let invoked = stage.position.fetch_add(1, SeqCst);
        let purged = F::block_on(stage.handles[self.number].purge(1_000));
        let ended = stage.position.fetch_add(1, SeqCst);
        match purged {
            Ok(_) => self.notes.purges.push(Purge { client: self.number, invoked, ended }),
            // A sweep that was turned away or got nowhere comes again; it proves no race.
            Err(error) if error.is_retryable() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// `operation`, with the token that its attempt was granted, as far as the client knows.
    fn with_token(&self, key: usize, operation: &Operation) -> Operation {
        let known =
            operation.grant().and_then(|grant| self.notes.tokens.get(&(key, grant.attempt)));
        known.map_or_else(|| operation.clone(), |token| operation.with_token(*token))
    }
}

/// What `future` comes to, unless it is still pending when polled `patience` times.
async fn polled_at_most<T>(patience: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut polls = 0;
    poll_fn(|context| {
        polls += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if polls >= patience => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Where clients wait for one another. They spin, since a thread that sleeps comes too late.
struct Meeting {
    clients: usize,
    arrived: AtomicUsize,
    is_over: AtomicBool,
}

impl Meeting {
    const fn of(clients: usize) -> Self {
        Self { clients, arrived: AtomicUsize::new(0), is_over: AtomicBool::new(false) }
    }

    /// Waits for the others, for the `time`th time.
    fn wait(&self, time: usize) {
        self.arrived.fetch_add(1, SeqCst);
        let mut spins = 0_u32;
        while self.arrived.load(SeqCst) < time * self.clients && !self.is_over.load(SeqCst) {
            spins = spins.wrapping_add(1);
            if spins.is_multiple_of(64) {
                thread::yield_now();
            } else {
                hint::spin_loop();
            }
        }
    }
}

/// A client that left, for whatever reason, is not waited for.
struct Leave<'a>(&'a Meeting);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, SeqCst);
    }
}
