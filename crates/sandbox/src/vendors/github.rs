//! GitHub: Actions secrets of repositories, environments and organisations, issue comments, and what its own tool asks
//! for beside them. Served at `/` as api.github.com and under `/api/v3` as an enterprise server.
//!
//! Every store of secrets has a real key pair; what is put is opened with it, so a value sealed for another store is
//! refused. A token that begins with `ghp_` is a classic one and is answered with its scopes, any other one is
//! fine-grained and told which permission the endpoint wants; beside it an App's installation has tokens. Simplified: no rate limit is ever reached, GraphQL knows
//! one question, and of the many fields of users and repositories only the usual ones are filled.

mod app;
mod issues;
mod resources;
mod secrets;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use self::app::App;
pub(crate) use self::app::ID as APP_ID;
use self::issues::Comment;
use self::resources::{repository_resource, site, user};
use self::secrets::{Scope, Store};
use super::call::{Call, lock, now_text, random_hex, reply, with_header};
use super::{Copy, Environment, World};

/// The owner of everything here.
const OWNER: &str = "mindwell";
/// The repository of the runbook's secrets and the one of its tickets.
const REPOSITORIES: [(&str, u64); 2] = [("backend", 710_000_001), ("ops", 710_000_002)];
/// The name of the token's user.
const USER: &str = "rotation-bot";

/// GitHub.
pub(crate) struct GitHub {
    base: String,
    token: String,
    state: Mutex<Hub>,
}

struct Hub {
    stores: BTreeMap<Scope, Store>,
    /// Comments by repository and issue; an issue is there if it has an entry.
    issues: BTreeMap<(String, u64), Vec<Comment>>,
    issues_disabled: bool,
    archived: bool,
    /// Whether the token's account may only read.
    reader: bool,
    /// When the token ends, in the form of GitHub's header.
    token_ends: Option<String>,
    /// How far GitHub's clock is ahead of this machine's.
    clock_ahead: SignedDuration,
    comments_made: u64,
    runs: Vec<Value>,
    /// Classic scopes of the token.
    scopes: Vec<String>,
    /// Permissions that a fine-grained token lacks, and rights that a classic one's user lacks.
    denied: BTreeSet<String>,
    app: App,
    requests: u64,
}

/// Whose token a request carries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// A classic token, with scopes.
    Classic,
    /// A fine-grained one, with permissions that nobody is told.
    FineGrained,
    /// The App's installation.
    Installation,
}

/// What an endpoint wants of a token: classic scope, fine-grained permission.
#[derive(Clone, Copy)]
struct Wants(&'static str, &'static str);

const ANY: Wants = Wants("", "");
const METADATA: Wants = Wants("repo", "metadata=read");
const SECRETS_READ: Wants = Wants("repo", "secrets=read");
const SECRETS_WRITE: Wants = Wants("repo", "secrets=write");
const ENVIRONMENT_READ: Wants = Wants("repo", "environments=read");
const ENVIRONMENT_WRITE: Wants = Wants("repo", "environments=write");
const ORGANIZATION_READ: Wants = Wants("admin:org", "organization_secrets=read");
const ORGANIZATION_WRITE: Wants = Wants("admin:org", "organization_secrets=write");
const ACTIONS_READ: Wants = Wants("repo", "actions=read");
const ISSUES_READ: Wants = Wants("repo", "issues=read");
const ISSUES_WRITE: Wants = Wants("repo", "issues=write; pull_requests=write");

/// An error in GitHub's form.
struct Failure {
    status: u16,
    message: String,
    errors: Option<Value>,
}

impl Failure {
    fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), errors: None }
    }

    fn not_found() -> Self {
        Self::new(404, "Not Found")
    }

    fn into_response(self) -> Response {
        let mut body = json!({
            "message": self.message,
            "documentation_url": "https://docs.github.com/rest",
            "status": self.status.to_string(),
        });
        if let Some(errors) = self.errors {
            body["errors"] = errors;
        }
        reply(self.status, body)
    }
}

