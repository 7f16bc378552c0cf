//! The core's dependencies: an exact list of direct ones, and families that must not appear at
//! any depth.

use std::collections::BTreeSet;

use super::Status;
use crate::{
    error::{Error, Result},
    process::Run,
    workspace::Workspace,
};

const CORE: &str = "oncekey";

const DIRECT: &[&str] = &[
    "async-trait",
    "bytes",
    "futures",
    "getrandom",
    "hmac",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
];

/// Each name stands for itself and for everything that is called after it: `tokio` for
/// `tokio-util` too.
const FORBIDDEN: &[&str] = &[
    // Runtimes, and what only they need.
    "tokio",
    "async-std",
    "async-global-executor",
    "async-executor",
    "async-io",
    "smol",
    "futures-timer",
    "futures-executor",
    "mio",
    "polling",
    "compio",
    "monoio",
    // Drivers and pools.
    "redis",
    "fred",
    "sqlx",
    "rusqlite",
    "libsqlite3-sys",
    "postgres",
    "diesel",
    "mysql",
    "mysql_async",
    "mongodb",
    "deadpool",
    "bb8",
    "r2d2",
    // The web, and what secures it.
    "http",
    "httparse",
    "hyper",
    "axum",
    "actix",
    "tower",
    "tonic",
    "reqwest",
    "openssl",
    "native-tls",
    "rustls",
];

pub(super) fn check(_: &Workspace) -> Result<Status> {
    // Every platform, not only this one; default features, as most users have them.
    let run = Run::cargo(["tree", "--package", CORE, "--edges", "normal", "--target", "all"])
        .args(["--prefix", "depth", "--format", " {p}"]);
    println!("$ {run}");
    let problems = problems(&run.output_of_success()?);
    if problems.is_empty() {
        return Ok(Status::Passed);
    }
    Err(Error::new(
        format!("keep the dependencies of {CORE} within the fence"),
        format!("\n  {}", problems.join("\n  ")),
        "put what needs it into a crate of its own, or behind a feature that is off by default",
    ))
}

/// Reads lines such as `1 bytes v1.12.0`: depth, name, version.
fn problems(tree: &str) -> Vec<String> {
    let packages = tree.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse::<u32>().ok()?, words.next()?))
    });

    let mut direct = Vec::new();
    let mut problems = BTreeSet::new();
    for (depth, name) in packages {
        if depth == 1 {
            direct.push(name);
            if !DIRECT.contains(&name) {
                problems.insert(format!("{name} is not on the list of direct dependencies"));
            }
        }
        if depth > 0 && FORBIDDEN.iter().any(|family| is_of(family, name)) {
            problems.insert(format!("{name} is forbidden at any depth"));
        }
    }
    for name in DIRECT.iter().filter(|name| !direct.contains(name)) {
        problems.insert(format!("{name} is on the list of direct dependencies, but is not one"));
    }
    problems.into_iter().collect()
}

fn is_of(family: &str, name: &str) -> bool {
    name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

#[cfg(test)]
mod tests {
    use super::{DIRECT, problems};

    fn tree(more: &str) -> String {
        let direct: String = DIRECT.iter().map(|name| format!("1 {name} v1.0.0\n")).collect();
        format!("0 oncekey v0.1.0 (/w/crates/oncekey)\n{direct}{more}")
    }

    #[test]
    fn the_exact_list_passes() {
        assert_eq!(problems(&tree("2 libc v0.2.0\n1 bytes v1.0.0 (*)\n")), [""; 0]);
    }

    #[test]
    fn a_new_direct_dependency_is_named() {
        assert_eq!(
            problems(&tree("1 uuid v1.0.0\n")),
            ["uuid is not on the list of direct dependencies"]
        );
    }

    #[test]
    fn a_forbidden_crate_is_named_at_any_depth() {
        assert_eq!(
            problems(&tree("4 tokio-util v0.7.0\n5 tokio-util v0.7.0 (*)\n")),
            ["tokio-util is forbidden at any depth"]
        );
        assert_eq!(problems(&tree("2 httpdate v1.0.0\n")), [""; 0]);
    }

    #[test]
    fn a_list_that_says_too_much_is_named() {
        let problems = problems(&tree("").replace("1 hmac v1.0.0\n", ""));

        assert_eq!(problems, ["hmac is on the list of direct dependencies, but is not one"]);
    }

    #[test]
    fn no_tree_is_no_pass() {
        assert_eq!(problems("").len(), DIRECT.len());
    }
}
