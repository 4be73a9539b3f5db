//! Against a server in this process that follows GitHub's published API description.

use std::sync::{Arc, Mutex};

use crypto_box::SecretKey;
use pgrotate_core::Retry;
use pgrotate_core::provider::{Finding, Severity};

use super::*;
use crate::fake::{Call, Fake, Job, Reply, shared};
use crate::shared::{GithubSettings, Vendors};

const NOW: &str = "Thu, 01 Jan 2026 00:00:10 GMT";
const OLD: &str = "2025-01-01T00:00:00Z";
const NEW: &str = "2026-01-01T00:00:09Z";

/// What the server is like; tests change what they are about.
#[derive(Clone)]
struct World {
    /// Key pairs by scope: nobody's key is another's.
    repository: SecretKey,
    key_id: &'static str,
    environment: SecretKey,
    organization: SecretKey,
    /// When the secret was last written; `None` if there is none.
    updated_at: Option<&'static str>,
    /// How many looks at the metadata still show the old time after a write.
    lag: usize,
    scopes: Option<&'static str>,
    push: Option<bool>,
    archived: bool,
    disabled: bool,
    /// What GitHub says of the token's end.
    ends: Option<&'static str>,
    runs: Option<u64>,
    environments: Vec<&'static str>,
    shadowed: bool,
    visibility: &'static str,
    selected: Vec<u64>,
    /// Whether somebody takes a repository away when the secret is written.
    meddled: bool,
    /// Whether the repository's key is renewed before the next write.
    renewed: bool,
    /// What was sent last.
    sent: Value,
}

impl Default for World {
    fn default() -> Self {
        let key = || SecretKey::generate(&mut OsRng);
        Self {
            repository: key(),
            key_id: "r1",
            environment: key(),
            organization: key(),
            updated_at: Some(OLD),
            lag: 0,
            scopes: Some("repo, admin:org"),
            push: Some(true),
            archived: false,
            disabled: false,
            ends: None,
            runs: Some(0),
            environments: Vec::new(),
            shadowed: false,
            visibility: "selected",
            selected: vec![3, 1, 2],
            meddled: false,
            renewed: false,
            sent: Value::Null,
        }
    }
}

struct Stage {
    fake: Fake,
    world: Arc<Mutex<World>>,
}

impl Stage {
    async fn of(world: World) -> Self {
        let world = Arc::new(Mutex::new(world));
        let held = Arc::clone(&world);
        let fake = Fake::start(move |call| answer(call, &mut held.lock().unwrap())).await;
        Self { fake, world }
    }

    fn sink(&self, options: Value) -> GithubActions {
        let github = GithubSettings { api: self.fake.url.clone(), ..GithubSettings::default() };
        let vendors = Vendors { github, ..Vendors::default() };
        let options = serde_json::from_value(options).unwrap();
        GithubActions::new(None, options, shared(vendors, "GH_TOKEN=ghp_x")).unwrap()
    }

    async fn findings(&self, options: Value) -> Vec<Finding> {
        self.sink(options).check().await.unwrap().findings
    }
}

fn of_repository() -> Value {
    json!({"repository": "mindwell/backend", "secret": "DEV_DATABASE_URL"})
}

fn of_environment() -> Value {
    json!({"repository": "mindwell/backend", "environment": "team/dev", "secret": "DATABASE_URL"})
}

fn of_organization() -> Value {
    json!({"organization": "mindwell", "secret": "DEV_PASSWORD"})
}

fn answer(call: &Call, world: &mut World) -> Reply {
    let reply = reply(call, world).header("date", NOW);
    let reply = match world.ends {
        Some(ends) => reply.header("github-authentication-token-expiration", ends),
        None => reply,
    };
    match world.scopes {
        Some(scopes) => reply.header("x-oauth-scopes", scopes),
        None => reply.header("x-accepted-github-permissions", "secrets=read"),
    }
}

