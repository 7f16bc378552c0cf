//! Results of steps, as one progress that a takeover can resume from.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::value::{CodecError, Encoded};
use crate::store::Progress;

/// The results of the steps so far.
#[derive(Default)]
pub(crate) struct Steps {
    by_name: BTreeMap<String, Step>,
    /// Of the last progress that was made.
    sequence: u64,
    /// Of the last progress that the store confirmed.
    confirmed: u64,
}

struct Step {
    json: String,
    /// Which progress contains it first.
    since: u64,
}

impl Steps {
    /// What the progress of an earlier attempt says. Sequence numbers start anew in each attempt.
    pub(crate) fn resume(progress: Option<&Bytes>) -> Result<Self, CodecError> {
        let saved: BTreeMap<String, String> = match progress {
            Some(bytes) => Encoded::from_bytes(bytes.clone()).decode()?,
            None => BTreeMap::new(),
        };
        let of_old = |(name, json)| (name, Step { json, since: 0 });
        Ok(Self { by_name: saved.into_iter().map(of_old).collect(), ..Self::default() })
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, CodecError> {
        let known = self.by_name.get(name).map(|step| serde_json::from_str(&step.json));
        known.transpose().map_err(CodecError::undecodable)
    }

    /// Whether the store has what the step `name` returned.
    pub(crate) fn is_saved(&self, name: &str) -> bool {
        self.by_name.get(name).is_some_and(|step| step.since <= self.confirmed)
    }

    /// The store has the progress with this number, and with it all earlier ones.
    pub(crate) fn confirm(&mut self, sequence: u64) {
        self.confirmed = self.confirmed.max(sequence);
    }

    pub(crate) fn put<T: Serialize>(&mut self, name: &str, value: &T) -> Result<(), CodecError> {
        let json = serde_json::to_string(value).map_err(|_| CodecError::Encode)?;
        self.by_name.insert(name.to_owned(), Step { json, since: self.sequence + 1 });
        Ok(())
    }

    /// All results as the progress to save. A later progress contains every earlier one, so it does no
    /// harm if an older one arrives late.
    pub(crate) fn progress(&mut self) -> Result<Progress, CodecError> {
        self.sequence += 1;
        let all: BTreeMap<_, _> =
            self.by_name.iter().map(|(name, step)| (name, &step.json)).collect();
        let data = Encoded::json(&all)?.into_bytes();
        Ok(Progress { sequence: self.sequence, data })
    }
}

impl fmt::Debug for Steps {
    /// Shows no saved content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Steps({})", self.by_name.len())
    }
}
