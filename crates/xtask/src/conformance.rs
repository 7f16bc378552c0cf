//! `conformance`: the suite on every backend, as one table.
//!
//! Each backend's crate has an example that runs the suite on that backend and prints one JSON
//! document on stdout; `report` has its form. This task runs them and puts them side by side.

mod report;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
};

use self::report::{Merged, Report};
use crate::{
    Verdict,
    backends::{Backend, Backends},
    error::{Error, Result},
    process::Run,
    workspace::Workspace,
};

#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) json: Option<PathBuf>,
    pub(crate) skip: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<Verdict> {
    let backends = Backends::prepare(workspace, &options.skip)?;
    let results = backends.chosen.iter().map(|backend| {
        let report = report_of(backend, &backends).map_err(|error| error.to_string());
        (backend.name.to_owned(), report)
    });
    let merged = Merged::new(results.collect());

    let path = options.json.clone().unwrap_or_else(|| workspace.target().join("conformance.json"));
    write(&merged, &path)?;
    print!("\n{}", table::render(&merged));
    println!("written to {}", path.display());
    Ok(Verdict::good_if(merged.is_good()))
}

fn report_of(backend: &Backend, backends: &Backends) -> Result<Report> {
    let run = Run::cargo(["run", "--quiet", "--package", backend.package])
        .args(["--example", backend.report]);
    let run = backends.reach(run);
    let captured = run.capture()?;
    Report::parse(&captured.stdout, backend.name, captured.status.success()).map_err(|cause| {
        Error::new(
            format!("take the report of `{run}` ({})", captured.status),
            cause,
            "run it by hand; it must print one JSON document on stdout, and nothing else there",
        )
    })
}

fn write(merged: &Merged, path: &Path) -> Result<()> {
    let failed = |cause: &dyn std::fmt::Display| {
        Error::new(
            format!("write the merged report to `{}`", path.display()),
            cause,
            "choose another place with --json PATH",
        )
    };
    let mut json = serde_json::to_string_pretty(merged).map_err(|cause| failed(&cause))?;
    json.push('\n');
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|cause| failed(&cause))?;
    }
    fs::write(path, json).map_err(|cause| failed(&cause))
}
