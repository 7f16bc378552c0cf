//! What the command line says.

use std::net::SocketAddr;
use std::path::PathBuf;

pub(crate) const HELP: &str = "\
A payment API on axum and one SQLite file. Plays a log of payments against itself over real sockets, by
clients that hang up, retry and collide, and checks that nobody was charged twice.

  cargo run -p oncekey-examples --example axum_payments -- [options]

  --serve          stay up instead, and print curl commands to try
  --port N         the port to serve on (default: 3000 with --serve, else any)
  --file PATH      the SQLite file (default: a temporary one)
  --without        serve without oncekey, to see what then happens
  --log PATH       the log to play (default: the one of the examples)
  --speed N        how many times faster than written, 1 to 1000 (default: 50)
  --help           print this

The exit code is 0 if all checks hold, 1 if one fails, 2 if there is nothing to play.
";

pub(crate) enum Action {
    Run(Options),
    Help,
}

pub(crate) struct Options {
    pub(crate) serve: bool,
    pub(crate) port: Option<u16>,
    pub(crate) file: Option<PathBuf>,
    pub(crate) with_oncekey: bool,
    pub(crate) log: PathBuf,
    pub(crate) speed: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            serve: false,
            port: None,
            file: None,
            with_oncekey: true,
            log: concat!(env!("CARGO_MANIFEST_DIR"), "/data/requests.jsonl").into(),
            speed: 50,
        }
    }
}

/// Reads the arguments; an error says which one is wrong, and how.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Action, String> {
    let mut options = Options::default();
    let mut arguments = arguments.into_iter();
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--serve" => options.serve = true,
            "--without" => options.with_oncekey = false,
            "--port" => options.port = Some(number(&name, &value()?)?),
            "--file" => options.file = Some(value()?.into()),
            "--log" => options.log = value()?.into(),
            "--speed" => {
                options.speed = number(&name, &value()?)?;
                if !(1..=1_000).contains(&options.speed) {
                    return Err("--speed must be 1 to 1000".to_owned());
                }
            }
            "--help" | "-h" => return Ok(Action::Help),
            _ => return Err(format!("{name} is no option; --help lists them")),
        }
    }
    if options.serve && options.port.is_none() {
        options.port = Some(3_000);
    }
    Ok(Action::Run(options))
}

fn number<N: std::str::FromStr>(name: &str, value: &str) -> Result<N, String> {
    let parsed = value.parse();
    parsed.map_err(|_| format!("{name} must be a whole number, and {value:?} is none"))
}

/// What to try on a server that stays up.
pub(crate) fn curl_commands(address: SocketAddr) -> String {
    let pay = |key: &str, order: u32, amount: u32, more: &str| {
        format!(
            "curl -i {more}http://{address}/payments -H 'Authorization: Bearer oak' \\\n    \
             -H 'Content-Type: application/json' {key}\\\n    \
             -d '{{\"order\":\"{order}\",\"operation\":\"charge\",\"amount\":{amount},\"currency\":\"EUR\"}}'"
        )
    };
    let key = "-H 'Idempotency-Key: \"order-17\"' ";
    format!(
        "serving on http://{address}; Ctrl-C stops it.\n\n\
         # Charges, the first time; then replays the same receipt:\n{}\n\n\
         # Another amount under the same key is refused, with 422:\n{}\n\n\
         # No key, no charge: 400.\n{}\n\n\
         # Hang up in the middle, then ask again: one charge, and you get its receipt.\n{}\n\n\
         # What the operator sees:\ncurl http://{address}/metrics\n",
        pay(key, 17, 100, ""),
        pay(key, 17, 200, ""),
        pay("", 17, 100, ""),
        pay("-H 'Idempotency-Key: \"order-18\"' ", 18, 300, "--max-time 0.2 "),
    )
}

#[cfg(test)]
mod tests {
    use super::{Action, parse};

    fn problem(arguments: &[&str]) -> String {
        let arguments = arguments.iter().map(|&argument| argument.to_owned());
        parse(arguments).err().expect("these arguments are wrong")
    }

    #[test]
    fn a_wrong_argument_is_named() {
        assert_eq!(problem(&["--fast"]), "--fast is no option; --help lists them");
        assert_eq!(problem(&["--port"]), "--port needs a value");
        assert_eq!(problem(&["--speed", "0"]), "--speed must be 1 to 1000");
        assert_eq!(
            problem(&["--port", "70000"]),
            "--port must be a whole number, and \"70000\" is none"
        );
    }

    #[test]
    fn serving_has_a_port_to_tell() {
        let Ok(Action::Run(options)) = parse(["--serve".to_owned()]) else {
            panic!("this is right");
        };
        assert_eq!((options.serve, options.port), (true, Some(3_000)));
    }
}
