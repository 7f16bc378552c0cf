//! The tasks of this workspace: `cargo xtask help` lists them.
//!
//! Everything that a contributor or the continuous integration runs is a subcommand here, so that
//! both run the same commands. The code reads from here downwards: `cli` turns arguments into one
//! of four tasks, each task is a module, and the modules below those run other programs.

#![forbid(unsafe_code)]

mod backends;
mod check;
mod cli;
mod conformance;
mod counts;
mod error;
mod night;
mod process;
mod programs;
mod runner;
mod test;
mod workspace;

use std::process::ExitCode;

use crate::{cli::Invocation, error::Result, workspace::Workspace};

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os().skip(1)) {
        Ok(invocation) => invocation,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    match perform(&invocation) {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn perform(invocation: &Invocation) -> Result<Verdict> {
    match invocation {
        Invocation::Help(text) => {
            print!("{text}");
            Ok(Verdict::Good)
        }
        Invocation::Test(options) => test::run(&Workspace::load()?, options),
        Invocation::Check(options) => check::run(&Workspace::load()?, options),
        Invocation::Conformance(options) => conformance::run(&Workspace::load()?, options),
        Invocation::Night(options) => night::run(&Workspace::load()?, options),
    }
}

/// How a task ended that could do its work. What was bad has been printed by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Bad,
}

impl Verdict {
    fn good_if(good: bool) -> Self {
        if good { Self::Good } else { Self::Bad }
    }
}
