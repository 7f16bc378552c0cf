//! Results of steps, as one progress that a takeover can resume from.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::value::{CodecError, Encoded};
use crate::store::Progress;

/// The saved results, by name, each as JSON text.
#[derive(Default)]
pub(crate) struct Steps {
    saved: BTreeMap<String, String>,
    sequence: u64,
}

impl Steps {
    /// What the progress of an earlier attempt says. Sequence numbers start anew in each attempt.
    pub(crate) fn resume(progress: Option<&Bytes>) -> Result<Self, CodecError> {
        let saved = match progress {
            Some(bytes) => Encoded::from_bytes(bytes.clone()).decode()?,
            None => BTreeMap::new(),
        };
        Ok(Self { saved, sequence: 0 })
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, CodecError> {
        let saved = self.saved.get(name).map(|json| serde_json::from_str(json));
        saved.transpose().map_err(CodecError::Decode)
    }

    /// Adds a result, and returns all of them as the progress to save. A later progress contains every
    /// earlier one, so it does no harm if an older one arrives late.
    pub(crate) fn put<T: Serialize>(
        &mut self,
        name: &str,
        value: &T,
    ) -> Result<Progress, CodecError> {
        let json = serde_json::to_string(value).map_err(CodecError::Encode)?;
        self.saved.insert(name.to_owned(), json);
        self.sequence += 1;
        let data = Encoded::json(&self.saved)?.as_bytes().clone();
        Ok(Progress { sequence: self.sequence, data })
    }
}

impl fmt::Debug for Steps {
    /// Shows no saved content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Steps({} saved)", self.saved.len())
    }
}
