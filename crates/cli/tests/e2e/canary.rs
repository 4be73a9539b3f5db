//! Passwords that are searched for, in every form in which one could get out.
//!
//! A search that can't find anything proves nothing: the tests below plant each form and see it found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// So much of a password, from its beginning or its end, counts as the password: whoever cuts one off for a message
/// still tells most of it.
const PART: usize = 12;

/// What a search finds: each secret's name and form, and how often it is there.
pub(crate) type Found = BTreeMap<String, usize>;

/// All forms of some secrets, in one automaton.
pub(crate) struct Canary {
    automaton: AhoCorasick,
    names: Vec<String>,
    /// The longest form, in bytes.
    pub(crate) longest: usize,
}

impl Canary {
    /// The forms of secrets, each with what to call it in a message.
    pub(crate) fn of<N: AsRef<str>, S: AsRef<str>>(secrets: impl IntoIterator<Item = (N, S)>) -> Self {
        let mut forms = BTreeMap::new();
        for (name, secret) in secrets {
            for (form, bytes) in forms_of(secret.as_ref()) {
                forms.entry(bytes).or_insert_with(|| format!("{} ({form})", name.as_ref()));
            }
        }
        let (patterns, names): (Vec<_>, Vec<_>) = forms.into_iter().unzip();
        // A whole one is not to be reported as its own beginning.
        let automaton =
            AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&patterns).unwrap();
        Self { automaton, names, longest: patterns.iter().map(Vec::len).max().unwrap() }
    }

    /// What of it is in these bytes.
    pub(crate) fn find(&self, bytes: &[u8]) -> Found {
        let mut found = Found::new();
        for hit in self.automaton.find_iter(bytes) {
            *found.entry(self.names[hit.pattern().as_usize()].clone()).or_default() += 1;
        }
        found
    }

    /// Expects nothing of it in these bytes.
    #[track_caller]
    pub(crate) fn not_in(&self, what: &str, bytes: impl AsRef<[u8]>) {
        let found = self.find(bytes.as_ref());
        assert!(found.is_empty(), "{what} holds {found:?}");
    }

    /// Expects nothing of it in any file under a folder, its names included, but in those that are named here. Files
    /// may come and go meanwhile. Gives how many have been read.
    #[track_caller]
    pub(crate) fn not_under(&self, folder: &Path, but: &[PathBuf]) -> usize {
        files_under(folder, but).into_iter().filter(|path| self.not_at(path)).count()
    }

    /// Expects nothing of it in a file, its name included. Says whether there is such a file.
    #[track_caller]
    pub(crate) fn not_at(&self, path: &Path) -> bool {
        self.not_in("the name of a file", path.as_os_str().as_encoded_bytes());
        let bytes = std::fs::read(path);
        bytes.inspect(|bytes| self.not_in(&path.display().to_string(), bytes)).is_ok()
    }
}

/// The regular files under a folder, but for what is under some of its paths.
pub(crate) fn files_under(folder: &Path, but: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        match entry.file_type() {
            _ if but.contains(&path) => {}
            Ok(kind) if kind.is_dir() => files.append(&mut files_under(&path, but)),
            Ok(kind) if kind.is_file() => _ = files.insert(path),
            _ => {}
        }
    }
    files
}

/// Every form of a secret that somebody could turn back.
fn forms_of(secret: &str) -> Vec<(String, Vec<u8>)> {
    let encoded = percent(secret, false);
    let mut forms: Vec<(String, Vec<u8>)> = [
        ("as it is", secret.to_owned()),
        ("percent-encoded", encoded.clone()),
        ("percent-encoded in small letters", percent(secret, true)),
        ("percent-encoded twice", encoded.replace('%', "%25")),
        ("in JSON with its slashes escaped", secret.replace('/', "\\/")),
        ("hexadecimal", hex(secret.as_bytes())),
        ("hexadecimal in capitals", hex(secret.as_bytes()).to_uppercase()),
        ("backwards", secret.chars().rev().collect()),
    ]
    .map(|(form, text)| (form.to_owned(), text.into_bytes()))
    .into();
    for (what, text) in [("", secret), ("percent-encoded, in ", &*encoded)] {
        forms.extend(
            (0..3)
                .flat_map(|shift| base64_at(text.as_bytes(), shift))
                .map(|(form, text)| (format!("{what}{form}"), text.into_bytes())),
        );
    }
    forms.push(("UTF-16".into(), secret.encode_utf16().flat_map(u16::to_le_bytes).collect()));
    forms.push((
        "UTF-16, the other way round".into(),
        secret.encode_utf16().flat_map(u16::to_be_bytes).collect(),
    ));
    if secret.len() >= 2 * PART && secret.is_ascii() {
        forms.push(("its beginning".into(), secret.as_bytes()[..PART].to_vec()));
        forms.push(("its end".into(), secret.as_bytes()[secret.len() - PART..].to_vec()));
    }
    forms
}

