//! Each dialect is judged by its reader: the real shell, and for the others the reader's own
//! rules, written down a second time and independently of the editor.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use pgrotate_core::journal::Effect;
use pgrotate_core::{Retry, Secret};
use proptest::prelude::*;

use super::dialect::Style;
use super::*;
use crate::fake::{self, Job};
use crate::files;
use crate::shared::Vendors;

const KEY: &str = "KEY";
const SHELL: &str = "sh";

fn sink(path: &Path, dialect: Dialect) -> EnvFile {
    let options =
        Options { path: path.to_str().unwrap().to_owned(), key: KEY.into(), dialect, host: None, ssh: None };
    EnvFile::new(None, options, fake::shared(Vendors::default(), "")).unwrap()
}

/// A file `dev.env` with this content, in a folder of its own.
fn folder_with(content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dev.env");
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

async fn publish(sink: &EnvFile, password: &str) -> Result<Effect> {
    sink.publish(&Job::new(sink.id(), "{password}", password).update()).await.map(|outcome| outcome.effect)
}

/// What a change makes of a text, if the text can be edited. The file is not involved.
fn edited(dialect: Dialect, text: &[u8], value: &str) -> Option<Vec<u8>> {
    let [place] = &dialect.find(text, KEY).ok()?[..] else { return None };
    let written = dialect.write(value, place.style).ok()?;
    Some([&text[..place.span.start], written.as_bytes(), &text[place.span.end..]].concat())
}

// ---------------------------------------------------------------- the sink

#[tokio::test]
async fn one_line_changes_and_every_other_byte_stays() {
    let before = b"\xEF\xBB\xBFA=1\r\n# KEY=no\r\nKEY=old\r\n\xFF\xFE=x\nKEYS=KEY=y".as_slice();
    let (folder, path) = folder_with(before);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    let sink = sink(&path, Dialect::Verbatim);
    assert_eq!(sink.id().as_str(), "env_file:dev.env");
    assert_eq!(publish(&sink, "new").await, Ok(Effect::Changed));
    let after = b"\xEF\xBB\xBFA=1\r\n# KEY=no\r\nKEY=new\r\n\xFF\xFE=x\nKEYS=KEY=y".as_slice();
    assert_eq!(std::fs::read(&path).unwrap(), after);
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    let touched = std::fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(publish(&sink, "new").await, Ok(Effect::AlreadyDone));
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), touched, "not written a second time");
    let seen = sink.inspect().await.unwrap();
    assert_eq!(seen.updated_at, jiff::Timestamp::try_from(touched).ok());
    assert!(matches!(seen.content, Content::Value(value) if value == Secret::new("new")));
}

#[tokio::test]
async fn a_url_keeps_everything_but_its_password() {
    let url = "postgresql+asyncpg://mindwelladmin:old@db.example.com/mindwell_app?ssl=require&x=1";
    let (_folder, path) = folder_with(format!("export KEY='{url}' # the database\n"));
    let sink = sink(&path, Dialect::Shell);
    let job = Job::new(sink.id(), "{database_url}", "n/w");
    sink.publish(&job.update()).await.unwrap();
    let url = url.replace(":old@", ":n%2Fw@");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("export KEY='{url}' # the database\n"));
}

#[tokio::test]
async fn an_empty_line_is_filled_and_a_missing_one_is_asked_for() {
    let (_folder, path) = folder_with("KEY=\n");
    let filled = sink(&path, Dialect::Docker);
    let Inspection { seen, findings, .. } = filled.check().await.unwrap();
    assert!(
        matches!(seen.content, Content::Absent)
            && findings.iter().all(|found| found.severity < Severity::Blocks)
    );
    filled.publish(&Job::new(filled.id(), "{database_url}", "new").update()).await.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, "KEY=postgresql://mindwelladmin:new@db.example.com:5432/mindwell_app\n");

    let (_folder, path) = folder_with("OTHER=1\n");
    let missing = sink(&path, Dialect::Docker);
    let Inspection { seen, findings, .. } = missing.check().await.unwrap();
    assert!(matches!(seen.content, Content::Absent));
    let found = findings.iter().find(|found| found.severity == Severity::Blocks).unwrap();
    assert_eq!(found.mend.as_deref(), Some("add the line `KEY=`"));
    assert_eq!(publish(&missing, "new").await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "OTHER=1\n");
}

