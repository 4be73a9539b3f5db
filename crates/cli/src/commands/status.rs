//! `pgrotate status [ENV]`

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use pgrotate_core::drift::{self, CopyStatus, State, Status as Drift};
use pgrotate_core::observer::Unobserved;
use pgrotate_core::past::Past;
use pgrotate_core::{Environment, Error, RunId};
use pgrotate_engine::Embedded;

use crate::app::{App, known};
use crate::config::Config;
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
    /// Look again and again, with this pause, until Ctrl-C [default of TIME: 30s]
    #[arg(long, value_name = "TIME", value_parser = super::rotate::span, num_args = 0..=1, default_missing_value = "30s")]
    watch: Option<Duration>,
}

/// How many environments are asked at a time.
pub(super) const AT_A_TIME: usize = 32;

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    let config = app.config()?;
    let environments = match &args.environment {
        Some(name) => vec![known(&config, name)?],
        None => config.environments(),
    };
    let Some(pause) = args.watch else { return look(app, &config, &environments).await };
    app.stop_on_signals();
    loop {
        if !app.json {
            display::clear();
        }
        let status = look(app, &config, &environments).await?;
        if app.stopping_within(pause).await {
            return Ok(status);
        }
    }
}

/// Looks once at all of them.
async fn look(app: &App, config: &Config, environments: &[Environment]) -> Result<Status, Failure> {
    // A journal that can't be read is no reason to hide what can be seen: that is when it is needed most.
    let engine = app.engine(Arc::new(Unobserved));
    let looks = stream::iter(environments).map(|environment| async {
        // What it has read ends with it: five hundred of them are not kept in memory.
        let mut rotation = app.rotation(config, environment)?;
        let known = match &engine {
            Ok(engine) => memory(engine, environment).await,
            Err(error) => Err(error.clone()),
        };
        let known = known.map(|(past, open)| {
            rotation.around.past = past;
            open
        });
        Ok::<_, Failure>((drift::status(&rotation).await, known))
    });
    let mut looks = std::pin::pin!(looks.buffered(AT_A_TIME));
    let mut journal = Ok(());
    let mut drifts = false;
    while let Some(look) = looks.next().await {
        let (status, known) = look?;
        // What a run has not proven yet counts as seen by nobody, even where nothing disagrees.
        let open = known.unwrap_or_else(|error| {
            journal = Err(error);
            None
        });
        drifts |= status.drifts() || open.is_some();
        if app.json {
            let mut object = serde_json::to_value(&status).expect("a status has only text in it");
            if let Some(run) = open {
                object["unfinished"] = serde_json::json!(run);
            }
            display::json(&object);
        } else {
            display::out(&as_text(&status, open));
        }
    }
    journal?;
    Ok(if drifts { Status::Drift } else { Status::Done })
}

/// What the journal knows of an environment, and its run that is not over.
async fn memory(engine: &Embedded, environment: &Environment) -> Result<(Past, Option<RunId>), Error> {
    let open = engine.unfinished(Some(environment)).await?;
    Ok((engine.past(environment, None).await?, open.first().map(|state| state.run)))
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
            remark(copy),
        ]
    });
    let rows = std::iter::once(server).chain(copies).collect();
    let unseen = status.copies.iter().filter(|copy| copy.state == State::Unseen).count();
    let disagree = |state| matches!(state, State::Stale | State::Pending);
    let disagrees = disagree(status.server.state) || status.copies.iter().any(|copy| disagree(copy.state));
    let verdict = match (status.drifts(), unseen) {
        (true, _) if disagrees && open.is_none() && status.server.state == State::Current => format!(
            "something disagrees with the vault of record; this puts it right: pgrotate repair {0}; or all at once, \
             with a new password: pgrotate rotate {0}",
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

/// What stands behind a copy's line. Of what can't be seen it is told who wrote it last.
fn remark(copy: &CopyStatus) -> String {
    let unseen = copy.changed_by.as_ref().filter(|_| copy.state == State::Unseen);
    let by = unseen.map(|by| format!("the run {} wrote it at {:.0}", by.run, by.at));
    copy.note.iter().cloned().chain(by).collect::<Vec<_>>().join("; ")
}
