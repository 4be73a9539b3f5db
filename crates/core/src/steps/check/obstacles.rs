//! What stands in the way of a run, and what is only said.

use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use jiff::Timestamp;
use wildmatch::WildMatch;

use super::super::testing::{begun, own_run, rotation};
use super::*;
use crate::census::Sample;
use crate::census::{OWN_NAME, Reconnect, Session, Sessions};
use crate::ids::RunId;
use crate::memory::{self, Fault, Memory};
use crate::plan::Back;
use crate::provider::{
    Census, Entry, Evidence, Login, Present, Survey, Trial, Vantage, Vault, VaultState, Verification,
    Verifier,
};
use crate::value::Template;

/// The calls of a check of this world, in their order.
const LOGIN: usize = 1;
const AUTHORITY: usize = 2;

fn found(rotation: &Rotation, run: Option<&RunState>) -> Vec<Finding> {
    let asked = Asked { ticket: None, overrides: &Overrides::default() };
    look(rotation, asked, run).now_or_never().unwrap().findings
}

/// What is found in a world in which everybody has the password `now`, changed like this.
fn found_after(change: impl FnOnce(&Memory)) -> Vec<Finding> {
    let world = memory::world("now");
    change(&world);
    found(&rotation(&world), None)
}

fn blocking(findings: &[Finding]) -> Vec<&str> {
    let blocking = findings.iter().filter(|finding| finding.severity == Severity::Blocks);
    blocking.map(|finding| finding.subject.as_str()).collect()
}

fn another_run() -> RunId {
    "01BX5ZZKBKACTAV9WEVGEMMVRZ".parse().unwrap()
}

fn pending(password: &str, run: Option<RunId>) -> Entry {
    Entry { secret: Secret::new(password), run }
}

/// It may be the password that works.
#[test]
fn a_pending_password_blocks_everybody_but_the_run_whose_it_is() {
    let world = memory::world("now");
    let rotation = rotation(&world);
    let state = begun(rotation.plan());
    let find = |owner, run| {
        world.state().vault.pending = vec![pending("next", owner)];
        found(&rotation, run)
    };
    assert_eq!(find(Some(own_run()), Some(&state)), []);
    for run in [None, Some(&state)] {
        let findings = find(Some(another_run()), run);
        assert_eq!(blocking(&findings), ["memory:vault"]);
        let mend = findings[0].mend.as_ref().unwrap();
        assert!(mend.contains(&format!("pgrotate resume {}", another_run())), "{mend}");
        let findings = find(None, run);
        assert_eq!(blocking(&findings), ["memory:vault"]);
        assert!(findings[0].what.contains("nobody knows which run"), "{findings:?}");
    }
}

#[test]
fn the_way_back_is_there_or_it_is_not_until_it_is_staged() {
    let world = memory::world("now");
    let mut rotation = rotation(&world);
    let to = rotation.key.fingerprint(&Secret::new("before"));
    rotation.back = Some(Back { run: another_run(), to });
    assert_eq!(blocking(&found(&rotation, None)), ["memory:vault"], "the vault does not have it");
    world.state().vault.previous = Some(pending("before", None));
    let state = begun(rotation.plan());
    for run in [None, Some(&state)] {
        let findings = found(&rotation, run);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].severity, Severity::Warning);
        assert!(findings[0].what.contains("whoever has learnt it can log in"), "{findings:?}");
    }
    world.state().vault.pending = vec![pending("before", Some(own_run()))];
    assert_eq!(found(&rotation, Some(&state)), []);
}

/// A vault of record that can't be read, and says why or does not.
struct Sealed(CopyId, Option<Severity>);

#[async_trait]
impl Vault for Sealed {
    fn id(&self) -> &CopyId {
        &self.0
    }
    fn location(&self) -> String {
        "sealed".into()
    }
    async fn check(&self) -> Result<Survey> {
        let own = self.1.map(|severity| Finding::new(severity, self.0.as_str(), "it is sealed"));
        Ok(Survey { findings: Vec::from_iter(own), ..Survey::default() })
    }
    async fn read(&self) -> Result<VaultState> {
        Err(Error::new(Kind::Forbidden, "read it"))
    }
    async fn stage(&self, _: RunId, _: &Secret) -> Result<()> {
        Err(Error::internal("a check stages nothing"))
    }
    async fn promote(&self, _: RunId, _: &Secret, _: Option<&str>) -> Result<Option<VersionId>> {
        Err(Error::internal("a check promotes nothing"))
    }
    async fn lay_aside(&self, _: RunId, _: &Secret) -> Result<()> {
        Err(Error::internal("a check keeps nothing"))
    }
    async fn discard(&self, _: RunId) -> Result<()> {
        Err(Error::internal("a check discards nothing"))
    }
}

