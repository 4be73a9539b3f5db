//! `pgrotate roles prepare ENV`

use std::sync::Arc;

use pgrotate_core::plan::Retirement;
use pgrotate_core::provider::{Login, Preparation, Seat, VaultState};
use pgrotate_core::rotation::{Rotation, Twin};
use pgrotate_core::{Error, Kind, Result, RunId, Secret};
use serde_json::json;

use crate::app::{App, known};
use crate::display;
use crate::exit::{Failure, Status};

/// Show the SQL that makes the role and its twin a pair, as far as it is not one yet
///
/// Both may do the same, neither owns anything alone, and what they create belongs to a group. With --apply it is
/// carried out, as the role that is live, all of it or nothing; once more, it finds nothing to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The environment
    #[arg(value_name = "ENV")]
    environment: String,
    /// Carry it out
    #[arg(long)]
    apply: bool,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    let config = app.config()?;
    let environment = known(&config, &args.environment)?;
    let rotation = app.rotation(&config, &environment)?;
    let twin = rotation.twin.as_ref().ok_or_else(|| {
        Error::new(Kind::Config, format!("prepare the roles of {environment}"))
            .because("its strategy is \"in_place\", which has one role")
            .hint("strategy = \"alternating\", at the top of the configuration")
    })?;
    let missing = Missing::look(&rotation, twin).await?;
    if !args.apply {
        show(app, &rotation, &missing.preparation, false);
        return Ok(Status::Done);
    }
    if missing.preparation.statements.is_empty() {
        show(app, &rotation, &missing.preparation, true);
        return Ok(Status::Done);
    }
    // Looked at once more where no run can come between: it would have changed who is live, and what is kept for whom.
    let alone = async {
        let missing = Missing::look(&rotation, twin).await?;
        missing.make_good(app, &rotation, twin).await?;
        Ok(missing.preparation)
    };
    let engine = app.engine(Arc::new(pgrotate_core::observer::Unobserved))?;
    let done = engine.alone(&environment, alone).await?;
    show(app, &rotation, &done, true);
    Ok(Status::Done)
}

/// What the two lack.
struct Missing {
    live: Seat,
    current: Secret,
    /// A new password for the idle role, where the vault of record has none that works.
    idle: Option<Secret>,
    preparation: Preparation,
}

impl Missing {
    async fn look(rotation: &Rotation, twin: &Twin) -> Result<Self> {
        let state = rotation.vault.read().await?;
        let live = state.live(rotation.twin_name());
        let current = current(rotation, live, &state).await?;
        let idle = idle(rotation, twin, live, &state).await?;
        let preparation = twin.pair.prepare(live, &current, idle.as_ref()).await?;
        Ok(Self { live, current, idle, preparation })
    }

    /// The vault of record first: a password that only the server knows would be lost.
    async fn make_good(&self, app: &App, rotation: &Rotation, twin: &Twin) -> Result<()> {
        if let Some(idle) = &self.idle {
            let run = RunId::generate(app.clock.now(), &*app.entropy);
            rotation.vault.lay_aside(run, idle).await?;
        }
        twin.pair.apply(self.live, &self.current, &self.preparation).await
    }
}

/// The password that works now, as the vault of record has it.
async fn current(rotation: &Rotation, live: Seat, state: &VaultState) -> Result<Secret> {
    let role = rotation.role(live);
    let refuse = |why: String| {
        Error::new(Kind::BadState, "prepare the roles")
            .because(why)
            .hint(format!("pgrotate check {} says more", rotation.environment))
    };
    let none = || refuse(format!("{} holds no current password", rotation.vault.id()));
    let current = state.current.as_ref().ok_or_else(none)?;
    match role.verifier.login(&current.secret).await? {
        Login::Accepted => Ok(current.secret.clone()),
        Login::Refused => {
            Err(refuse(format!("the server refuses the password that it holds for {}", role.target)))
        }
    }
}

/// A new password for the idle role, unless the one that is kept for it logs in, or it rests without.
async fn idle(rotation: &Rotation, twin: &Twin, live: Seat, state: &VaultState) -> Result<Option<Secret>> {
    if twin.retirement == Retirement::NoLogin {
        return Ok(None);
    }
    let role = rotation.role(live.other());
    if let Some(kept) = &state.previous {
        match role.verifier.login(&kept.secret).await {
            Ok(Login::Accepted) => return Ok(None),
            Ok(Login::Refused) => {}
            // It may not log in: what is kept for it can't be tried.
            Err(error) if error.kind() == Kind::Forbidden => {}
            // A good one must not be replaced because the server could not be asked.
            Err(error) => return Err(error),
        }
    }
    rotation.policy.generate(&role.target.user, &*rotation.entropy).map(Some)
}

fn show(app: &App, rotation: &Rotation, preparation: &Preparation, done: bool) {
    let Preparation { statements, by_hand } = preparation;
    if app.json {
        let shown: Vec<&str> = statements.iter().map(|own| own.shown.as_str()).collect();
        display::json(&json!({
            "environment": rotation.environment, "statements": shown, "by_hand": by_hand, "applied": done,
        }));
        return;
    }
    let mut text = String::new();
    for statement in statements {
        text.push_str(&format!("{};\n", statement.shown));
    }
    for note in by_hand {
        text.push_str(&format!("-- by hand: {note}\n"));
    }
    let environment = &rotation.environment;
    text.push_str(&match (statements.is_empty(), done) {
        (true, _) if !by_hand.is_empty() => format!("\n{environment}: what is left has to be done by hand\n"),
        (true, _) => format!("{environment}: {} are a pair\n", rotation.described()),
        (false, true) => {
            format!("\n{environment}: carried out; whoever logs in from now on acts as the group\n")
        }
        (false, false) => {
            format!("\nnothing was changed; to carry it out: pgrotate roles prepare {environment} --apply\n")
        }
    });
    display::out(&text);
}
