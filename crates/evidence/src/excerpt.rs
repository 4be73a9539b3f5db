//! The part of a file that shows one run: its lines and all that stand between them, behind a signed heading that says
//! which they are. So nothing can be taken from an excerpt, at either end, that would not be missed.

use crate::batch::{Subject, signed};
use crate::key::Signer;
use crate::line::{Author, Digest, Kind, Line, Written};

/// Copies a run out of a file.
///
/// Gives nothing if the file has no signed end of the run.
pub fn of(file: &[u8], run: &str, at: &str, by: &Author, signer: &Signer) -> Option<Vec<u8>> {
    let mut place = 0;
    let (mut first, mut last) = (None, None);
    for text in file.split_inclusive(|byte| *byte == b'\n') {
        let start = place;
        place += text.len();
        let Some(line) = text.strip_suffix(b"\n").and_then(Line::parse).filter(|line| line.run == run) else {
            continue;
        };
        if line.kind == Kind::Seal {
            last = Some((place, line.line, Digest::of(&text[..text.len() - 1])));
        }
        first.get_or_insert((start, line.line, line.prev.into_owned(), line.environment.into_owned()));
    }
    let ((start, first, prev, environment), (end, last, head)) = first.zip(last)?;
    let subject = Subject { run, environment: &environment };
    let heading = Written {
        at: Some(at),
        by: Some(by),
        lines: Some((first, last)),
        head: Some(head.hex()),
        ..Written::new(0, prev, Kind::Excerpt, subject.run, subject.environment)
    };
    let mut excerpt = signed(heading.to_bytes(), signer);
    excerpt.push(b'\n');
    excerpt.extend_from_slice(&file[start..end]);
    Some(excerpt)
}