fn reply(call: &Call, world: &mut World) -> Reply {
    let (path, query) = call.path.split_once('?').unwrap_or((&call.path, ""));
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let public = |key: &SecretKey, id: &str| {
        Reply::json(200, &json!({"key_id": id, "key": STANDARD.encode(key.public_key().as_bytes())}))
    };
    match (call.method.as_str(), &segments[..]) {
        ("GET", ["repos", "mindwell", "backend", "actions", "secrets", "public-key"]) => {
            public(&world.repository, world.key_id)
        }
        ("GET", ["repos", "mindwell", "backend", "environments", "team%2Fdev", "secrets", "public-key"]) => {
            public(&world.environment, "e1")
        }
        ("GET", ["orgs", "mindwell", "actions", "secrets", "public-key"]) => {
            public(&world.organization, "o1")
        }
        ("GET", [.., "public-key"]) => Reply::empty(404),
        ("GET", ["repos", "mindwell", "backend"]) => {
            let role = world.push.map_or(json!({}), |push| json!({"push": push, "admin": false}));
            let (archived, disabled) = (world.archived, world.disabled);
            let named = json!({"id": 710, "full_name": "mindwell/backend"});
            let mut body = json!({"archived": archived, "disabled": disabled, "permissions": role});
            body.as_object_mut().unwrap().extend(named.as_object().unwrap().clone());
            Reply::json(200, &body)
        }
        ("GET", ["repos", "mindwell", "backend", "actions", "runs"]) => match world.runs {
            Some(count) => {
                let status = query.split(['=', '&']).nth(1).unwrap();
                let runs: Vec<Value> = (1..=if status == "queued" { count } else { 1.min(count) })
                    .map(|number| json!({"name": "deploy", "run_number": number, "status": status}))
                    .collect();
                Reply::json(200, &json!({"total_count": runs.len(), "workflow_runs": runs}))
            }
            None => Reply::empty(403),
        },
        ("GET", ["repos", "mindwell", "backend", "environments"]) => {
            let names: Vec<Value> = world.environments.iter().map(|name| json!({"name": name})).collect();
            Reply::json(200, &json!({"total_count": names.len(), "environments": names}))
        }
        ("GET", ["repos", _, "hidden", "actions", "secrets"]) => Reply::empty(404),
        ("GET", ["repos", _, _, "environments", _, "secrets"] | ["repos", _, _, "actions", "secrets"]) => {
            let names = if world.shadowed {
                vec!["OTHER", "DEV_DATABASE_URL", "Dev_Password"]
            } else {
                vec!["OTHER"]
            };
            let secrets: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
            Reply::json(200, &json!({"total_count": names.len(), "secrets": secrets}))
        }
        ("GET", ["orgs", .., "repositories"]) => page(world, query),
        ("PUT", [.., "secrets", _]) => put(call, world),
        ("GET", [.., "secrets", name]) => metadata(name, world),
        _ => Reply::empty(404),
    }
}

/// Two repositories on a page, to have several pages.
fn page(world: &World, query: &str) -> Reply {
    let number: usize = query.split("&page=").nth(1).unwrap().parse().unwrap();
    let ids = world.selected.iter().skip((number - 1) * 2).take(2);
    let name = |id: &u64| if *id == 99 { "hidden".to_owned() } else { format!("r{id}") };
    let repository = |id| json!({"id": id, "full_name": format!("mindwell/{}", name(id))});
    let repositories: Vec<Value> = ids.map(repository).collect();
    Reply::json(200, &json!({"total_count": world.selected.len(), "repositories": repositories}))
}

fn metadata(name: &str, world: &mut World) -> Reply {
    let Some(updated_at) = world.updated_at else { return Reply::empty(404) };
    let shown = if world.lag > 0 { OLD } else { updated_at };
    world.lag = world.lag.saturating_sub(1);
    Reply::json(
        200,
        &json!({"name": name, "created_at": OLD, "updated_at": shown, "visibility": world.visibility}),
    )
}

fn put(call: &Call, world: &mut World) -> Reply {
    if std::mem::take(&mut world.renewed) {
        world.repository = SecretKey::generate(&mut OsRng);
        world.key_id = "r2";
    }
    if call.path.starts_with("/repos/mindwell/backend/actions") && call.json()["key_id"] != world.key_id {
        return Reply::json(422, &json!({"message": "key_id does not match the public key"}));
    }
    let created = world.updated_at.is_none();
    world.sent = call.json();
    world.updated_at = Some(NEW);
    if world.meddled {
        world.selected.pop();
    }
    Reply::empty(if created { 201 } else { 204 })
}

fn unsealed(key: &SecretKey, sent: &Value) -> String {
    let sealed = STANDARD.decode(sent["encrypted_value"].as_str().unwrap()).unwrap();
    String::from_utf8(key.unseal(&sealed).unwrap()).unwrap()
}

#[tokio::test]
async fn a_value_is_sealed_for_its_own_scope() {
    let cases = [(of_repository(), "r1"), (of_environment(), "e1"), (of_organization(), "o1")];
    for (options, key_id) in cases {
        let stage = Stage::of(World::default()).await;
        let sink = stage.sink(options);
        let job = Job::new(sink.id(), "{password}", "new-canary");
        let outcome = sink.publish(&job.update()).await.unwrap();
        assert_eq!(outcome, Outcome::changed().note(outcome.notes[0].clone()));
        let world = stage.world.lock().unwrap().clone();
        let key = match key_id {
            "r1" => &world.repository,
            "e1" => &world.environment,
            _ => &world.organization,
        };
        assert_eq!(world.sent["key_id"], key_id);
        assert_eq!(unsealed(key, &world.sent), "new-canary");
    }
}

