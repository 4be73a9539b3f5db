//! `pgrotate audit verify [FILE]`, `pgrotate audit key`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgrotate_core::observer::Unobserved;
use pgrotate_core::{Error, Kind, RunId};
use pgrotate_engine::evidence::unlike;
use pgrotate_evidence::verify::{Broken, Failure as Unproven, Proof, What};
use pgrotate_evidence::{Trusted, verify};
use serde_json::{Value, json};

use crate::app::App;
use crate::config::{Config, trust};
use crate::display;
use crate::evidence::Keeper;
use crate::exit::{Failure, Status};

/// Prove that the evidence has not been changed
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Verify(Verify),
    /// Print the public half of the key that signs, for whoever verifies elsewhere
    Key,
}

/// Go through the evidence from its first line to its last, and name the first that is not what was written
///
/// Without FILE it is the state folder's, and the journal is asked whether a run is missing. A FILE that was copied out
/// or exported needs nothing but a key. It changes nothing. Exit status 1 if anything does not fit.
#[derive(Debug, clap::Args)]
struct Verify {
    /// An exported file
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    keys: Keys,
}

/// `--key`, of every command that verifies.
#[derive(Debug, clap::Args)]
pub(super) struct Keys {
    /// A key whose signature counts: a file with public keys, a public key itself, or its fingerprint (SHA256:…);
    /// may be given several times
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    match args.what {
        Action::Verify(Verify { file: Some(file), keys }) => exported(app, &file, &keys),
        Action::Verify(Verify { file: None, keys }) => own(app, &keys).await,
        Action::Key => key(app),
    }
}

fn key(app: &App) -> Result<Status, Failure> {
    let config = app.config_if_any()?;
    let keeper = app.keeper_with(signer(config.as_ref())?)?;
    let public = keeper.public()?;
    match app.json {
        true => display::json(&json!({ "key": public.to_openssh(), "fingerprint": public.fingerprint() })),
        false => display::out(&format!("{}\n", public.to_openssh())),
    }
    Ok(Status::Done)
}

pub(super) fn signer(config: Option<&Config>) -> Result<Option<pgrotate_evidence::Signer>, Failure> {
    Ok(config.map(Config::signer).transpose()?.flatten())
}

/// The keys that are named, in the call and in the configuration, and those of the state folder.
pub(super) fn trusted(
    keys: &Keys,
    config: Option<&Config>,
    keeper: Option<&Keeper>,
) -> Result<Trusted, Failure> {
    let mut trusted = Trusted::default();
    for key in &keys.keys {
        trust(key, Path::new(key), &mut trusted).map_err(|why| {
            Error::new(Kind::Config, "use a key that --key names").because(why).hint(
                "name a file with a public key of the kind ssh-ed25519, the key itself, or its fingerprint \
                 (SHA256:…); `pgrotate audit key` prints the key where the evidence is written",
            )
        })?;
    }
    if let Some(config) = config {
        config.trust(&mut trusted)?;
    }
    if let Some(keeper) = keeper {
        keeper.trust(&mut trusted)?;
    }
    Ok(trusted)
}

/// A file that was copied out: it and the keys that are named are all there is.
fn exported(app: &App, file: &Path, keys: &Keys) -> Result<Status, Failure> {
    let trusted = match keys.keys.is_empty() {
        false => trusted(keys, None, None)?,
        true => {
            let config = app.config_if_any()?;
            let keeper = app.keeper_with(signer(config.as_ref())?)?;
            trusted(keys, config.as_ref(), Some(&keeper))?
        }
    };
    if trusted.is_empty() {
        let error = Error::new(Kind::Config, format!("verify {}", file.display()));
        return Err(error.because("nobody has said whose signature counts").hint(HOW).into());
    }
    let reader = std::fs::File::open(file).map(std::io::BufReader::new);
    let result = reader.map_err(Unproven::Io).and_then(|mut reader| verify(&mut reader, &trusted));
    match result {
        Ok(proof) => {
            said(app, file, &proof, &Against::Nothing);
            Ok(Status::Done)
        }
        Err(Unproven::Broken(broken)) => Ok(named(app, file, &broken)),
        Err(Unproven::Io(error)) => Err(unreadable(file, &error).into()),
    }
}

