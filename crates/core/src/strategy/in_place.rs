//! One role, whose password changes. What the runbook does by hand.
//!
//! The point of no return is `install`. Between it and the consumers' activation no new
//! connection succeeds, so nothing stands on that way that could stand elsewhere. The copies that consumers wait for
//! are written as soon as the password is proven, beside `promote`: until that is done the vault of record has the
//! password as pending, and a vault that is out of reach just then keeps no application down.

use crate::ids::StepId;
use crate::plan::{Action, ConsumerOutline, CopyOutline, FORMAT, Outline, Plan, Step, StrategyName};

/// Plans the rotation of one role in place.
pub fn plan(outline: &Outline) -> Plan {
    let mut steps = Steps::default();
    let prove = steps.until_proven(outline);
    let promote = steps.add(Action::Promote, std::slice::from_ref(&prove));
    let published = steps.publish(outline, |copy| if outline.is_awaited(copy) { &prove } else { &promote });
    let activated = activate(outline, &mut steps, &promote, &published);
    let mut verified = verify(outline, &mut steps, &promote, &published, &activated);
    verified.push(promote);
    let verified = soak(outline, &mut steps, verified);
    steps.wind_up(outline, verified);
    steps.planned(outline, StrategyName::InPlace)
}

/// Each consumer as soon as the copies that it reads are written.
pub(super) fn activate(
    outline: &Outline,
    steps: &mut Steps,
    promote: &StepId,
    published: &[StepId],
) -> Vec<StepId> {
    let one = |consumer: &ConsumerOutline| {
        let own = |copy: &CopyOutline| consumer.waits(copy);
        let after = std::iter::zip(&outline.copies, published).filter(|(copy, _)| own(copy));
        let after: Vec<StepId> = after.map(|(_, step)| step.clone()).collect();
        let after = if after.is_empty() { vec![promote.clone()] } else { after };
        steps.add(Action::Activate { consumer: consumer.id.clone() }, &after)
    };
    outline.consumers.iter().map(one).collect()
}

/// The proofs: each as soon as what it looks at is in place.
pub(super) fn verify(
    outline: &Outline,
    steps: &mut Steps,
    promote: &StepId,
    published: &[StepId],
    activated: &[StepId],
) -> Vec<StepId> {
    let mut verified = verify_in_use(outline, steps, promote, published, activated);
    verified.extend(verify_login(outline, steps, in_use(promote, published, activated)));
    verified
}

/// Behind what everybody has moved. A sink that can't be reached parks its own proof and nobody else's, so what looks
/// at consumers waits for consumers alone.
fn in_use<'a>(promote: &'a StepId, published: &'a [StepId], activated: &'a [StepId]) -> &'a [StepId] {
    match (activated, published) {
        ([], []) => std::slice::from_ref(promote),
        ([], published) => published,
        (activated, _) => activated,
    }
}

/// That the new password is where it should be, and in use.
pub(super) fn verify_in_use(
    outline: &Outline,
    steps: &mut Steps,
    promote: &StepId,
    published: &[StepId],
    activated: &[StepId],
) -> Vec<StepId> {
    let in_use = in_use(promote, published, activated);
    let mut verified: Vec<StepId> = std::iter::zip(&outline.copies, published)
        .map(|(copy, step)| {
            steps.add(Action::VerifyCopy { copy: copy.id.clone() }, std::slice::from_ref(step))
        })
        .collect();
    for verification in &outline.verifications {
        let after = if verification.after_activation { in_use } else { std::slice::from_ref(promote) };
        verified.push(steps.add(Action::Verify { verification: verification.id.clone() }, after));
    }
    for (consumer, step) in std::iter::zip(&outline.consumers, activated) {
        if consumer.has_sessions {
            let proof = Action::VerifySessions { consumer: consumer.id.clone() };
            verified.push(steps.add(proof, std::slice::from_ref(step)));
        }
    }
    if outline.elsewhere {
        verified.push(steps.add(Action::VerifyElsewhere, std::slice::from_ref(promote)));
    }
    verified
}

