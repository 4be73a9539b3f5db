//! Whatever is done to a file is found, and named where it was done.

use proptest::prelude::*;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::*;
use crate::batch::{Batch, Seal, Subject, Tip};
use crate::{Signer, Survey, excerpt};

const ONE: &str = "01K00000000000000000000001";
const TWO: &str = "01K00000000000000000000002";

fn signer() -> Signer {
    Signer::from_seed(&Zeroizing::new([7; 32]), "test")
}

fn trusted() -> Trusted {
    let mut trusted = Trusted::default();
    trusted.add(&signer().public());
    trusted
}

fn author() -> Author {
    Author { user: "ana".into(), host: "bastion".into(), version: "0.1.0".into() }
}

/// Adds these entries of a run, and a seal.
fn add(batch: &mut Batch, run: &str, entries: std::ops::Range<u64>, late: bool) {
    let (subject, end) = (Subject { run, environment: "dev" }, entries.end);
    for entry in entries {
        let record =
            format!(r#"{{"format":1,"seq":{entry},"at":"2026-11-25T12:00:00Z","event":{{"step":"ü"}}}}"#);
        let record = RawValue::from_string(record).unwrap();
        batch.entry(subject, entry, &record, (entry == 0).then_some("abc"));
    }
    let (by, dropped) = (author(), Dropped { bytes: 3, sha256: "00".into() });
    let dropped = late.then_some(&dropped);
    let seal = Seal { entries: end, at: "2026-11-25T12:00:01Z", by: &by, late, dropped };
    batch.seal(subject, seal, &signer());
}

/// A run that is parked, another one, and the end of the first.
fn file() -> Vec<u8> {
    let mut batch = Batch::after(Tip::NONE);
    add(&mut batch, ONE, 0..2, false);
    add(&mut batch, TWO, 0..3, true);
    add(&mut batch, ONE, 2..4, false);
    batch.bytes().to_vec()
}

fn check(file: &[u8]) -> Result<Proof, Broken> {
    match verify(&mut &*file, &trusted()) {
        Ok(proof) => Ok(proof),
        Err(Failure::Broken(broken)) => Err(broken),
        Err(Failure::Io(error)) => panic!("{error}"),
    }
}

#[track_caller]
fn broken(file: &[u8]) -> (u64, What) {
    let broken = check(file).expect_err("it was believed");
    (broken.line, broken.what)
}

fn lines(file: &[u8]) -> Vec<Vec<u8>> {
    file.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

#[test]
fn what_was_written_proves_itself() {
    let proof = check(&file()).unwrap();
    assert_eq!((proof.lines, proof.entries), (10, 7));
    let (one, two) = (&proof.runs[ONE], &proof.runs[TWO]);
    assert_eq!((one.entries, one.line, one.late), (4, 10, false));
    assert_eq!((two.entries, two.line, two.late), (3, 7, true));
    assert_eq!(proof.dropped.len(), 1);
    assert_eq!(one.by, Some(author()));
}

/// Every bit of every byte, of a file and of an excerpt: the line itself is named, or where its end was the change,
/// the one whose end it was.
#[test]
fn every_edited_byte_is_found_and_its_line_named() {
    let whole = file();
    let part = excerpt::of(&whole, TWO, "2026-11-26T00:00:00Z", &author(), &signer()).unwrap();
    for good in [whole, part] {
        check(&good).unwrap();
        let (mut line, mut bad) = (1, good.clone());
        for place in 0..good.len() {
            for bit in 0..8 {
                bad[place] = good[place] ^ (1 << bit);
                let (named, what) = broken(&bad);
                assert_eq!(named, line, "byte {place}, bit {bit}: {what:?}");
            }
            bad[place] = good[place];
            line += u64::from(good[place] == b'\n');
        }
    }
}

#[test]
fn every_line_that_is_missing_twice_there_or_moved_is_found() {
    let all = lines(&file());
    for place in 0..all.len() {
        let mut without = all.clone();
        without.remove(place);
        let what = check(&without.concat());
        // The end itself can be taken away up to a seal: what the journal or an excerpt's heading is there for.
        assert!(what.is_err() || place + 1 == all.len(), "{place}");
        let mut twice = all.clone();
        twice.insert(place, all[place].clone());
        assert_eq!(broken(&twice.concat()), (place as u64 + 2, What::Moved(place as u64 + 1)));
        for other in 0..place {
            let mut swapped = all.clone();
            swapped.swap(place, other);
            broken(&swapped.concat());
        }
    }
    assert_eq!(broken(&all[1..].concat()), (1, What::Missing(1, 1)));
    assert_eq!(broken(&[&all[..3], &all[5..]].concat().concat()), (4, What::Missing(4, 5)));
}

#[test]
fn every_cut_is_found_but_one_right_behind_a_signature() {
    let good = file();
    let seals: Vec<usize> = {
        let mut place = 0;
        let ends = lines(&good).into_iter().map(|line| {
            place += line.len();
            (place, Line::parse(line.trim_ascii_end()).unwrap().kind == Kind::Seal)
        });
        ends.filter(|(_, seal)| *seal).map(|(place, _)| place).collect()
    };
    for length in 0..good.len() {
        match seals.contains(&length) {
            true => drop(check(&good[..length]).unwrap()),
            false => drop(broken(&good[..length])),
        }
    }
    assert_eq!(broken(&good[..good.len() - 1]), (10, What::Cut));
    assert_eq!(broken(&lines(&good)[..9].concat()), (9, What::Unsigned));
    assert_eq!(broken(b""), (0, What::Empty));
}

#[test]
fn a_key_that_nobody_has_named_does_not_count() {
    let stranger = Signer::from_seed(&Zeroizing::new([8; 32]), "stranger");
    let mut other = Trusted::default();
    other.add(&stranger.public());
    let Err(Failure::Broken(found)) = verify(&mut &*file(), &other) else { panic!("it was believed") };
    assert_eq!((found.line, found.run.as_deref()), (3, Some(ONE)));
    assert_eq!(found.what, What::Stranger(signer().public().fingerprint()));
    assert!(verify(&mut &*file(), &Trusted::default()).is_err(), "nobody counts");
}

/// Who has no key can't make the digests fit anew.
#[test]
fn a_chain_that_was_made_anew_is_found_by_its_signature() {
    let good = file();
    let mut changed: Vec<Vec<u8>> = lines(&good);
    let edited = String::from_utf8(changed[1].clone()).unwrap().replace("12:00:00", "13:00:00");
    changed[1] = edited.into_bytes();
    let digest = Digest::of(changed[1].trim_ascii_end()).hex();
    let seal = String::from_utf8(changed[2].clone()).unwrap();
    let old = Line::parse(seal.trim_end().as_bytes()).unwrap().prev.into_owned();
    changed[2] = seal.replace(&old, &digest).into_bytes();
    assert_eq!(broken(&changed.concat()), (3, What::Signature));
}

#[test]
fn an_excerpt_shows_its_run_and_can_not_be_shortened() {
    let good = file();
    for (run, lines, entries) in [(TWO, (4, 7), 3), (ONE, (1, 10), 4)] {
        let part = excerpt::of(&good, run, "2026-11-26T00:00:00Z", &author(), &signer()).unwrap();
        let proof = check(&part).unwrap();
        assert_eq!(proof.excerpt, Some((run.to_owned(), lines)));
        assert_eq!(proof.runs[run].entries, entries);
        let all = self::lines(&part);
        for place in 0..all.len() {
            let mut without = all.clone();
            without.remove(place);
            // Without its heading, what begins with the first line of all is the file itself.
            if (place, lines.0) != (0, 1) {
                broken(&without.concat());
            }
        }
        broken(&all[..1].concat());
        let longer = [&part[..], b"x\n"].concat();
        assert_eq!(broken(&longer).1, What::NotALine);
    }
    assert_eq!(excerpt::of(&good, "01K00000000000000000000003", "", &author(), &signer()), None);
}

#[test]
fn what_a_crash_has_left_is_told_from_what_stays() {
    let good = file();
    let whole = Survey::of(&mut &*good).unwrap();
    assert_eq!((whole.tip.line, whole.length, whole.dropped.clone()), (10, good.len() as u64, None));
    assert_eq!(whole.entries[ONE], 4);
    for length in 0..=good.len() {
        let survey = Survey::of(&mut &good[..length]).unwrap();
        let kept = usize::try_from(survey.length).unwrap();
        assert_eq!(survey.dropped.map_or(0, |dropped| dropped.bytes) + survey.length, length as u64);
        // What stays is believed, and what is appended to it too.
        assert!(kept == 0 || check(&good[..kept]).is_ok());
        let mut batch = Batch::after(survey.tip);
        let known = survey.entries.get(ONE).copied().unwrap_or(0);
        add(&mut batch, ONE, known..known + 2, true);
        check(&[&good[..kept], batch.bytes()].concat()).unwrap();
    }
}

/// A line that is nobody's is not taken for the rest of a crash: it stays, and is named.
#[test]
fn what_no_crash_leaves_stays_where_it_is() {
    let mut all = lines(&file());
    all[9].truncate(50);
    all[9].push(b'\n');
    let bad = all.concat();
    let survey = Survey::of(&mut &*bad).unwrap();
    assert_eq!((survey.length, survey.dropped), (bad.len() as u64, None));
    assert_eq!(survey.tip.line, 10);
}

proptest! {
    /// Whatever stands in a file, it is read to an end and not believed.
    #[test]
    fn nothing_else_is_believed(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(check(&bytes).is_err());
    }

    /// Some bytes anywhere, instead of those that stood there.
    #[test]
    fn any_edit_is_found(place in 0usize..4000, gone in 0usize..60, new in proptest::collection::vec(any::<u8>(), 0..60)) {
        let good = file();
        let place = place % good.len();
        let end = (place + gone).min(good.len());
        let bad = [&good[..place], &new[..], &good[end..]].concat();
        // Right behind a signature something may end.
        prop_assume!(bad != good && !good.starts_with(&bad));
        prop_assert!(check(&bad).is_err());
    }
}