const HOW: &str =
    "name the key that has signed: --key FILE; `pgrotate audit key` prints it where the evidence is written";

fn unreadable(file: &Path, error: &std::io::Error) -> Error {
    Error::new(Kind::Config, format!("read {}", file.display())).because(error.kind().to_string())
}

/// What was compared with the journal, and how that went.
enum Against {
    /// Nothing: there is only the file.
    Nothing,
    /// There is no journal.
    NoJournal,
    /// Of these runs it has another number of entries.
    Journal(Vec<(RunId, u64, u64)>),
    /// It can't be read.
    Unread(Error),
}

async fn own(app: &App, keys: &Keys) -> Result<Status, Failure> {
    let config = app.config_if_any()?;
    let keeper = app.keeper_with(signer(config.as_ref())?)?;
    let trusted = trusted(keys, config.as_ref(), Some(&keeper))?;
    let path = keeper.evidence.path().to_owned();
    let bytes = keeper.evidence.read()?.unwrap_or_default();
    let proof = match (bytes.is_empty(), verify(&mut &*bytes, &trusted)) {
        (true, _) => None,
        (_, Ok(proof)) => Some(proof),
        (_, Err(Unproven::Broken(broken))) => return Ok(named(app, &path, &broken)),
        (_, Err(Unproven::Io(error))) => return Err(unreadable(&path, &error).into()),
    };
    let against = compare(app, proof.as_ref()).await;
    let whole = match &against {
        Against::Journal(missing) => missing.is_empty(),
        Against::NoJournal => true,
        Against::Nothing | Against::Unread(_) => false,
    };
    match proof {
        Some(proof) => said(app, &path, &proof, &against),
        None if app.json => display::json(&json!({ "ok": whole, "lines": 0, "missing": lacking(&against) })),
        None => {
            display::out(&format!("no evidence yet\n{}", in_words(&against)));
            hint(&against);
        }
    }
    Ok(if whole { Status::Done } else { Status::Failed })
}

async fn compare(app: &App, proof: Option<&Proof>) -> Against {
    let known = |run: RunId| {
        proof.and_then(|proof| proof.runs.get(&run.to_string())).map_or(0, |ended| ended.entries)
    };
    match app.home() {
        Ok(home) if !home.journal().exists() => return Against::NoJournal,
        _ => {}
    }
    let engine = match app.engine(Arc::new(Unobserved)) {
        Ok(engine) => engine,
        Err(error) => return Against::Unread(error),
    };
    match unlike(engine.store(), known).await {
        Ok(unlike) => Against::Journal(unlike),
        Err(error) => Against::Unread(error),
    }
}

fn lacking(against: &Against) -> Value {
    let Against::Journal(missing) = against else { return json!([]) };
    let one = |(run, journal, known): &(RunId, u64, u64)| json!({ "run": run, "journal": journal, "evidence": known });
    missing.iter().map(one).collect()
}

fn in_words(against: &Against) -> String {
    match against {
        Against::Nothing => String::new(),
        Against::NoJournal => "unseen: there is no journal to tell whether a run is missing at the end\n".into(),
        Against::Unread(error) => format!("unseen: whether a run is missing at the end: {error}\n"),
        Against::Journal(missing) => missing
            .iter()
            .map(|(run, journal, known)| match known {
                known if known > journal => format!(
                    "ahead: the evidence has {known} entries of the run {run}, the journal {journal}: it is an older copy\n"
                ),
                0 => format!("missing: the run {run}, of which the journal has {journal} entries\n"),
                _ => format!(
                    "missing: the end of the run {run}: the journal has {journal} entries, the evidence {known}\n"
                ),
            })
            .collect(),
    }
}

