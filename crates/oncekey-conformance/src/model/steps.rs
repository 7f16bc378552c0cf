//! What a sequence is made of: commands with parts that only mean something at run time ("by the
//! second attempt", "to just before the deadline").

use std::fmt;
use std::time::Duration;

use crate::Capabilities;
use crate::Capability::InjectedTime;

/// How many keys, handles and attempts a sequence may use.
pub(super) const KEYS: usize = 2;
pub(super) const HANDLES: usize = 2;
pub(super) const ATTEMPTS: usize = 3;

/// One step of a sequence.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A command, by one of the handles.
    Send { key: usize, handle: usize, command: Sketch },
    /// Time passes.
    Advance { key: usize, to: Edge, purge: bool },
    /// What is over is purged, at most `limit` records.
    Purge { limit: usize },
    /// The store crashes and comes back, and is opened anew.
    Restart,
}

/// A command whose parts are filled in when it is sent.
#[derive(Debug, Clone)]
pub(super) enum Sketch {
    Claim {
        by: Who,
        other_fingerprint: bool,
        lease: Lease,
        hold: Span,
        refuse_interrupted: bool,
        tell_retired: bool,
    },
    Renew {
        by: By,
        lease: Lease,
        progress: Option<(u64, Content)>,
    },
    Complete {
        by: By,
        done: Done,
    },
    Release {
        by: By,
        hold: Span,
    },
    GiveUp {
        by: By,
    },
    SettleAsDone {
        of: Whom,
        done: Done,
    },
    SettleAsNotDone {
        of: Whom,
        hold: Span,
    },
    Evict {
        of: Whom,
        force: bool,
    },
    Get,
}

/// Whoever was granted the key last, or one of the attempts of the sequence.
#[derive(Debug, Clone, Copy)]
pub(super) enum Who {
    Last,
    Attempt(usize),
}

impl Sketch {
    /// The bit by which a sequence lacks commands of this kind. Without claims there is nothing.
    pub(super) const fn bit(&self) -> u8 {
        match self {
            Self::Claim { .. } | Self::Get => 0,
            Self::Renew { .. } => 1,
            Self::Complete { .. } => 2,
            Self::GiveUp { .. } => 4,
            Self::Release { .. } => 8,
            Self::SettleAsDone { .. } => 16,
            Self::SettleAsNotDone { .. } => 32,
            Self::Evict { .. } => 64,
        }
    }
}

/// An attempt, with the token that it was granted or with another.
#[derive(Debug, Clone, Copy)]
pub(super) struct By {
    pub(super) who: Who,
    pub(super) wrong_token: bool,
}

/// How a result is recorded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    pub(super) value: Content,
    pub(super) replayable: bool,
    pub(super) retention: Span,
    pub(super) hold: Span,
}

/// Which attempt an operator means.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whom {
    Any,
    Who(Who),
    LastToken,
    EarlierToken,
    UnknownToken,
}

/// Bytes that a store may find hard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content(pub(super) &'static [u8]);

#[derive(Debug, Clone, Copy)]
pub(super) enum Span {
    Short,
    Long,
    None,
    Forever,
}

/// A [`Span`] that is not empty.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease(pub(super) Span);

/// A moment at which something changes for a key, and on which side of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    pub(super) of: Change,
    pub(super) side: Side,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    /// The lease lapses, or the retention ends.
    State,
    /// The time to forget comes.
    Forget,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    JustBefore,
    At,
    After,
}

/// How long a sequence's spans are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) short: Duration,
    pub(super) long: Duration,
    /// How much later than the edge *after* is.
    pub(super) beyond: Duration,
    /// The longest time that may pass in one step.
    pub(super) patience: Duration,
    /// How long passes where there is no edge to go to.
    pub(super) idle: Option<Duration>,
    /// How far a store may be off that estimates its clock.
    pub(super) estimate: Duration,
}

impl Scale {
    pub(super) fn of(capabilities: &Capabilities) -> Self {
        if capabilities.has(InjectedTime) {
            Self {
                short: Duration::from_secs(30),
                long: Duration::from_secs(3600),
                beyond: Duration::from_micros(1),
                patience: Duration::from_secs(1_000_000),
                idle: Some(Duration::from_secs(30)),
                estimate: Duration::ZERO,
            }
        } else {
            Self {
                short: Duration::from_millis(200),
                long: Duration::from_secs(3600),
                beyond: Duration::from_millis(150),
                patience: Duration::from_secs(1),
                idle: None,
                estimate: Duration::from_millis(100),
            }
        }
    }

    pub(super) const fn span(&self, span: Span) -> Duration {
        match span {
            Span::Short => self.short,
            Span::Long => self.long,
            Span::None => Duration::ZERO,
            Span::Forever => Duration::MAX,
        }
    }

    pub(super) const fn lease(&self, lease: Lease) -> Duration {
        self.span(lease.0)
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::JustBefore => "just before",
            Side::At => "to",
            Side::After => "just after",
        };
        let of = match self.of {
            Change::State => "lease or retention ends",
            Change::Forget => "time to forget comes",
        };
        write!(f, "{side} the moment at which its {of}")
    }
}
