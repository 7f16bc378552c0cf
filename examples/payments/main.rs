//! Plays a log of payments, in which much goes wrong, against a card processor that would charge
//! twice, and checks that no order was charged twice. The service is killed several times in mid-charge,
//! and goes on with what is in its database. `service.rs` is where oncekey is used.

mod checks;
mod counts;
mod generate;
mod journal;
mod ledger;
mod lives;
mod log;
mod options;
mod pace;
mod play;
mod processor;
mod progress;
mod random;
mod report;
mod service;
mod stores;
#[cfg(test)]
mod tests;
mod worker;

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;

use counts::Counts;
use journal::Journal;
use ledger::Ledger;
use lives::Folder;
use options::{Action, HELP, Options};
use pace::Pace;
use processor::Processor;
use progress::Progress;
use report::Report;
use service::Service;

fn main() -> ExitCode {
    let started = Instant::now();
    let good = run(std::env::args().skip(1), &mut std::io::stdout());
    if good.is_ok() && std::env::var_os(lives::FOLDER).is_none() {
        eprintln!("\nin {:.1} s", started.elapsed().as_secs_f64());
    }
    match good {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("payments: {error}");
            ExitCode::from(2)
        }
    }
}

/// Does what `arguments` say, and whether all is as it must be.
fn run(
    arguments: impl IntoIterator<Item = String>,
    out: &mut impl Write,
) -> Result<bool, Box<dyn Error>> {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let (text, good) = match options::parse(arguments.iter().cloned())? {
        Action::Play(options) => match std::env::var_os(lives::FOLDER) {
            Some(folder) => play_one_life(&options, Path::new(&folder))?,
            None if options.is_killed() => {
                let again = || {
                    let mut life = Command::new(std::env::current_exe()?);
                    life.args(&arguments);
                    Ok(life)
                };
                return play_many_lives(&options, again);
            }
            None => play(&options)?,
        },
        Action::Generate(seed) => (generate::generate(seed)?, true),
        Action::Help => (HELP.to_owned(), true),
    };
    // Whoever closes the pipe has seen enough.
    let _ = out.write_all(text.as_bytes());
    Ok(good)
}

/// Plays it in processes that are killed; the last one prints what came of it.
fn play_many_lives(
    options: &Options,
    life: impl Fn() -> std::io::Result<Command>,
) -> Result<bool, Box<dyn Error>> {
    options.store.check()?;
    log::read(&options.log)?;
    eprintln!("playing {}", options.describe());
    let folder = Folder::new()?;
    let status = lives::live_and_live_again(folder.path(), Pace::new(options.speed), life)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(options.store.clean_up(folder.path()))?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => Err("the service did not get to the end".into()),
    }
}

fn play_one_life(options: &Options, folder: &Path) -> Result<(String, bool), Box<dyn Error>> {
    let journal = Journal::open(&lives::journal_in(folder), Pace::new(options.speed))?;
    play_with(options, Arc::new(journal), folder)
}

fn play(options: &Options) -> Result<(String, bool), Box<dyn Error>> {
    options.store.check()?;
    eprintln!("playing {}", options.describe());
    let folder = Folder::new()?;
    let journal = Journal::of_one_life(Pace::new(options.speed));
    play_with(options, Arc::new(journal), folder.path())
}

fn play_with(
    options: &Options,
    journal: Arc<Journal>,
    folder: &Path,
) -> Result<(String, bool), Box<dyn Error>> {
    let requests = log::read(&options.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let played = runtime.block_on(play_and_report(options, &requests, journal, folder));
    let report = played?;
    Ok((report.to_string(), report.is_good()))
}

async fn play_and_report(
    options: &Options,
    requests: &[Arc<log::Request>],
    journal: Arc<Journal>,
    folder: &Path,
) -> Result<Report, Box<dyn Error>> {
    let pace = Pace::new(options.speed);
    let kill_every = options.is_killed().then_some(options.kill_every);
    let processor = Processor::new(pace, options.seed, Arc::clone(&journal), kill_every);
    let (processor, ledger) = (Arc::new(processor), Arc::new(Ledger::new(Arc::clone(&journal))));
    let counts = options.with_oncekey.then(Counts::default);
    let service = match &counts {
        Some(counts) => {
            journal.restore(counts);
            let store = options.store.open(folder).await?;
            let observers = (counts.clone(), Arc::clone(&journal));
            Service::with_oncekey(store, processor, ledger, pace, observers)
        }
        None => Service::without_oncekey(processor, ledger),
    };
    let progress = Arc::new(Progress::new(requests.len(), journal.endings()));
    let played = play::play(&service, requests, pace, &progress, &journal).await;
    progress.finish();
    let played = played?;
    Ok(Report::new(&played, &service, counts.as_ref(), journal.kills()))
}
