//! Looks at everything the run will need, before anything changes.

use std::collections::BTreeMap;

use futures::future::join_all;

use crate::database_url::DatabaseUrl;
use crate::error::{Error, Kind, Result, Retry};
use crate::ids::{CopyId, VersionId};
use crate::journal::Outcome;
use crate::provider::{Content, Entry, Finding, Inspection, Login, Severity, VaultState};
use crate::rotation::{Copy, Rotation};
use crate::run::RunState;
use crate::secret::Secret;
use crate::value::Reading;

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Report {
    /// The findings, worst first.
    pub findings: Vec<Finding>,
    /// The versions that are current now, by copy.
    pub before: BTreeMap<CopyId, VersionId>,
    /// The password that is current now.
    pub current: Option<Secret>,
}

impl Report {
    /// Whether a run may start.
    pub fn blocks(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Blocks)
    }
}

/// Looks, and refuses to go on if anything stands in the way.
pub(crate) async fn perform(rotation: &Rotation, run: &RunState) -> Result<Outcome> {
    let report = look(rotation, run.start.ticket.as_deref()).await?;
    if report.blocks() {
        return Err(refusal(rotation, &report));
    }
    let mut outcome = Outcome::confirmed();
    outcome.previous = report.current.as_ref().map(|current| rotation.key.fingerprint(current));
    outcome.before = report.before;
    outcome.findings = report.findings;
    Ok(outcome)
}

fn refusal(rotation: &Rotation, report: &Report) -> Error {
    let blocking = report.findings.iter().filter(|finding| finding.severity == Severity::Blocks);
    blocking.fold(
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

/// Looks at everything at once. Changes nothing.
///
/// # Errors
/// Only what may pass by itself and is worth another try; the rest is among the findings.
pub async fn look(rotation: &Rotation, ticket: Option<&str>) -> Result<Report> {
    let mut report = Report::default();
    let (vault, copies, others) = futures::join!(
        look_at_vault_and_server(rotation),
        join_all(rotation.copies.iter().map(|copy| look_at_copy(rotation, copy))),
        look_at_others(rotation, ticket),
    );
    let (current, findings) = vault?;
    report.findings.extend(findings);
    for (copy, found) in std::iter::zip(&rotation.copies, copies) {
        let (version, password, findings) = found?;
        report.findings.extend(findings);
        if let Some(version) = version {
            report.before.insert(copy.sink.id().clone(), version);
        }
        if let (Some(password), Some(current)) = (password, &current)
            && password != *current
        {
            let what =
                "it holds another password than the vault of record; the rotation will bring it in line";
            report.findings.push(Finding::new(Severity::Warning, copy.sink.id().as_str(), what));
        }
    }
    report.findings.extend(others?);
    report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    report.current = current;
    Ok(report)
}

async fn look_at_vault_and_server(rotation: &Rotation) -> Result<(Option<Secret>, Vec<Finding>)> {
    let vault = &rotation.vault;
    let (checked, state) = futures::join!(vault.check(), vault.read());
    let mut findings = settle(checked, vault.id().as_str())?;
    let state = match state {
        Ok(state) => state,
        Err(error) => {
            // The check has said it already, or the read says it now; either way once.
            let read = settle(Err(error), vault.id().as_str())?;
            if findings.iter().all(|finding| finding.severity != Severity::Blocks) {
                findings.extend(read);
            }
            return Ok((None, findings));
        }
    };
    findings.extend(foreign_pending(rotation, &state));
    let Some(Entry { secret: current, .. }) = state.current else {
        let what = "the vault of record holds no current password";
        let mend = "store the password that works now in it, then try again";
        findings.push(Finding::new(Severity::Blocks, vault.id().as_str(), what).mend(mend));
        return Ok((None, findings));
    };
    let (login, authority) =
        futures::join!(rotation.verifier.login(&current), rotation.authority.check(&current));
    findings.extend(settle(login.map(|login| judge(rotation, login)), "login")?);
    findings.extend(settle(authority, &rotation.authority.describe())?);
    Ok((Some(current), findings))
}

/// A pending password of another run must not be overwritten: it may be the one that works.
fn foreign_pending(rotation: &Rotation, state: &VaultState) -> Option<Finding> {
    let pending = state.pending.as_ref()?;
    let (owner, mend) = match pending.run {
        Some(run) => (
            format!("the run {run}"),
            format!("finish it first: pgrotate resume {run}, or pgrotate abort {run}"),
        ),
        None => (
            "nobody knows which run".to_owned(),
            "look at it in the vault and remove it there if it is not in use".to_owned(),
        ),
    };
    let what = format!("it holds a pending password that belongs to {owner}");
    Some(Finding::new(Severity::Blocks, rotation.vault.id().as_str(), what).mend(mend))
}

fn judge(rotation: &Rotation, login: Login) -> Vec<Finding> {
    match login {
        Login::Accepted => Vec::new(),
        Login::Refused => {
            let what = format!("the server refuses the password that {} calls current", rotation.vault.id());
            vec![
                Finding::new(Severity::Blocks, rotation.target.to_string(), what)
                    .mend("find out which password works and store that one in the vault of record"),
            ]
        }
    }
}

type CopyLook = (Option<VersionId>, Option<Secret>, Vec<Finding>);

async fn look_at_copy(rotation: &Rotation, copy: &Copy) -> Result<CopyLook> {
    let id = copy.sink.id().as_str();
    let Inspection { seen, mut findings } = match copy.sink.check().await {
        Ok(inspection) => inspection,
        Err(error) => return Ok((None, None, settle(Err(error), id)?)),
    };
    let password = match &seen.content {
        Content::Value(value) => {
            let (password, found) = read_value(rotation, copy, value);
            findings.extend(found);
            password
        }
        Content::Unseen | Content::Reference(_) | Content::Absent => None,
    };
    Ok((seen.version, password, findings))
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
            .mend("put it right by hand, or correct `value` in the configuration");
            (None, vec![finding])
        }
        (Reading::Foreign(why), _) => (None, vec![Finding::new(Severity::Warning, id, why)]),
    }
}

fn look_at_url(rotation: &Rotation, id: &str, url: &DatabaseUrl) -> Vec<Finding> {
    let mend = "correct the copy or [database] in the configuration: one of them points at the wrong place";
    let wrong = url
        .disagreements(&rotation.target)
        .into_iter()
        .map(|found| Finding::new(Severity::Blocks, id, format!("in the URL it holds, {found}")).mend(mend));
    let driver = url.driver_warning().map(|warning| Finding::new(Severity::Warning, id, warning));
    wrong.chain(driver).collect()
}

async fn look_at_others(rotation: &Rotation, ticket: Option<&str>) -> Result<Vec<Finding>> {
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
    let mut findings = Vec::new();
    for (id, result) in consumers.into_iter().chain(verifications).chain(recorders) {
        findings.extend(settle(result, id)?);
    }
    Ok(findings)
}

/// A failure to look is a finding that blocks, unless it may pass by itself.
fn settle(result: Result<Vec<Finding>>, subject: &str) -> Result<Vec<Finding>> {
    match result {
        Ok(findings) => Ok(findings),
        Err(error) if error.retry() != Retry::Never => Err(error),
        Err(error) => {
            let finding = Finding::new(Severity::Blocks, subject, error.to_string());
            let hint = error.hints().join("; ");
            Ok(vec![if hint.is_empty() { finding } else { finding.mend(hint) }])
        }
    }
}
