//! The backends of this workspace, and what their tests need on the machine.

use std::{collections::BTreeSet, env, ffi::OsString, path::PathBuf};

use crate::{
    error::{Error, Result},
    process::Run,
    programs::{self, Program},
    workspace::Workspace,
};

/// A new backend is a new entry here, and its crate.
pub(crate) const BACKENDS: &[Backend] = &[
    Backend {
        name: "memory",
        package: "oncekey-memory",
        report: "memory_conformance_report",
        needs: &[],
        dependents: &[],
    },
    Backend {
        name: "tiered",
        package: "oncekey-tiered",
        report: "tiered_conformance_report",
        needs: &[],
        dependents: &[],
    },
    Backend {
        name: "sqlite",
        package: "oncekey-sqlite",
        report: "sqlite_conformance_report",
        needs: &[],
        dependents: &[],
    },
    Backend {
        name: "postgres",
        package: "oncekey-postgres",
        report: "postgres_conformance_report",
        needs: &[programs::POSTGRES, programs::PGBOUNCER],
        dependents: &["oncekey-sqlx"],
    },
    Backend {
        name: "redis",
        package: "oncekey-redis",
        report: "redis_conformance_report",
        needs: &[programs::REDIS],
        dependents: &[],
    },
];

/// A second server that the tests of the Redis store are run on. It can be skipped like a backend.
pub(crate) const VALKEY: &str = "valkey";

#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    /// The example of the package that prints the conformance report. Examples share a folder, so
    /// each needs a name that no other example of the workspace has.
    pub(crate) report: &'static str,
    pub(crate) needs: &'static [Program],
    /// Packages that are no backend of their own, and whose tests need the same.
    pub(crate) dependents: &'static [&'static str],
}

impl Backend {
    /// Whether this is a package whose tests need what this backend needs.
    pub(crate) fn has(&self, package: &str) -> bool {
        self.packages().any(|own| own == package)
    }

    pub(crate) fn packages(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.package).chain(self.dependents.iter().copied())
    }
}

/// The backends of one run, with everything that they need.
#[derive(Debug)]
pub(crate) struct Backends {
    pub(crate) chosen: Vec<&'static Backend>,
    pub(crate) skipped: Vec<&'static Backend>,
    path: Option<OsString>,
    valkey: Valkey,
}

/// Whether tests run on Valkey, and the folder of Python packages that has it, if it is not on this machine.
#[derive(Debug)]
enum Valkey {
    Skipped,
    Here,
    Fetched(PathBuf),
}

impl Backends {
    /// All but those in `skip`; prints what is skipped, finds or installs what the others need.
    pub(crate) fn prepare(workspace: &Workspace, skip: &[String]) -> Result<Self> {
        let (chosen, skipped) = choose(BACKENDS, skip)?;
        let names = skipped.iter().map(|backend| backend.name);
        for name in names.chain(skip.iter().any(|name| name == VALKEY).then_some(VALKEY)) {
            println!("skipped: {name} (asked for by --skip)");
        }
        let wants_valkey = chosen.iter().any(|backend| backend.name == "redis")
            && !skip.iter().any(|name| name == VALKEY);
        let valkey = if wants_valkey {
            let fetched = programs::require_valkey(&workspace.target().join("valkey"))?;
            fetched.map_or(Valkey::Here, Valkey::Fetched)
        } else {
            Valkey::Skipped
        };
        let mut folders = BTreeSet::new();
        for backend in &chosen {
            for package in backend.packages() {
                workspace.package(package)?;
            }
            for program in backend.needs {
                let found = programs::require(program)?;
                folders.extend(found.parent().map(PathBuf::from));
            }
        }
        let path = extended_path(folders, env::var_os("PATH").unwrap_or_default());
        Ok(Self { chosen, skipped, path, valkey })
    }

    /// Lets the command find what the backends need, and tells tests outside of their crates, which do
    /// without a server where there is none, that these must be there.
    pub(crate) fn reach(&self, run: Run) -> Run {
        let with_server = self.chosen.iter().filter(|backend| !backend.needs.is_empty());
        let valkey = (!matches!(self.valkey, Valkey::Skipped)).then_some(VALKEY);
        let names = with_server.map(|backend| backend.name).chain(valkey);
        let required = names.collect::<Vec<_>>().join(",");
        let run = if required.is_empty() { run } else { run.env("REQUIRE_BACKENDS", required) };
        let run = match &self.valkey {
            Valkey::Fetched(packages) => run.env("PYTHONPATH", packages),
            _ => run,
        };
        match &self.path {
            Some(path) => run.env("PATH", path),
            None => run,
        }
    }
}

