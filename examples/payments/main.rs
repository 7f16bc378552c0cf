//! Plays a log of payments, in which much goes wrong, against a card processor that would charge
//! twice, and checks that no order was charged twice. `service.rs` is where oncekey is used.

mod checks;
mod counts;
mod generate;
mod ledger;
mod log;
mod options;
mod pace;
mod play;
mod processor;
mod progress;
mod random;
mod report;
mod service;
#[cfg(test)]
mod tests;
mod worker;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use counts::Counts;
use ledger::Ledger;
use options::{Action, HELP, Options};
use pace::Pace;
use processor::Processor;
use progress::Progress;
use report::Report;
use service::Service;

fn main() -> ExitCode {
    match run(std::env::args().skip(1), &mut std::io::stdout()) {
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
    let (text, good) = match options::parse(arguments)? {
        Action::Play(options) => play(&options)?,
        Action::Generate(seed) => (generate::generate(seed)?, true),
        Action::Help => (HELP.to_owned(), true),
    };
    // Whoever closes the pipe has seen enough.
    let _ = out.write_all(text.as_bytes());
    Ok(good)
}

fn play(options: &Options) -> Result<(String, bool), Box<dyn Error>> {
    let requests = log::read(&options.log)?;
    eprintln!("playing {}", options.describe());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
    let (report, took) = runtime.block_on(play_and_report(options, &requests))?;
    let text = format!("{report}\nplayed in {:.1} s\n", took.as_secs_f64());
    Ok((text, report.is_good()))
}

async fn play_and_report(
    options: &Options,
    requests: &[Arc<log::Request>],
) -> Result<(Report, Duration), Box<dyn Error>> {
    let pace = Pace::new(options.speed);
    let processor = Arc::new(Processor::new(pace, options.seed));
    let ledger = Arc::new(Ledger::default());
    let counts = options.with_oncekey.then(Counts::default);
    let service = match &counts {
        Some(counts) => Service::with_oncekey(processor, ledger, pace, counts.clone()),
        None => Service::without_oncekey(processor, ledger),
    };
    let progress = Arc::new(Progress::new(requests.len()));
    let played = play::play(&service, requests, pace, &progress).await;
    progress.finish();
    let played = played?;
    Ok((Report::new(&played, &service, counts.as_ref()), played.took))
}