/// A text in base64 as it looks inside of a longer one, of which `shift` bytes (and any number of threes) come first:
/// the letters that it alone decides.
fn base64_at(text: &[u8], shift: usize) -> [(String, String); 2] {
    let whole = [vec![0; shift], text.to_vec()].concat();
    let own = (shift * 8).div_ceil(6)..whole.len() * 8 / 6;
    [("base64", STANDARD_NO_PAD.encode(&whole)), ("URL-safe base64", URL_SAFE_NO_PAD.encode(&whole))]
        .map(|(form, text)| (format!("{form} after {shift}"), text[own.clone()].to_owned()))
}

fn percent(text: &str, small: bool) -> String {
    text.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte))
            }
            _ if small => write!(text, "%{byte:02x}").unwrap(),
            _ => write!(text, "%{byte:02X}").unwrap(),
        }
        text
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use reqwest::Url;

    use super::*;

    const PASSWORD: &str = "Pw0aB3dE5gH7jK9/+mN1pQ2rS4tU6vW=";

    fn finds(form: &str, text: impl AsRef<[u8]>) {
        let canary = Canary::of([("old", PASSWORD)]);
        let found = canary.find(text.as_ref());
        assert_eq!(found, Found::from([(format!("old ({form})"), 1)]));
        let planted = tempfile::tempdir().unwrap();
        std::fs::create_dir(planted.path().join("deep")).unwrap();
        let file = planted.path().join("deep/file");
        std::fs::write(&file, text).unwrap();
        let search = |but: &[PathBuf]| std::panic::catch_unwind(|| canary.not_under(planted.path(), but));
        let said = *search(&[]).unwrap_err().downcast::<String>().unwrap();
        assert!(said.contains(form) && said.contains("deep/file"), "{said}");
        assert_eq!(search(&[file]).unwrap(), 0);
    }

    /// Each is made by somebody else's encoder, in the middle of other text.
    #[test]
    fn every_form_is_found_where_it_is_planted() {
        finds("as it is", format!("x{PASSWORD}y"));
        let mut url = Url::parse("postgresql://u@h/d").unwrap();
        url.query_pairs_mut().append_pair("p", PASSWORD);
        finds("percent-encoded", url.as_str());
        finds(
            "percent-encoded in small letters",
            url.as_str().replace("%2F", "%2f").replace("%2B", "%2b").replace("%3D", "%3d"),
        );
        let inner = url.to_string();
        url.query_pairs_mut().clear().append_pair("u", &inner);
        finds("percent-encoded twice", url.as_str());
        finds(
            "in JSON with its slashes escaped",
            serde_json::json!({"p": PASSWORD}).to_string().replace('/', "\\/"),
        );
        finds("hexadecimal", pgrotate_core::secret::hex(PASSWORD.as_bytes()));
        finds("hexadecimal in capitals", pgrotate_core::secret::hex(PASSWORD.as_bytes()).to_uppercase());
        finds("backwards", PASSWORD.chars().rev().collect::<String>());
        let wide = |bytes: fn(u16) -> [u8; 2]| PASSWORD.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        finds("UTF-16", wide(u16::to_le_bytes));
        finds("UTF-16, the other way round", wide(u16::to_be_bytes));
        finds("its beginning", format!("{}…", &PASSWORD[..14]));
        finds("its end", format!("…{}", &PASSWORD[18..]));
    }

    #[test]
    fn base64_is_found_wherever_it_begins_and_whatever_follows() {
        for before in 0..7 {
            for after in 0..3 {
                let text =
                    |inner: &str| format!("{}{inner}{}", "{\"p\":\"u"[..before].to_owned(), &"\"}"[..after]);
                let shift = before % 3;
                finds(&format!("base64 after {shift}"), STANDARD.encode(text(PASSWORD)));
                // Where the password has no letter that the two alphabets write differently they are one form.
                let canary = Canary::of([("old", PASSWORD)]);
                assert_eq!(canary.find(URL_SAFE.encode(text(PASSWORD)).as_bytes()).len(), 1);
                let encoded = percent(PASSWORD, false);
                assert_eq!(canary.find(STANDARD.encode(text(&encoded)).as_bytes()).len(), 1);
            }
        }
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        let canary = Canary::of([("old", PASSWORD), ("new", "Zq8xPTkn5VbR2mWcJ7hwLsd3GyN9pFeT")]);
        assert_eq!(canary.find(b"Pw0aB3dE5gH Zq8xPTkn5Vb postgresql://u:***@h/d"), Found::new());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "nothing").unwrap();
        assert_eq!(canary.not_under(folder.path(), &[]), 1);
    }
}
