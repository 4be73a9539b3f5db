//! Any text as a database URL, and any password put into it: `URL \n PASSWORD`.

use pgrotate_core::Secret;
use pgrotate_core::database_url::{DatabaseUrl, encode};

use crate::lines;

/// A URL's password is replaced, and nothing else of it reads differently; or the text is refused.
pub fn url(input: &[u8]) {
    let Some([text, password]) = lines(input) else { return };
    let (text, new) = (Secret::new(text), Secret::new(password));
    let Ok(read) = DatabaseUrl::parse(&text) else { return };
    let _ = (read.driver_warning(), read.encoding_warning(), format!("{read:?}"));
    assert_eq!(read.disagreements(read.target()), []);

    let changed = read.with_password(&new).expect("what can be read can be given another password");
    let again = DatabaseUrl::parse(&changed).expect("what was written can be read");
    assert!(again.password() == new, "the password is not read as it was written");
    assert_eq!(again.target(), read.target());
    assert_eq!(again.encoding_warning(), None, "it is written as it should be");
    only_the_password_differs(text.expose(), changed.expose(), &encode(new.expose()));
    let twice = again.with_password(&new).expect("writing it again is no change");
    assert!(twice == changed, "writing it twice is not writing it once");

    let back = again.with_password(&read.password()).expect("the password from before can be written");
    let back = DatabaseUrl::parse(&back).expect("and read");
    assert!(back.password() == read.password());
    assert_eq!(back.target(), read.target());
}

/// Before and after the encoded password stands what stood there, and another parser sees the same parts.
fn only_the_password_differs(before: &str, after: &str, encoded: &str) {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
    assert!(encoded.bytes().all(unreserved), "what a URL reserves is encoded");
    let kept = after.match_indices(encoded).any(|(at, _)| {
        before.starts_with(&after[..at]) && before[at..].ends_with(&after[at + encoded.len()..])
    });
    assert!(encoded.is_empty() || kept, "something else of the text has changed");
}