#[tokio::test]
async fn publishing_costs_a_key_a_write_and_a_look() {
    let stage = Stage::of(World { lag: 2, ..World::default() }).await;
    let sink = stage.sink(of_repository());
    let job = Job::new(sink.id(), "{database_url}", "n");
    sink.publish(&job.update()).await.unwrap();
    let secret = "/repos/mindwell/backend/actions/secrets/DEV_DATABASE_URL";
    let look = format!("GET {secret}");
    assert_eq!(
        stage.fake.take_lines(),
        [
            "GET /repos/mindwell/backend/actions/secrets/public-key",
            &format!("PUT {secret}"),
            &look,
            &look,
            &look
        ],
        "and two more looks while GitHub still shows the old time"
    );
    let world = stage.world.lock().unwrap().clone();
    assert_eq!(
        unsealed(&world.repository, &world.sent),
        "postgresql://mindwelladmin:n@db.example.com:5432/mindwell_app"
    );
}

#[tokio::test]
async fn a_write_that_never_shows_is_not_called_done() {
    let stage = Stage::of(World { lag: 99, ..World::default() }).await;
    let sink = stage.sink(of_repository());
    let error = sink.publish(&Job::new(sink.id(), "{password}", "n").update()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Conflict, Retry::Later { after_ms: None }));
}

#[tokio::test]
async fn an_organisations_secret_keeps_its_audience() {
    let stage = Stage::of(World::default()).await;
    let sink = stage.sink(of_organization());
    sink.publish(&Job::new(sink.id(), "{password}", "n").update()).await.unwrap();
    let sent = stage.world.lock().unwrap().sent.clone();
    assert_eq!(
        (&sent["visibility"], &sent["selected_repository_ids"]),
        (&json!("selected"), &json!([1, 2, 3]))
    );

    let stage = Stage::of(World { visibility: "private", ..World::default() }).await;
    let sink = stage.sink(of_organization());
    sink.publish(&Job::new(sink.id(), "{password}", "n").update()).await.unwrap();
    let sent = stage.world.lock().unwrap().sent.clone();
    assert_eq!((&sent["visibility"], sent.get("selected_repository_ids")), (&json!("private"), None));

    let stage = Stage::of(World { meddled: true, ..World::default() }).await;
    let sink = stage.sink(of_organization());
    let error = sink.publish(&Job::new(sink.id(), "{password}", "n").update()).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Conflict, Retry::Never));
}

#[tokio::test]
async fn a_key_that_was_renewed_meanwhile_is_fetched_again() {
    let stage = Stage::of(World { renewed: true, ..World::default() }).await;
    let sink = stage.sink(of_repository());
    sink.publish(&Job::new(sink.id(), "{password}", "n").update()).await.unwrap();
    let world = stage.world.lock().unwrap().clone();
    assert_eq!(unsealed(&world.repository, &world.sent), "n");
    assert_eq!(stage.fake.take_lines().len(), 5);
}

#[tokio::test]
async fn a_value_too_long_is_not_sent() {
    let stage = Stage::of(World::default()).await;
    let sink = stage.sink(of_repository());
    let job = Job::new(sink.id(), "{password}", &"x".repeat(VALUE_BYTES_MAX + 1));
    assert_eq!(sink.publish(&job.update()).await.unwrap_err().kind(), Kind::Rejected);
    assert!(stage.fake.calls().is_empty());
}

#[tokio::test]
async fn check_finds_nothing_where_all_is_well_and_writes_nothing() {
    let stage = Stage::of(World { environments: vec!["prod"], ..World::default() }).await;
    let inspection = stage.sink(of_repository()).check().await.unwrap();
    assert_eq!(inspection.findings, []);
    assert!(matches!(inspection.seen.content, Content::Unseen));
    assert_eq!(inspection.seen.updated_at, Some(OLD.parse().unwrap()));
    let lines = stage.fake.take_lines();
    assert!(lines.iter().all(|line| line.starts_with("GET ")));
    assert_eq!(lines.len(), 9, "{lines:?}");
    let identity = inspection.identity.unwrap();
    assert!(identity.ends_with(" repository 710 (mindwell/backend)"), "{identity}");
    assert_eq!(stage.findings(of_environment()).await, []);
    assert_eq!(stage.fake.take_lines().len(), 4);
    let organization = stage.findings(of_organization()).await;
    assert_eq!(
        (organization.len(), organization[0].severity),
        (1, Severity::Unseen),
        "its runs can't be seen"
    );
    assert_eq!(stage.fake.take_lines().len(), 5, "the secret, the key, and who may read it");
}