async fn refusal(path: &Path, dialect: Dialect) -> String {
    let (checked, published) =
        (sink(path, dialect).check().await, publish(&sink(path, dialect), "new").await);
    let error = checked.expect_err("the check refuses it");
    assert_eq!(error.retry(), Retry::Never);
    assert_eq!(published, Err(error.clone()), "and the change for the same reason");
    error.to_string()
}

#[tokio::test]
async fn what_can_not_be_edited_with_certainty_is_refused() {
    for (dialect, text, why) in [
        (Dialect::Verbatim, "KEY=a\nKEY=b\n", "KEY stands in it twice, in lines 1 and 2"),
        (Dialect::Docker, "KEY=\"a\"\n", "differ on whether the quotes belong"),
        (Dialect::Docker, "KEY\n", "whoever calls Docker"),
        (Dialect::Shell, "KEY=a\r\n", "CR LF"),
        (Dialect::Shell, "A=1\n. other.env\nKEY=a\n", "line 2: it is more than an assignment"),
        (Dialect::Shell, "KEY=$(cat secret)\n", "runs a command"),
        (Dialect::Shell, "KEY=$OTHER\n", "computed by the shell"),
        (Dialect::Shell, "KEY=\\\n~\n", "computed by the shell"),
        (Dialect::Shell, "KEY='a\n", "line 1: its quotation is never closed"),
        (Dialect::Shell, "\u{FEFF}KEY=a\n", "byte order mark"),
        (Dialect::Shell, "if true; then KEY=a; fi\n", "more than an assignment"),
        (Dialect::Shell, "KEY=a command\n", "more than an assignment"),
        (Dialect::Shell, "cat <<KEY\nKEY=a\nKEY\n", "more than an assignment"),
        (Dialect::Systemd, "# c\\\nKEY=a\n", "versions of systemd"),
        (Dialect::Systemd, "KEY=\"a\n", "never closed"),
    ] {
        let (_folder, path) = folder_with(text);
        let said = refusal(&path, dialect).await;
        assert!(said.contains(why), "{text:?}: {said}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[tokio::test]
async fn another_process_that_changes_the_file_is_waited_for() {
    let (_folder, path) = folder_with("KEY=old\n");
    let sink = sink(&path, Dialect::Verbatim);
    let theirs = files::hold(&path, "change it").unwrap();
    let error = publish(&sink, "new").await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Busy, Retry::Later { after_ms: None }));
    // They replace it: the lock of the old file says nothing about the new one.
    let old = files::read(&path, "change it").unwrap();
    files::replace(&path, &old, b"OTHER=theirs\nKEY=old\n", "change it").unwrap();
    assert!(!theirs.is_of(&path.metadata().unwrap()));
    assert_eq!(publish(&sink, "new").await, Ok(Effect::Changed));
    assert_eq!(std::fs::read(&path).unwrap(), b"OTHER=theirs\nKEY=new\n");
}

#[tokio::test]
async fn the_wrong_kind_of_file_is_refused() {
    let (folder, path) = folder_with("KEY=a\n");
    let (outside, target) = folder_with("KEY=a\n");
    let (missing, out, dangling) =
        (folder.path().join("none.env"), folder.path().join("out.env"), folder.path().join("dangling.env"));
    symlink(&target, &out).unwrap();
    symlink("gone", &dangling).unwrap();
    assert!(refusal(&missing, Dialect::Verbatim).await.contains("no such file"));
    assert!(refusal(&out, Dialect::Verbatim).await.contains("leads out of its folder"));
    assert!(refusal(&dangling, Dialect::Verbatim).await.contains("no such file"));
    assert!(refusal(folder.path(), Dialect::Verbatim).await.contains("not a regular file"));
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "KEY=a\n");
    drop((outside, path));
}

#[tokio::test]
async fn a_link_within_the_folder_stays_a_link() {
    let (folder, path) = folder_with("KEY=a\n");
    let link = folder.path().join("current.env");
    symlink("dev.env", &link).unwrap();
    let sink = sink(&link, Dialect::Verbatim);
    assert_eq!(sink.id().as_str(), "env_file:current.env");
    assert_eq!(publish(&sink, "new").await, Ok(Effect::Changed));
    assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("dev.env"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "KEY=new\n");
}