/// That the new password logs in and the old one is dead.
pub(super) fn verify_login(outline: &Outline, steps: &mut Steps, after: &[StepId]) -> Vec<StepId> {
    let mut verified = vec![steps.add(Action::VerifyLogin, after)];
    for vantage in &outline.vantages {
        verified.push(steps.add(Action::VerifyFrom { vantage: vantage.clone() }, after));
    }
    verified
}

/// A wait after the proofs, and all of them once more. What waits for the proofs waits for the second ones then.
pub(super) fn soak(outline: &Outline, steps: &mut Steps, verified: Vec<StepId>) -> Vec<StepId> {
    let Some(time) = outline.soak else { return verified };
    let proofs: Vec<Action> = steps
        .0
        .iter()
        .filter(|step| verified.contains(&step.id) && step.action.kind() == "verify")
        .map(|step| Action::VerifyAgain { proof: Box::new(step.action.clone()) })
        .collect();
    let soaked = steps.add(Action::Soak { seconds: time.as_secs() }, &verified);
    proofs.into_iter().map(|proof| steps.add(proof, std::slice::from_ref(&soaked))).collect()
}

/// The steps of a plan that is being made.
#[derive(Default)]
pub(super) struct Steps(pub(super) Vec<Step>);

impl Steps {
    pub(super) fn add(&mut self, action: Action, after: &[StepId]) -> StepId {
        let step = Step::new(action, after.to_vec());
        let id = step.id.clone();
        self.0.push(step);
        id
    }

    /// The plan that they make.
    pub(super) fn planned(self, outline: &Outline, strategy: StrategyName) -> Plan {
        Plan {
            format: FORMAT,
            environment: outline.environment.clone(),
            strategy,
            target: outline.target.clone(),
            authority: outline.authority.clone(),
            vault: outline.vault.clone(),
            steps: self.0,
        }
    }

    /// Everything until the new password has logged in; gives the last of it.
    pub(super) fn until_proven(&mut self, outline: &Outline) -> StepId {
        let check = self.add(Action::Check, &[]);
        // Stage before install: a crash between them leaves a pending version and a role that
        // still works.
        let stage = match outline.back.clone() {
            None => Action::Stage,
            Some(back) => Action::StagePrevious { back },
        };
        let stage = self.add(stage, &[check]);
        let install = self.add(Action::Install, &[stage]);
        self.add(Action::Prove, &[install])
    }

