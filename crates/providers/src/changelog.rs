//! The security changelog, a Markdown table in a file: a recorder.
//!
//! A line for each run is added at the end, under a lock, in one write, and made durable; what
//! stands there is never changed. A run that is in the table already is not written again,
//! unless its line was cut off by a crash. It needs the right to write the file (or its folder,
//! to make it).

mod by_hand;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use pgrotate_core::by_hand::Instruction;
use pgrotate_core::journal::Outcome;
use pgrotate_core::provider::{Finding, Recorder, Severity, Story};
use pgrotate_core::{Error, Kind, Result};
use rustix::fs::{Access, AtFlags, OFlags};
use serde::Deserialize;

use crate::files;
use crate::shared::Shared;

/// The kind in the configuration.
const KIND: &str = "changelog";
const TITLE: &str = "# Security changelog";
const HEADING: &str = "| Time (UTC) | Environment | Operator | Ticket | Run | Key Vault Secret Id |";
const RULER: &str = "| --- | --- | --- | --- | --- | --- |";

/// What can be set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The file; relative to the configuration file.
    pub path: String,
}

/// A changelog in one file.
pub struct Changelog {
    id: String,
    path: PathBuf,
}

impl Changelog {
    /// Looks at no file yet.
    ///
    /// # Errors
    /// Never; the signature is every provider's.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        Ok(Self { id: name.unwrap_or_else(|| KIND.to_owned()), path: shared.path(&options.path) })
    }

    fn operation(&self) -> String {
        format!("write the changelog {}", self.path.display())
    }
}

#[async_trait]
impl Recorder for Changelog {
    fn id(&self) -> &str {
        &self.id
    }

    async fn check(&self, _ticket: Option<&str>) -> Result<Vec<Finding>> {
        let find =
            |what: String, mend: String| vec![Finding::new(Severity::Blocks, &self.id, what).mend(mend)];
        let (shown, folder) = (self.path.display(), files::folder_of(&self.path));
        match self.path.metadata() {
            Ok(metadata) if !metadata.is_file() => {
                Ok(find(format!("{shown} is not a regular file"), "name a file as `path`".into()))
            }
            Ok(_) => {
                let access = rustix::fs::accessat(
                    rustix::fs::CWD,
                    &self.path,
                    Access::READ_OK | Access::WRITE_OK,
                    AtFlags::EACCESS,
                );
                Ok(match access {
                    Ok(()) => Vec::new(),
                    Err(error) => {
                        let why = std::io::Error::from(error).kind();
                        find(format!("{shown} can't be written: {why}"), format!("chmod u+rw {shown}"))
                    }
                })
            }
            Err(_) if !folder.is_dir() => {
                let what = format!("there is no folder {}", folder.display());
                Ok(find(what, format!("mkdir -p {}", folder.display())))
            }
            Err(_) => Ok(files::unwritable(&folder).map_or_else(Vec::new, |why| {
                let what = format!("{shown} can't be made: {why}");
                find(what, format!("give pgrotate's user the right to write {}", folder.display()))
            })),
        }
    }

    async fn record(&self, story: &Story, _again: bool) -> Result<Outcome> {
        let (path, operation) = (self.path.clone(), self.operation());
        let (run, row) = (cell(&story.run.to_string()), row(story));
        files::blocking(move || append(&path, &run, &row, &operation)).await
    }

    fn by_hand(&self) -> Vec<Instruction> {
        self.instructions()
    }
}

/// Adds the row, and what it needs around it, if the run has none.
fn append(path: &std::path::Path, run: &str, row: &str, operation: &str) -> Result<Outcome> {
    let failed = |error: std::io::Error| files::classify(&error, operation);
    // Whether a failed write has left something can't be told; the next try looks.
    let unsure = |error: std::io::Error| files::classify(&error, operation).unknown();
    let (mut file, made) = open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::new(Kind::Config, operation).because("it is not a regular file"));
    }
    let lock = files::lock(file.try_clone().map_err(failed)?, operation)?;
    let mut present = Vec::new();
    file.read_to_end(&mut present).map_err(failed)?;
    let present = String::from_utf8_lossy(&present);
    if present.lines().any(|line| has_run(line, run)) {
        return Ok(Outcome::already_done());
    }
    file.write_all(addition(&present, row).as_bytes()).map_err(unsure)?;
    file.sync_all().map_err(unsure)?;
    if made {
        files::sync_folder(path, operation)?;
    }
    drop(lock);
    Ok(Outcome::changed())
}

/// Opens the file to be read and added to; and whether it had to be made.
fn open(path: &std::path::Path) -> std::io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            options.create(true).open(path).map(|file| (file, true))
        }
        opened => opened.map(|file| (file, false)),
    }
}

/// Whether a line is the whole row of a run.
fn has_run(line: &str, run: &str) -> bool {
    let line = line.trim_end();
    line.starts_with('|') && line.ends_with(" |") && line.contains(&format!("| {run} |"))
}

/// The text to add: a row, after a table's heading where the file does not end in our table.
fn addition(present: &str, row: &str) -> String {
    let end = if present.lines().next().is_some() && present.ends_with("\r\n") { "\r\n" } else { "\n" };
    let mut added = Vec::new();
    let cut_off = !present.is_empty() && !present.ends_with('\n');
    if cut_off {
        added.push("");
    }
    let mut table = present.lines().rev().take_while(|line| line.starts_with('|'));
    if !table.any(|line| line.trim_end() == HEADING) {
        if present.is_empty() {
            added.push(TITLE);
        }
        added.extend(["", HEADING, RULER]);
    }
    added.extend([row, ""]);
    added.join(end)
}

