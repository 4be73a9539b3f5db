//! `pgrotate status [ENV]`

use std::sync::Arc;

use futures::future::join_all;
use pgrotate_core::RunId;
use pgrotate_core::drift::{self, State, Status as Drift};
use pgrotate_core::observer::Unobserved;

use crate::app::{App, known};
use crate::display::{self, table};
use crate::exit::{Failure, Status};

/// Show who holds which version: server, vault of record, every copy
///
/// Exit status 4 if something disagrees with the vault of record or could not be asked, or a run is not over. A journal that
/// can't be read is told after everything that could be seen.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The environment; all of them if none is named
    #[arg(value_name = "ENV")]
    environment: Option<String>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    let config = app.config()?;
    let environments = match &args.environment {
        Some(name) => vec![known(&config, name)?],
        None => config.environments(),
    };
    let mut rotations = Vec::new();
    for environment in &environments {
        rotations.push(app.rotation(&config, environment)?);
    }
    let all = join_all(rotations.iter().map(drift::status)).await;
    // A journal that can't be read is no reason to hide what can be seen: that is when it is needed most.
    let journal = match app.engine(Arc::new(Unobserved)) {
        Ok(engine) => engine.unfinished(None).await,
        Err(error) => Err(error),
    };
    let mut drifts = false;
    for status in &all {
        // What a run has not proven yet counts as seen by nobody, even where nothing disagrees.
        let mut open = journal.iter().flatten();
        let open = open.find(|state| state.plan().environment == status.environment).map(|state| state.run);
        drifts |= status.drifts() || open.is_some();
        if app.json {
            let mut object = serde_json::to_value(status).expect("a status has only text in it");
            if let Some(run) = open {
                object["unfinished"] = serde_json::json!(run);
            }
            display::json(&object);
        } else {
            display::out(&as_text(status, open));
        }
    }
    journal?;
    Ok(if drifts { Status::Drift } else { Status::Done })
}

fn as_text(status: &Drift, open: Option<RunId>) -> String {
    let mark = |mark: Option<&pgrotate_core::Fingerprint>| mark.map(ToString::to_string).unwrap_or_default();
    let server = vec![
        "server".to_owned(),
        status.server.target.clone(),
        display::state(status.server.state),
        mark(status.server.fingerprint.as_ref()),
        String::new(),
        status.server.note.clone().unwrap_or_default(),
    ];
    let copies = status.copies.iter().enumerate().map(|(place, copy)| {
        vec![
            if place == 0 { "vault".to_owned() } else { "copy".to_owned() },
            copy.id.to_string(),
            display::state(copy.state),
            mark(copy.fingerprint.as_ref()),
            copy.updated_at.map(|at| format!("{at:.0}")).unwrap_or_default(),
            copy.note.clone().unwrap_or_default(),
        ]
    });
    let rows = std::iter::once(server).chain(copies).collect();
    let unseen = status.copies.iter().filter(|copy| copy.state == State::Unseen).count();
    let disagree = |state| matches!(state, State::Stale | State::Pending);
    let disagrees = disagree(status.server.state) || status.copies.iter().any(|copy| disagree(copy.state));
    let verdict = match (status.drifts(), unseen) {
        (true, _) if disagrees && open.is_none() => format!(
            "something disagrees with the vault of record; a rotation brings all in line: pgrotate rotate {}",
            status.environment
        ),
        (true, _) if disagrees => "something disagrees with the vault of record".to_owned(),
        (true, _) => "not everything could be asked".to_owned(),
        (false, 0) => "everything agrees with the vault of record".to_owned(),
        (false, unseen) => {
            format!("everything that can be seen agrees with the vault of record; {unseen} can't be seen")
        }
    };
    let open = open.map(|run| format!("\nthe run {run} is not over; go on with: pgrotate resume {run}"));
    let verdict = format!("{verdict}{}", open.unwrap_or_default());
    let title = display::bold(status.environment.as_str());
    format!("{title}\n{}\n{verdict}\n\n", table(&["", "", "state", "fingerprint", "written", "remark"], rows))
}
