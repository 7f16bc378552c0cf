//! What the clients of a history do: on every key another race, and whatever else they like.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use oncekey::Fingerprint;
use oncekey::runtime::{Random, SeededRandom};
use oncekey::store::{
    Abandon, AttemptId, Claim, Complete, Completion, Evict, Expected, FencingToken, Grant, Known,
    OnInterrupted, OnRetired, Progress, Renew, Settle, Settlement,
};

use super::clients::{Act, Cue, Fate, Part};
use super::operation::Operation;

/// How many clients there are. Two are enough for a race; more find other orders.
pub(super) const CLIENTS: usize = 4;

/// A race on one key: the first client against the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scene {
    Claims,
    CompletionOrTakeover,
    RenewalOrTakeover,
    SettlementOrTakeover,
    ReleaseOrClaim,
    EvictionOrClaim,
    PurgeOrClaim,
}

/// The scene of every key. Neighbours with the same scene have it together: a purge is over so soon
/// that one key alone is seldom claimed meanwhile. It comes first, since any later purge spoils it.
pub(super) const SCENES: [Scene; 9] = [
    Scene::PurgeOrClaim,
    Scene::PurgeOrClaim,
    Scene::PurgeOrClaim,
    Scene::Claims,
    Scene::CompletionOrTakeover,
    Scene::RenewalOrTakeover,
    Scene::SettlementOrTakeover,
    Scene::ReleaseOrClaim,
    Scene::EvictionOrClaim,
];

/// How long things last. Between two acts, more passes than a short lease and a short hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    pub(super) short: Duration,
    pub(super) long: Duration,
}

/// The three acts of a history, between which time passes, each with a part for every client.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) acts: [Vec<Part>; 3],
}

impl Script {
    /// What follows from `random`.
    pub(super) fn new(random: &SeededRandom, lengths: Lengths) -> Self {
        let mut author = Author {
            random,
            lengths,
            attempts: vec![vec![Vec::new(); CLIENTS]; SCENES.len()],
            acts: [(); 3].map(|()| vec![Part::new(); CLIENTS]),
        };
        let mut first = 0;
        for scenes in SCENES.chunk_by(|one, other| one == other) {
            let keys = first..first + scenes.len();
            for key in keys.clone() {
                author.prepare(key, scenes[0]);
            }
            author.race(keys.clone(), scenes[0]);
            for (key, client) in keys.clone().flat_map(|key| (0..CLIENTS).map(move |it| (key, it)))
            {
                for act in [1, 1, 2, 2] {
                    author.improvise(act, client, key);
                }
                author.ask(2, client, key, Operation::Get);
            }
            first = keys.end;
        }
        Self { acts: author.acts }
    }
}

impl Scene {
    /// Whether the first client's `operation` is one that the scene is about.
    pub(super) const fn is_lead(self, operation: &Operation) -> bool {
        match self {
            Self::Claims => matches!(operation, Operation::Claim(_)),
            Self::CompletionOrTakeover => matches!(operation, Operation::Complete(_)),
            Self::RenewalOrTakeover => matches!(operation, Operation::Renew(_)),
            Self::SettlementOrTakeover => matches!(operation, Operation::Settle(_)),
            Self::ReleaseOrClaim => matches!(operation, Operation::Abandon(_)),
            Self::EvictionOrClaim => matches!(operation, Operation::Evict(_)),
            Self::PurgeOrClaim => false,
        }
    }
}

struct Author<'a> {
    random: &'a SeededRandom,
    lengths: Lengths,
    /// By key and client, in the order in which they were used.
    attempts: Vec<Vec<Vec<AttemptId>>>,
    acts: [Vec<Part>; 3],
}

