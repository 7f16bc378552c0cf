//! How sequences are generated, so that they go far and shrink well.

use proptest::array::uniform10;
use proptest::collection::vec;
use proptest::prelude::{Strategy, any};

use super::steps::{By, Change, Content, Done, Edge, Lease, Side, Sketch, Span, Step, Who, Whom};
use crate::Capabilities;
use crate::Capability::{InjectedTime, Restart};

/// Sequences of at most `length` steps that a store with `capabilities` can be put through.
pub(super) fn sequences(
    length: usize,
    capabilities: &Capabilities,
) -> impl Strategy<Value = Vec<Step>, Tree: Send> + use<> {
    let may_restart = capabilities.has(Restart);
    let time_is_dear = !capabilities.has(InjectedTime);
    // A step is ten numbers, whatever they come to mean: a tree of strategies would say the same
    // more finely, and take ten times as long to build as the sequence takes to run.
    let steps = vec(uniform10(any::<u8>()), 1..=length);
    (any::<u8>(), steps).prop_map(move |(lacks, steps)| {
        let steps = steps.iter().map(|numbers| {
            let mut choices = Choices(numbers);
            choices.step(time_is_dear, may_restart)
        });
        // Where everything may happen, a key is soon completed or evicted, and what takes several steps
        // to come about is rare. So most sequences lack some of the commands.
        let steps = steps.filter(|step| match step {
            Step::Send { command, .. } => lacks & command.bit() == 0,
            _ => true,
        });
        steps.collect()
    })
}

/// The choices that a step is made of. The smaller the number, the plainer the choice.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    /// One of `weighted`, as often as its weight says.
    fn of<T: Copy>(&mut self, weighted: &[(u32, T)]) -> T {
        let number = self.0.split_off_first().copied().unwrap_or_default();
        let total: u32 = weighted.iter().map(|(weight, _)| weight).sum();
        let mut point = u32::from(number) * total / 256;
        for (weight, one) in weighted {
            match point.checked_sub(*weight) {
                Some(left) => point = left,
                None => return *one,
            }
        }
        weighted[0].1
    }

    fn rarely(&mut self) -> bool {
        self.of(&[(3, false), (1, true)])
    }

    fn step(&mut self, time_is_dear: bool, may_restart: bool) -> Step {
        #[derive(Clone, Copy)]
        enum Kind {
            Send,
            Advance,
            Purge,
            Restart,
        }
        let advances = if time_is_dear { 12 } else { 32 };
        let restarts = u32::from(may_restart);
        let kind = self.of(&[
            (120, Kind::Send),
            (advances, Kind::Advance),
            (8, Kind::Purge),
            (restarts, Kind::Restart),
        ]);
        match kind {
            Kind::Send => Step::Send {
                key: self.key(),
                handle: self.of(&[(1, 0), (1, 1)]),
                command: self.command(),
            },
            Kind::Advance => Step::Advance {
                key: self.key(),
                to: Edge {
                    of: self.of(&[(5, Change::State), (1, Change::Forget)]),
                    side: self.of(&[(1, Side::At), (1, Side::After), (1, Side::JustBefore)]),
                },
                purge: self.of(&[(1, false), (1, true)]),
            },
            Kind::Purge => Step::Purge { limit: self.of(&[(1, 1_000), (1, 1)]) },
            Kind::Restart => Step::Restart,
        }
    }

    /// One key most of the time, so that it gets far; the other shows that keys are independent.
    fn key(&mut self) -> usize {
        self.of(&[(7, 0), (1, 1)])
    }

    fn command(&mut self) -> Sketch {
        #[derive(Clone, Copy)]
        enum Kind {
            Claim,
            Renew,
            Complete,
            GiveUp,
            Release,
            SettleAsDone,
            SettleAsNotDone,
            Evict,
            Get,
        }
        let kind = self.of(&[
            (10, Kind::Claim),
            (6, Kind::Renew),
            (5, Kind::Complete),
            (3, Kind::GiveUp),
            (3, Kind::Release),
            (3, Kind::SettleAsDone),
            (2, Kind::SettleAsNotDone),
            (2, Kind::Evict),
            (1, Kind::Get),
        ]);
        match kind {
            Kind::Claim => Sketch::Claim {
                by: self.claimant(),
                other_fingerprint: self.rarely(),
                lease: self.lease(),
                hold: self.span(),
                refuse_interrupted: self.rarely(),
                tell_retired: self.rarely(),
            },
            Kind::Renew => {
                Sketch::Renew { by: self.by(), lease: self.lease(), progress: self.progress() }
            }
            Kind::Complete => Sketch::Complete { by: self.by(), done: self.done() },
            Kind::GiveUp => Sketch::GiveUp { by: self.by() },
            Kind::Release => Sketch::Release { by: self.by(), hold: self.span() },
            Kind::SettleAsDone => Sketch::SettleAsDone { of: self.whom(), done: self.done() },
            Kind::SettleAsNotDone => Sketch::SettleAsNotDone { of: self.whom(), hold: self.span() },
            Kind::Evict => {
                Sketch::Evict { of: self.whom(), force: self.of(&[(1, false), (1, true)]) }
            }
            Kind::Get => Sketch::Get,
        }
    }

    fn claimant(&mut self) -> Who {
        let [a, b, c] = [0, 1, 2].map(Who::Attempt);
        self.of(&[(2, a), (2, b), (2, c), (3, Who::Last)])
    }

    fn who(&mut self) -> Who {
        let [a, b, c] = [0, 1, 2].map(Who::Attempt);
        self.of(&[(6, Who::Last), (1, a), (1, b), (1, c)])
    }

    fn by(&mut self) -> By {
        By { who: self.who(), wrong_token: self.rarely() }
    }

    fn whom(&mut self) -> Whom {
        let who = self.who();
        self.of(&[
            (3, Whom::Who(who)),
            (1, Whom::Any),
            (1, Whom::LastToken),
            (1, Whom::EarlierToken),
            (1, Whom::UnknownToken),
        ])
    }

    fn progress(&mut self) -> Option<(u64, Content)> {
        let sequence = self.of(&[(2, None), (2, Some(1)), (1, Some(2)), (1, Some(3))]);
        sequence.map(|sequence| (sequence, self.content()))
    }

    fn done(&mut self) -> Done {
        Done {
            value: self.content(),
            replayable: !self.rarely(),
            retention: self.span(),
            hold: self.span(),
        }
    }

    fn content(&mut self) -> Content {
        let [one, none, odd] = [&b"one"[..], b"", b"\0\xff'two'"].map(Content);
        self.of(&[(2, one), (1, none), (1, odd)])
    }

    fn lease(&mut self) -> Lease {
        use Span::{Forever, Long, Short};
        Lease(self.of(&[(3, Short), (3, Long), (1, Forever)]))
    }

    fn span(&mut self) -> Span {
        use Span::{Forever, Long, None, Short};
        self.of(&[(3, Short), (4, Long), (1, None), (1, Forever)])
    }
}