#[tokio::test]
async fn the_check_warns_of_what_leaks_or_is_meant_otherwise() {
    let (folder, path) = folder_with("KEY=\"quoted\"\n");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::hard_link(&path, folder.path().join("second")).unwrap();
    let Inspection { seen, findings, .. } = sink(&path, Dialect::Verbatim).check().await.unwrap();
    assert!(matches!(seen.content, Content::Value(value) if value == Secret::new("\"quoted\"")));
    let warned = |what: &str| {
        findings.iter().any(|found| found.severity == Severity::Warning && found.what.contains(what))
    };
    assert!(warned("everybody") && warned("second name") && warned("quotes"), "{findings:?}");
    assert!(findings.iter().all(|found| !found.what.contains("quoted\"")), "{findings:?}");
}

/// Root may write everywhere, so this one only means something for others.
#[tokio::test]
async fn a_folder_that_can_not_be_written_is_found_before() {
    let (folder, path) = folder_with("KEY=old\n");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o555)).unwrap();
    let Inspection { findings, .. } = sink(&path, Dialect::Verbatim).check().await.unwrap();
    let found =
        findings.iter().any(|found| found.severity == Severity::Blocks && found.what.contains("folder"));
    assert_eq!(found, !rustix::process::geteuid().is_root());
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn names_are_those_of_the_dialect() {
    for (dialect, good, bad) in [
        (Dialect::Shell, "_A1", "A-B"),
        (Dialect::Systemd, "A", "1A"),
        (Dialect::Verbatim, "a.b-c", "a=b"),
        (Dialect::Docker, "a-b", "#a"),
        (Dialect::Docker, "1", ""),
    ] {
        assert!(dialect.takes_name(good) && !dialect.takes_name(bad), "{dialect:?} {good:?} {bad:?}");
    }
}

#[test]
fn what_a_dialect_can_not_hold_is_said() {
    for dialect in [Dialect::Verbatim, Dialect::Docker, Dialect::Shell, Dialect::Systemd] {
        for value in ["a\nb", "a\rb", "a\0b"] {
            assert!(dialect.write(value, Style::Bare).is_err());
        }
    }
    assert!(Dialect::Docker.write("'a'", Style::Bare).is_err());
    assert!(Dialect::Systemd.write("a\u{7}", Style::Bare).is_err());
}

#[test]
fn quotes_are_kept_where_they_can_hold_the_value() {
    for (dialect, before, value, after) in [
        (Dialect::Shell, "KEY='a'", "b$c", "KEY='b$c'"),
        (Dialect::Shell, "KEY=\"a\"", "b$c", "KEY=\"b\\$c\""),
        (Dialect::Shell, "KEY=\"a\"", "b!c", "KEY='b!c'"),
        (Dialect::Shell, "KEY=a", "b:c/d@e?f=g", "KEY=b:c/d@e?f=g"),
        (Dialect::Shell, "KEY=a", "b&c", "KEY='b&c'"),
        (Dialect::Shell, "KEY='a'", "b'c", "KEY='b'\\''c'"),
        (Dialect::Shell, "KEY=a\\ b'c' D=1", "x", "KEY='x' D=1"),
        (Dialect::Shell, "export A=1 KEY=a;B=2", "x", "export A=1 KEY=x;B=2"),
        (Dialect::Systemd, " KEY = a ", "b$c", " KEY = b$c "),
        (Dialect::Systemd, "KEY='a'", "b'c", "KEY=\"b'c\""),
        (Dialect::Systemd, "KEY=\"a\\\nb\"", "x", "KEY=\"x\""),
        (Dialect::Systemd, "KEY=\"a\" 'b'  ", "x", "KEY=\"x\"  "),
        (Dialect::Docker, "  KEY=a ", "b", "  KEY=b"),
        (Dialect::Verbatim, "KEY= a ", "b", "KEY=b"),
    ] {
        let made = edited(dialect, before.as_bytes(), value).map(|made| String::from_utf8(made).unwrap());
        assert_eq!(made.as_deref(), Some(after), "{before:?}");
    }
}

// ---------------------------------------------------------------- the readers

/// The value that a real shell gives the key, in an environment without anything it could call.
fn by_shell(shell: &str, text: &[u8]) -> Option<Vec<u8>> {
    let (_folder, path) = folder_with(text);
    let script = "set -a; . \"$1\"; printf '%s' \"${KEY-}\"";
    let output = Command::new(shell).args(["-c", script, "sh"]).arg(&path).env_clear().output().unwrap();
    (output.status.success() && output.stderr.is_empty()).then_some(output.stdout)
}