    /// Every copy as soon as it may be written.
    pub(super) fn publish<'a>(
        &mut self,
        outline: &Outline,
        after: impl Fn(&CopyOutline) -> &'a StepId,
    ) -> Vec<StepId> {
        let copies = outline.copies.iter();
        copies
            .map(|copy| {
                let publish = Action::Publish { copy: copy.id.clone() };
                self.add(publish, std::slice::from_ref(after(copy)))
            })
            .collect()
    }

    /// What comes when all is proven: older versions go out of use, and the run is written down.
    pub(super) fn wind_up(&mut self, outline: &Outline, verified: Vec<StepId>) {
        let copies = outline.copies.iter().filter(|copy| copy.retire);
        let retired: Vec<StepId> =
            copies.map(|copy| self.add(Action::Retire { copy: copy.id.clone() }, &verified)).collect();
        let settled = if retired.is_empty() { verified } else { retired };
        for recorder in &outline.recorders {
            self.add(Action::Record { recorder: recorder.clone() }, &settled);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ids::{CopyId, Environment};
    use crate::plan::VerificationOutline;

    pub(in super::super) fn outline() -> Outline {
        let copy = |id: &str, retire| CopyOutline { id: CopyId::from(id), retire };
        Outline {
            environment: Environment::from("dev"),
            target: "admin@db:5432/app".into(),
            authority: "azure_postgres_flexible:pgflex-dev".into(),
            vault: CopyId::from("onepassword:Admin"),
            copies: vec![
                copy("azure_key_vault:url", true),
                copy("azure_app_service:URL", false),
                copy("github_actions:URL", false),
            ],
            consumers: vec![ConsumerOutline {
                id: "azure_app_service:api".into(),
                waits_for: vec![CopyId::from("azure_app_service:URL")],
                has_sessions: true,
            }],
            verifications: vec![
                VerificationOutline { id: "alembic".into(), after_activation: false },
                VerificationOutline { id: "healthz".into(), after_activation: true },
            ],
            soak: None,
            back: None,
            vantages: vec!["agent".into()],
            elsewhere: true,
            retirement: None,
            recorders: vec!["changelog".into()],
        }
    }

    pub(in super::super) fn steps_of(plan: &Plan) -> String {
        let text = plan.steps.iter().map(|step| {
            let after: Vec<&str> = step.after.iter().map(StepId::as_str).collect();
            format!("{} <- {}", step.id, after.join(" "))
        });
        text.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_plan_reads_like_the_contract() {
        let plan = plan(&outline());
        assert_eq!(plan.defect(), None);
        insta::assert_snapshot!(steps_of(&plan), @r"
        check <- 
        stage <- check
        install <- stage
        prove <- install
        promote <- prove
        publish/azure_key_vault:url <- promote
        publish/azure_app_service:URL <- prove
        publish/github_actions:URL <- promote
        activate/azure_app_service:api <- publish/azure_app_service:URL
        verify/azure_key_vault:url <- publish/azure_key_vault:url
        verify/azure_app_service:URL <- publish/azure_app_service:URL
        verify/github_actions:URL <- publish/github_actions:URL
        verify/alembic <- promote
        verify/healthz <- activate/azure_app_service:api
        verify/sessions of azure_app_service:api <- activate/azure_app_service:api
        verify/login elsewhere <- promote
        verify/login <- activate/azure_app_service:api
        verify/login from agent <- activate/azure_app_service:api
        retire/azure_key_vault:url <- verify/azure_key_vault:url verify/azure_app_service:URL verify/github_actions:URL verify/alembic verify/healthz verify/sessions of azure_app_service:api verify/login elsewhere verify/login verify/login from agent promote
        record/changelog <- retire/azure_key_vault:url
        ");
    }

    #[test]
    fn the_hash_covers_every_step() {
        let first = plan(&outline());
        let mut changed = outline();
        changed.copies[2].id = CopyId::from("github_actions:OTHER");
        let mut soaked = outline();
        soaked.soak = Some(Duration::from_secs(60));
        assert_eq!(first.hash(), plan(&outline()).hash());
        assert_ne!(first.hash(), plan(&changed).hash());
        assert_ne!(first.hash(), plan(&soaked).hash());
    }

    #[test]
    fn a_soak_comes_between_the_proofs_and_all_of_them_again() {
        let mut outline = outline();
        outline.soak = Some(Duration::from_secs(600));
        let plan = plan(&outline);
        assert_eq!(plan.defect(), None);
        let first: Vec<&Step> =
            plan.of_kind("verify").filter(|step| step.action == *step.action.proof()).collect();
        let soak = plan.step(&"soak".into()).unwrap();
        assert_eq!(soak.action, Action::Soak { seconds: 600 });
        let proven = first.iter().map(|step| step.id.clone());
        assert_eq!(soak.after, proven.chain(["promote".into()]).collect::<Vec<_>>());
        for proof in &first {
            let again = StepId::new(format!("verify-again/{}", proof.action.subject().unwrap()));
            let again = plan.step(&again).unwrap();
            assert_eq!((again.action.proof(), &again.after[..]), (&proof.action, &["soak".into()][..]));
            assert!(plan.step(&"retire/azure_key_vault:url".into()).unwrap().after.contains(&again.id));
        }
        assert_eq!(plan.of_kind("verify").count(), 2 * first.len());
    }

    #[test]
    fn nothing_to_publish_is_a_plan_too() {
        let mut bare = outline();
        (bare.copies, bare.consumers) = (vec![], vec![]);
        let plan = plan(&bare);
        assert_eq!(plan.defect(), None);
        assert_eq!(plan.step(&"verify/login".into()).unwrap().after, ["promote".into()]);
    }
}
