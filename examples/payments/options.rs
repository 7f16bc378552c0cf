//! What the command line says.

use std::path::PathBuf;

use crate::stores::Place;

pub(crate) const HELP: &str = "\
Plays a log of payments against a pretend card processor, and checks that nobody was charged twice.

  cargo run -p oncekey-examples --example payments -- [options]

  --store PLACE    where oncekey keeps its keys: memory, sqlite, sqlite:PATH (a new file),
                   postgres:URL, redis:URL, or tiered:FAST,DURABLE with any two of these
                   (default: sqlite, in a temporary file)
  --kill-every N   kills the service with SIGKILL in the middle of every Nth movement of money, and
                   starts it again; 0 for never (default: 500; never where keys are in memory)
  --without        play without oncekey, to see what then happens
  --log PATH       the log to play (default: the one of this example; its README has the format)
  --speed N        how many times faster than written, 1 to 1000 (default: 50; 10 on a server). Leases
                   shrink with it: too fast for the store, and they lapse before they are granted
  --seed N         varies how long the processor takes (default: 1)
  --generate SEED  print a log instead of playing one
  --help           print this

The exit code is 0 if all checks hold, 1 if one fails, 2 if there is nothing to play.
";

pub(crate) enum Action {
    Play(Options),
    Generate(u64),
    Help,
}

pub(crate) struct Options {
    pub(crate) log: PathBuf,
    pub(crate) speed: u32,
    pub(crate) seed: u64,
    pub(crate) with_oncekey: bool,
    pub(crate) store: Place,
    pub(crate) kill_every: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log: concat!(env!("CARGO_MANIFEST_DIR"), "/data/requests.jsonl").into(),
            speed: 50,
            seed: 1,
            with_oncekey: true,
            store: Place::Sqlite(None),
            kill_every: 500,
        }
    }
}

impl Options {
    pub(crate) fn describe(&self) -> String {
        let here = std::env::current_dir().unwrap_or_default();
        let log = self.log.strip_prefix(here).unwrap_or(&self.log);
        let with = match self.with_oncekey {
            true => format!("with oncekey, its keys {}", self.store.describe()),
            false => "WITHOUT oncekey".to_owned(),
        };
        format!("{} {with}, {} times as fast as it says", log.display(), self.speed)
    }

    /// Whether the service is killed. What forgets everything with its process cannot go on.
    pub(crate) fn is_killed(&self) -> bool {
        self.kill_every > 0 && self.with_oncekey && self.store.is_durable()
    }
}

/// Reads the arguments; an error says which one is wrong, and how.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Action, String> {
    let mut options = Options::default();
    let mut speed = None;
    let mut arguments = arguments.into_iter();
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--without" => options.with_oncekey = false,
            "--log" => options.log = value()?.into(),
            "--speed" => {
                let chosen = number(&name, &value()?)?;
                if !(1..=1_000).contains(&chosen) {
                    return Err("--speed must be 1 to 1000".to_owned());
                }
                speed = Some(chosen);
            }
            "--store" => options.store = value()?.parse()?,
            "--kill-every" => options.kill_every = number(&name, &value()?)?,
            "--seed" => options.seed = number(&name, &value()?)?,
            "--generate" => return Ok(Action::Generate(number(&name, &value()?)?)),
            "--help" | "-h" => return Ok(Action::Help),
            _ => return Err(format!("{name} is no option; --help lists them")),
        }
    }
    options.speed = speed.unwrap_or(options.store.speed());
    Ok(Action::Play(options))
}

fn number<N: std::str::FromStr>(name: &str, value: &str) -> Result<N, String> {
    let parsed = value.parse();
    parsed.map_err(|_| format!("{name} must be a whole number, and {value:?} is none"))
}

#[cfg(test)]
mod tests {
    use super::{Action, Place, parse};

    fn problem(arguments: &[&str]) -> String {
        let arguments = arguments.iter().map(|&argument| argument.to_owned());
        parse(arguments).err().expect("these arguments are wrong")
    }

    #[test]
    fn a_wrong_argument_is_named() {
        assert_eq!(problem(&["--fast"]), "--fast is no option; --help lists them");
        assert!(problem(&["--store", "mysql:x"]).starts_with("--store must be memory, sqlite,"));
        assert_eq!(problem(&["--log"]), "--log needs a value");
        assert_eq!(problem(&["--speed", "0"]), "--speed must be 1 to 1000");
        assert_eq!(problem(&["--seed", "x"]), "--seed must be a whole number, and \"x\" is none");
    }

    #[test]
    fn the_defaults_play_with_oncekey() {
        let Ok(Action::Play(options)) = parse([]) else {
            panic!("no argument is needed");
        };
        assert!(options.with_oncekey && options.is_killed());
        assert_eq!(options.store, Place::Sqlite(None));
    }

    #[test]
    fn what_is_in_memory_is_not_killed() {
        let arguments = ["--store", "memory"].map(str::to_owned);
        let Ok(Action::Play(options)) = parse(arguments) else {
            panic!("these arguments are right");
        };
        assert!(!options.is_killed());
    }

    #[test]
    fn places_are_named_as_their_databases_name_them() {
        let sqlite = "sqlite:/tmp/keys.db".parse();
        assert_eq!(sqlite, Ok(Place::Sqlite(Some("/tmp/keys.db".into()))));
        for text in ["postgres://ada@db/shop", "postgres:postgres://ada@db/shop"] {
            assert_eq!(text.parse(), Ok(Place::Postgres("postgres://ada@db/shop".to_owned())));
        }
        let redis = || Box::new(Place::Redis("redis://cache".to_owned()));
        let tiered = Place::Tiered(redis(), Box::new(Place::Sqlite(None)));
        assert_eq!("tiered:redis://cache,sqlite".parse(), Ok(tiered));
        for wrong in ["sqlite:", "tiered:memory", "tiered:memory,mysql:x"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
