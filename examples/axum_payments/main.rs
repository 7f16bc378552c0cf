//! A small payment API on axum, over one SQLite file. Without arguments it serves, plays a log of payments
//! against itself over real sockets, and checks that no order was charged twice. `service.rs` is where
//! oncekey is used.

mod books;
mod client;
#[path = "../payments/counts.rs"]
mod counts;
#[path = "../payments/log.rs"]
mod log;
mod options;
#[path = "../payments/pace.rs"]
mod pace;
mod prometheus;
mod report;
mod server;
mod service;
#[cfg(test)]
mod tests;
mod trouble;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use options::{Action, HELP, Options};
use pace::Pace;
use report::Report;
use server::Server;

fn main() -> ExitCode {
    match run(std::env::args().skip(1), &mut std::io::stdout()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("axum_payments: {error}");
            ExitCode::from(2)
        }
    }
}

/// Does what `arguments` say, and whether all is as it must be.
fn run(
    arguments: impl IntoIterator<Item = String>,
    out: &mut impl Write,
) -> Result<bool, Box<dyn Error>> {
    let options = match options::parse(arguments)? {
        Action::Help => {
            let _ = out.write_all(HELP.as_bytes());
            return Ok(true);
        }
        Action::Run(options) => options,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if options.serve {
        runtime.block_on(serve(&options))?;
        return Ok(true);
    }
    let report = runtime.block_on(play(&options))?;
    // Whoever closes the pipe has seen enough.
    let _ = writeln!(out, "{report}");
    Ok(report.is_good())
}

/// Serves until it is interrupted.
async fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let server = Server::start(options, Pace::new(1)).await?;
    println!("{}", options::curl_commands(server.address));
    tokio::signal::ctrl_c().await?;
    println!("\nfinishing what was begun");
    server.stop().await?;
    Ok(())
}

/// Serves, and plays the log against the server.
async fn play(options: &Options) -> Result<Report, Box<dyn Error>> {
    let requests = log::read(&options.log)?;
    let pace = Pace::new(options.speed);
    let server = Server::start(options, pace).await?;
    eprintln!(
        "playing {} requests against http://{}, {} times as fast as the log says",
        requests.len(),
        server.address,
        options.speed
    );
    let endings = client::play(server.address, &requests, pace).await?;
    let counts = server.counts.clone();
    let metrics = server.metrics.render();
    let books = server.stop().await?;
    Ok(Report::new(&endings, &counts, &books, &metrics))
}
