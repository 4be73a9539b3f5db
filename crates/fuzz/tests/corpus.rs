//! Every target over its committed corpus, and over some hundreds of inputs that a fixed seed makes of it.
//!
//! `PGROTATE_FUZZ_TIMES=1000` makes a thousand times as many, each time from another seed: for a machine that has hours, and
//! no C++ compiler for libFuzzer.

// A test, helpers included, says what it expects by unwrapping, and shows the input that it failed for.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::path::Path;

use pgrotate_core::journal::Record;
use pgrotate_core::run::RunState;

/// Changed inputs for each target; fewer of SCRAM, whose rounds take their time.
const CHANGED: usize = 400;
const CHANGED_SCRAM: usize = 24;

/// The corpus of one target, in the order of its names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 3, "{target} has next to no corpus in {}", folder.display());
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Xorshift: the same sequence on every machine and for ever.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap()
    }

    /// A piece of a text.
    fn piece<'t>(&mut self, text: &'t [u8]) -> &'t [u8] {
        let from = self.below(text.len() + 1);
        let length = self.below(text.len() - from + 1).min(64);
        &text[from..from + length]
    }

    /// An input with one to four changes: a byte, a piece gone, twice, or from another input.
    fn changed(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        const SIGNS: &[u8] = b"\0\n\r\t \"'\\$`#=:@/%?&{}[]();,.-_~0aZ\x7F\x80\xC3\xFF";
        let mut text = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(text.len() + 1);
            let piece = match self.below(4) {
                0 => vec![SIGNS[self.below(SIGNS.len())]],
                1 => self.piece(&text).to_vec(),
                2 => {
                    let other = self.below(corpus.len());
                    self.piece(&corpus[other]).to_vec()
                }
                _ => Vec::new(),
            };
            let gone = self.below(8).min(text.len() - at);
            text.splice(at..at + gone, piece);
        }
        text
    }
}

fn holds(target: &str, body: fn(&[u8]), changed: usize) {
    let corpus = corpus(target);
    corpus.iter().for_each(|input| body(input));
    let times = std::env::var("PGROTATE_FUZZ_TIMES").map_or(1, |times| times.parse().unwrap());
    for time in 0..times {
        vary(target, body, &corpus, changed, time);
    }
}

fn vary(target: &str, body: fn(&[u8]), corpus: &[Vec<u8>], changed: usize, time: u64) {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ time);
    for _ in 0..changed {
        let input = dice.changed(corpus);
        let shown = String::from_utf8_lossy(&input).into_owned();
        // The input is what somebody needs who wants to see it again.
        if let Err(panic) = std::panic::catch_unwind(|| body(&input)) {
            eprintln!("{target} fails for {shown:?}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A corpus that is refused at the door would look as good as one that is not.
#[test]
fn the_corpus_has_whole_configurations() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/config");
    for (name, environments) in [("mindwell", 3), ("small", 2)] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let plans = pgrotate::fuzzing::config(&text).unwrap_or_else(|report| panic!("{name}: {report:?}"));
        assert_eq!(plans.len(), environments, "{name}");
    }
}

#[test]
fn the_corpus_has_whole_journals() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/journal");
    for name in ["text", "text_abort", "text_without_install"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let run = RunState::fold("01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(), &records).unwrap();
        assert_eq!(run.next_seq, records.len() as u64, "{name}");
    }
}

#[test]
fn answers() {
    holds("answers", pgrotate_fuzz::answers, CHANGED);
}

#[test]
fn config() {
    holds("config", pgrotate_fuzz::config, CHANGED);
}

#[test]
fn env_file() {
    holds("env_file", pgrotate_fuzz::env_file, CHANGED);
}

#[test]
fn journal() {
    holds("journal", pgrotate_fuzz::journal, CHANGED);
}

#[test]
fn scram() {
    holds("scram", pgrotate_fuzz::scram, CHANGED_SCRAM);
}

#[test]
fn url() {
    holds("url", pgrotate_fuzz::url, CHANGED);
}
