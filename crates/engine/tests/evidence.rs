//! The evidence's promises: as far as the journal, nothing twice, whoever else writes.

// A test, helpers included, says what it expects by unwrapping.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use pgrotate_core::RunId;
use pgrotate_core::engine::Wish;
use pgrotate_core::env::{Clock, Entropy};
use pgrotate_core::memory::{self, Memory};
use pgrotate_core::observer::Unobserved;
use pgrotate_core::rotation::Rotation;
use pgrotate_engine::evidence::{Appended, unlike};
use pgrotate_engine::system::{OsEntropy, SystemClock};
use pgrotate_engine::{Embedded, Evidence, Home, SqliteStore};
use pgrotate_evidence::verify::Proof;
use pgrotate_evidence::{Trusted, verify};

struct Lab {
    _folder: tempfile::TempDir,
    home: Home,
    world: Memory,
    stop: Arc<AtomicBool>,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path().join("state")).unwrap();
        Self { _folder: folder, home, world: memory::world("OldOldOldOld1"), stop: Arc::default() }
    }

    fn store(&self) -> SqliteStore {
        SqliteStore::open(&self.home.journal()).unwrap()
    }

    fn engine(&self) -> (Embedded, Rotation) {
        let (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>) =
            (Arc::new(SystemClock), Arc::new(OsEntropy));
        let rotation = memory::rotation(&self.world, &clock, &entropy);
        let stop = Arc::clone(&self.stop);
        (Embedded::new(self.store(), clock, entropy, Arc::new(Unobserved), stop), rotation)
    }

    async fn rotate(&self) -> RunId {
        let (engine, rotation) = self.engine();
        let wish = Wish { operator: "somebody".into(), ticket: None, overrides: Default::default() };
        engine.start(&rotation, wish).await.unwrap().0
    }

    fn evidence(&self) -> Evidence {
        Evidence::of(&self.home, "tester".into())
    }

    async fn append(&self, own: Option<RunId>) -> Appended {
        self.append_by(&self.evidence(), own).await
    }

    /// As a process does it that has had this evidence in hand before.
    async fn append_by(&self, evidence: &Evidence, own: Option<RunId>) -> Appended {
        let signer = || self.home.make_evidence_key(&OsEntropy).map(Arc::new);
        evidence.append(&self.store(), own, signer, Timestamp::UNIX_EPOCH).await.unwrap()
    }

    fn proof(&self) -> Proof {
        let mut trusted = Trusted::default();
        trusted.add(&self.home.evidence_key().unwrap().unwrap().public());
        verify(&mut &*self.evidence().read().unwrap().unwrap(), &trusted).unwrap()
    }

    async fn missing(&self, proof: &Proof) -> usize {
        let known = |run: RunId| proof.runs.get(&run.to_string()).map_or(0, |ended| ended.entries);
        unlike(&self.store(), known).await.unwrap().len()
    }
}

#[tokio::test]
async fn it_goes_as_far_as_the_journal_and_says_nothing_twice() {
    let lab = Lab::new();
    assert!(lab.append(None).await.runs.is_empty());
    assert!(
        !lab.home.evidence().exists() && lab.home.evidence_key().unwrap().is_none(),
        "there is nothing to sign"
    );
    let first = lab.rotate().await;
    assert_eq!(lab.append(Some(first)).await.runs, [(first, false)]);
    let once = lab.evidence().read().unwrap();
    let hash = lab.engine().0.state(first).await.unwrap().plan().hash().to_string();
    let text = String::from_utf8(once.clone().unwrap()).unwrap();
    let with_plan: Vec<_> = text.lines().map(|line| line.contains(&hash)).collect();
    assert!(with_plan[0] && !with_plan[1..].contains(&true), "a run begins with its plan's hash");
    assert!(lab.append(Some(first)).await.runs.is_empty());
    assert_eq!(lab.evidence().read().unwrap(), once);
    let second = lab.rotate().await;
    let proof = lab.proof();
    assert_eq!((proof.runs.len(), lab.missing(&proof).await), (1, 1));
    assert_eq!(lab.append(None).await.runs, [(second, true)]);
    let proof = lab.proof();
    assert_eq!((proof.runs.len(), lab.missing(&proof).await), (2, 0));
    assert!(proof.runs[&second.to_string()].late && !proof.runs[&first.to_string()].late);
}