impl Author<'_> {
    /// Act one: the first client claims, so that there is something to race for.
    fn prepare(&mut self, key: usize, scene: Scene) {
        let Lengths { short, long } = self.lengths;
        let (lease, hold) = match scene {
            Scene::Claims => return,
            Scene::CompletionOrTakeover
            | Scene::RenewalOrTakeover
            | Scene::SettlementOrTakeover => (short, long),
            Scene::ReleaseOrClaim | Scene::EvictionOrClaim => (long, long),
            Scene::PurgeOrClaim => (short, short),
        };
        let claim = Claim { lease, hold, ..self.claim(0, key, true) };
        self.ask(0, 0, key, Operation::Claim(claim));
    }

    /// Act two begins with it: all at once, and again, and then a look at what came of it.
    fn race(&mut self, keys: Range<usize>, scene: Scene) {
        for anew in [true, false] {
            let lead = self.lead(keys.start, scene);
            self.cue(1, 0, lead, true);
            for client in 1..CLIENTS {
                for step in 0..keys.len() {
                    let key = keys.start + (client + step) % keys.len();
                    let operation = Operation::Claim(self.claim(client, key, anew));
                    self.cue(1, client, Act::Ask { key, operation }, step == 0);
                }
            }
        }
        for (key, client) in keys.flat_map(|key| (0..CLIENTS).map(move |client| (key, client))) {
            self.ask(1, client, key, Operation::Get);
        }
    }

    fn lead(&mut self, key: usize, scene: Scene) -> Act {
        let attempt = self.last_attempt(0, key);
        let grant = Grant { token: FencingToken::new(1), attempt };
        let expected = Expected::Attempt(attempt);
        let operation = match scene {
            Scene::PurgeOrClaim => return Act::Purge,
            Scene::Claims => Operation::Claim(self.claim(0, key, true)),
            Scene::CompletionOrTakeover => {
                Operation::Complete(Complete { grant, completion: self.completion() })
            }
            Scene::RenewalOrTakeover => Operation::Renew(self.renew(grant)),
            Scene::SettlementOrTakeover => {
                Operation::Settle(Settle { expected, settlement: self.settlement() })
            }
            Scene::ReleaseOrClaim => Operation::Abandon(Abandon {
                grant,
                known: Known::NotStarted { hold: self.lengths.long },
            }),
            Scene::EvictionOrClaim => Operation::Evict(Evict { expected, force: true }),
        };
        Act::Ask { key, operation }
    }

    /// Anything that a client, or an operator, might come to ask.
    fn improvise(&mut self, act: usize, client: usize, key: usize) {
        let grant = Grant { token: FencingToken::new(1), attempt: self.last_attempt(client, key) };
        let someone = self.below(CLIENTS);
        let other = Expected::Attempt(self.last_attempt(someone, key));
        let expected = if self.one_in(3) { Expected::Any } else { other };
        let operation = match self.below(16) {
            0..4 => {
                let anew = self.one_in(2);
                Operation::Claim(self.claim(client, key, anew))
            }
            4..6 => Operation::Renew(self.renew(grant)),
            6..9 => Operation::Complete(Complete { grant, completion: self.completion() }),
            9 => Operation::Abandon(Abandon { grant, known: Known::Unknown }),
            10 => Operation::Abandon(Abandon {
                grant,
                known: Known::NotStarted { hold: self.span() },
            }),
            11 => Operation::Settle(Settle { expected, settlement: self.settlement() }),
            12 => Operation::Evict(Evict { expected, force: self.one_in(2) }),
            13 => return self.cue(act, client, Act::Purge, false),
            _ => Operation::Get,
        };
        self.ask(act, client, key, operation);
    }

    fn ask(&mut self, act: usize, client: usize, key: usize, operation: Operation) {
        self.cue(act, client, Act::Ask { key, operation }, false);
    }

    fn cue(&mut self, number: usize, client: usize, act: Act, together: bool) {
        let again = self.one_in(2);
        let fate = match self.below(20) {
            0 => Fate::IsLost { again },
            1 => Fate::IsDropped { after: 1 + self.below(3), again },
            _ => Fate::Arrives,
        };
        self.acts[number][client].push(Cue { act, fate, together });
    }

    /// A claim by a new attempt, or by the client's last one.
    fn claim(&mut self, client: usize, key: usize, anew: bool) -> Claim {
        if anew {
            let attempt = self.random.next().to_be_bytes();
            self.attempts[key][client].push(AttemptId::from_bytes(attempt));
        }
        Claim {
            attempt: self.last_attempt(client, key),
            fingerprint: Fingerprint::of(if self.one_in(12) { "other" } else { "same" }),
            lease: self.span(),
            hold: self.span(),
            on_interrupted: if self.one_in(6) {
                OnInterrupted::Refuse
            } else {
                OnInterrupted::TakeOver
            },
            on_retired: if self.one_in(6) { OnRetired::Tell } else { OnRetired::Forget },
        }
    }

    /// The attempt that a client would act by; before its first, one that nobody has claimed with.
    fn last_attempt(&mut self, client: usize, key: usize) -> AttemptId {
        let attempts = &mut self.attempts[key][client];
        if attempts.is_empty() {
            attempts.push(AttemptId::from_bytes(self.random.next().to_be_bytes()));
        }
        attempts[attempts.len() - 1]
    }

    fn renew(&self, grant: Grant) -> Renew {
        let progress = self.one_in(2).then(|| Progress {
            sequence: 1 + self.random.next() as u64 % 3,
            data: self.content(),
        });
        Renew { grant, lease: self.span(), progress }
    }

    fn settlement(&self) -> Settlement {
        if self.one_in(2) {
            Settlement::Done(self.completion())
        } else {
            Settlement::NotDone { hold: self.span() }
        }
    }

    fn completion(&self) -> Completion {
        Completion {
            value: self.content(),
            replayable: !self.one_in(6),
            retention: self.span(),
            hold: self.span(),
        }
    }

    fn content(&self) -> Bytes {
        Bytes::from_static([&b"one"[..], b"two", b""][self.below(3)])
    }

    fn span(&self) -> Duration {
        if self.one_in(3) { self.lengths.short } else { self.lengths.long }
    }

    fn one_in(&self, odds: usize) -> bool {
        self.below(odds) == 0
    }

    fn below(&self, bound: usize) -> usize {
        // The rest of a division by so small a number is fair enough.
        (self.random.next() % bound as u128) as usize
    }
}