type Outcome = Result<Response, Failure>;

impl GitHub {
    /// The runbook's secrets in `mindwell/backend`, tickets 1 to 12 in `mindwell/ops`.
    pub(crate) fn new(world: &World) -> Self {
        let issues = (1..=12).map(|number| ((format!("{OWNER}/ops"), number), Vec::new()));
        let classic = world.credentials.github_token.starts_with("ghp_");
        let hub = Hub {
            stores: secrets::seed(&world.environments),
            issues: issues.chain([((format!("{OWNER}/backend"), 1), Vec::new())]).collect(),
            issues_disabled: false,
            archived: false,
            reader: false,
            token_ends: None,
            clock_ahead: SignedDuration::ZERO,
            comments_made: 0,
            runs: Vec::new(),
            scopes: if classic { vec!["admin:org".into(), "repo".into()] } else { Vec::new() },
            denied: BTreeSet::new(),
            app: App::new(&world.credentials.github_app_key),
            requests: 0,
        };
        Self {
            base: world.endpoints.github.clone(),
            token: world.credentials.github_token.clone(),
            state: Mutex::new(hub),
        }
    }

    /// The HTTP interface.
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new().fallback(serve).with_state(self)
    }

    /// What the control interface shows of the repository's secrets: what GitHub itself never would.
    pub(crate) fn copies(&self, environment: &Environment) -> Vec<(String, Copy)> {
        let prefix = format!("{}_", environment.name.to_ascii_uppercase());
        let hub = lock(&self.state);
        let store = &hub.stores[&Scope::Repository(format!("{OWNER}/backend"))];
        let own = store.secrets.iter().filter(|(name, _)| name.starts_with(&prefix));
        let mut copies: Vec<(String, Copy)> =
            own.map(|(name, secret)| (format!("github_actions:{name}"), secret.copy())).collect();
        // The store of the environment of this name, if a configuration uses it: told apart by its path.
        if let Some(store) =
            hub.stores.get(&Scope::Environment(format!("{OWNER}/backend"), environment.name.clone()))
        {
            let own = store.secrets.iter();
            copies.extend(own.map(|(name, secret)| {
                (format!("github_actions:{}/{name}", environment.name), secret.copy())
            }));
        }
        // What its repositories share, if it is called as the environment's are.
        let shared = hub.stores[&Scope::Organization(OWNER.to_owned())].secrets.iter();
        let shared = shared.filter(|(name, _)| name.starts_with(&prefix));
        copies.extend(shared.map(|(name, secret)| (format!("github_actions:{OWNER}/{name}"), secret.copy())));
        copies
    }

    /// The comments that name an environment, oldest first.
    pub(crate) fn comments(&self, environment: &Environment) -> Vec<Value> {
        let hub = lock(&self.state);
        let mut found: Vec<&Comment> =
            hub.issues.values().flatten().filter(|comment| environment.is_named_in(&comment.body)).collect();
        found.sort_by_key(|comment| comment.id);
        found.into_iter().map(Comment::for_control).collect()
    }

    /// Puts GitHub into a state that a test wants to see handled.
    pub(crate) fn set(&self, environment: &Environment, what: &str, value: &Value) -> Result<(), String> {
        let strings = || -> Option<Vec<String>> {
            value.as_array()?.iter().map(|entry| entry.as_str().map(str::to_owned)).collect()
        };
        let mut hub = lock(&self.state);
        match what {
            "deny" => {
                let denied = strings().ok_or("deny takes a list of permissions such as secrets=write")?;
                hub.denied = denied.into_iter().collect();
            }
            "scopes" => hub.scopes = strings().ok_or("scopes takes a list")?,
            "issues_disabled" => hub.issues_disabled = value.as_bool().ok_or("takes true or false")?,
            "run" => {
                let status = value.as_str().ok_or("run takes a status such as queued")?;
                let id = 9_000_000 + hub.runs.len() as u64;
                let run = issues::run(&self.base, id, status, &environment.name);
                hub.runs.push(run);
            }
            "runs_done" => hub.runs.clear(),
            "archived" => hub.archived = value.as_bool().ok_or("takes true or false")?,
            "role" => hub.reader = value == "read",
            "token_ends" => hub.token_ends = value.as_str().map(str::to_owned),
            "environment_secret" => secrets::of_environment(&mut hub, value)?,
            "clock_ahead_s" => {
                let seconds = value.as_i64().ok_or("clock_ahead_s takes seconds")?;
                hub.clock_ahead = SignedDuration::from_secs(seconds);
            }
            "new_key" => {
                let scope = Scope::Repository(format!("{OWNER}/backend"));
                if let Some(store) = hub.stores.get_mut(&scope) {
                    store.renew_key();
                }
            }
            "organization_secret" => secrets::share(&mut hub, value)?,
            "removed" => {
                let name = value.as_str().ok_or("removed takes a secret's name")?;
                for store in hub.stores.values_mut() {
                    store.secrets.remove(name);
                }
            }
            other if hub.app.set(other, value)? => {}
            other => return Err(format!("github can't set {other:?}")),
        }
        Ok(())
    }
}

