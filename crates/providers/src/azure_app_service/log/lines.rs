//! The lines of a log stream: which count, which match, and what may be shown of them.

use std::ops::Range;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::log_scan::{self, Redactor};

/// A longer line is cut; nothing that is looked for stands so far to the right.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// As much of a line is shown.
const EXCERPT_CHARS_MAX: usize = 160;
/// What the log service says itself.
const CHATTER: [&str; 2] = ["connected to log-streaming service", "No new trace in the past"];

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Lines that count.
    pub(super) lines: usize,
    /// Lines among them that match, from the end of the restart on.
    pub(super) matching: usize,
    /// Lines that match while the application was restarting: the instance before may have
    /// printed them.
    pub(super) meanwhile: usize,
    /// The first match: the pattern, and the line without what could be secret.
    pub(super) first: Option<(String, String)>,
}

/// Takes a stream apart.
pub(super) struct Lines<'a> {
    /// What is looked for beside the built-in texts, in lower case.
    patterns: &'a [String],
    /// Lines count from the restart's beginning, matches from its end.
    restart: Range<Timestamp>,
    redactor: Redactor,
    unfinished: Vec<u8>,
    /// The time of the latest line that had one.
    at: Option<Timestamp>,
    scan: Scan,
}

impl<'a> Lines<'a> {
    pub(super) fn new(patterns: &'a [String], restart: Range<Timestamp>, redactor: Redactor) -> Self {
        Self { patterns, restart, redactor, unfinished: Vec::new(), at: None, scan: Scan::default() }
    }

    /// Takes in a piece of the stream.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.unfinished);
                    self.line(&String::from_utf8_lossy(&line));
                }
                _ if self.unfinished.len() < LINE_BYTES_MAX => self.unfinished.push(*byte),
                _ => {}
            }
        }
    }

    /// Whether the log has shown a line from that time or later.
    pub(super) fn reach(&self, time: Timestamp) -> bool {
        self.at.is_some_and(|at| at >= time)
    }

    /// What was found, a last line without end included.
    pub(super) fn finish(mut self) -> Scan {
        let line = std::mem::take(&mut self.unfinished);
        self.line(&String::from_utf8_lossy(&line));
        self.scan
    }

    fn line(&mut self, line: &str) {
        let line = line.trim_end();
        if line.is_empty() || CHATTER.iter().any(|own| line.contains(own)) {
            return;
        }
        self.at = time_of(line).or(self.at);
        // A line without time belongs to the one before: a traceback is one event.
        let Some(at) = self.at.filter(|at| *at >= self.restart.start) else { return };
        self.scan.lines += 1;
        let Some(pattern) = self.pattern_in(line) else { return };
        if at < self.restart.end {
            self.scan.meanwhile += 1;
            return;
        }
        self.scan.matching += 1;
        self.scan.first.get_or_insert_with(|| (pattern.to_owned(), excerpt(line, &self.redactor)));
    }

    /// What the line matches, if anything.
    fn pattern_in(&self, line: &str) -> Option<&'a str> {
        if let Some((text, _)) = log_scan::find(line) {
            return Some(text);
        }
        let lower = line.to_lowercase();
        self.patterns.iter().map(String::as_str).find(|pattern| lower.contains(pattern))
    }
}

/// The time at the beginning of a line: with offset on Linux, without one and in UTC on Windows.
fn time_of(line: &str) -> Option<Timestamp> {
    let word = line.split_whitespace().next()?;
    if !word.contains('T') {
        return None;
    }
    let civil = || TimeZone::UTC.to_timestamp(word.parse::<DateTime>().ok()?).ok();
    word.parse::<Timestamp>().ok().or_else(civil)
}