/// The one finding that a world leads to.
async fn found(world: World, options: Value) -> (Severity, String) {
    let findings = Stage::of(world).await.findings(options).await;
    assert_eq!(findings.len(), 1, "{findings:?}");
    (findings[0].severity, findings[0].what.clone())
}

#[tokio::test]
async fn what_stands_in_the_way_blocks() {
    let lacking = World { scopes: Some("public_repo"), ..World::default() };
    assert_eq!(
        found(lacking, of_repository()).await,
        (Severity::Blocks, "the classic token lacks the scope repo".into())
    );
    let reader = World { push: Some(false), ..World::default() };
    assert_eq!(found(reader, of_repository()).await.0, Severity::Blocks);
    let disabled = World { disabled: true, ..World::default() };
    assert_eq!(found(disabled, of_repository()).await.0, Severity::Blocks);
    let archived = World { archived: true, ..World::default() };
    assert_eq!(found(archived, of_environment()).await.0, Severity::Blocks);
    let absent = Stage::of(World { updated_at: None, ..World::default() }).await;
    let findings = absent.findings(of_organization()).await;
    assert!(
        findings
            .iter()
            .any(|finding| finding.severity == Severity::Blocks && finding.what.contains("no secret"))
    );
}

#[tokio::test]
async fn what_a_person_should_know_warns() {
    let absent = World { updated_at: None, ..World::default() };
    assert_eq!(found(absent, of_repository()).await.0, Severity::Warning);
    let busy = World { runs: Some(4), ..World::default() };
    assert_eq!(
        found(busy.clone(), of_repository()).await,
        (
            Severity::Warning,
            "7 workflow run(s) are on their way with the old password: deploy #1 (queued), deploy #2 (queued), \
             deploy #3 (queued), deploy #4 (queued), deploy #1 (in_progress), …"
                .into()
        )
    );
    assert!(
        found(busy, of_environment()).await.1.starts_with("1 workflow run(s)"),
        "queued runs will read the new one"
    );
    let shadowed = World { environments: vec!["prod", "team/dev"], shadowed: true, ..World::default() };
    let findings = Stage::of(shadowed).await.findings(of_repository()).await;
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(
        findings.iter().all(|found| found.severity == Severity::Warning && found.what.contains("which wins"))
    );
}

#[tokio::test]
async fn a_secret_that_wins_blocks_where_it_is_surely_this_one() {
    // The one that matters is looked at first, however many there are.
    let names = vec!["1", "2", "3", "4", "5", "6", "Dev"];
    let shadowed = World { environments: names, shadowed: true, ..World::default() };
    let stage = Stage::of(shadowed).await;
    let findings = stage.findings(of_repository()).await;
    let blocks: Vec<&Finding> =
        findings.iter().filter(|finding| finding.severity == Severity::Blocks).collect();
    assert!(blocks.len() == 1 && blocks[0].what.contains("the environment Dev"), "{findings:?}");
    assert_eq!(findings.last().unwrap().severity, Severity::Unseen, "the others are too many");
    let secrets = stage.fake.take_lines().iter().filter(|line| line.contains("/environments/")).count();
    assert_eq!(secrets, 5);
}

#[tokio::test]
async fn a_secret_that_wins_and_is_configured_too_is_all_right() {
    let stage = Stage::of(World { environments: vec!["dev"], shadowed: true, ..World::default() }).await;
    let github = GithubSettings { api: stage.fake.url.clone(), ..GithubSettings::default() };
    let shared = shared(Vendors { github, ..Vendors::default() }, "GH_TOKEN=ghp_x");
    let sink = |options: Value| {
        GithubActions::new(None, serde_json::from_value(options).unwrap(), Arc::clone(&shared)).unwrap()
    };
    let own = sink(of_repository());
    let _winner =
        sink(json!({"repository": "MindWell/backend", "environment": "dev", "secret": "dev_database_url"}));
    assert_eq!(own.check().await.unwrap().findings, []);
}

