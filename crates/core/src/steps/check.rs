//! Looks at everything the run will need, before anything changes.

mod server;

use std::collections::BTreeMap;
use std::fmt;

use futures::future::join_all;

use crate::database_url::DatabaseUrl;
use crate::error::{Error, Kind, Result, Retry};
use crate::ids::{CopyId, VersionId};
use crate::journal::Outcome;
use crate::past::Overrides;
use crate::provider::{Content, Finding, Inspection, Severity, grouped};
use crate::rotation::{Copy, Rotation};
use crate::run::RunState;
use crate::secret::Secret;
use crate::value::Reading;

/// What helps where a copy holds something else than it should.
const WRONG_CONTENT: &str = "if the copy is wrong, `pgrotate repair` writes it anew; if it is right, correct `value` or \
                             [database] in the configuration";

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Report {
    /// The findings, worst first.
    pub findings: Vec<Finding>,
    /// The versions that are current now, by copy.
    pub before: BTreeMap<CopyId, VersionId>,
    /// The password that is current now.
    pub current: Option<Secret>,
    /// What each system truly is: its place, or the id that it has for itself.
    pub identities: BTreeMap<String, String>,
    /// What could not be looked at and may be possible in a moment; each stands among the
    /// findings too.
    pub passing: Vec<Error>,
}

impl Report {
    /// Whether something stands in the way of a run.
    pub fn blocks(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Blocks)
    }

    /// Takes in what a look found. A look that failed is a finding that blocks.
    fn take(&mut self, result: Result<Vec<Finding>>, subject: &str) {
        let error = match result {
            Ok(findings) => return self.findings.extend(findings),
            Err(error) => error,
        };
        let finding = Finding::new(Severity::Blocks, subject, format!("{error:#}"));
        let hint = error.hints().join("; ");
        self.findings.push(if hint.is_empty() { finding } else { finding.mend(hint) });
        if error.retry() != Retry::Never {
            self.passing.push(error);
        }
    }

    fn identify(&mut self, what: impl fmt::Display, identity: impl Into<String>) {
        self.identities.insert(what.to_string(), identity.into());
    }

    fn merge(&mut self, other: Self) {
        self.findings.extend(other.findings);
        self.identities.extend(other.identities);
        self.before.extend(other.before);
        self.current = self.current.take().or(other.current);
        self.passing.extend(other.passing);
    }
}

/// Looks, and refuses to go on if anything stands in the way.
pub(crate) async fn perform(rotation: &Rotation, run: &RunState) -> Result<Outcome> {
    let report = possible(rotation, run).await?;
    let mut outcome = Outcome::confirmed();
    outcome.previous = report.current.as_ref().map(|current| rotation.key.fingerprint(current));
    outcome.before = report.before;
    outcome.identities = report.identities;
    outcome.findings = report.findings;
    Ok(outcome)
}

/// Looks, and fails if a run must not go on to change anything.
pub(crate) async fn possible(rotation: &Rotation, run: &RunState) -> Result<Report> {
    let asked = Asked { ticket: run.start.ticket.as_deref(), overrides: &run.start.overrides };
    let report = look(rotation, asked, Some(run)).await;
    let blocking = report.findings.iter().filter(|finding| finding.severity == Severity::Blocks).count();
    match blocking {
        0 => Ok(report),
        // Looking again may show that nothing is in the way.
        _ if blocking == report.passing.len() => Err(together(report.passing)),
        _ => Err(refusal(rotation, &report)),
    }
}

/// The failure that has to be waited for longest, with the others among its causes.
fn together(mut passing: Vec<Error>) -> Error {
    passing.sort_by_key(|error| std::cmp::Reverse(error.told()));
    let mut rest = passing.into_iter();
    let longest = rest.next().expect("only a report that is blocked comes here");
    rest.fold(longest, |error, other| error.because(format!("and {other}")))
}

fn refusal(rotation: &Rotation, report: &Report) -> Error {
    let blocking = report.findings.iter().filter(|finding| finding.severity == Severity::Blocks);
    grouped(blocking).iter().fold(
        Error::new(Kind::Blocked, format!("start rotating {}", rotation.environment)),
        |error, finding| {
            let error = error.because(format!("{}: {}", finding.subject, finding.what));
            match &finding.mend {
                Some(mend) => error.hint(mend.clone()),
                None => error,
            }
        },
    )
}

