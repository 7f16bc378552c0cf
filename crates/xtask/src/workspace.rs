//! What `cargo metadata` says about this workspace.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    error::{Error, Result},
    process::Run,
};

#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    packages: Vec<Package>,
    #[serde(rename = "workspace_root")]
    root: PathBuf,
    #[serde(rename = "target_directory")]
    target: PathBuf,
}

impl Workspace {
    pub(crate) fn load() -> Result<Self> {
        let run = Run::cargo(["metadata", "--no-deps", "--format-version", "1"]);
        let shown = run.to_string();
        let output = run.output_of_success()?;
        Self::parse(&output).map_err(|cause| {
            Error::new(
                format!("read what `{shown}` printed"),
                cause,
                "run it by hand; this task knows version 1 of that format",
            )
        })
    }

    pub(crate) fn parse(json: &str) -> serde_json::Result<Self> {
        serde_json::from_str(json)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    pub(crate) fn package(&self, name: &str) -> Result<&Package> {
        self.packages.iter().find(|package| package.name == name).ok_or_else(|| {
            Error::new(
                format!("find the package `{name}`"),
                "the workspace has no package of that name",
                "correct the name in the sources of xtask, or add the package",
            )
        })
    }

    pub(crate) fn published(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.is_published())
    }

    pub(crate) fn unpublished(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| !package.is_published())
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    publish: Option<Vec<String>>,
    features: BTreeMap<String, Vec<String>>,
}

impl Package {
    /// The features besides `default`.
    pub(crate) fn features(&self) -> impl Iterator<Item = &str> {
        self.features.keys().map(String::as_str).filter(|feature| *feature != "default")
    }

    pub(crate) fn has_features(&self) -> bool {
        self.features().next().is_some()
    }

    /// `publish = false` reads as an empty list of registries.
    fn is_published(&self) -> bool {
        self.publish.as_ref().is_none_or(|registries| !registries.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::Workspace;

    const JSON: &str = r#"{
        "packages": [
            {"name": "core", "version": "0.1.0", "publish": null,
             "features": {"default": [], "tokio": ["dep:tokio"]}},
            {"name": "tasks", "version": "0.1.0", "publish": [], "features": {}}
        ],
        "workspace_root": "/w", "target_directory": "/w/target", "version": 1
    }"#;

    #[test]
    fn packages_are_published_unless_they_say_no() {
        let workspace = Workspace::parse(JSON).unwrap();

        assert_eq!(workspace.published().map(|p| &*p.name).collect::<Vec<_>>(), ["core"]);
        assert_eq!(workspace.unpublished().map(|p| &*p.name).collect::<Vec<_>>(), ["tasks"]);
    }

    #[test]
    fn default_is_not_counted_as_a_feature() {
        let workspace = Workspace::parse(JSON).unwrap();

        assert_eq!(workspace.package("core").unwrap().features().collect::<Vec<_>>(), ["tokio"]);
        assert!(!workspace.package("tasks").unwrap().has_features());
    }

    #[test]
    fn an_unknown_package_is_named() {
        let error = Workspace::parse(JSON).unwrap().package("redis").unwrap_err();

        assert!(error.to_string().contains("`redis`"));
    }
}
