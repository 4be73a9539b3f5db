//! `pgrotate report RUN`

mod page;
mod story;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgrotate_core::observer::Unobserved;
use pgrotate_core::{Error, Kind, RunId};
use pgrotate_engine::Embedded;
use pgrotate_evidence::verify;

use self::story::{Step, Story};
use super::audit::{Keys, signer, trusted};
use crate::app::App;
use crate::display::{self, table};
use crate::evidence::Keeper;
use crate::exit::{Failure, Status};

/// Show the evidence of a run: who, what, when, with which checks and answers
///
/// Exit status 1 if the evidence is not what was written.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run
    run: RunId,
    /// Write it as one page, to be kept and printed
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the lines that prove it; `pgrotate audit verify FILE --key KEY` reads them anywhere
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    #[command(flatten)]
    keys: Keys,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    let config = app.config_if_any()?;
    let keeper = app.keeper_with(signer(config.as_ref())?)?;
    let trusted = trusted(&args.keys, config.as_ref(), Some(&keeper))?;
    let engine = app.engine(Arc::new(Unobserved))?;
    keeper.catch_up(&engine).await;
    let bytes = keeper.evidence.read()?.unwrap_or_default();
    // The folder's own key may have been made a moment ago.
    let trusted = with_own(trusted, &keeper)?;
    let proof = verify(&mut &*bytes, &trusted);
    let Some(story) = Story::read(args.run, &bytes, &proof)? else {
        return Err(unwritten(&engine, args.run).await);
    };
    if let Some(file) = &args.html {
        write(file, page::render(&story)?.as_bytes())?;
    }
    if let Some(file) = &args.export {
        let excerpt = keeper.excerpt(&bytes, args.run)?;
        write(file, &excerpt.ok_or_else(|| Error::internal("a run in the evidence has no signed end"))?)?;
    }
    match app.json {
        true => display::json(&serde_json::to_value(&story).expect("a story has only text in it")),
        false if args.html.is_none() && args.export.is_none() => display::out(&as_text(&story)),
        false => {}
    }
    if !story.whole {
        display::err(&format!("{} {}\n", display::broken(), story.integrity));
    }
    Ok(if story.whole { Status::Done } else { Status::Failed })
}

fn with_own(
    mut trusted: pgrotate_evidence::Trusted,
    keeper: &Keeper,
) -> Result<pgrotate_evidence::Trusted, Error> {
    keeper.trust(&mut trusted)?;
    Ok(trusted)
}

/// Why there is nothing about a run.
async fn unwritten(engine: &Embedded, run: RunId) -> Failure {
    match engine.state(run).await {
        Err(error) => error.into(),
        Ok(_) => Error::new(Kind::NotFound, format!("find evidence of the run {run}"))
            .because("it is not over; evidence is written when a run ends or waits for a person")
            .hint(format!("how far it is: pgrotate history {run}"))
            .into(),
    }
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), Error> {
    std::fs::write(file, bytes).map_err(|error| {
        Error::new(Kind::Config, format!("write {}", file.display())).because(error.kind().to_string())
    })
}

fn as_text(story: &Story) -> String {
    let facts: Vec<Vec<String>> =
        story.facts.iter().map(|fact| vec![fact.name.clone(), fact.value.clone()]).collect();
    // A table without a heading: its first line is empty.
    let facts = table(&["", ""], facts);
    let facts = facts.split_once('\n').map_or("", |(_, rows)| rows);
    let mut text = format!("{}\n\n{facts}\n", display::bold(&story.title));
    let copies = story.copies.iter().map(|own| {
        vec![
            own.id.clone(),
            own.before.clone(),
            own.after.clone(),
            own.written.clone(),
            own.read_back.clone(),
        ]
    });
    section(&mut text, &["copy", "before", "after", "written", "read back"], copies.collect());
    let findings = story.findings.iter().map(|own| {
        vec![
            own.severity.clone(),
            own.subject.clone(),
            own.what.clone(),
            own.why.clone().unwrap_or_default(),
            own.mend.clone().unwrap_or_default(),
        ]
    });
    section(&mut text, &["finding", "of", "what", "why", "what helps"], findings.collect());
    section(
        &mut text,
        &["after", "step", "status", "tries", "took", "outcome"],
        story.steps.iter().map(step).collect(),
    );
    let more = story.steps.iter().flat_map(|step| {
        step.more.iter().map(|own| vec![step.id.clone(), own.name.clone(), own.value.clone()])
    });
    section(&mut text, &["step", "noted beside", ""], more.collect());
    let requests = story.steps.iter().flat_map(|step| {
        step.requests
            .iter()
            .map(|own| vec![step.id.clone(), own.system.clone(), own.what.clone(), own.id.clone()])
    });
    section(&mut text, &["step", "asked", "request", "its id there"], requests.collect());
    text.push_str(&format!("\n{}\n", story.integrity));
    text
}

fn step(step: &Step) -> Vec<String> {
    let words = [step.outcome.clone()]
        .into_iter()
        .chain(step.notes.iter().cloned())
        .chain(step.failures.iter().map(|failure| format!("a try failed: {failure}")));
    vec![
        step.after.clone(),
        step.id.clone(),
        step.status.clone(),
        step.tries.to_string(),
        step.took.clone(),
        words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("; "),
    ]
}

fn section(text: &mut String, header: &[&str], rows: Vec<Vec<String>>) {
    if !rows.is_empty() {
        text.push_str(&format!("\n{}\n", table(header, rows)));
    }
}