/// What a run is asked for with, as far as a check depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The ticket.
    pub ticket: Option<&'a str>,
    /// What is let pass.
    pub overrides: &'a Overrides,
}

/// Looks at everything at once, for a run that may have staged a password already, or for none.
/// Changes nothing.
pub async fn look(rotation: &Rotation, asked: Asked<'_>, run: Option<&RunState>) -> Report {
    let mut report = Report::default();
    let (core, copies, others) = futures::join!(
        server::look(rotation, asked.overrides, run),
        join_all(rotation.looked_at().map(|copy| look_at_copy(rotation, copy))),
        look_at_others(rotation, asked.ticket),
    );
    report.merge(core);
    report.merge(others);
    for (copy, mut found) in std::iter::zip(rotation.looked_at(), copies) {
        // Among the copies `current` is what the copy holds.
        if let (Some(held), Some(current)) = (found.current.take(), &report.current)
            && held != *current
        {
            let what =
                "it holds another password than the vault of record; the rotation will bring it in line";
            report.findings.push(Finding::new(Severity::Warning, copy.sink.id().as_str(), what));
        }
        report.merge(found);
    }
    report.identify("server", rotation.target.to_string());
    report.identify("authority", rotation.authority.location());
    let now = rotation.clock.now();
    report.findings.extend(rotation.around.past.findings(&report.identities, asked.overrides, now));
    // Only now has everybody answered.
    let overheard = &rotation.around.overheard;
    report.findings.extend(overheard.iter().flat_map(|overheard| overheard.findings()));
    if rotation.repair.is_some() {
        report.findings.iter_mut().for_each(as_for_repair);
    }
    report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    report
}

/// What is wrong with a copy's content is what a repair is for.
fn as_for_repair(finding: &mut Finding) {
    if finding.mend.as_deref() == Some(WRONG_CONTENT) {
        finding.severity = Severity::Warning;
        finding.mend = Some("it is written anew, as the configuration says".to_owned());
    }
}

async fn look_at_copy(rotation: &Rotation, copy: &Copy) -> Report {
    let id = copy.sink.id();
    let mut report = Report::default();
    let retirement = async {
        match copy.retire {
            true => copy.sink.check_retirement().await,
            false => Ok(Vec::new()),
        }
    };
    let (inspection, retirement) = futures::join!(copy.sink.check(), retirement);
    let Inspection { seen, findings, identity } = match inspection {
        Ok(inspection) => inspection,
        Err(error) => {
            report.take(Err(error), id.as_str());
            return report;
        }
    };
    report.findings = findings;
    report.findings.extend(nameless(rotation, copy));
    report.take(retirement, id.as_str());
    report.identify(id, identity.unwrap_or_else(|| copy.sink.location()));
    match &seen.content {
        Content::Value(value) => {
            let (password, found) = read_value(rotation, copy, value);
            report.findings.extend(found);
            report.current = password;
        }
        // A reference that is refused for itself needs no second reason.
        Content::Reference(to) if !report.blocks() => {
            report.findings.extend(look_at_reference(rotation, id.as_str(), to));
        }
        Content::Reference(_) | Content::Unseen | Content::Absent => {}
    }
    report.before.extend(seen.version.map(|version| (id.clone(), version)));
    report
}

/// A password alone does not say whose it is, and where two roles take turns that changes.
fn nameless(rotation: &Rotation, copy: &Copy) -> Option<Finding> {
    if rotation.twin.is_none() || copy.template.holds_url() {
        return None;
    }
    let what = "it holds a password alone, and the role that it belongs to changes with every rotation";
    let why = "who reads it and goes on with the other role's name is locked out once that role is retired";
    let mend = "let those who log in read a copy with {database_url}, which names the role";
    Some(Finding::new(Severity::Warning, copy.sink.id().as_str(), what).why(why).mend(mend))
}

/// What a copy points at has to get the new password too.
fn look_at_reference(rotation: &Rotation, id: &str, to: &str) -> Option<Finding> {
    if rotation.has_copy_at(to) {
        return None;
    }
    let what = format!("it points at {to}, which is not among the copies, so it would keep the old password");
    let mend = "add a sink for what it points at, or point it at a copy that is configured";
    Some(Finding::new(Severity::Blocks, id, what).mend(mend))
}

