//! Any file of variables, and any value put into it: `DIALECT \n KEY \n VALUE \n FILE`.

use pgrotate_core::{Kind, Secret};
use pgrotate_providers::env_file::Dialect;
use pgrotate_providers::fuzzing::{self, Edit};

/// What must be in no error.
const CANARY: &str = "Canary/8Zquux+9Xyzzy:";
/// A variable that nobody changes.
const OTHER: &str = "OTHER";

/// One value changes, every other byte stays, and what was written is read back; or the edit is refused.
pub fn env_file(input: &[u8]) {
    let mut parts = input.splitn(4, |byte| *byte == b'\n');
    let mut part = || parts.next();
    let (Some(dialect), Some(key), Some(value), Some(file)) = (part(), part(), part(), part()) else {
        return;
    };
    let Some(dialect) = dialect.first().map(|byte| named(*byte)) else { return };
    let (Ok(key), Ok(value)) = (std::str::from_utf8(key), std::str::from_utf8(value)) else { return };
    check(dialect, key, file, value);
    if let Some(Err(error)) = fuzzing::edit(dialect, key, file, &Secret::new(format!("{value}{CANARY}"))) {
        assert!(!format!("{error} {error:?}").contains(CANARY), "an error repeats the value");
    }
}

/// The dialect that begins with this letter; any other letter stands for some dialect, too.
fn named(letter: u8) -> Dialect {
    match letter {
        b'v' => Dialect::Verbatim,
        b's' => Dialect::Shell,
        b'd' => Dialect::Docker,
        b'u' => Dialect::Systemd,
        other => named(b"vsdu"[usize::from(other % 4)]),
    }
}

fn check(dialect: Dialect, key: &str, file: &[u8], value: &str) {
    let secret = Secret::new(value);
    let Some(edited) = fuzzing::edit(dialect, key, file, &secret) else { return };
    let Edit { span, new } = match edited {
        Ok(edit) => edit,
        Err(error) => return assert_ne!(error.kind(), Kind::Internal, "{error}"),
    };
    assert_eq!(new[..span.start], file[..span.start], "something before the value has changed");
    assert!(new[span.start..].ends_with(&file[span.end..]), "something behind the value has changed");
    let found = fuzzing::read(dialect, key, &new).expect("what was written can be read");
    let wanted = Some(secret.clone()).filter(|secret| !secret.is_empty());
    assert!(found == wanted, "another value is read than was written");
    if key != OTHER {
        let other = |text| fuzzing::read(dialect, OTHER, text).ok();
        assert!(other(file) == other(&new), "another variable has another value");
    }
    match fuzzing::edit(dialect, key, &new, &secret) {
        Some(Ok(again)) => assert_eq!(*again.new, *new, "writing it twice is not writing it once"),
        _ => panic!("what was written can't be written again"),
    }
}
