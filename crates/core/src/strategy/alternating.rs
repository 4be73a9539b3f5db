//! Two roles that take turns, so that there is no moment at which consumers can't log in.
//!
//! The idle role gets the new password while everybody goes on with the live one; consumers move to it, and
//! only when they are seen there the other one is taken out of use. The point of no return is `promote`: until then
//! nobody uses the idle role, and it gets back what it had. That the old password is dead can be proven only behind
//! the retirement.

use super::in_place::{Steps, activate, soak, verify_in_use, verify_login};
use crate::ids::StepId;
use crate::plan::{Action, Outline, Plan, Retirement, StrategyName};

/// Plans to move from one role to the other.
pub fn plan(outline: &Outline, retirement: Retirement) -> Plan {
    let mut steps = Steps::default();
    let prove = steps.until_proven(outline);
    let promote = steps.add(Action::Promote, &[prove]);
    let published = steps.publish(outline, |_| &promote);
    let activated = activate(outline, &mut steps, &promote, &published);
    let mut verified = verify_in_use(outline, &mut steps, &promote, &published, &activated);

    let staged = match retirement {
        Retirement::Password => vec![steps.add(Action::StageIdle, &verified)],
        Retirement::NoLogin => verified.clone(),
    };
    let retired = steps.add(Action::RetireRole, &staged);
    verified.extend(verify_login(outline, &mut steps, std::slice::from_ref(&retired)));
    let verified = soak(outline, &mut steps, verified);
    // Until the old password is proven dead it stays known: nobody could prove it otherwise.
    let settled: Vec<StepId> = match retirement {
        Retirement::Password => vec![steps.add(Action::LayAside, &verified)],
        Retirement::NoLogin => verified,
    };
    steps.wind_up(outline, settled);
    steps.planned(outline, StrategyName::Alternating)
}

#[cfg(test)]
mod tests {
    use super::super::in_place::tests::{outline, steps_of};
    use super::*;

    #[test]
    fn the_role_that_was_live_goes_only_when_nobody_needs_it() {
        let plan = plan(&outline(), Retirement::Password);
        assert_eq!((plan.defect(), plan.changes_password()), (None, true));
        insta::assert_snapshot!(steps_of(&plan), @r"
        check <- 
        stage <- check
        install <- stage
        prove <- install
        promote <- prove
        publish/azure_key_vault:url <- promote
        publish/azure_app_service:URL <- promote
        publish/github_actions:URL <- promote
        activate/azure_app_service:api <- publish/azure_app_service:URL
        verify/azure_key_vault:url <- publish/azure_key_vault:url
        verify/azure_app_service:URL <- publish/azure_app_service:URL
        verify/github_actions:URL <- publish/github_actions:URL
        verify/alembic <- promote
        verify/healthz <- activate/azure_app_service:api
        verify/sessions of azure_app_service:api <- activate/azure_app_service:api
        verify/login elsewhere <- promote
        retire/idle password <- verify/azure_key_vault:url verify/azure_app_service:URL verify/github_actions:URL verify/alembic verify/healthz verify/sessions of azure_app_service:api verify/login elsewhere
        retire/role <- retire/idle password
        verify/login <- retire/role
        verify/login from agent <- retire/role
        retire/dead password <- verify/azure_key_vault:url verify/azure_app_service:URL verify/github_actions:URL verify/alembic verify/healthz verify/sessions of azure_app_service:api verify/login elsewhere verify/login verify/login from agent
        retire/azure_key_vault:url <- retire/dead password
        record/changelog <- retire/azure_key_vault:url
        ");
    }

    #[test]
    fn without_login_there_is_no_password_to_keep() {
        let plan = plan(&outline(), Retirement::NoLogin);
        assert_eq!(plan.defect(), None);
        let retired: Vec<&str> = plan.of_kind("retire").map(|step| step.id.as_str()).collect();
        assert_eq!(retired, ["retire/role", "retire/azure_key_vault:url"]);
        assert_eq!(plan.step(&"verify/login".into()).unwrap().after, ["retire/role".into()]);
    }

    #[test]
    fn only_what_somebody_may_use_is_behind_the_point_of_no_return() {
        let plan = plan(&outline(), Retirement::Password);
        let points = plan.steps.iter().filter(|step| plan.is_point_of_no_return(&step.action));
        assert_eq!(points.map(|step| step.id.as_str()).collect::<Vec<_>>(), ["promote"]);
    }
}
