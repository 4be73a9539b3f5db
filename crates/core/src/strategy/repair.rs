//! No new password: copies that have drifted get the one that is current.
//!
//! The current password is proven first. Nobody can be locked out by what follows; the point of no return is
//! the first copy that is written, because from then on `abort` could not promise that nothing is changed.

use super::in_place::{Steps, activate, verify};
use crate::ids::CopyId;
use crate::plan::{Action, Outline, Plan, StrategyName};

/// Plans to put these copies right, and to let those who read them take them up.
pub fn plan(outline: &Outline, copies: &[CopyId]) -> Plan {
    let mut outline = outline.clone();
    outline.copies.retain(|copy| copies.contains(&copy.id));
    let reads = |own: &Vec<CopyId>| own.is_empty() || own.iter().any(|copy| copies.contains(copy));
    outline.consumers.retain(|consumer| reads(&consumer.waits_for));
    let mut steps = Steps::default();
    let check = steps.add(Action::Check, &[]);
    let prove = steps.add(Action::Prove, &[check]);
    let publish = |copy: &crate::plan::CopyOutline| Action::Publish { copy: copy.id.clone() };
    let actions: Vec<Action> = outline.copies.iter().map(publish).collect();
    let published: Vec<_> =
        actions.into_iter().map(|action| steps.add(action, std::slice::from_ref(&prove))).collect();
    let activated = activate(&outline, &mut steps, &prove, &published);
    verify(&outline, &mut steps, &prove, &published, &activated);
    steps.planned(&outline, StrategyName::Repair)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{ConsumerOutline, CopyOutline, VerificationOutline};

    #[test]
    fn only_what_has_drifted_is_written_and_only_its_readers_are_told() {
        let copy = |id: &str| CopyOutline { id: CopyId::from(id), retire: true };
        let consumer = |id: &str, copy: &str| ConsumerOutline {
            id: id.into(),
            waits_for: vec![CopyId::from(copy)],
            has_sessions: true,
        };
        let outline = Outline {
            environment: "dev".into(),
            target: "admin@db:5432/app".into(),
            authority: "postgres:db".into(),
            vault: CopyId::from("local_vault:x"),
            copies: vec![copy("a:one"), copy("b:two")],
            consumers: vec![consumer("app:one", "a:one"), consumer("app:two", "b:two")],
            verifications: vec![VerificationOutline { id: "healthz".into(), after_activation: true }],
            soak: None,
            back: None,
            vantages: Vec::new(),
            elsewhere: false,
            retirement: None,
            recorders: vec!["changelog".into()],
        };
        let plan = plan(&outline, &[CopyId::from("b:two")]);
        assert_eq!((plan.defect(), plan.changes_password()), (None, false));
        assert_eq!(plan.repair(), Some(vec![CopyId::from("b:two")]), "who goes on with it asks for the same");
        let steps: Vec<_> = plan.steps.iter().map(|step| step.id.to_string()).collect();
        insta::assert_snapshot!(steps.join("\n"), @r"
        check
        prove
        publish/b:two
        activate/app:two
        verify/b:two
        verify/healthz
        verify/sessions of app:two
        verify/login
        ");
    }
}
