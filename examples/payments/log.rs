//! The request log: one JSON object a line. `data/README.md` describes the format.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use oncekey::{Key, Scope};
use serde::{Deserialize, Serialize};

/// One request, as a client sends it for the first time, and what goes wrong with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// When it arrives, in milliseconds from the start of the log.
    pub(crate) at: u64,
    /// Whose order it is.
    pub(crate) account: String,
    /// The account's own number of the order: the idempotency key.
    pub(crate) order: String,
    pub(crate) operation: Operation,
    /// In the smallest unit of the currency.
    pub(crate) amount: u64,
    pub(crate) currency: String,
    #[serde(default, skip_serializing_if = "Fate::is_normal")]
    pub(crate) fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    Charge,
    Refund,
}

/// What goes wrong with a request, if it is the one that gets to run. Its client then tries again,
/// and the second try is a normal one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fate {
    #[default]
    Normal,
    /// The client hangs up in the middle; the server drops the request.
    HangUp,
    /// As `HangUp`, and the client never comes back.
    Gone,
    /// The worker dies before it calls the processor.
    CrashBefore,
    /// The worker dies while its call is on the way; the processor gets it much later.
    CrashOnTheWay,
    /// The worker dies after the processor did its part, before that is recorded.
    CrashAfter,
    /// The worker dies between the two steps of a refund.
    CrashBetween,
    /// The processor declines the card. That is an answer, and final.
    Declined,
    /// The processor turns the call away before it does anything.
    Refused,
    /// The processor never gets the call; the worker sees a timeout.
    CallLost,
    /// The processor does its part; its reply gets lost, and the worker sees a timeout.
    ReplyLost,
    /// The processor takes longer than a lease lasts.
    Slow,
}

impl Fate {
    // By reference, as serde asks for it.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_normal(&self) -> bool {
        *self == Self::Normal
    }

    /// What the next try of the same client meets.
    pub(crate) const fn next_try(self) -> Self {
        match self {
            // A matter of the card and of the processor, not of one try.
            Self::Declined | Self::Slow => self,
            _ => Self::Normal,
        }
    }
}

impl Request {
    /// The order, for people.
    pub(crate) fn name(&self) -> String {
        format!("{} of {}", self.order, self.account)
    }

    /// The idempotency key: the client's own number, under who asks and what for.
    ///
    /// Without the account, order 17 of one shop would get the receipt of order 17 of another.
    pub(crate) fn key(&self) -> Result<Key, oncekey::KeyError> {
        let operation = match self.operation {
            Operation::Charge => "charge",
            Operation::Refund => "refund",
        };
        Key::new(&Scope::new(&self.account, operation)?, &self.order)
    }
}

/// Reads the log at `path`, and checks every line.
pub(crate) fn read(path: &Path) -> Result<Vec<Arc<Request>>, LogError> {
    let text = std::fs::read_to_string(path).map_err(|error| LogError {
        place: path.display().to_string(),
        problem: format!("the log cannot be read: {error}"),
    })?;
    parse(&text).map_err(|(line, problem)| LogError {
        place: format!("{}:{line}", path.display()),
        problem,
    })
}

fn parse(text: &str) -> Result<Vec<Arc<Request>>, (usize, String)> {
    let mut requests = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if line.trim().is_empty() {
            continue;
        }
        requests.push(parse_line(line).map_err(|problem| (number, problem))?);
    }
    if requests.is_empty() {
        return Err((1, "the log has no requests".to_owned()));
    }
    Ok(requests)
}

fn parse_line(line: &str) -> Result<Arc<Request>, String> {
    let request: Request = serde_json::from_str(line).map_err(|error| {
        // serde_json counts lines within this one.
        let text = error.to_string();
        let text = text.split(" at line ").next().unwrap_or_default();
        format!("column {}: {text}", error.column())
    })?;
    request.key().map_err(|error| error.to_string())?;
    if request.amount == 0 {
        return Err("the amount is 0; there is nothing to move".to_owned());
    }
    if request.fate == Fate::CrashBetween && request.operation != Operation::Refund {
        return Err("only a refund has two steps to crash between".to_owned());
    }
    Ok(Arc::new(request))
}

/// What is wrong with a log, and where.
#[derive(Debug)]
pub(crate) struct LogError {
    place: String,
    problem: String,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

impl std::error::Error for LogError {}

#[cfg(test)]
mod tests {
    use super::parse;

    const GOOD: &str = r#"{"at":5,"account":"oak","order":"7","operation":"charge","amount":100,"currency":"EUR"}"#;

    fn problem_of(line: &str) -> String {
        let (number, problem) = parse(&format!("{GOOD}\n\n{line}\n")).unwrap_err();
        assert_eq!(number, 3, "{problem}");
        problem
    }

    #[test]
    fn a_bad_line_is_named_with_what_is_wrong() {
        assert!(problem_of("charge 17").contains("column 1: expected value"));
        assert!(problem_of(&GOOD.replace("charge", "gift")).contains("unknown variant `gift`"));
        assert!(problem_of(&GOOD.replace("amount", "sum")).contains("unknown field `sum`"));
        assert!(problem_of(&GOOD.replace(r#""order":"7","#, "")).contains("missing field `order`"));
        assert!(problem_of(&GOOD.replace(r#""7""#, r#""""#)).contains("key is empty"));
        assert!(problem_of(&GOOD.replace("100", "0")).contains("amount is 0"));
    }

    #[test]
    fn an_empty_log_is_no_log() {
        assert!(parse("\n").is_err());
    }
}