/// Another process may be at work on it.
#[tokio::test]
async fn a_run_that_does_not_rest_is_its_own_process_to_write() {
    let lab = Lab::new();
    lab.stop.store(true, Ordering::Relaxed);
    let run = lab.rotate().await;
    assert!(lab.append(None).await.runs.is_empty());
    assert_eq!(lab.append(Some(run)).await.runs, [(run, false)]);
    let proof = lab.proof();
    assert_eq!((proof.entries, lab.missing(&proof).await), (1, 0));
    // Its process goes on, and appends what has come since.
    lab.stop.store(false, Ordering::Relaxed);
    let (engine, rotation) = lab.engine();
    engine.resume(&rotation, run).await.unwrap();
    assert_eq!(lab.append(Some(run)).await.runs, [(run, false)]);
    let (proof, entries) = (lab.proof(), lab.store().lengths().unwrap()[0].1);
    assert_eq!((proof.entries, lab.missing(&proof).await), (entries, 0));
    assert_eq!(proof.runs[&run.to_string()].entries, entries);
}

#[tokio::test]
async fn a_journal_that_has_lost_entries_is_told_from_one_that_has_more() {
    let lab = Lab::new();
    let run = lab.rotate().await;
    let length = lab.store().lengths().unwrap()[0].1;
    let told = async |known: u64| unlike(&lab.store(), |_| known).await.unwrap();
    assert_eq!(told(length).await, []);
    assert_eq!(told(length + 1).await, [(run, length, length + 1)], "the evidence has more");
    assert_eq!(told(length - 1).await, [(run, length, length - 1)], "the journal has more");
}

#[tokio::test]
async fn several_processes_write_no_line_twice_and_none_between_each_others() {
    let lab = Lab::new();
    for _ in 0..3 {
        lab.rotate().await;
    }
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(lab.append(None))
            });
        }
    });
    let proof = lab.proof();
    assert_eq!((proof.runs.len(), lab.missing(&proof).await), (3, 0));
}

#[tokio::test]
async fn a_process_that_appends_again_sees_what_others_have_written_meanwhile() {
    let lab = Lab::new();
    let (here, elsewhere) = (lab.evidence(), lab.evidence());
    let mut runs = Vec::new();
    for by in [&here, &here, &elsewhere, &here, &elsewhere, &elsewhere, &here] {
        let run = lab.rotate().await;
        assert_eq!(lab.append_by(by, Some(run)).await.runs, [(run, false)]);
        assert!(lab.append_by(by, Some(run)).await.runs.is_empty());
        runs.push(run.to_string());
    }
    // A crash cuts what somebody has written since, and one appends behind it who has not seen that.
    let last = lab.rotate().await;
    let whole = lab.evidence().read().unwrap().unwrap();
    std::fs::write(lab.home.evidence(), [&whole[..], b"{\"half"].concat()).unwrap();
    let appended = lab.append_by(&here, Some(last)).await;
    assert_eq!((appended.runs, appended.dropped.map(|own| own.bytes)), (vec![(last, false)], Some(6)));
    let proof = lab.proof();
    assert_eq!((proof.runs.len(), lab.missing(&proof).await), (8, 0));
    assert!(runs.iter().all(|run| !proof.runs[run].late));
}

#[tokio::test]
async fn what_a_crash_has_cut_is_written_again() {
    let lab = Lab::new();
    let first = lab.rotate().await;
    lab.append(Some(first)).await;
    let length = lab.evidence().read().unwrap().unwrap().len();
    let second = lab.rotate().await;
    lab.append(Some(second)).await;
    let whole = lab.evidence().read().unwrap().unwrap();
    for cut in (length..whole.len()).step_by(97) {
        std::fs::write(lab.home.evidence(), &whole[..cut]).unwrap();
        let appended = lab.append(None).await;
        assert_eq!(appended.runs, [(second, true)]);
        assert_eq!(appended.dropped.map_or(0, |own| own.bytes), (cut - length) as u64);
        let proof = lab.proof();
        assert_eq!((proof.runs.len(), proof.dropped.len()), (2, usize::from(cut > length)));
    }
}