#[test]
fn a_vault_that_can_not_be_read_blocks_with_one_reason() {
    let find = |own| {
        let mut rotation = rotation(&memory::world("now"));
        rotation.vault = Box::new(Sealed(CopyId::from("sealed:vault"), own));
        let findings = found(&rotation, None);
        assert_eq!(blocking(&findings), ["sealed:vault"], "{findings:?}");
        findings.into_iter().map(|finding| finding.what).collect::<Vec<_>>()
    };
    assert_eq!(find(Some(Severity::Blocks)), ["it is sealed"]);
    assert_eq!(find(Some(Severity::Warning)), ["cannot read it", "it is sealed"]);
    assert_eq!(find(None), ["cannot read it"]);
}

#[test]
fn the_password_of_now_has_to_work() {
    let findings = found_after(|world| world.state().server = "other".into());
    assert_eq!(blocking(&findings), ["mindwelladmin@db:5432/app"]);
    assert!(findings[0].what.contains("the server refuses the password that memory:vault calls current"));
    let findings = found_after(|world| world.state().vault.current = None);
    assert_eq!(blocking(&findings), ["memory:vault"]);
}

/// A login fails too where the authority can't be reached; the reason is said once.
#[test]
fn a_login_that_fails_is_said_where_the_authority_does_not_explain_it() {
    let refuse = |calls: &[usize]| {
        let findings = found_after(|world| {
            world.state().faults.extend(calls.iter().map(|call| (*call, Fault::Refuse)));
        });
        blocking(&findings).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(refuse(&[LOGIN]), ["login"]);
    assert_eq!(refuse(&[AUTHORITY]), ["memory:server"]);
    assert_eq!(refuse(&[LOGIN, AUTHORITY]), ["memory:server"]);
}

fn with_copy(copy: CopyId, value: String) -> Vec<Finding> {
    found_after(|world| {
        world.state().copies.insert(copy, vec![value]);
    })
}

#[test]
fn a_copy_with_another_password_is_only_said() {
    for (copy, value) in
        [(memory::password_copy(), "other".into()), (memory::url_copy(), memory::url("other"))]
    {
        let findings = with_copy(copy.clone(), value);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!((findings[0].severity, findings[0].subject.as_str()), (Severity::Warning, copy.as_str()));
        assert!(findings[0].what.contains("the rotation will bring it in line"), "{findings:?}");
    }
}

/// Everything around the password would be lost with it.
#[test]
fn a_url_that_can_not_be_read_or_points_elsewhere_blocks_a_rotation_and_is_what_a_repair_is_for() {
    for value in ["see the vault".to_owned(), memory::url("now").replace("@db:", "@prod:")] {
        let world = memory::world("now");
        world.state().copies.insert(memory::url_copy(), vec![value]);
        let mut rotation = rotation(&world);
        let findings = found(&rotation, None);
        assert_eq!(blocking(&findings), ["memory:url"]);
        assert_eq!(findings[0].mend.as_deref(), Some(WRONG_CONTENT));
        rotation.repair = Some(vec![memory::url_copy()]);
        let findings = found(&rotation, None);
        assert_eq!((findings.len(), findings[0].severity), (1, Severity::Warning), "{findings:?}");
        assert_eq!(findings[0].mend.as_deref(), Some("it is written anew, as the configuration says"));
    }
}

#[test]
fn a_repair_excuses_nothing_but_the_contents() {
    let world = memory::world("now");
    world.state().server = "other".into();
    let mut rotation = rotation(&world);
    rotation.repair = Some(vec![memory::url_copy()]);
    assert_eq!(blocking(&found(&rotation, None)), ["mindwelladmin@db:5432/app"]);
}

/// A bare password is replaced whole, whatever stood there.
#[test]
fn a_foreign_text_in_the_place_of_a_bare_password_is_only_said() {
    let mut rotation = rotation(&memory::world("now"));
    rotation.copies[0].template = Template::parse("export PASSWORD={password}").unwrap();
    let findings = found(&rotation, None);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!((findings[0].severity, findings[0].subject.as_str()), (Severity::Warning, "memory:password"));
}

/// Another place, where the server answers like this.
struct Elsewhere(fn() -> Result<Login>);

#[async_trait]
impl Verifier for Elsewhere {
    async fn login(&self, _: &Secret) -> Result<Login> {
        (self.0)()
    }
}

impl Vantage for Elsewhere {
    fn name(&self) -> &'static str {
        "elsewhere"
    }
}

/// The run would be parked after its change.
#[test]
fn a_vantage_that_can_not_tell_now_blocks() {
    let find = |answer| {
        let mut rotation = rotation(&memory::world("now"));
        rotation.around.vantages.push(Box::new(Elsewhere(answer)));
        let findings = found(&rotation, None);
        assert_eq!(blocking(&findings).len(), findings.len());
        findings.into_iter().next().map(|finding| (finding.what, finding.mend.unwrap()))
    };
    assert_eq!(find(|| Ok(Login::Accepted)), None);
    let take_it_out = "look what answers there, or take the vantage out of the configuration";
    let (what, mend) = find(|| Ok(Login::Refused)).unwrap();
    assert!(what.contains("from there the server refuses") && mend == take_it_out, "{what}; {mend}");
    let (what, mend) = find(|| Err(Error::new(Kind::TimedOut, "reach it"))).unwrap();
    assert!(what == "cannot reach it" && mend == take_it_out, "{what}; {mend}");
    let (_, mend) = find(|| Err(Error::new(Kind::TimedOut, "reach it").hint("open the port"))).unwrap();
    assert_eq!(mend, "open the port");
}