fn read_value(rotation: &Rotation, copy: &Copy, value: &Secret) -> (Option<Secret>, Vec<Finding>) {
    let id = copy.sink.id().as_str();
    match copy.template.read(value) {
        (Reading::Password(password), url) => {
            let findings = url.iter().flat_map(|url| look_at_url(rotation, id, url)).collect();
            (Some(password), findings)
        }
        // A bare password of any form can be replaced whole; a URL we can't read can't.
        (Reading::Foreign(why), _) if copy.template.holds_url() => {
            let finding = Finding::new(
                Severity::Blocks,
                id,
                format!("its present value is not what the configuration says: {why}"),
            )
            .mend(WRONG_CONTENT);
            (None, vec![finding])
        }
        (Reading::Foreign(why), _) => (None, vec![Finding::new(Severity::Warning, id, why)]),
    }
}

fn look_at_url(rotation: &Rotation, id: &str, url: &DatabaseUrl) -> Vec<Finding> {
    let wrong = url.disagreements(rotation.target_of(url)).into_iter().map(|found| {
        Finding::new(Severity::Blocks, id, format!("in the URL it holds, {found}")).mend(WRONG_CONTENT)
    });
    let odd = url.driver_warning().into_iter().chain(url.encoding_warning());
    let odd = odd.map(|warning| Finding::new(Severity::Warning, id, warning));
    wrong.chain(odd).collect()
}

async fn look_at_others(rotation: &Rotation, ticket: Option<&str>) -> Report {
    let (consumers, verifications, recorders) = futures::join!(
        join_all(
            rotation
                .consumers
                .iter()
                .map(|bound| async { (bound.consumer.id(), bound.consumer.check().await) })
        ),
        join_all(rotation.verifications.iter().map(|own| async { (own.id(), own.check().await) })),
        join_all(rotation.recorders.iter().map(|own| async { (own.id(), own.check(ticket).await) })),
    );
    let mut report = Report::default();
    report.findings.extend(ticket.and_then(|ticket| look_at_ticket(rotation, ticket)));
    for (id, result) in consumers.into_iter().chain(verifications).chain(recorders) {
        report.take(result, id);
    }
    report
}

/// Somebody who names a ticket expects to find the run there.
fn look_at_ticket(rotation: &Rotation, ticket: &str) -> Option<Finding> {
    if rotation.recorders.iter().any(|own| own.takes(ticket)) {
        return None;
    }
    let what = format!("no record is written to the ticket {ticket:?}");
    let mend = "correct `--ticket`, or add a [[records]] table of kind \"github_issue\" or \"jira\" for it";
    Some(Finding::new(Severity::Warning, "ticket", what).mend(mend))
}

