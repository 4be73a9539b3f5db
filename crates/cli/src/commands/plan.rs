//! `pgrotate plan ENV`

use std::time::Duration;

use pgrotate_core::drift::{self, CopyStatus, State, Status as Drift};
use pgrotate_core::plan::{Action, Plan, Retirement, StrategyName};
use pgrotate_core::rotation::Rotation;
use serde_json::json;

use crate::app::{App, known};
use crate::commands::rotate::Soak;
use crate::display::{self, table};
use crate::exit::{Failure, Status};

/// Show the steps that `rotate` would take, with the state of each copy; changes nothing
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The environment
    #[arg(value_name = "ENV")]
    environment: String,
    #[command(flatten)]
    soak: Soak,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    let config = app.config()?;
    let environment = known(&config, &args.environment)?;
    let rotation = args.soak.apply(app.rotation(&config, &environment)?);
    let drift = drift::status(&rotation).await;
    config.warnings().iter().for_each(|warning| display::warning(warning));
    show(app, &rotation, &drift);
    Ok(Status::Done)
}

/// Shows what a rotation would do, and how things stand.
pub(crate) fn show(app: &App, rotation: &Rotation, drift: &Drift) {
    let plan = rotation.plan();
    if app.json {
        display::json(&as_json(rotation, &plan, drift));
    } else {
        display::out(&as_text(rotation, &plan, drift));
        unreachable(drift).for_each(|warning| display::warning(&warning));
    }
}

/// What could not be asked, and why.
fn unreachable(drift: &Drift) -> impl Iterator<Item = String> {
    let copies = drift.copies.iter().filter(|copy| copy.state == State::Unreachable);
    copies.filter_map(|copy| Some(format!("{}: {}", copy.id, copy.note.as_ref()?)))
}

fn as_json(rotation: &Rotation, plan: &Plan, drift: &Drift) -> serde_json::Value {
    json!({
        "environment": plan.environment,
        "hash": plan.hash(),
        "password": match plan.back() {
            None => json!({ "length": rotation.policy.length(), "bits": rotation.policy.bits().floor() }),
            Some(back) => json!({ "fingerprint": back.to, "from_before": back.run }),
        },
        "plan": plan,
        "copies": drift.copies,
    })
}

fn as_text(rotation: &Rotation, plan: &Plan, drift: &Drift) -> String {
    let mut rows = vec![row(1, "lease", None, "one run at a time", None)];
    for step in &plan.steps {
        let copy = match &step.action {
            Action::Publish { copy } | Action::VerifyCopy { copy } | Action::Retire { copy } => {
                drift.copies.iter().find(|own| own.id == *copy)
            }
            _ => None,
        };
        let seen = copy.filter(|_| matches!(step.action, Action::Publish { .. }));
        rows.push(row(
            rows.len() + 1,
            step.action.kind(),
            step.action.subject().as_deref(),
            &purpose(rotation, plan, &step.action),
            seen,
        ));
    }
    let title = format!(
        "{}: {} of {}{}\nauthority {}, vault of record {}\n\n",
        display::bold(plan.environment.as_str()),
        if plan.changes_password() { "the password" } else { "copies of the password" },
        plan.target,
        match plan.strategy {
            StrategyName::InPlace => ", in place",
            StrategyName::Alternating => ", in turn",
            StrategyName::Repair => "",
        },
        plan.authority,
        plan.vault
    );
    let password = match plan.back() {
        None if !plan.changes_password() => "password: the current one".to_owned(),
        None => format!(
            "new password: {} characters, {:.0} bits",
            rotation.policy.length(),
            rotation.policy.bits().floor()
        ),
        Some(back) => format!("password: {}, the one from before the run {}", back.to, back.run),
    };
    let steps = table(&["", "step", "of", "what happens", "now"], rows);
    format!("{title}{steps}\n{password}\nplan: {}\n", plan.hash())
}

fn row(
    number: usize,
    kind: &str,
    subject: Option<&str>,
    purpose: &str,
    seen: Option<&CopyStatus>,
) -> Vec<String> {
    let now = seen.map(|copy| {
        let mark = copy.fingerprint.as_ref().map(|mark| format!(" {mark}")).unwrap_or_default();
        format!("{}{mark}", display::state(copy.state))
    });
    vec![
        number.to_string(),
        kind.to_owned(),
        subject.unwrap_or("").to_owned(),
        purpose.to_owned(),
        now.unwrap_or_default(),
    ]
}

fn purpose(rotation: &Rotation, plan: &Plan, action: &Action) -> String {
    match action {
        Action::Check => "everything is looked at before anything changes".into(),
        Action::Stage => format!("a new password is stored as pending in {}", plan.vault),
        Action::StagePrevious { back } => {
            format!("the password from before the run {} is stored as pending in {}", back.run, plan.vault)
        }
        Action::Install if rotation.twin.is_some() => {
            format!("{} gets it for the role that is idle", plan.authority)
        }
        Action::Install => format!("{} gets it: the point of no return", plan.authority),
        Action::Prove if !plan.changes_password() => "a fresh login with the current password".into(),
        Action::Prove => "a fresh login with it".into(),
        Action::Promote if rotation.twin.is_some() => {
            "pending becomes current, and with it the other role: the point of no return".into()
        }
        Action::Promote => "pending becomes current, current becomes previous".into(),
        Action::Publish { .. } => "the copy is brought to it".into(),
        Action::Activate { .. } => "takes up the new copies".into(),
        Action::Soak { seconds } => {
            format!(
                "waits {}, so that what fails late can show",
                display::seconds(Duration::from_secs(*seconds))
            )
        }
        Action::VerifyAgain { proof } => format!("again: {}", purpose(rotation, plan, proof)),
        Action::VerifyLogin => "the new password logs in, the old one is refused".into(),
        Action::VerifyCopy { copy } => {
            let readable =
                rotation.copies.iter().any(|own| own.sink.id() == copy && own.sink.capabilities().read_back);
            if readable {
                "read back and compared".into()
            } else {
                "unseen: this store never gives a value back".into()
            }
        }
        Action::VerifySessions { .. } => "it has logged in after the change".into(),
        Action::VerifyFrom { .. } => "the same from there".into(),
        Action::VerifyElsewhere => "the other environments' servers refuse the new password".into(),
        Action::Verify { .. } => "proof from outside".into(),
        Action::StageIdle => {
            format!("a password to rest with is stored as pending in {}", plan.vault)
        }
        Action::RetireRole => match rotation.twin.as_ref().map(|twin| twin.retirement) {
            Some(Retirement::NoLogin) => "the role that was live may not log in any more".into(),
            _ => "the role that was live gets it".into(),
        },
        Action::LayAside => "the vault of record keeps it in place of the dead one".into(),
        Action::Retire { .. } => "the version before is taken out of use".into(),
        Action::Record { .. } => "written down".into(),
    }
}
