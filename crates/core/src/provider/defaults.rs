//! What a provider is taken for that says no more than it has to.

use futures::FutureExt;

use super::*;
use crate::by_hand::Language;
use crate::error::{Error, Kind};
use crate::journal::Effect;
use crate::memory::{self, Memory};

/// A copy of which its provider says no more than it has to.
struct Plain(CopyId);

#[async_trait]
impl Sink for Plain {
    fn id(&self) -> &CopyId {
        &self.0
    }
    fn location(&self) -> String {
        "a shelf".into()
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
    async fn check(&self) -> Result<Inspection> {
        Err(Error::internal("nobody checks it here"))
    }
    async fn inspect(&self) -> Result<Seen> {
        Err(Error::internal("nobody looks at it here"))
    }
    async fn publish(&self, _: &Update<'_>) -> Result<Outcome> {
        Err(Error::internal("nobody writes it here"))
    }
}

fn plain() -> Plain {
    Plain(CopyId::from("plain:copy"))
}

#[test]
fn a_copy_stands_alone_unless_its_provider_says_otherwise() {
    let (plain, before) = (plain(), VersionId::from("1"));
    assert_eq!((plain.whole(), plain.guards_whole()), (plain.location(), false));
    let retired = plain.retire(&before).now_or_never().unwrap().unwrap();
    assert_eq!(retired.effect, Effect::Skipped, "it has no version before");
    assert_eq!(plain.check_retirement().now_or_never().unwrap().unwrap(), []);
}

#[test]
fn nothing_is_proven_or_made_by_a_provider_that_can_not() {
    let (world, secret) = (memory::world("x"), Secret::new("x"));
    let made = Vault::create(&world, &secret).now_or_never().unwrap();
    assert_eq!(made.unwrap_err().kind(), Kind::Config);
    assert_eq!(Verifier::by_hand(&world), None);
    assert_eq!(world.identity(&secret).now_or_never().unwrap().unwrap(), None);
    assert!(world.after_activation(), "proof from before it proves nothing of the consumers");
    assert_eq!(Verification::check(&world).now_or_never().unwrap().unwrap(), []);
    assert!(!world.takes("OPS-1"), "no ticket is taken for told that is not");
}

/// A page of the runbook without a system would be a system that is forgotten by hand.
#[test]
fn who_has_no_commands_is_named_in_its_part_of_the_runbook_all_the_same() {
    let world: Memory = memory::world("x");
    let template = Template::parse("{password}").unwrap();
    let own = [
        (Vault::by_hand(&world), Part::Before, "memory:vault"),
        (Authority::by_hand(&world), Part::Server, "memory:server"),
        (Sink::by_hand(&plain(), &template), Part::Ci, "plain:copy"),
        (Consumer::by_hand(&world), Part::Applications, "memory:application"),
        (Verification::by_hand(&world), Part::Validation, "health"),
        (Recorder::by_hand(&world), Part::Records, "chat"),
    ];
    for (instructions, part, name) in own {
        let [instruction] = &instructions[..] else { panic!("{instructions:?}") };
        assert_eq!((instruction.part, instruction.title.of(Language::English)), (part, name));
    }
}

#[test]
fn a_ticket_sees_the_secret_ids_of_key_vault_and_no_other_versions() {
    let versions = ["azure_key_vault:a", "github_actions:b", "azure_key_vault:c"];
    let versions = versions.map(|copy| (CopyId::from(copy), VersionId::from("1")));
    let story = Story {
        run: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap(),
        takes_back: None,
        environment: "dev".into(),
        operator: "somebody".into(),
        ticket: None,
        started_at: Timestamp::UNIX_EPOCH,
        proven_at: Timestamp::UNIX_EPOCH,
        target: "admin@db:5432/app".into(),
        versions: BTreeMap::from(versions),
        window_ms: None,
    };
    let ids: Vec<_> = story.secret_ids().map(|(copy, _)| copy.as_str()).collect();
    assert_eq!(ids, ["azure_key_vault:a", "azure_key_vault:c"]);
}