const MISSING: &str = "a process that died before it could write it, or somebody who took it away; the next command \
                       that changes something, or `pgrotate report`, writes it anew from the journal, and says that it came late";

fn said(app: &App, file: &Path, proof: &Proof, against: &Against) {
    let late: Vec<&String> = proof.runs.iter().filter(|(_, ended)| ended.late).map(|(run, _)| run).collect();
    let missing = lacking(against);
    if app.json {
        let whole = !matches!(against, Against::Unread(_)) && missing == json!([]);
        let dropped = proof
            .dropped
            .iter()
            .map(|(line, own)| json!({ "line": line, "bytes": own.bytes, "sha256": own.sha256 }));
        let compared = matches!(against, Against::Journal(_));
        let excerpt =
            proof.excerpt.as_ref().map(|(run, (first, last))| json!({ "run": run, "lines": [first, last] }));
        display::json(&json!({
            "ok": whole, "file": file, "lines": proof.lines, "entries": proof.entries, "runs": proof.runs.len(),
            "signers": proof.signers, "head": proof.head.hex(), "late": late, "dropped": dropped.collect::<Vec<_>>(),
            "compared_with_journal": compared, "missing": missing, "excerpt": excerpt,
        }));
        return;
    }
    let signers: Vec<&str> = proof.signers.iter().map(String::as_str).collect();
    let mut text = format!(
        "{} {}: {} lines of {} {}, each as it was written; signed by {}\n",
        display::ok(),
        file.display(),
        proof.lines,
        proof.runs.len(),
        if proof.runs.len() == 1 { "run" } else { "runs" },
        signers.join(", ")
    );
    if let Some((run, (first, last))) = &proof.excerpt {
        text.push_str(&format!("excerpt: the lines {first} to {last}, for the run {run}\n"));
    }
    text.push_str(&format!("last line: sha256 {}\n", proof.head));
    for run in late {
        text.push_str(&format!(
            "late: some of the run {run} was written by a later process, from the journal\n"
        ));
    }
    for (line, own) in &proof.dropped {
        text.push_str(&format!(
            "cut: before line {line}, {} bytes of a write that did not end were taken away\n",
            own.bytes
        ));
    }
    text.push_str(&in_words(against));
    display::out(&text);
    hint(against);
}

fn hint(against: &Against) {
    let Against::Journal(unlike) = against else { return };
    if unlike.iter().any(|(_, journal, known)| known < journal) {
        display::err(&format!("hint:  {MISSING}\n"));
    }
}

/// Names the first line that does not fit.
fn named(app: &App, file: &Path, broken: &Broken) -> Status {
    if app.json {
        display::json(&json!({
            "ok": false, "file": file, "line": broken.line, "run": broken.run, "what": broken.what.word(),
            "detail": broken.what.to_string(),
        }));
        return Status::Failed;
    }
    display::out(&format!("{} {}: {}\n", display::broken(), file.display(), at(broken)));
    let hint = match &broken.what {
        What::Stranger(_) => {
            "find out whose key that is; if it is one of yours, name it: --key FILE, or `trusted_keys` under [evidence]"
        }
        What::Cut | What::Unsigned => {
            "in the state folder that can be what a crash left: the next command that changes something takes it away, \
             writes it anew from the journal, and says so"
        }
        What::Newer(_) => "use that version",
        _ => "what stands before it is as it was written; compare with a copy, and with `pgrotate history`",
    };
    display::err(&format!("hint:  {hint}\n"));
    Status::Failed
}

/// Where it is broken, and how.
pub(super) fn at(broken: &Broken) -> String {
    let run = broken.run.as_ref().map(|run| format!(" (run {run})")).unwrap_or_default();
    format!("line {}{run}: {}", broken.line, broken.what)
}