async fn serve(State(service): State<Arc<GitHub>>, request: Request) -> Response {
    let call = match Call::read(request).await {
        Ok(call) => call,
        Err(response) => return response,
    };
    if call.header("user-agent").is_none_or(str::is_empty) {
        let text = "Request forbidden by administrative rules. Please make sure your request has a User-Agent header \
                    (https://docs.github.com/en/rest/overview/resources-in-the-rest-api#user-agent-required). Check \
                    https://developer.github.com for other possible causes.\n";
        return (StatusCode::FORBIDDEN, [(header::CONTENT_TYPE, "text/html")], text).into_response();
    }
    let mut hub = lock(&service.state);
    hub.requests += 1;
    let (base, path) = below(&service.base, &call);
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    if let Some(outcome) = hub.app.serve(&call, &path, &base) {
        let answer = outcome.unwrap_or_else(Failure::into_response);
        return with_headers(&hub, ANY, None, answer);
    }
    let (caller, wants, outcome) = match admit(&service, &hub, &call) {
        Ok(caller) => {
            let (wants, outcome) = dispatch(&base, &mut hub, &call, caller, &path);
            (Some(caller), wants, outcome)
        }
        Err(failure) => (None, ANY, Err(failure)),
    };
    let answer = outcome.unwrap_or_else(Failure::into_response);
    with_headers(&hub, wants, caller, answer)
}

/// The base URL and the path of a call below it: an enterprise server's is another one.
fn below(base: &str, call: &Call) -> (String, Vec<String>) {
    let own = |rest: &[&str]| rest.iter().map(ToString::to_string).collect();
    match call.segments().as_slice() {
        ["api", "v3", rest @ ..] => (format!("{base}/api/v3"), own(rest)),
        rest => (base.to_owned(), own(rest)),
    }
}

/// Token and version, before anything else is looked at.
fn admit(service: &GitHub, hub: &Hub, call: &Call) -> Result<Caller, Failure> {
    let caller = match call.bearer() {
        Some(token) if token == service.token && token.starts_with("ghp_") => Caller::Classic,
        Some(token) if token == service.token => Caller::FineGrained,
        Some(token) if hub.app.holds(token) => Caller::Installation,
        Some(_) => return Err(Failure::new(401, "Bad credentials")),
        None => return Err(Failure::new(401, "Requires authentication")),
    };
    match call.header("x-github-api-version") {
        None | Some("2022-11-28" | "2026-03-10") => Ok(caller),
        Some(other) => {
            let text = format!("Invalid API version: '{other}' is not a supported version.");
            Err(Failure::new(400, text))
        }
    }
}