/// GitHub's runner.
fn by_runner(text: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let mut joined = Vec::new();
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b'\r' && bytes.peek() == Some(&b'\n') {
            continue;
        }
        joined.push(if byte == b'\r' { b'\n' } else { byte });
    }
    let lines = joined.split(|byte| *byte == b'\n');
    let pairs = lines.filter_map(|line| {
        let equals = line.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
        Some((line[..equals].to_vec(), line[equals + 1..].to_vec()))
    });
    pairs.collect()
}

/// Docker, with and without taking quotes away. `None` if it refuses the file.
fn by_docker(text: &str, strips_quotes: bool) -> Option<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for line in text.strip_prefix('\u{FEFF}').unwrap_or(text).split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        if name.is_empty() || name.contains(char::is_whitespace) {
            return None;
        }
        let same = |mark: char| value.len() > 1 && value.starts_with(mark) && value.ends_with(mark);
        let value =
            if strips_quotes && (same('"') || same('\'')) { &value[1..value.len() - 1] } else { value };
        found.insert(name.to_owned(), value.to_owned());
    }
    Some(found)
}

/// systemd, read as a grammar: a value is a sequence of quotations and ends with bare text.
fn by_systemd(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if rest.is_empty() {
            return found;
        }
        let line = rest.split(['\n', '\r']).next().unwrap();
        // A `=` that begins a line belongs to the name.
        let first = line.chars().next().map_or(0, char::len_utf8);
        match line[first..].find('=').map(|length| first + length) {
            _ if rest.starts_with(['#', ';']) => rest = &rest[line.len()..],
            None => rest = &rest[line.len()..],
            Some(equals) => {
                let (value, after) = systemd_value(&rest[equals + 1..]);
                found.insert(rest[..equals].trim_end_matches([' ', '\t']).to_owned(), value);
                rest = after;
            }
        }
    }
}

fn systemd_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        let Some(mark) = rest.chars().next().filter(|mark| matches!(mark, '"' | '\'')) else { break };
        let mut characters = rest[1..].char_indices();
        let end = loop {
            match characters.next().expect("tests close their quotations") {
                (at, character) if character == mark => break at,
                (_, '\\') if mark == '"' => match characters.next().unwrap().1 {
                    '\n' => {}
                    escaped @ ('"' | '\\' | '`' | '$') => value.push(escaped),
                    other => value.extend(['\\', other]),
                },
                (_, character) => value.push(character),
            }
        };
        rest = &rest[1 + end + 1..];
    }
    let mut kept = value.len();
    let mut characters = rest.char_indices();
    let end = loop {
        match characters.next() {
            None => break rest.len(),
            Some((at, '\n' | '\r')) => break at,
            Some((_, '\\')) => {
                let escaped = characters.next().expect("tests end no file in a backslash").1;
                if !matches!(escaped, '\n' | '\r') {
                    value.push(escaped);
                }
                kept = value.len();
            }
            Some((_, character)) => {
                value.push(character);
                if !matches!(character, ' ' | '\t') {
                    kept = value.len();
                }
            }
        }
    };
    value.truncate(kept);
    (value, &rest[end..])
}

// ---------------------------------------------------------------- any file, any value

/// Values as they are met, and as nobody would choose them.
fn values() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z0-9]{1,32}",
        "postgresql://[a-z]{1,5}:[A-Za-z0-9%]{1,12}@[a-z.]{1,9}:5432/[a-z]{1,5}\\?ssl=require&x=[a-z~]{1,3}",
        "[ -~]{0,12}",
        "\\PC{0,12}",
    ]
}

/// Texts made of what has a meaning in one dialect or another, often with the key in them.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&str] = &[
        "KEY", "KEY=", "\nKEY=", "export ", "set -a\n", "A=", "a", "b:~", "=", "'", "\"", "\\", "\\\n", "\n",
        "\n", "\r", "\r\n", " ", "\t", "$", "$A", "${A}", "#", ";", "~", "`", "{a,b}", "é", "?", "''",
        "\"\"", "'a'", "\"a\"",
    ];
    let pieces =
        || prop::collection::vec(prop::sample::select(PIECES), 0..9).prop_map(|pieces| pieces.concat());
    (pieces(), prop::sample::select(&["\nKEY=", "KEY=", ""][..]), pieces())
        .prop_map(|(before, key, after)| format!("{before}{key}{after}").into_bytes())
}