#[cfg(test)]
mod obstacles;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use futures::FutureExt;

    use super::*;
    use crate::env::testing::{ManualClock, SeededEntropy};
    use crate::env::{Clock, Entropy};
    use crate::memory;
    use crate::provider::{
        Capabilities, Evidence, Overheard, Present, Recorder, Seen, Sink, Story, Trial, Verification,
    };
    use crate::value::{Template, Update};

    /// A copy that points at another one, with what its own check found.
    struct Pointing(CopyId, &'static str, Option<Severity>);

    #[async_trait]
    impl Sink for Pointing {
        fn id(&self) -> &CopyId {
            &self.0
        }
        fn location(&self) -> String {
            "pointing".into()
        }
        fn capabilities(&self) -> Capabilities {
            Capabilities::default()
        }
        async fn check(&self) -> Result<Inspection> {
            let own = self.2.map(|severity| Finding::new(severity, self.0.as_str(), "its own"));
            Ok(Inspection { seen: self.inspect().await?, findings: Vec::from_iter(own), identity: None })
        }
        async fn inspect(&self) -> Result<Seen> {
            Ok(Seen { content: Content::Reference(self.1.into()), version: None, updated_at: None })
        }
        async fn publish(&self, _: &Update<'_>) -> Result<Outcome> {
            Err(Error::internal("a check publishes nothing"))
        }
    }

    /// A record that takes one ticket.
    struct Tracker;

    #[async_trait]
    impl Recorder for Tracker {
        fn id(&self) -> &'static str {
            "tracker"
        }
        fn takes(&self, ticket: &str) -> bool {
            ticket == "OPS-1"
        }
        async fn check(&self, _: Option<&str>) -> Result<Vec<Finding>> {
            Ok(Vec::new())
        }
        async fn record(&self, _: &Story, _: bool) -> Result<Outcome> {
            Err(Error::internal("a check records nothing"))
        }
    }

    fn rotation() -> Rotation {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at_second(0));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
        memory::rotation(&memory::world("x"), &clock, &entropy)
    }

    fn findings(rotation: &Rotation, ticket: Option<&str>) -> Vec<Finding> {
        let asked = Asked { ticket, overrides: &Overrides::default() };
        look(rotation, asked, None).now_or_never().unwrap().findings
    }

    #[test]
    fn what_a_copy_points_at_must_be_a_copy_too() {
        let pointing = |to, own| {
            let mut rotation = rotation();
            let sink = Box::new(Pointing(CopyId::from("app:url"), to, own));
            rotation.copies.push(Copy {
                sink,
                template: Template::parse("{password}").unwrap(),
                retire: false,
            });
            findings(&rotation, None)
        };
        assert_eq!(pointing("memory:url", None), []);
        let astray = pointing("memory:elsewhere", Some(Severity::Warning));
        assert_eq!(astray.len(), 2);
        assert_eq!((astray[0].severity, astray[0].subject.as_str()), (Severity::Blocks, "app:url"));
        assert!(astray[0].what.contains("memory:elsewhere") && astray[0].mend.is_some());
        assert_eq!(pointing("memory:elsewhere", Some(Severity::Blocks)).len(), 1, "one reason is enough");
    }

    /// A verification that tries itself out.
    struct Trying;

    #[async_trait]
    impl Verification for Trying {
        fn id(&self) -> &'static str {
            "tried"
        }
        async fn try_out(&self, present: &Present<'_>) -> Result<Trial> {
            assert_eq!(present.url.expose(), memory::url(present.password.expose()));
            let finding = Finding::new(Severity::Note, "tried", present.password.expose());
            Ok(Trial { findings: vec![finding], logins: 1 })
        }
        async fn verify(&self, _: &Evidence<'_>) -> Result<Outcome> {
            Err(Error::internal("a check verifies nothing"))
        }
    }

    #[test]
    fn verifications_try_themselves_out_where_the_password_of_now_works() {
        let tried = |server: &str| {
            let world = memory::world("x");
            world.state().server = server.into();
            let clock: Arc<dyn Clock> = Arc::new(ManualClock::at_second(0));
            let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
            let mut rotation = memory::rotation(&world, &clock, &entropy);
            rotation.verifications.push(Box::new(Trying));
            findings(&rotation, None).into_iter().find(|finding| finding.subject == "tried")
        };
        assert_eq!(tried("x").unwrap().what, "x");
        assert_eq!(tried("another"), None, "that the login is refused says it all");
    }

    #[test]
    fn what_is_overheard_is_said_with_the_rest() {
        struct Clocks;
        impl Overheard for Clocks {
            fn findings(&self) -> Vec<Finding> {
                vec![Finding::new(Severity::Blocks, "clock", "it is late")]
            }
        }
        let mut rotation = rotation();
        rotation.around.overheard = Some(Arc::new(Clocks));
        assert_eq!(findings(&rotation, None)[0].subject, "clock");
    }

    #[test]
    fn a_ticket_that_no_record_takes_is_worth_a_warning() {
        let mut rotation = rotation();
        assert_eq!(findings(&rotation, None), []);
        rotation.recorders.push(Box::new(Tracker));
        assert_eq!(findings(&rotation, Some("OPS-1")), []);
        let lost = findings(&rotation, Some("POS-1"));
        assert!(lost.len() == 1 && lost[0].what.contains("\"POS-1\""), "{lost:?}");
        assert_eq!(lost[0].severity, Severity::Warning);
    }

    #[test]
    fn what_stands_in_the_way_is_named_and_what_does_not_is_not() {
        let rotation = rotation();
        let blocks = Finding::new(Severity::Blocks, "vault", "it is sealed").mend("unseal it");
        let warning = Finding::new(Severity::Warning, "ticket", "nobody takes it").mend("use another");
        let report = Report { findings: vec![blocks, warning], ..Report::default() };
        let error = refusal(&rotation, &report);
        assert_eq!(error.causes(), ["vault: it is sealed"]);
        assert_eq!(error.hints(), ["unseal it"]);
    }
}
