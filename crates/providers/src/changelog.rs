//! The security changelog: a Markdown table that only grows. `[[records]] kind = "changelog"`.
//!
//! Written under a file lock, so that two environments that finish at the same time don't tear each other's lines; a run
//! that stands in it already is not written again.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Finding, Recorder, Severity, Story};
use pgrotate_core::{Error, Kind, Result};
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;

use crate::shared::Shared;

const HEADING: &str = "# Security changelog\n\n\
    | time (UTC) | environment | operator | ticket | run | Key Vault Secret Id |\n\
    | --- | --- | --- | --- | --- | --- |\n";

/// `[[records]] kind = "changelog"`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The file; it is made if it does not exist.
    pub path: String,
}

/// One changelog.
pub struct Changelog {
    id: String,
    path: PathBuf,
}

impl Changelog {
    /// Binds the recorder.
    ///
    /// # Errors
    /// None; the file is looked at when it is needed.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        Ok(Self { id: name.unwrap_or_else(|| "changelog".to_owned()), path: shared.path(&options.path) })
    }

    fn refuse(&self, why: &std::io::Error) -> Error {
        Error::new(Kind::Config, format!("write the changelog {}", self.path.display()))
            .because(why.kind().to_string())
            .hint("check its folder, owner and mode")
    }

    /// Appends a line, unless the run has one.
    fn append(&self, story: &Story) -> std::io::Result<bool> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&self.path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        if text.contains(&format!("| {} |", story.run)) {
            return Ok(false);
        }
        let mut addition = String::new();
        if text.is_empty() {
            addition.push_str(HEADING);
        } else if !text.ends_with('\n') {
            addition.push('\n');
        }
        addition.push_str(&line(story));
        // One write: a crash leaves the whole line or none of it.
        file.write_all(addition.as_bytes())?;
        file.sync_all()?;
        Ok(true)
    }
}

#[async_trait]
impl Recorder for Changelog {
    fn id(&self) -> &str {
        &self.id
    }

    async fn check(&self, _ticket: Option<&str>) -> Result<Vec<Finding>> {
        let usable = match OpenOptions::new().append(true).open(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => may_make(&self.path),
            opened => opened.map(drop),
        };
        Ok(match usable {
            Ok(()) => Vec::new(),
            Err(error) => {
                let what = format!("{} can't be written: {}", self.path.display(), error.kind());
                vec![
                    Finding::new(Severity::Blocks, self.id.as_str(), what)
                        .mend("check its folder, owner and mode"),
                ]
            }
        })
    }

    async fn record(&self, story: &Story, _again: bool) -> Result<Outcome> {
        match self.append(story) {
            Ok(true) => Ok(Outcome::changed().note(format!("a line in {}", self.path.display()))),
            Ok(false) => Ok(Outcome::already_done()),
            Err(error) => Err(self.refuse(&error)),
        }
    }
}

/// Whether a file could be made there, found without making one.
fn may_make(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?;
    Ok(rustix::fs::access(folder, rustix::fs::Access::WRITE_OK)?)
}

fn line(story: &Story) -> String {
    let ids: Vec<String> = story.secret_ids().map(|(_, version)| version.to_string()).collect();
    let cells = [
        format!("{:.0}", story.proven_at),
        story.environment.to_string(),
        story.operator.clone(),
        story.ticket.clone().unwrap_or_default(),
        story.run.to_string(),
        ids.join("<br>"),
    ];
    let cells: Vec<String> = cells.iter().map(|cell| escaped(cell)).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// A cell's text can't end the cell or the line.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use crate::shared::Vendors;

    fn changelog(path: &Path) -> Changelog {
        let options = serde_json::from_value(serde_json::json!({ "path": path })).unwrap();
        Changelog::new(None, options, fake::shared(Vendors::default(), "")).unwrap()
    }

    fn story(run: &str, operator: &str) -> Story {
        let at = "2026-11-23T22:36:01.123Z".parse().unwrap();
        Story {
            run: run.parse().unwrap(),
            environment: "dev".into(),
            operator: operator.into(),
            ticket: Some("OPS-12".into()),
            started_at: at,
            proven_at: at,
            target: "admin@db:5432/app".into(),
            versions: [
                ("azure_key_vault:url".into(), "https://v/secrets/url/1".into()),
                ("aws_secrets_manager:x".into(), "2".into()),
            ]
            .into(),
            window_ms: None,
        }
    }

    const RUN: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

    #[tokio::test]
    async fn a_line_is_added_once_and_what_stands_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("changelog.md");
        let own = changelog(&path);
        assert_eq!(
            own.record(&story(RUN, "ana | eve\n| x"), false).await.unwrap(),
            Outcome::changed().note(format!("a line in {}", path.display()))
        );
        assert_eq!(own.record(&story(RUN, "ana"), true).await.unwrap(), Outcome::already_done());
        own.record(&story("01ARZ3NDEKTSV4RRFFQ69G5FAW", "bob"), false).await.unwrap();
        insta::assert_snapshot!(std::fs::read_to_string(&path).unwrap(), @r"
        # Security changelog

        | time (UTC) | environment | operator | ticket | run | Key Vault Secret Id |
        | --- | --- | --- | --- | --- | --- |
        | 2026-11-23T22:36:01Z | dev | ana \| eve \| x | OPS-12 | 01ARZ3NDEKTSV4RRFFQ69G5FAV | https://v/secrets/url/1 |
        | 2026-11-23T22:36:01Z | dev | bob | OPS-12 | 01ARZ3NDEKTSV4RRFFQ69G5FAW | https://v/secrets/url/1 |
        ");
    }

    #[tokio::test]
    async fn a_text_of_somebody_else_is_kept_even_without_a_last_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("changelog.md");
        std::fs::write(&path, "# Ours\n\n| a | b |\nlast").unwrap();
        changelog(&path).record(&story(RUN, "ana"), false).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# Ours\n\n| a | b |\nlast\n| 2026-"), "{text}");
    }

    #[tokio::test]
    async fn a_folder_that_is_missing_is_found_before() {
        let folder = tempfile::tempdir().unwrap();
        let findings = changelog(&folder.path().join("none/changelog.md")).check(None).await.unwrap();
        assert_eq!(findings[0].severity, Severity::Blocks);
        assert!(changelog(&folder.path().join("changelog.md")).check(None).await.unwrap().is_empty());
        assert!(!folder.path().join("changelog.md").exists(), "a check makes nothing");
    }

    #[test]
    fn lines_written_at_the_same_time_stay_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("changelog.md");
        std::thread::scope(|scope| {
            for last in b'A'..b'H' {
                let path = &path;
                scope.spawn(move || {
                    let run = format!("01ARZ3NDEKTSV4RRFFQ69G5FA{}", char::from(last));
                    changelog(path).append(&story(&run, "ana")).unwrap()
                });
            }
        });
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("# Security changelog").count(), 1, "{text}");
        assert_eq!(text.lines().filter(|line| line.contains("| ana |")).count(), 7);
    }
}
