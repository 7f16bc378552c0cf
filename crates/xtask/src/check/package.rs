//! What users download: every published crate is packaged, built from its package, and carries
//! the licence texts.
//!
//! `cargo package` would build the packages itself. Where they depend on one another it does so
//! through a registry of its own, and takes what such a registry has brought once to be good for
//! ever: the second run on a machine builds dependents against the core of the first. So the
//! packages are unpacked here, into a workspace in which they stand for what crates.io would have.

use std::{fmt::Display, fs, io, path::Path};

use super::Status;
use crate::{
    error::{Error, Result},
    process::Run,
    workspace::{Package, Workspace},
};

const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

pub(super) fn check(workspace: &Workspace) -> Result<Status> {
    pack(workspace)?;
    let packages: Vec<_> = workspace.published().collect();
    let folder = workspace.target().join("package-check");
    unpack(workspace, &packages, &folder)?;
    check_licences(workspace, &packages, &folder)?;
    build(workspace, &packages, &folder)?;
    Ok(Status::Passed)
}

fn pack(workspace: &Workspace) -> Result<()> {
    let mut run = Run::cargo(["package", "--workspace", "--no-verify"])
        .args(workspace.unpublished().flat_map(|package| ["--exclude", package.name.as_str()]))
        .advice("if files are not committed: commit them, or set CI=0");
    if !is_ci(std::env::var("CI").ok().as_deref()) {
        run = run.args(["--allow-dirty"]);
    }
    run.must_succeed()
}

fn unpack(workspace: &Workspace, packages: &[&Package], folder: &Path) -> Result<()> {
    if let Err(cause) = fs::remove_dir_all(folder)
        && cause.kind() != io::ErrorKind::NotFound
    {
        return Err(unwritable(folder, &cause));
    }
    fs::create_dir_all(folder).map_err(|cause| unwritable(folder, &cause))?;
    for package in packages {
        let archive = format!("{}.crate", folder_of(package));
        let archive = workspace.target().join("package").join(archive);
        // `-m`: the archives give every file the same old date, by which cargo would take a
        // changed file for one that it has built already.
        Run::program("tar", ["-xzmf"])
            .args([archive.to_string_lossy(), "-C".into(), folder.to_string_lossy()])
            .must_succeed()?;
    }
    Ok(())
}

fn check_licences(workspace: &Workspace, packages: &[&Package], folder: &Path) -> Result<()> {
    let mut problems = Vec::new();
    for package in packages {
        for licence in LICENCES {
            let copy = folder.join(folder_of(package)).join(licence);
            if let Some(problem) = difference(&workspace.root().join(licence), &copy) {
                problems.push(format!("{licence} of {}: {problem}", package.name));
            }
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        "find the licence texts in the packages",
        format!("\n  {}", problems.join("\n  ")),
        "in the crate's folder: ln -s ../../LICENSE-MIT ../../LICENSE-APACHE .",
    ))
}

/// One at a time, so that no crate profits from a feature that only another one asks for.
fn build(workspace: &Workspace, packages: &[&Package], folder: &Path) -> Result<()> {
    let manifest = folder.join("Cargo.toml");
    fs::write(&manifest, manifest_for(packages)).map_err(|cause| unwritable(&manifest, &cause))?;
    // The same versions, so that what is built for them serves here too.
    let lock = folder.join("Cargo.lock");
    fs::copy(workspace.root().join("Cargo.lock"), &lock)
        .map_err(|cause| unwritable(&lock, &cause))?;
    for package in packages {
        Run::cargo(["build", "--package", &package.name])
            .args(["--manifest-path".into(), manifest.to_string_lossy()])
            .args(["--target-dir".into(), workspace.target().to_string_lossy()])
            .advice("it builds in the workspace, so look for files that are not in the package")
            .must_succeed()?;
    }
    Ok(())
}

/// A workspace in which dependencies on these packages lead to their unpacked folders.
fn manifest_for(packages: &[&Package]) -> String {
    let folders: Vec<_> = packages.iter().map(|package| folder_of(package)).collect();
    let mut text = format!("[workspace]\nresolver = \"3\"\nmembers = {folders:?}\n");
    text.push_str("\n[patch.crates-io]\n");
    for (package, folder) in packages.iter().zip(&folders) {
        text.push_str(&format!("{} = {{ path = {folder:?} }}\n", package.name));
    }
    text
}

fn folder_of(package: &Package) -> String {
    format!("{}-{}", package.name, package.version)
}

/// What is wrong with the copy. A link that arrived as a text file is not the text.
fn difference(original: &Path, copy: &Path) -> Option<String> {
    let original = match fs::read(original) {
        Ok(text) => text,
        Err(cause) => return Some(format!("the original cannot be read: {cause}")),
    };
    match fs::read(copy) {
        Ok(text) if text == original => None,
        Ok(_) => Some("the text differs from the original".to_owned()),
        Err(cause) => Some(format!("it cannot be read: {cause}")),
    }
}

fn unwritable(path: &Path, cause: &dyn Display) -> Error {
    Error::new(
        format!("write `{}`", path.display()),
        cause,
        "check that the target folder is writable and has room",
    )
}

/// Most services set CI to `true` or `1`.
fn is_ci(variable: Option<&str>) -> bool {
    variable.is_some_and(|value| !matches!(value, "" | "0" | "false"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{difference, is_ci, manifest_for};
    use crate::workspace::Workspace;

    #[test]
    fn only_a_set_variable_means_ci() {
        assert!(is_ci(Some("true")));
        assert!(is_ci(Some("1")));
        for variable in [None, Some(""), Some("0"), Some("false")] {
            assert!(!is_ci(variable), "{variable:?}");
        }
    }

    #[test]
    fn packages_stand_for_those_of_crates_io() {
        let workspace = Workspace::parse(
            r#"{"packages": [
                {"name": "a", "version": "0.1.0", "publish": null, "features": {}},
                {"name": "b-c", "version": "0.2.0", "publish": null, "features": {}}
            ], "workspace_root": "/w", "target_directory": "/w/target"}"#,
        )
        .unwrap();

        assert_eq!(
            manifest_for(&workspace.published().collect::<Vec<_>>()),
            r#"[workspace]
resolver = "3"
members = ["a-0.1.0", "b-c-0.2.0"]

[patch.crates-io]
a = { path = "a-0.1.0" }
b-c = { path = "b-c-0.2.0" }
"#
        );
    }

    #[test]
    fn a_missing_copy_is_a_problem() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (original, other) = (folder.join("Cargo.toml"), folder.join("src/main.rs"));

        assert_eq!(difference(&original, &original), None);
        assert!(difference(&original, &other).is_some());
        assert!(difference(&original, Path::new("no-such-file")).is_some());
        assert!(difference(Path::new("no-such-file"), &original).is_some());
    }
}