fn row(story: &Story) -> String {
    let ids: Vec<String> = story.secret_ids().map(|(_, version)| cell(version.as_str())).collect();
    let cells = [
        // To the second: fractions are noise to a reader.
        story.proven_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        cell(story.environment.as_str()),
        match story.takes_back {
            None => cell(&story.operator),
            Some(run) => cell(&format!("{}, takes back {run}", story.operator)),
        },
        story.ticket.as_deref().map_or_else(|| "–".to_owned(), cell),
        cell(&story.run.to_string()),
        if ids.is_empty() { "–".to_owned() } else { ids.join("<br>") },
    ];
    format!("| {} |", cells.join(" | "))
}

/// A text that stays within its cell and is nothing but text.
fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for character in text.trim().chars() {
        match character {
            '|' | '\\' => cell.extend(['\\', character]),
            '<' => cell.push_str("&lt;"),
            character if character.is_control() => cell.push(' '),
            character => cell.push(character),
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use pgrotate_core::Retry;
    use pgrotate_core::journal::Effect;

    use super::*;
    use crate::fake;
    use crate::shared::Vendors;

    const ROW: &str = "| 2026-01-01T00:01:00Z | dev | ada | OPS-12 | 01ARZ3NDEKTSV4RRFFQ69G5FAV | https://kv-mindwell-dev.vault.azure.net/secrets/database-url/0123456789abcdef |";

    fn changelog(path: &std::path::Path) -> Changelog {
        let options = Options { path: path.to_str().unwrap().to_owned() };
        Changelog::new(None, options, fake::shared(Vendors::default(), "")).unwrap()
    }

    /// What a file becomes when the story is told twice.
    async fn told(before: Option<&str>) -> (String, [Effect; 2]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.md");
        if let Some(before) = before {
            std::fs::write(&path, before).unwrap();
        }
        let changelog = changelog(&path);
        assert_eq!(changelog.check(None).await, Ok(Vec::new()));
        let story = fake::story(Some("OPS-12"));
        let first = changelog.record(&story, false).await.unwrap().effect;
        let second = changelog.record(&story, true).await.unwrap().effect;
        (std::fs::read_to_string(&path).unwrap(), [first, second])
    }

    #[tokio::test]
    async fn a_run_is_written_once() {
        let whole = format!("{TITLE}\n\n{HEADING}\n{RULER}\n{ROW}\n");
        let once = [Effect::Changed, Effect::AlreadyDone];
        assert_eq!(told(None).await, (whole.clone(), once));
        assert_eq!(told(Some(&whole)).await, (whole, [Effect::AlreadyDone; 2]));
        let another = ROW.replace("01ARZ3", "01ARZ4");
        let table = format!("{HEADING}\n{RULER}\n{another}\n");
        assert_eq!(told(Some(&table)).await, (format!("{table}{ROW}\n"), once));
    }

    #[tokio::test]
    async fn what_stands_there_stays() {
        let prose = "# Ours\n\n| a | b |\n| --- | --- |\n| 1 | 2 |";
        assert_eq!(told(Some(prose)).await.0, format!("{prose}\n\n{HEADING}\n{RULER}\n{ROW}\n"));
        let after = format!("{HEADING}\n{RULER}\n\nA remark.\n");
        assert_eq!(told(Some(&after)).await.0, format!("{after}\n{HEADING}\n{RULER}\n{ROW}\n"));
        let crlf = format!("{HEADING}\r\n{RULER}\r\n");
        assert_eq!(told(Some(&crlf)).await.0, format!("{crlf}{ROW}\r\n"));
    }

    #[tokio::test]
    async fn a_row_that_a_crash_cut_off_does_not_count() {
        let cut = format!("{HEADING}\n{RULER}\n{}", &ROW[..90]);
        let (text, effects) = told(Some(&cut)).await;
        assert_eq!(effects, [Effect::Changed, Effect::AlreadyDone]);
        assert_eq!(text, format!("{cut}\n{ROW}\n"));
    }

    #[test]
    fn cells_stay_cells() {
        let mut story = fake::story(None);
        story.operator = "a|b\\|c\nd <script>".into();
        story.versions.clear();
        let row = row(&story);
        assert!(row.contains("| a\\|b\\\\\\|c d &lt;script> | – | 01ARZ"), "{row}");
        assert!(row.ends_with("| – |"));
    }

    #[tokio::test]
    async fn two_writers_wait_for_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.md");
        std::fs::write(&path, "").unwrap();
        let held = files::lock(File::open(&path).unwrap(), "hold it").unwrap();
        let error = changelog(&path).record(&fake::story(None), false).await.unwrap_err();
        assert_eq!((error.kind(), error.retry()), (Kind::Busy, Retry::Later { after_ms: None }));
        drop(held);
        assert!(changelog(&path).record(&fake::story(None), false).await.is_ok());
    }

    #[tokio::test]
    async fn a_place_that_can_not_be_written_is_found_before() {
        let folder = tempfile::tempdir().unwrap();
        for (path, missing) in [
            (folder.path().join("none/log.md"), "there is no folder"),
            (folder.path().to_owned(), "not a regular file"),
        ] {
            let findings = changelog(&path).check(None).await.unwrap();
            assert!(
                findings[0].severity == Severity::Blocks && findings[0].what.contains(missing),
                "{findings:?}"
            );
            assert!(changelog(&path).record(&fake::story(None), false).await.is_err());
        }
    }
}
