//! What a person has to agree to before anything begins: one question for all, and the plan's hash for what must not
//! be rotated by a slip of the hand.

use std::io::{BufRead, IsTerminal};

use pgrotate_core::plan::{Action, Plan};
use pgrotate_core::{Error, Kind};

use crate::config::Config;
use crate::display;
use crate::exit::Failure;

/// So many digits of a hash name a plan: those that [`PlanHash::short`](pgrotate_core::plan::PlanHash::short) shows.
const DIGITS: usize = 12;

/// Asks about these plans, in their order.
///
/// # Errors
/// When somebody has not agreed. Nothing has begun then.
pub(crate) fn all(config: &Config, plans: &[Plan]) -> Result<(), Failure> {
    let (guarded, others): (Vec<&Plan>, Vec<&Plan>) =
        plans.iter().partition(|plan| config.asks_for_hash(&plan.environment));
    if !others.is_empty() && !agreed(&question(&others)) {
        return Err(refusal(others[0], "it was not confirmed").into());
    }
    let mut answers = std::io::stdin().lock();
    for plan in guarded {
        by_hash(plan, &mut answers)?;
    }
    Ok(())
}

fn question(plans: &[&Plan]) -> String {
    let each = plans.iter().map(|plan| {
        format!("{} ({} steps, plan {})", plan.environment, plan.steps.len(), plan.hash().short())
    });
    let each = each.collect::<Vec<_>>().join(", then ");
    match plans.first().and_then(|plan| plan.back()) {
        None if plans.iter().all(|plan| !plan.changes_password()) => format!("Repair {each}?"),
        None => format!("Rotate {each}?"),
        Some(back) => format!("Take the run {} back in {each}?", back.run),
    }
}

/// Asks a person, if there is one. One who can't see the question has agreed by calling the program.
fn agreed(question: &str) -> bool {
    if !std::io::stdin().is_terminal() {
        return true;
    }
    dialoguer::Confirm::new().with_prompt(question).default(false).interact().unwrap_or(false)
}

/// Has the plan's hash repeated: whoever does that has seen which plan it is. A script can give it on stdin, a line
/// for each plan.
fn by_hash(plan: &Plan, answers: &mut impl BufRead) -> Result<(), Error> {
    let hash = plan.hash();
    display::err(&format!(
        "{}: {} steps on {}, plan {hash}\ntype the first {DIGITS} digits of the plan's hash to begin: ",
        display::bold(plan.environment.as_str()),
        plan.steps.len(),
        plan.target,
    ));
    let mut line = String::new();
    let _ = answers.read_line(&mut line);
    // Nobody has pressed the key that ends the line.
    if line.is_empty() || !std::io::stdin().is_terminal() {
        display::err("\n");
    }
    match line.trim() {
        "" => Err(refusal(plan, "it was not confirmed")),
        answer if answer.len() >= DIGITS && hash.as_str().starts_with(&answer.to_ascii_lowercase()) => Ok(()),
        _ => Err(refusal(plan, "the answer is not the hash of its plan")),
    }
}

fn refusal(plan: &Plan, why: &str) -> Error {
    let environment = &plan.environment;
    let soak = plan.steps.iter().find_map(|step| match step.action {
        Action::Soak { seconds } => Some(format!(" --soak {seconds}s")),
        _ => None,
    });
    let soak = soak.unwrap_or_default();
    let (operation, look) = match plan.back() {
        None if !plan.changes_password() => {
            (format!("repair {environment}"), format!("repair {environment} --plan"))
        }
        None => (format!("rotate {environment}"), format!("plan {environment}{soak}")),
        Some(back) => {
            (format!("take the run {} back", back.run), format!("rollback {} --plan{soak}", back.run))
        }
    };
    Error::new(Kind::Blocked, operation)
        .because(why)
        .hint(format!("look at what it would do: pgrotate {look}"))
        .hint("a script passes the hash of the plan on stdin, or `--yes`; nothing has begun")
}

#[cfg(test)]
mod tests {
    use pgrotate_core::plan::Outline;
    use pgrotate_core::strategy::in_place;
    use pgrotate_core::{CopyId, Environment};

    use super::*;

    fn plan() -> Plan {
        in_place::plan(&Outline {
            environment: Environment::from("prod"),
            target: "admin@db:5432/app".into(),
            authority: "postgres:db".into(),
            vault: CopyId::from("local_vault:x"),
            copies: vec![],
            consumers: vec![],
            verifications: vec![],
            soak: None,
            back: None,
            vantages: Vec::new(),
            elsewhere: false,
            retirement: None,
            recorders: vec![],
        })
    }

    #[test]
    fn only_the_plans_own_hash_is_an_answer() {
        let plan = plan();
        let hash = plan.hash().as_str().to_owned();
        let says = |answer: &str| by_hash(&plan, &mut answer.as_bytes()).is_ok();
        assert!(says(&hash) && says(&format!("{}\n", &hash[..12])) && says(&hash.to_uppercase()));
        for wrong in ["", "\n", "yes\n", "y", &hash[..11], &hash[1..], &format!("{hash}0")] {
            assert!(!says(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn each_plan_takes_a_line_of_its_own() {
        let plan = plan();
        let both = format!("{}\n{}\n", plan.hash().short(), plan.hash());
        let mut answers = both.as_bytes();
        assert!(by_hash(&plan, &mut answers).is_ok() && by_hash(&plan, &mut answers).is_ok());
        assert!(by_hash(&plan, &mut answers).is_err());
    }
}