/// A line as it may be shown and kept, without the times in it: the same trouble should read the
/// same each time.
fn excerpt(line: &str, redactor: &Redactor) -> String {
    let shown = redactor.line(line);
    let words: Vec<_> = shown.split_whitespace().filter(|word| time_of(word).is_none()).collect();
    words.join(" ").chars().take(EXCERPT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use pgrotate_core::Secret;

    use super::*;

    fn scan(text: &str) -> Scan {
        let patterns = ["out of cheese".to_owned()];
        let redactor = Redactor::new([&Secret::new("hunter2"), &Secret::new("swordfish")]).strict();
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let restart = time("2026-11-23T22:35:58Z")..time("2026-11-23T22:36:00Z");
        let mut lines = Lines::new(&patterns, restart, redactor);
        // In pieces that fall into the middle of lines and characters.
        text.as_bytes().chunks(7).for_each(|piece| lines.take(piece));
        lines.finish()
    }

    #[test]
    fn lines_before_the_restart_do_not_count() {
        let found = scan(
            "2026-11-23T22:35:57.999999999Z FATAL:  password authentication failed for user \"admin\"\n\
             a traceback of it: password authentication failed\n\
             2026-11-23T22:36:00.000000000Z INFO: started\n\
             and more of that\n",
        );
        assert_eq!((found.lines, found.matching), (2, 0));
    }

    #[test]
    fn what_the_instance_before_printed_during_the_restart_is_no_failure() {
        let found = scan(
            "2026-11-23T22:35:59Z password authentication failed\n2026-11-23T22:35:59.5Z INFO: started\n",
        );
        assert_eq!((found.lines, found.meanwhile, found.matching), (2, 1, 0));
    }

    #[test]
    fn a_match_is_counted_and_shown_without_secrets() {
        let found = scan(
            "2026-11-23T22:36:01Z Password Authentication FAILED for user \"admin\" in postgresql://admin:old@db/app é\n\
             asyncpg: password authentication failed\n",
        );
        assert_eq!((found.lines, found.matching), (2, 2));
        let (pattern, shown) = found.first.unwrap();
        assert_eq!(pattern, "password authentication failed");
        assert_eq!(shown, "Password Authentication FAILED for user \"***\" in *** é");
    }

    #[test]
    fn pieces_of_a_password_are_not_shown_either() {
        let found = scan(
            "2026-11-23T22:36:01Z ValueError: invalid literal for int() with base 10: 'hun' password=ter2 hunter2\n",
        );
        let (_, shown) = found.first.unwrap();
        assert_eq!(shown, "ValueError: invalid literal for int() with base 10: '***' *** ***");
    }

    #[test]
    fn the_old_password_is_not_shown_and_own_patterns_count() {
        let found = scan("2026-11-23T22:36:01Z Out of CHEESE since 2026-11-23T22:36:01Z for swordfish\n");
        assert_eq!(found.first.unwrap(), ("out of cheese".into(), "Out of CHEESE since for ***".into()));
    }

    #[test]
    fn a_code_within_a_longer_word_is_no_match() {
        assert_eq!(scan("2026-11-23T22:36:01Z commit a28p01b\n").matching, 0);
        assert_eq!(scan("2026-11-23T22:36:01Z SQLSTATE 28P01\n").matching, 1);
    }

    #[test]
    fn both_forms_of_time_are_read() {
        assert_eq!(scan("2026-11-23T22:36:05  PID[12] Error x\n").lines, 1);
        assert_eq!(scan("2026-11-23T22:35:05  PID[12] Error x\n").lines, 0);
        assert_eq!(scan("Tuesday: x\n").lines, 0, "nobody knows when that was");
    }

    #[test]
    fn the_service_itself_is_no_sign_of_life() {
        let found = scan(
            "2026-11-23T22:40:00  Welcome, you are now connected to log-streaming service.\n\n\
             2026-11-23T22:41:00  No new trace in the past 1 min(s).\n",
        );
        assert_eq!(found.lines, 0);
    }

    #[test]
    fn a_line_without_end_counts() {
        assert_eq!(scan("2026-11-23T22:36:01Z password authentication failed").matching, 1);
    }
}
