//! What must not be in the repository: paths of one developer's machine, and dependencies from
//! anywhere but crates.io.

use std::{fs, path::Path};

use super::Status;
use crate::{
    error::{Error, Result},
    process::Run,
    programs,
    workspace::Workspace,
};

/// In two parts, so that this file may contain them.
const FORBIDDEN: &[&str] = &[concat!("/ro", "ot/"), concat!("/ho", "me/")];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(super) fn check(workspace: &Workspace) -> Result<Status> {
    if !workspace.root().join(".git").exists() {
        return Ok(Status::NotRun("this is not a checkout of the repository"));
    }
    let git = programs::require(&programs::GIT)?;
    // New files count: they are about to be added.
    let list = Run::program(git.to_string_lossy(), ["ls-files", "-z", "--cached", "--others"])
        .args(["--exclude-standard"])
        .directory(workspace.root())
        .advice("check that git trusts this folder (`git status` says so)")
        .output_of_success()?;

    let mut problems = Vec::new();
    let mut files = 0;
    for name in list.split_terminator('\0') {
        if let Some(text) = text_of(&workspace.root().join(name)) {
            files += 1;
            problems.extend(problems_in(name, &text));
        }
    }
    if problems.is_empty() {
        println!("{files} text files read");
        return Ok(Status::Passed);
    }
    Err(Error::new(
        "find the repository free of one machine's traces",
        format!("\n  {}", problems.join("\n  ")),
        "write paths relative to the workspace, and use crates.io for every dependency",
    ))
}

/// Nothing for what is no text, or no longer there.
fn text_of(path: &Path) -> Option<String> {
    if !path.is_file() {
        return None;
    }
    String::from_utf8(fs::read(path).ok()?).ok().filter(|text| !text.contains('\0'))
}

fn problems_in(name: &str, text: &str) -> Vec<String> {
    let is_lock = Path::new(name).file_name().is_some_and(|name| name == "Cargo.lock");
    let mut problems = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        for word in FORBIDDEN.iter().filter(|word| line.contains(**word)) {
            problems.push(format!("{name}:{number} contains `{word}`"));
        }
        let source = line.strip_prefix("source = ").map(|source| source.trim_matches('"'));
        if is_lock && source.is_some_and(|source| source != CRATES_IO) {
            problems.push(format!("{name}:{number} names a source other than crates.io"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::{CRATES_IO, FORBIDDEN, problems_in};

    #[test]
    fn a_path_of_a_machine_is_found_with_its_line() {
        for word in FORBIDDEN {
            let text = format!("one\nsee {word}someone/notes\n");

            assert_eq!(problems_in("a.md", &text), [format!("a.md:2 contains `{word}`")]);
        }
    }

    #[test]
    fn plain_text_passes() {
        assert_eq!(problems_in("a.md", "the root of /srv, at home\n"), [""; 0]);
    }

    #[test]
    fn a_lock_file_may_name_only_crates_io() {
        let good = format!("source = \"{CRATES_IO}\"\n");
        let bad = "source = \"git+https://example.com/x\"\n";

        assert_eq!(problems_in("Cargo.lock", &good), [""; 0]);
        assert_eq!(
            problems_in("Cargo.lock", bad),
            ["Cargo.lock:1 names a source other than crates.io"]
        );
        assert_eq!(problems_in("notes.txt", bad), [""; 0]);
    }
}
