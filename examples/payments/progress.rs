//! Shows how far the play is: a bar on a terminal, plain lines where there is none.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

#[derive(Debug)]
pub(crate) struct Progress {
    total: u64,
    done: AtomicU64,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Of `total` requests, `done` were answered before.
    pub(crate) fn new(total: usize, done: usize) -> Self {
        let (total, done) = (total as u64, done as u64);
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total).with_position(done);
            if let Ok(style) = ProgressStyle::with_template(
                "{bar:40.green} {human_pos} of {human_len} requests answered  {elapsed}",
            ) {
                bar.set_style(style);
            }
            bar
        });
        Self { total, done: AtomicU64::new(done), bar }
    }

    /// One more request is answered.
    pub(crate) fn one_more(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        match &self.bar {
            Some(bar) => bar.inc(1),
            None if done.is_multiple_of(self.total.div_ceil(5)) || done == self.total => {
                eprintln!("{} of {} requests answered", HumanCount(done), HumanCount(self.total));
            }
            None => {}
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
