//! Any answer of a vendor: `STATUS \n` headers as `NAME: VALUE` `\n` an empty line, and the body, in which the byte 1
//! stands for a password that the vendor repeats.

use pgrotate_core::Error;
use pgrotate_providers::fuzzing::{self, Answer};

/// What a vendor repeats, with signs that no code or name has, as a password could have them.
const CANARY: &str = "Canary/8Zquux+9Xyzzy:";
/// The most that an error says, in bytes.
const MOST: usize = 1500;

/// Every answer becomes an error of our own words: of bounded length, without control characters, and without anything
/// that the body repeated.
pub fn answers(input: &[u8]) {
    let Some(answer) = read(input) else { return };
    for (vendor, error) in fuzzing::meanings(&answer) {
        judge(vendor, &error);
    }
}

fn read(input: &[u8]) -> Option<Answer> {
    let (status, mut rest) = line(input);
    let status = std::str::from_utf8(status).ok()?.trim().parse().ok()?;
    let mut headers = Vec::new();
    loop {
        let (header, after) = line(rest);
        rest = after;
        if header.is_empty() {
            break;
        }
        let (name, value) = std::str::from_utf8(header).ok()?.split_once(':')?;
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
    let pieces: Vec<&[u8]> = rest.split(|byte| *byte == 1).collect();
    Some(Answer { status, headers, body: pieces.join(CANARY.as_bytes()) })
}

fn line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[]),
    }
}

fn judge(vendor: &str, error: &Error) {
    let said =
        std::iter::once(error.operation()).chain(error.causes().to_vec()).chain(error.hints().to_vec());
    let said: Vec<String> = said.chain(error.told_in_words()).collect();
    let length: usize = said.iter().map(String::len).sum();
    assert!(length <= MOST, "{vendor}: {length} bytes are said");
    assert!(
        !said.iter().any(|text| text.contains(char::is_control)),
        "{vendor}: control characters: {said:?}"
    );
    let kept = serde_json::to_string(error).expect("an error can be journalled");
    for shown in [format!("{error:#} {error:?}"), kept.clone()] {
        let leak =
            CANARY.split(['/', '+', ':']).skip(1).any(|piece| !piece.is_empty() && shown.contains(piece));
        assert!(!leak, "{vendor}: what a vendor repeats is shown: {shown}");
    }
    let again: Error = serde_json::from_str(&kept).expect("and read again");
    assert_eq!(&again, error);
}
