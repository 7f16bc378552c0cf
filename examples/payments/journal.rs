//! What outlives the service when it is killed: what the processor did, what is in the ledger, and what
//! clients were told. One line each, written before anybody hears of it, and read back by the next life.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use oncekey::observe::{Event, Observer};
use serde::{Deserialize, Serialize};

use crate::counts::{Counts, name_of};
use crate::pace::Pace;
use crate::play::Ended;
use crate::processor::{Order, Receipt, Reference};

/// Something that happened in the world outside, or that the engine reported.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Entry {
    /// The processor moved money.
    Moved { order: Order, reference: Option<Reference>, receipt: Receipt },
    /// The processor was asked what it did.
    Asked { reference: Reference },
    /// The processor turned an outdated call away.
    TurnedAway,
    /// A refund was entered in the ledger.
    Entered { name: String, receipt: Receipt },
    /// A client got to its end.
    Ended(Ended),
    /// The engine reported an event of this name.
    Counted(String),
    /// The service was killed, and started again.
    Killed,
}

#[derive(Serialize, Deserialize)]
struct Line {
    /// When, in milliseconds of the log.
    at: u64,
    entry: Entry,
}

/// The file, and the time of the log, which goes on where the last life stopped.
pub(crate) struct Journal {
    /// `None` where nothing outlives the process.
    file: Option<Mutex<File>>,
    pace: Pace,
    resumed_at: u64,
    resumed: Instant,
    past: Vec<Entry>,
}

impl Journal {
    /// For a world that ends with its only life.
    pub(crate) fn of_one_life(pace: Pace) -> Self {
        Self { file: None, pace, resumed_at: 0, resumed: Instant::now(), past: Vec::new() }
    }

    /// Reads what earlier lives left at `path`, and goes on from there.
    pub(crate) fn open(path: &Path, pace: Pace) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let text = std::fs::read_to_string(path)?;
        // A life may have been killed in the middle of its last line; nobody has heard of that one.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let (times, past): (Vec<_>, Vec<_>) = lines.map(|line| (line.at, line.entry)).unzip();
        if !text.is_empty() && !text.ends_with('\n') {
            (&file).write_all(b"\n")?;
        }
        let resumed_at = times.into_iter().max().unwrap_or(0);
        Ok(Self { file: Some(Mutex::new(file)), pace, resumed_at, resumed: Instant::now(), past })
    }

    /// What happened in earlier lives, oldest first.
    pub(crate) fn past(&self) -> &[Entry] {
        &self.past
    }

    /// How often the service was killed.
    pub(crate) fn kills(&self) -> u64 {
        self.past.iter().filter(|entry| matches!(entry, Entry::Killed)).count() as u64
    }

    /// Adds to `counts` what was counted in earlier lives.
    pub(crate) fn restore(&self, counts: &Counts) {
        for entry in &self.past {
            if let Entry::Counted(name) = entry {
                counts.add(name);
            }
        }
    }

    /// How many clients got to their end in earlier lives.
    pub(crate) fn endings(&self) -> usize {
        self.past.iter().filter(|entry| matches!(entry, Entry::Ended(_))).count()
    }

    /// When this life began, in milliseconds of the log.
    pub(crate) const fn resumed_at(&self) -> u64 {
        self.resumed_at
    }

    /// When `at`, in milliseconds of the log, is in this life; what is past is now.
    pub(crate) fn due(&self, at: u64) -> Instant {
        self.resumed + self.pace.real(at.saturating_sub(self.resumed_at))
    }

    /// Writes it down. The system keeps what was written when the process is killed.
    pub(crate) fn write(&self, entry: Entry) {
        let Some(file) = &self.file else { return };
        // A second of the log takes `second` here.
        let second = self.pace.real(1_000);
        let seconds = self.resumed.elapsed().div_duration_f64(second);
        let at = self.resumed_at + (seconds * 1_000.0) as u64;
        let line = serde_json::to_string(&Line { at, entry }).map(|line| line + "\n");
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let written =
            line.map_err(io::Error::from).and_then(|line| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            // A world that forgets what happened can prove nothing.
            eprintln!("payments: the journal cannot be written: {error}");
            std::process::exit(2);
        }
    }
}

/// What is counted in this life is counted in the next ones too.
impl Observer for Journal {
    fn observe(&self, _operation: &str, event: &Event) {
        self.write(Entry::Counted(name_of(event).to_owned()));
    }
}