/// A server whose clock is 1000 seconds ahead of ours, with somebody logged in since then.
struct Ahead(Vec<Session>);

const THERE: i64 = 1000;

fn session(application_name: &str, since: i64) -> Session {
    let since = Timestamp::from_second(since).unwrap();
    Session { pid: 1, application_name: application_name.into(), address: None, since }
}

#[async_trait]
impl Census for Ahead {
    async fn take(&self, _: &Secret, _: Duration) -> Result<Sample> {
        Ok(Sample { at: Timestamp::from_second(THERE).unwrap(), sessions: self.0.clone() })
    }
    async fn end(&self, _: &Secret, _: &[Session]) -> Result<usize> {
        Err(Error::internal("a check ends nothing"))
    }
}

/// A verification that logs in once to try itself out, under a name that is not ours.
struct Trying;

#[async_trait]
impl Verification for Trying {
    fn id(&self) -> &'static str {
        "tried"
    }
    async fn try_out(&self, _: &Present<'_>) -> Result<Trial> {
        Ok(Trial { findings: Vec::new(), logins: 1 })
    }
    async fn verify(&self, _: &Evidence<'_>) -> Result<Outcome> {
        Err(Error::internal("a check verifies nothing"))
    }
}

#[test]
fn strangers_block_and_the_logins_of_the_check_itself_are_none_by_whatever_clock() {
    let find = |others: &[Session], change: &dyn Fn(&mut Rotation)| {
        let mut rotation = rotation(&memory::world("now"));
        rotation.consumers[0].sessions = Some(Sessions {
            application_name: WildMatch::new("api"),
            addresses: Vec::new(),
            optional: true,
            reconnect: Reconnect::Wait,
        });
        let sessions = others.iter().cloned().chain([session(OWN_NAME, THERE)]).collect();
        rotation.around.census = Some(Box::new(Ahead(sessions)));
        change(&mut rotation);
        blocking(&found(&rotation, None)).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let as_it_is: &dyn Fn(&mut Rotation) = &|_| {};
    let trying: &dyn Fn(&mut Rotation) = &|rotation| rotation.verifications.push(Box::new(Trying));
    let repairing: &dyn Fn(&mut Rotation) = &|rotation| rotation.repair = Some(vec![memory::url_copy()]);
    let (psql, trial) = (session("psql", THERE - 500), session("", THERE));
    assert_eq!(find(&[session("api", THERE)], as_it_is), Vec::<String>::new());
    assert_eq!(find(std::slice::from_ref(&psql), as_it_is), ["psql@socket"]);
    assert_eq!(find(std::slice::from_ref(&trial), as_it_is), ["@socket"], "nothing was tried out");
    assert_eq!(find(std::slice::from_ref(&trial), trying), Vec::<String>::new());
    assert_eq!(find(std::slice::from_ref(&psql), trying), ["psql@socket"], "it was there before the trial");
    assert_eq!(find(&[psql], repairing), Vec::<String>::new(), "a repair locks nobody out");
}

/// What may pass by itself is waited for; what does not is said at once.
#[test]
fn a_check_is_tried_again_only_if_nothing_else_is_in_the_way() {
    let refuse = |faults: &[(usize, Fault)]| {
        let world = memory::world("now");
        world.state().faults.extend(faults.iter().copied());
        let rotation = rotation(&world);
        possible(&rotation, &begun(rotation.plan())).now_or_never().unwrap().map(|_| ()).unwrap_err()
    };
    let passing = refuse(&[(AUTHORITY, Fault::Before)]);
    assert_eq!((passing.kind(), passing.retry()), (Kind::Throttled, Retry::Later { after_ms: None }));
    let last = AUTHORITY + 1;
    let both = refuse(&[(AUTHORITY, Fault::Before), (last, Fault::Before)]);
    assert_eq!(both.kind(), Kind::Throttled);
    assert!(both.causes()[0].starts_with("and cannot "), "{both:?}");
    let for_good = refuse(&[(AUTHORITY, Fault::Before), (last, Fault::Refuse)]);
    assert_eq!((for_good.kind(), for_good.retry()), (Kind::Blocked, Retry::Never));
    assert_eq!(for_good.causes().len(), 2, "{for_good:?}");
}

/// As after two roles that took turns, where one alone is configured again.
#[test]
fn a_refused_password_that_is_another_roles_is_named_so() {
    let mend = |user: Option<&str>| {
        let found = found_after(|world| {
            world.state().server = "another".into();
            world.state().vault.user = user.map(str::to_owned);
        });
        let refused = found.into_iter().find(|own| own.what.contains("refuses the password")).unwrap();
        refused.mend.unwrap()
    };
    assert!(mend(Some(memory::SECOND)).starts_with("the vault of record says that it is mindwelladmin_b's"));
    for own in [None, Some("mindwelladmin")] {
        assert!(mend(own).starts_with("find out which password works"));
    }
}