/// Files that assign and comment and do nothing else, with one line for the key somewhere.
fn plain_files(key_lines: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let others = prop_oneof![
        Just("# KEY=comment"),
        Just(""),
        Just("A=1"),
        Just("  B='two\nKEY=decoy\n'"),
        Just("C=\"it's \\\"$A\\\" \""),
        Just("MONKEY=x"),
        Just("KEYS=KEY=x"),
        Just("D="),
    ];
    let around = || prop::collection::vec(others.clone(), 0..5);
    (around(), 0..key_lines.len(), around(), any::<bool>()).prop_map(|(before, key, after, ends)| {
        let lines: Vec<&str> = before.into_iter().chain([key_lines[key]]).chain(after).collect();
        let mut text = lines.join("\n");
        if ends {
            text.push('\n');
        }
        text.into_bytes()
    })
}

proptest! {
    /// The scanner and the shell agree on every text that the scanner accepts, before the
    /// change and after it. `dash` or `bash`, whatever `sh` is here.
    #[test]
    fn the_shell_reads_what_was_written(text in soup(), value in values()) {
        if let Ok([place]) = Dialect::Shell.find(&text, KEY).as_deref() && !place.computed {
            prop_assert_eq!(by_shell(SHELL, &text), Some(place.value.to_vec()));
        }
        if let Some(made) = edited(Dialect::Shell, &text, &value) {
            prop_assert_eq!(by_shell(SHELL, &made), Some(value.into_bytes()));
        }
    }

    #[test]
    fn plain_shell_files_can_be_edited(
        text in plain_files(&["KEY=old", "export KEY='o l d'", "KEY=\"o\\$d\" # note", " KEY=o\\'d;E=5", "export A KEY= Z=1"]),
        value in values(),
    ) {
        let made = edited(Dialect::Shell, &text, &value);
        prop_assert!(made.is_some(), "{}", String::from_utf8_lossy(&text));
        prop_assert_eq!(by_shell(SHELL, &made.unwrap()), Some(value.into_bytes()));
    }

    #[test]
    fn the_runner_reads_what_was_written(text in soup(), value in values()) {
        if let Some(made) = edited(Dialect::Verbatim, &text, &value) {
            let mut expected = by_runner(&text);
            expected.insert(KEY.into(), value.into_bytes());
            prop_assert_eq!(by_runner(&made), expected, "and every other variable as before");
        }
    }

    #[test]
    fn docker_reads_what_was_written(text in soup(), value in values()) {
        let text = String::from_utf8(text).unwrap();
        if let Some(made) = edited(Dialect::Docker, text.as_bytes(), &value) {
            let made = String::from_utf8(made).unwrap();
            for strips_quotes in [false, true] {
                let expected = by_docker(&text, strips_quotes).map(|mut found| {
                    found.insert(KEY.into(), value.clone());
                    found
                });
                prop_assert_eq!(by_docker(&made, strips_quotes), expected);
            }
        }
    }

    #[test]
    fn systemd_reads_what_was_written(text in soup(), value in values()) {
        if let Some(made) = edited(Dialect::Systemd, &text, &value) {
            let text = String::from_utf8(text).unwrap();
            let mut expected = by_systemd(&text);
            let [place] = &Dialect::Systemd.find(text.as_bytes(), KEY).unwrap()[..] else { unreachable!() };
            let before = expected.insert(KEY.into(), value).map(String::into_bytes);
            prop_assert_eq!(before, Some(place.value.to_vec()));
            prop_assert_eq!(by_systemd(&String::from_utf8(made).unwrap()), expected);
        }
    }

    #[test]
    fn plain_systemd_files_can_be_edited(
        text in plain_files(&["KEY=old", " KEY = 'o l d' ", "KEY=\"o\\$d\"", "KEY=o\\'d", "KEY=", "KEY=\"a\" 'b' c"]),
        value in "[ -~]{0,12}",
    ) {
        let made = edited(Dialect::Systemd, &text, &value).map(|made| String::from_utf8(made).unwrap());
        prop_assert!(made.is_some(), "{}", String::from_utf8_lossy(&text));
        prop_assert_eq!(by_systemd(&made.unwrap()).remove(KEY), Some(value));
    }
}
