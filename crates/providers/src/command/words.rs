//! What is kept of a program's words, and how.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use zeroize::Zeroizing;

use crate::log_scan::{self, Redactor, Trouble};

/// How many of a program's last lines an error quotes.
const QUOTED: usize = 8;
/// The longest line that is held in memory.
const LONGEST_LINE: usize = 64 << 10;

/// What is kept of a child's words.
#[derive(Default)]
pub(super) struct Said {
    /// What one of them tells about passwords and URLs.
    pub(super) trouble: Option<Trouble>,
    /// The last ones, redacted.
    pub(super) last: Vec<String>,
}

impl Said {
    /// Takes a line in.
    pub(super) fn hear(&mut self, line: &str, redactor: &Redactor) {
        // A refused login outweighs the rest: it is why we ask at all.
        let trouble = log_scan::trouble(line);
        if self.trouble != Some(Trouble::Login) {
            self.trouble = trouble.or(self.trouble);
        }
        let line = redactor.line(line);
        if !line.trim().is_empty() {
            self.last.push(line);
        }
        if self.last.len() > QUOTED {
            self.last.remove(0);
        }
    }

    /// Takes in what was heard elsewhere.
    pub(super) fn add(&mut self, other: Self) {
        if self.trouble != Some(Trouble::Login) {
            self.trouble = other.trouble.or(self.trouble);
        }
        self.last.extend(other.last);
        let excess = self.last.len().saturating_sub(QUOTED);
        self.last.drain(..excess);
    }
}

/// Reads lines to the end, in bounded memory.
pub(super) async fn listen(stream: Option<impl AsyncRead + Unpin>, redactor: &Redactor, said: &mut Said) {
    let Some(stream) = stream else { return };
    let mut reader = BufReader::new(stream);
    let mut line = Zeroizing::new(Vec::new());
    loop {
        let (length, ends) = match reader.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(bytes) => {
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let length = end.map_or(bytes.len(), |at| at + 1);
                line.extend_from_slice(&bytes[..end.unwrap_or(length)]);
                (length, end.is_some())
            }
        };
        reader.consume(length);
        if ends || line.len() > LONGEST_LINE {
            said.hear(&String::from_utf8_lossy(&line), redactor);
            line.clear();
        }
    }
    if !line.is_empty() {
        said.hear(&String::from_utf8_lossy(&line), redactor);
    }
}