type Chosen = (Vec<&'static Backend>, Vec<&'static Backend>);

fn choose(known: &'static [Backend], skip: &[String]) -> Result<Chosen> {
    for name in skip {
        if name != VALKEY && !known.iter().any(|backend| backend.name == name) {
            let names = known.iter().map(|backend| backend.name);
            let names: Vec<_> = names.chain([VALKEY]).collect();
            return Err(Error::new(
                format!("skip the backend `{name}`"),
                "there is no backend of that name",
                format!("the backends are: {}", names.join(", ")),
            ));
        }
    }
    Ok(known.iter().partition(|backend| !skip.iter().any(|name| name == backend.name)))
}

/// `path` with the folders that it lacks at its end, or nothing if it lacks none.
fn extended_path(folders: BTreeSet<PathBuf>, path: OsString) -> Option<OsString> {
    let mut all: Vec<PathBuf> = env::split_paths(&path).collect();
    let before = all.len();
    all.extend(folders.into_iter().filter(|folder| !env::split_paths(&path).any(|p| p == *folder)));
    if all.len() == before { None } else { env::join_paths(all).ok() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{BACKENDS, Backend, Backends, Valkey, choose, extended_path};
    use crate::process::Run;

    const TWO: &[Backend] = &[
        Backend {
            name: "near",
            package: "p-near",
            report: "near_report",
            needs: &[],
            dependents: &[],
        },
        Backend {
            name: "far",
            package: "p-far",
            report: "far_report",
            needs: &[],
            dependents: &[],
        },
    ];

    #[test]
    fn a_skipped_backend_is_set_apart() {
        let (chosen, skipped) = choose(TWO, &["far".to_owned()]).unwrap();

        assert_eq!(chosen.iter().map(|b| b.name).collect::<Vec<_>>(), ["near"]);
        assert_eq!(skipped.iter().map(|b| b.name).collect::<Vec<_>>(), ["far"]);
    }

    #[test]
    fn an_unknown_backend_is_an_error_that_lists_the_known_ones() {
        let error = choose(TWO, &["fra".to_owned()]).unwrap_err().to_string();

        assert!(error.contains("`fra`"), "{error}");
        assert!(error.contains("near, far"), "{error}");
    }

    #[test]
    fn names_and_reports_are_unique() {
        let names: BTreeSet<_> = BACKENDS.iter().map(|backend| backend.name).collect();
        let reports: BTreeSet<_> = BACKENDS.iter().map(|backend| backend.report).collect();

        assert_eq!(names.len(), BACKENDS.len());
        assert_eq!(reports.len(), BACKENDS.len());
    }

    #[test]
    fn tests_are_told_which_servers_must_be_there() {
        let told = |skip: &[&str], valkey| {
            let skip: Vec<_> = skip.iter().map(|name| (*name).to_owned()).collect();
            let (chosen, skipped) = choose(BACKENDS, &skip).unwrap();
            let backends = Backends { chosen, skipped, path: None, valkey };
            backends.reach(Run::cargo(["test"])).to_string()
        };

        assert_eq!(told(&[], Valkey::Here), "REQUIRE_BACKENDS=postgres,redis,valkey cargo test");
        let skipped = told(&["valkey"], Valkey::Skipped);
        assert_eq!(skipped, "REQUIRE_BACKENDS=postgres,redis cargo test");
        let fetched = told(&["postgres"], Valkey::Fetched("/x".into()));
        assert_eq!(fetched, "REQUIRE_BACKENDS=redis,valkey PYTHONPATH=/x cargo test");
        assert_eq!(told(&["redis"], Valkey::Skipped), "REQUIRE_BACKENDS=postgres cargo test");
        assert_eq!(told(&["redis", "postgres"], Valkey::Skipped), "cargo test");
    }

    #[test]
    #[cfg(unix)]
    fn the_path_grows_only_by_what_it_lacks() {
        let folders = |paths: &[&str]| paths.iter().map(Into::into).collect::<BTreeSet<_>>();

        assert_eq!(extended_path(folders(&["/bin"]), "/usr/bin:/bin".into()), None);
        assert_eq!(
            extended_path(folders(&["/bin", "/opt/x"]), "/usr/bin:/bin".into()),
            Some("/usr/bin:/bin:/opt/x".into())
        );
    }
}