fn with_headers(
    hub: &Hub,
    Wants(scope, permission): Wants,
    caller: Option<Caller>,
    answer: Response,
) -> Response {
    let random = random_hex(12).to_ascii_uppercase();
    let id = format!("{}:{}:{}:{}", &random[..4], &random[4..8], &random[8..16], &random[16..]);
    let reset = (Timestamp::now().as_second() / 3600 + 1) * 3600;
    let mut answer = with_header(answer, "x-github-request-id", &id);
    for (name, value) in [
        ("x-github-media-type", "github.v3; format=json".to_owned()),
        ("x-github-api-version-selected", "2022-11-28".to_owned()),
        ("x-ratelimit-limit", "5000".to_owned()),
        ("x-ratelimit-remaining", 5000_u64.saturating_sub(hub.requests).to_string()),
        ("x-ratelimit-used", hub.requests.to_string()),
        ("x-ratelimit-reset", reset.to_string()),
        ("x-ratelimit-resource", "core".to_owned()),
    ] {
        answer = with_header(answer, name, &value);
    }
    if !hub.clock_ahead.is_zero() {
        let now = Timestamp::now() + hub.clock_ahead;
        answer = with_header(answer, "date", &now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
    }
    if let (Some(ends), Some(Caller::Classic | Caller::FineGrained)) = (&hub.token_ends, caller) {
        answer = with_header(answer, "github-authentication-token-expiration", ends);
    }
    match caller {
        None => answer,
        Some(Caller::Classic) => {
            answer = with_header(answer, "x-oauth-scopes", &hub.scopes.join(", "));
            with_header(answer, "x-accepted-oauth-scopes", scope)
        }
        Some(_) if permission.is_empty() => answer,
        Some(_) => with_header(answer, "x-accepted-github-permissions", permission),
    }
}

/// Runs an endpoint if the token may use it; the endpoint's wish is shown in the answer's headers either way.
fn guarded(
    caller: Caller,
    hub: &mut Hub,
    wants: Wants,
    act: impl FnOnce(&mut Hub) -> Outcome,
) -> (Wants, Outcome) {
    let Wants(scope, permission) = wants;
    let denied = permission.split("; ").all(|one| hub.denied.contains(one));
    let outcome = if caller == Caller::Installation {
        if hub.app.may(permission, &hub.denied) {
            act(hub)
        } else {
            Err(Failure::new(403, "Resource not accessible by integration"))
        }
    } else if caller == Caller::FineGrained {
        if denied {
            Err(Failure::new(403, "Resource not accessible by personal access token"))
        } else {
            act(hub)
        }
    } else if !scope.is_empty() && !hub.scopes.iter().any(|held| held == scope) {
        // A classic token without the scope isn't told that a private repository exists.
        match scope {
            "repo" => Err(Failure::not_found()),
            _ => Err(Failure::new(
                403,
                "You must be an org admin or have the org secrets fine-grained permission.",
            )),
        }
    } else if denied && !permission.is_empty() {
        Err(Failure::new(403, "Must have admin rights to Repository."))
    } else {
        act(hub)
    };
    (wants, outcome)
}

fn dispatch(base: &str, hub: &mut Hub, call: &Call, caller: Caller, path: &[&str]) -> (Wants, Outcome) {
    let enterprise = base.ends_with("/api/v3");
    let (archived, reader) = (hub.archived, hub.reader);
    let mut run = |wants: Wants, act: &mut dyn FnMut(&mut Hub) -> Outcome| guarded(caller, hub, wants, act);
    let read = call.method.as_str() == "GET";
    match (call.method.as_str(), path) {
        ("GET", [] | [""]) => (ANY, Ok(reply(200, root(base)))),
        ("GET", ["meta"]) if enterprise => (ANY, Ok(reply(200, json!({"installed_version": "3.19.0"})))),
        ("GET", ["user"]) => (ANY, Ok(reply(200, user(base)))),
        ("GET", ["rate_limit"]) => (ANY, Ok(reply(200, rate_limit(hub)))),
        ("POST", ["graphql"] | ["api", "graphql"]) => (ANY, graphql(call)),
        (_, ["repos", owner, name, rest @ ..]) => {
            let Some((repository, id)) = repository(owner, name) else {
                return (METADATA, Err(Failure::not_found()));
            };
            match rest {
                _ if archived && !read => {
                    (METADATA, Err(Failure::new(403, "Repository was archived so is read-only.")))
                }
                // Even to look at secrets takes a collaborator who may write.
                ["actions", "secrets", ..] | ["environments", _, "secrets", ..] if reader => {
                    (SECRETS_READ, Err(Failure::new(403, "Must have admin rights to Repository.")))
                }
                [] if read => run(METADATA, &mut |hub| {
                    Ok(reply(200, repository_resource(base, hub, caller, &repository, id)))
                }),
                ["actions", "runs"] if read => run(ACTIONS_READ, &mut |hub| Ok(issues::runs(hub, call))),
                ["actions", "organization-secrets"] if read => {
                    run(SECRETS_READ, &mut |hub| secrets::inherited(hub, call))
                }
                ["actions", "secrets", rest @ ..] => {
                    let wants = if read { SECRETS_READ } else { SECRETS_WRITE };
                    let scope = Scope::Repository(repository);
                    run(wants, &mut |hub| secrets::serve(hub, call, &scope, rest, base))
                }
                ["environments"] if read => {
                    run(ACTIONS_READ, &mut |hub| Ok(secrets::environments(hub, call, &repository, base)))
                }
                ["environments", name] if read => {
                    run(ACTIONS_READ, &mut |hub| secrets::environment(hub, &repository, name, base))
                }
                ["environments", name, "secrets", rest @ ..] => {
                    let wants = if read { ENVIRONMENT_READ } else { ENVIRONMENT_WRITE };
                    let scope = Scope::Environment(repository, (*name).to_owned());
                    run(wants, &mut |hub| secrets::serve(hub, call, &scope, rest, base))
                }
                ["issues", number, rest @ ..] => {
                    let wants = if read { ISSUES_READ } else { ISSUES_WRITE };
                    run(wants, &mut |hub| issues::serve(hub, call, base, &repository, number, rest))
                }
                _ => (METADATA, Err(Failure::not_found())),
            }
        }
        (_, ["orgs", owner, "actions", "secrets", rest @ ..]) if owner.eq_ignore_ascii_case(OWNER) => {
            let wants = if read { ORGANIZATION_READ } else { ORGANIZATION_WRITE };
            let scope = Scope::Organization(OWNER.to_owned());
            run(wants, &mut |hub| secrets::serve(hub, call, &scope, rest, base))
        }
        _ => (ANY, Err(Failure::not_found())),
    }
}

/// The full name and id of a repository; names ignore case.
fn repository(owner: &str, name: &str) -> Option<(String, u64)> {
    let (found, id) = REPOSITORIES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    owner.eq_ignore_ascii_case(OWNER).then(|| (format!("{OWNER}/{found}"), *id))
}

fn root(base: &str) -> Value {
    json!({
        "current_user_url": format!("{base}/user"),
        "rate_limit_url": format!("{base}/rate_limit"),
        "repository_url": format!("{base}/repos/{{owner}}/{{repo}}"),
    })
}

fn rate_limit(hub: &Hub) -> Value {
    let reset = (Timestamp::now().as_second() / 3600 + 1) * 3600;
    let core = json!({
        "limit": 5000,
        "used": hub.requests,
        "remaining": 5000_u64.saturating_sub(hub.requests),
        "reset": reset,
    });
    let search = json!({"limit": 30, "used": 0, "remaining": 30, "reset": reset});
    json!({"resources": {"core": core, "search": search}, "rate": core})
}

/// The one question that GitHub's own tool asks to see whose token it has.
fn graphql(call: &Call) -> Outcome {
    let request = call.json().map_err(|_| Failure::new(400, "Problems parsing JSON"))?;
    let known = request["query"].as_str().is_some_and(|query| query.contains("viewer"));
    let answer = if known {
        json!({"data": {"viewer": {"login": USER}}})
    } else {
        json!({"data": null, "errors": [{"message": "The sandbox's GraphQL knows only the viewer."}]})
    };
    Ok(reply(200, answer))
}