#[tokio::test]
async fn an_organisations_secret_says_who_reads_it() {
    let audience = async |visibility, selected: Vec<u64>, shadowed| {
        let world = World { visibility, selected, shadowed, ..World::default() };
        let findings = Stage::of(world).await.findings(of_organization()).await;
        // The first is about its runs, as always.
        findings[1..].iter().map(|finding| (finding.severity, finding.what.clone())).collect::<Vec<_>>()
    };
    assert_eq!(audience("selected", vec![1, 2], false).await, []);
    let won = audience("selected", vec![1, 2], true).await;
    assert!(won.len() == 2 && won[0].1.contains("mindwell/r1") && won[1].0 == Severity::Warning, "{won:?}");
    assert_eq!(audience("selected", vec![1, 99], false).await[0].0, Severity::Unseen);
    assert_eq!(audience("selected", vec![], false).await[0].1, "no repository may read it");
    let all = audience("all", vec![], false).await;
    assert_eq!(all.iter().map(|found| found.0).collect::<Vec<_>>(), [Severity::Warning, Severity::Unseen]);
    assert_eq!(audience("private", vec![], false).await.len(), 1);
}

#[tokio::test]
async fn a_token_that_ends_soon_is_not_begun_with() {
    for (ends, severity) in [
        ("2026-01-01 00:10:00 UTC", Some(Severity::Blocks)),
        ("2026-01-02 00:00:00 +0100", Some(Severity::Warning)),
        ("2026-02-01 00:00:00 UTC", None),
        ("some day", None),
    ] {
        let stage = Stage::of(World { ends: Some(ends), ..World::default() }).await;
        let findings = stage.findings(of_repository()).await;
        assert_eq!(findings.first().map(|finding| finding.severity), severity, "{ends}");
    }
}

#[tokio::test]
async fn a_token_is_called_what_it_is() {
    for (token, named) in [
        ("github_pat_1", "fine-grained token"),
        ("ghu_1", "App's user token"),
        ("ghs_1", "installation's token"),
        ("0123abcd", "this token"),
    ] {
        let stage = Stage::of(World { scopes: None, ..World::default() }).await;
        let github = GithubSettings { api: stage.fake.url.clone(), ..GithubSettings::default() };
        let shared = shared(Vendors { github, ..Vendors::default() }, &format!("GH_TOKEN={token}"));
        let options = serde_json::from_value(of_repository()).unwrap();
        let findings = GithubActions::new(None, options, shared).unwrap().check().await.unwrap().findings;
        assert!(findings[0].severity == Severity::Unseen && findings[0].what.contains(named), "{findings:?}");
    }
}

#[tokio::test]
async fn what_can_not_be_seen_is_said() {
    let fine_grained = World { scopes: None, ..World::default() };
    let (severity, what) = found(fine_grained, of_environment()).await;
    assert!(severity == Severity::Unseen && what.contains("whether this"), "{what}");
    let blind = World { runs: None, ..World::default() };
    assert_eq!(found(blind, of_repository()).await.0, Severity::Unseen);
    let many = World { environments: vec!["1", "2", "3", "4", "5", "6"], ..World::default() };
    assert_eq!(found(many, of_repository()).await.0, Severity::Unseen, "too many to look into");
}

#[tokio::test]
async fn a_missing_environment_is_named() {
    let stage = Stage::of(World::default()).await;
    let options = json!({"repository": "mindwell/backend", "environment": "gone", "secret": "X"});
    let error = stage.sink(options).check().await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.hints().iter().any(|hint| hint.contains("\"gone\"")), "{error:?}");
}

#[tokio::test]
async fn options_name_one_secret() {
    let stage = Stage::of(World::default()).await;
    let sink = stage.sink(of_environment());
    assert_eq!(sink.id().as_str(), "github_actions:DATABASE_URL");
    assert!(sink.location().ends_with("/repos/mindwell/backend/environments/team/dev/secrets/DATABASE_URL"));
    let small = json!({"repository": "MindWell/Backend", "secret": "dev_database_url"});
    assert_eq!(stage.sink(small).location(), stage.sink(of_repository()).location());
    for wrong in [
        json!({"secret": "X"}),
        json!({"repository": "a/b", "organization": "c", "secret": "X"}),
        json!({"organization": "c", "environment": "e", "secret": "X"}),
        json!({"repository": "just-a-name", "secret": "X"}),
        json!({"repository": "a/..", "secret": "X"}),
        json!({"repository": "a/b", "secret": "1X"}),
        json!({"repository": "a/b", "secret": "GITHUB_X"}),
        json!({"repository": "a/b", "secret": "X-Y"}),
    ] {
        let options: Options = serde_json::from_value(wrong.clone()).unwrap();
        assert!(GithubActions::new(None, options, shared(Vendors::default(), "")).is_err(), "{wrong}");
    }
}
