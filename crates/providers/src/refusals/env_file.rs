//! Env files on this machine: what is not edited, and why.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use pgrotate_core::provider::Sink;
use pgrotate_core::{Error, Kind};

use super::{CANARY, LATER, NEVER, Page};
use crate::env_file::{Dialect, EnvFile, Options};
use crate::fake::{Job, shared};
use crate::shared::Vendors;

fn sink(path: &Path, dialect: Dialect) -> EnvFile {
    let options = Options {
        path: path.to_str().unwrap().to_owned(),
        key: "KEY".into(),
        dialect,
        host: None,
        ssh: None,
    };
    EnvFile::new(None, options, shared(Vendors::default(), "")).unwrap()
}

struct Place {
    folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(content: &str) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dev.env");
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    Place { folder, path }
}

async fn error_of(sink: &EnvFile, template: &str, password: &str) -> Error {
    sink.publish(&Job::new(sink.id(), template, password).update()).await.unwrap_err()
}

/// The folder is another one in each run.
fn stable(page: Page, folders: &[PathBuf]) -> String {
    folders.iter().fold(page.0, |text, folder| text.replace(&folder.display().to_string(), "/agent"))
}

#[tokio::test]
async fn a_file_that_can_not_be_edited_with_certainty() {
    let (mut page, mut folders) = (Page::default(), Vec::new());
    let texts = [
        ("no line for the key", Dialect::Verbatim, format!("OTHER={CANARY}\n"), Kind::NotFound),
        ("the key stands in it twice", Dialect::Verbatim, format!("KEY={CANARY}\nKEY=b\n"), Kind::Ambiguous),
        ("a value that the shell computes", Dialect::Shell, format!("KEY=$(cat {CANARY})\n"), Kind::Config),
        ("a value that is put together", Dialect::Shell, format!("KEY=\"$OTHER{CANARY}\"\n"), Kind::Config),
        ("a quote that is never closed", Dialect::Shell, format!("KEY='{CANARY}\n"), Kind::Config),
        (
            "a program beside the assignments",
            Dialect::Shell,
            format!("if true; then KEY={CANARY}; fi\n"),
            Kind::Config,
        ),
        (
            "quotes that Docker's versions read differently",
            Dialect::Docker,
            format!("KEY=\"{CANARY}\"\n"),
            Kind::Config,
        ),
        (
            "a quote that is never closed, for systemd",
            Dialect::Systemd,
            format!("KEY=\"{CANARY}\n"),
            Kind::Config,
        ),
    ];
    for (what, dialect, text, kind) in texts {
        let place = file(&text);
        folders.push(place.folder.path().to_owned());
        page.error(what, &error_of(&sink(&place.path, dialect), "{password}", "New1").await, kind, NEVER);
        assert_eq!(std::fs::read_to_string(&place.path).unwrap(), text, "{what}");
    }
    insta::assert_snapshot!("env_file_text", stable(page, &folders));
}

#[tokio::test]
async fn a_place_that_is_no_file_to_edit() {
    let (mut page, mut folders) = (Page::default(), Vec::new());
    let place = file("KEY=old\n");
    folders.push(place.folder.path().to_owned());
    let absent = place.folder.path().join("absent.env");
    page.error(
        "no such file",
        &error_of(&sink(&absent, Dialect::Verbatim), "{password}", "New1").await,
        Kind::NotFound,
        NEVER,
    );
    let folder = place.folder.path().join("folder.env");
    std::fs::create_dir(&folder).unwrap();
    page.error(
        "a folder",
        &error_of(&sink(&folder, Dialect::Verbatim), "{password}", "New1").await,
        Kind::Config,
        NEVER,
    );
    let elsewhere = file("KEY=old\n");
    let link = place.folder.path().join("link.env");
    symlink(&elsewhere.path, &link).unwrap();
    page.error(
        "a link that leads out",
        &error_of(&sink(&link, Dialect::Verbatim), "{password}", "New1").await,
        Kind::Config,
        NEVER,
    );
    let large = place.folder.path().join("large.env");
    std::fs::File::create(&large).unwrap().set_len(5 << 20).unwrap();
    page.error(
        "too large",
        &error_of(&sink(&large, Dialect::Verbatim), "{password}", "New1").await,
        Kind::Config,
        NEVER,
    );
    let held = crate::files::hold(&place.path, "hold it").unwrap();
    page.error(
        "another process writes it",
        &error_of(&sink(&place.path, Dialect::Verbatim), "{password}", "New1").await,
        Kind::Busy,
        LATER,
    );
    drop(held);
    insta::assert_snapshot!("env_file_place", stable(page, &folders));
}

/// A copy of the URL that means another server, role or database is not ours to change.
#[tokio::test]
async fn a_value_that_does_not_fit() {
    let mut page = Page::default();
    let mut folders = Vec::new();
    for (what, url) in [
        ("another host", "postgresql://mindwelladmin:Canary8Zq9x@db.prod.example/mindwell_app".to_owned()),
        ("another user", "postgresql://somebody:Canary8Zq9x@db.example.com:5432/mindwell_app".to_owned()),
        ("another database", "postgresql://mindwelladmin:Canary8Zq9x@db.example.com:5432/other".to_owned()),
        ("no URL", CANARY.to_owned()),
    ] {
        let place = file(&format!("KEY={url}\n"));
        folders.push(place.folder.path().to_owned());
        let error = error_of(&sink(&place.path, Dialect::Verbatim), "{database_url}", "New1").await;
        page.error(what, &error, error.kind(), NEVER);
    }
    for (what, dialect, value) in [
        ("a line break for the runner", Dialect::Verbatim, "a\nb"),
        ("a line break for Docker", Dialect::Docker, "a\nb"),
        ("a zero byte for the shell", Dialect::Shell, "a\0b"),
    ] {
        let place = file("KEY=old\n");
        folders.push(place.folder.path().to_owned());
        page.error(
            what,
            &error_of(&sink(&place.path, dialect), "{password}", value).await,
            Kind::Rejected,
            NEVER,
        );
    }
    insta::assert_snapshot!("env_file_value", stable(page, &folders));
}

#[tokio::test]
async fn what_check_finds_before_it_could_go_wrong() {
    let (mut page, mut folders) = (Page::default(), Vec::new());
    for (what, text) in [
        ("no line for the key", "OTHER=1\n"),
        ("no value yet", "KEY=\n"),
        ("quotes for a reader that takes them for the value's", "KEY=\"old\"\n"),
    ] {
        let place = file(text);
        folders.push(place.folder.path().to_owned());
        let findings = sink(&place.path, Dialect::Verbatim).check().await.unwrap().findings;
        findings.iter().for_each(|finding| page.finding(what, finding));
    }
    let place = file("KEY=old\n");
    folders.push(place.folder.path().to_owned());
    std::fs::set_permissions(&place.path, PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::hard_link(&place.path, place.folder.path().join("second.env")).unwrap();
    let findings = sink(&place.path, Dialect::Verbatim).check().await.unwrap().findings;
    findings.iter().for_each(|finding| page.finding("for everybody to read, and with two names", finding));
    insta::assert_snapshot!("env_file_findings", stable(page, &folders));
}
