//! Requests for which there is no specification to hold them against: each kind by name, with where it is
//! documented, and with an expectation of our own. There is no wildcard: a request that fits none fails.

use serde_json::Value;

use super::exchange::{Exchange, Message};
use super::openapi::fits;
use super::schema::judged;

/// A kind of request that no specification here describes.
pub(crate) struct Unspecified {
    /// Its name.
    pub(crate) name: &'static str,
    /// Where it is documented.
    pub(crate) source: &'static str,
    system: &'static str,
    method: &'static str,
    path: &'static str,
    /// The query, all of it.
    query: &'static [Parameter],
    body: Body,
    /// A successful answer.
    answer: (u16, Shown),
}

/// A query parameter and what it may be.
enum Parameter {
    Is(&'static str, &'static str),
    Number(&'static str),
    Some(&'static str),
    /// A token of Azure's own: the whole address has to be one that an answer before has given.
    Handed,
}

/// A body that is sent.
enum Body {
    None,
    Json(&'static str),
    /// The fields that a form must have; it may have no others.
    Form(&'static [&'static str]),
}

/// A body that is answered.
enum Shown {
    Json(&'static str),
    Text,
    /// It does not end.
    Stream,
}

use Parameter::{Handed, Is, Number};

const ARM: &str = "resource_manager";
/// One page of a list of Azure's.
const PAGE: &str = r#"{"type": "object", "required": ["value"], "properties": {"value": {"type": "array"}}}"#;

const LOCKS: &str = "Management Locks REST reference, \"List At Resource Level\", 2016-09-01";

/// A question for the deny assignments at a resource and above it.
const fn deny_assignments(name: &'static str, path: &'static str) -> Unspecified {
    Unspecified {
        name,
        source: "Authorization REST reference, \"Deny Assignments - List For Resource\", 2022-04-01; not part of the \
                 specification's cut",
        system: ARM,
        method: "GET",
        path,
        query: &[Is("api-version", "2022-04-01"), Is("$filter", "atScope()")],
        body: Body::None,
        answer: (200, Shown::Json(PAGE)),
    }
}

/// What Microsoft's SDK calls a `ConnectionStringDictionary`, as far as it is sent.
const STRINGS: &str = r##"{"type": "object", "required": ["properties"], "additionalProperties": false,
    "properties": {"properties": {"type": "object", "additionalProperties": {
        "type": "object", "required": ["value", "type"], "additionalProperties": false, "properties": {
            "value": {"type": "string"},
            "type": {"enum": ["MySql", "SQLServer", "SQLAzure", "Custom", "NotificationHub", "ServiceBus",
                "EventHub", "ApiHub", "DocDb", "RedisCache", "PostgreSQL"]}}}}}}"##;
/// The same, as it is answered.
const STRINGS_RESOURCE: &str = r##"{"type": "object", "required": ["id", "name", "type", "properties"],
    "properties": {"name": {"const": "connectionstrings"}, "properties": {"type": "object", "additionalProperties": {
        "type": "object", "required": ["value", "type"], "additionalProperties": false, "properties": {
            "value": {"type": "string"}, "type": {"type": "string"}}}}}}"##;

/// A request for the connection strings of a site or a slot.
const fn strings(name: &'static str, method: &'static str, path: &'static str, body: Body) -> Unspecified {
    Unspecified {
        name,
        source: "App Service REST reference, \"Web Apps - List Connection Strings\", \"- Update Connection Strings\", and \
                 the same with \"Slot\"; not part of the specification's cut",
        system: ARM,
        method,
        path,
        query: &[Is("api-version", "2025-05-01")],
        body,
        answer: (200, Shown::Json(STRINGS_RESOURCE)),
    }
}

/// All of them.
pub(crate) static UNSPECIFIED: [Unspecified; 23] = [
    Unspecified {
        name: "Azure: a token for a client secret",
        source: "Microsoft identity platform, \"OAuth 2.0 client credentials flow\"",
        system: "sign_in",
        method: "POST",
        path: "/{tenant}/oauth2/v2.0/token",
        query: &[],
        body: Body::Form(&["client_id", "client_secret", "grant_type", "scope"]),
        answer: (
            200,
            Shown::Json(
                r#"{"type": "object", "required": ["token_type", "expires_in", "access_token"], "properties":
                    {"token_type": {"const": "Bearer"}, "expires_in": {"type": "integer"}}}"#,
            ),
        ),
    },
    Unspecified {
        name: "Azure: how far an operation is",
        source: "Azure Resource Manager, \"Track asynchronous Azure operations\"",
        system: ARM,
        method: "GET",
        path: "/subscriptions/{subscription}/providers/Microsoft.DBforPostgreSQL/locations/{region}/azureAsyncOperation/{id}",
        query: &[Handed],
        body: Body::None,
        answer: (
            200,
            Shown::Json(
                r#"{"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}"#,
            ),
        ),
    },
    Unspecified {
        name: "Azure: management locks",
        source: LOCKS,
        system: ARM,
        method: "GET",
        path: "/subscriptions/{subscription}/resourceGroups/{group}/providers/{namespace}/{type}/{name}/providers/Microsoft.Authorization/locks",
        query: &[Is("api-version", "2016-09-01")],
        body: Body::None,
        answer: (200, Shown::Json(PAGE)),
    },
    deny_assignments(
        "Azure: deny assignments",
        "/subscriptions/{subscription}/resourceGroups/{group}/providers/{namespace}/{type}/{name}/providers/Microsoft.Authorization/denyAssignments",
    ),
    deny_assignments(
        "Azure: deny assignments at a slot",
        "/subscriptions/{subscription}/resourceGroups/{group}/providers/{namespace}/{type}/{name}/slots/{slot}/providers/Microsoft.Authorization/denyAssignments",
    ),
    Unspecified {
        name: "Azure: management locks at a slot",
        source: LOCKS,
        system: ARM,
        method: "GET",
        path: "/subscriptions/{subscription}/resourceGroups/{group}/providers/{namespace}/{type}/{name}/slots/{slot}/providers/Microsoft.Authorization/locks",
        query: &[Is("api-version", "2016-09-01")],
        body: Body::None,
        answer: (200, Shown::Json(PAGE)),
    },
    Unspecified {
        name: "Key Vault: the vault as a resource",
        source: "Key Vault REST reference, \"Vaults - Get\", 2023-07-01",
        system: ARM,
        method: "GET",
        path: "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.KeyVault/vaults/{vault}",
        query: &[Is("api-version", "2023-07-01")],
        body: Body::None,
        answer: (
            200,
            Shown::Json(
                r#"{"type": "object", "required": ["id", "properties"], "properties": {"properties": {
                    "type": "object", "required": ["tenantId", "sku"], "properties": {
                        "enableRbacAuthorization": {"type": "boolean"}, "accessPolicies": {"type": "array"}}}}}"#,
            ),
        ),
    },
    Unspecified {
        name: "App Service: fetch the values behind references",
        source: "App Service, \"Use Key Vault references as app settings\": documented there and in no SDK",
        system: ARM,
        method: "POST",
        path: "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Web/sites/{app}/config/configreferences/appsettings/refresh",
        query: &[Is("api-version", "2022-03-01")],
        body: Body::None,
        answer: (200, Shown::Json(PAGE)),
    },
    strings(
        "App Service: list the connection strings",
        "POST",
        "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Web/sites/{app}/config/connectionstrings/list",
        Body::None,
    ),
    strings(
        "App Service: replace the connection strings",
        "PUT",
        "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Web/sites/{app}/config/connectionstrings",
        Body::Json(STRINGS),
    ),
    strings(
        "App Service: list the connection strings of a slot",
        "POST",
        "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Web/sites/{app}/slots/{slot}/config/connectionstrings/list",
        Body::None,
    ),
    strings(
        "App Service: replace the connection strings of a slot",
        "PUT",
        "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Web/sites/{app}/slots/{slot}/config/connectionstrings",
        Body::Json(STRINGS),
    ),
    Unspecified {
        name: "App Service: the log stream",
        source: "App Service, \"Enable diagnostics logging\", and what `az webapp log tail` asks for",
        system: "app_service",
        method: "GET",
        path: "/logstream",
        query: &[],
        body: Body::None,
        answer: (200, Shown::Stream),
    },
    Unspecified {
        name: "GitHub: the repository",
        source: "GitHub REST reference, \"Get a repository\"; not part of the specification's cut",
        system: "github",
        method: "GET",
        path: "/repos/{owner}/{repo}",
        query: &[],
        body: Body::None,
        answer: (200, Shown::Json(r#"{"type": "object", "required": ["id", "full_name", "permissions"]}"#)),
    },
    Unspecified {
        name: "GitHub: runs on their way",
        source: "GitHub REST reference, \"List workflow runs for a repository\"",
        system: "github",
        method: "GET",
        path: "/repos/{owner}/{repo}/actions/runs",
        query: &[Parameter::Some("status"), Number("per_page")],
        body: Body::None,
        answer: (200, Shown::Json(r#"{"type": "object", "required": ["total_count", "workflow_runs"]}"#)),
    },
    Unspecified {
        name: "GitHub: the repository's environments",
        source: "GitHub REST reference, \"List environments\"",
        system: "github",
        method: "GET",
        path: "/repos/{owner}/{repo}/environments",
        query: &[Number("per_page")],
        body: Body::None,
        answer: (200, Shown::Json(r#"{"type": "object", "required": ["total_count", "environments"]}"#)),
    },
    Unspecified {
        name: "GitHub: the ticket",
        source: "GitHub REST reference, \"Get an issue\"",
        system: "github",
        method: "GET",
        path: "/repos/{owner}/{repo}/issues/{number}",
        query: &[],
        body: Body::None,
        answer: (
            200,
            Shown::Json(r#"{"type": "object", "required": ["number", "title", "state", "locked"]}"#),
        ),
    },
    Unspecified {
        name: "GitHub: the ticket's comments",
        source: "GitHub REST reference, \"List issue comments\"",
        system: "github",
        method: "GET",
        path: "/repos/{owner}/{repo}/issues/{number}/comments",
        query: &[Parameter::Some("since"), Number("per_page"), Number("page")],
        body: Body::None,
        answer: (200, Shown::Json(r#"{"type": "array"}"#)),
    },
    Unspecified {
        name: "Jira: the ticket",
        source: "Jira REST API v2, \"Get issue\"",
        system: "jira",
        method: "GET",
        path: "/rest/api/2/issue/{key}",
        query: &[Is("fields", "summary")],
        body: Body::None,
        answer: (200, Shown::Json(r#"{"type": "object", "required": ["id", "key"]}"#)),
    },
    Unspecified {
        name: "Jira: may it be commented on",
        source: "Jira REST API v2, \"Get my permissions\"",
        system: "jira",
        method: "GET",
        path: "/rest/api/2/mypermissions",
        query: &[Parameter::Some("issueKey"), Is("permissions", "ADD_COMMENTS")],
        body: Body::None,
        answer: (200, Shown::Json(r#"{"type": "object", "required": ["permissions"]}"#)),
    },
    Unspecified {
        name: "Jira: the ticket's comments",
        source: "Jira REST API v2, \"Get comments\"",
        system: "jira",
        method: "GET",
        path: "/rest/api/2/issue/{key}/comment",
        query: &[Is("orderBy", "-created"), Number("startAt"), Number("maxResults")],
        body: Body::None,
        answer: (200, Shown::Json(r#"{"type": "object", "required": ["startAt", "total", "comments"]}"#)),
    },
    Unspecified {
        name: "Jira: a comment",
        source: "Jira REST API v2, \"Add comment\"",
        system: "jira",
        method: "POST",
        path: "/rest/api/2/issue/{key}/comment",
        query: &[],
        body: Body::Json(
            r#"{"type": "object", "required": ["body"], "properties": {"body": {"type": "string"}},
                "additionalProperties": false}"#,
        ),
        answer: (201, Shown::Json(r#"{"type": "object", "required": ["id", "body"]}"#)),
    },
    Unspecified {
        name: "Slack: a message",
        source: "Slack, \"Sending messages using incoming webhooks\"",
        system: "webhook",
        method: "POST",
        path: "/services/{workspace}/{hook}/{secret}",
        query: &[],
        body: Body::Json(
            r#"{"type": "object", "required": ["text"], "properties": {"text": {"type": "string"},
                "blocks": {"type": "array"}}, "additionalProperties": false}"#,
        ),
        answer: (200, Shown::Text),
    },
];

impl Unspecified {
    /// The kind of a request, by method and path.
    pub(crate) fn of(exchange: &Exchange) -> Option<&'static Self> {
        let segments = exchange.segments();
        let folds_case = exchange.system == ARM;
        UNSPECIFIED.iter().find(|kind| {
            kind.system == exchange.system
                && kind.method == exchange.method
                && fits(kind.path, &segments, folds_case).is_some()
        })
    }

    /// What a request has against the expectation.
    pub(crate) fn judge(&self, exchange: &Exchange, earlier: &[Exchange]) -> Vec<String> {
        let mut complaints = self.query(exchange, earlier);
        complaints.extend(self.body(&exchange.message));
        complaints
    }

    fn query(&self, exchange: &Exchange, earlier: &[Exchange]) -> Vec<String> {
        if let [Handed] = self.query {
            let address = format!("{}?{}", exchange.path, exchange.raw_query);
            let handed = earlier.iter().filter_map(|one| one.answer.as_ref()).any(|answer| {
                ["azure-asyncoperation", "location"]
                    .iter()
                    .any(|name| answer.message.header(name).is_some_and(|url| url.ends_with(&address)))
            });
            return Vec::from_iter((!handed).then(|| "nobody has handed out this address".to_owned()));
        }
        let sent = exchange.query();
        let mut complaints = Vec::new();
        for parameter in self.query {
            let name = parameter.name();
            match sent.iter().find(|(own, _)| own == name) {
                Some((_, value)) if parameter.takes(value) => {}
                Some(_) => complaints.push(format!("the query parameter {name} is not as it should be")),
                None => complaints.push(format!("the query parameter {name} is missing")),
            }
        }
        let known = |name: &str| self.query.iter().any(|parameter| parameter.name() == name);
        let unknown = sent.iter().filter(|(name, _)| !known(name));
        complaints.extend(unknown.map(|(name, _)| format!("the query parameter {name} is unknown")));
        complaints
    }

    fn body(&self, message: &Message) -> Vec<String> {
        match self.body {
            Body::None if message.text().is_empty() => Vec::new(),
            Body::None => vec!["there is a body where none is expected".to_owned()],
            Body::Json(schema) => json(schema, message),
            Body::Form(fields) => {
                let mut sent: Vec<String> = message.form().into_iter().map(|(name, _)| name).collect();
                sent.sort_unstable();
                let form = message.media_type() == "application/x-www-form-urlencoded" && sent == fields;
                Vec::from_iter((!form).then(|| format!("it is no form of {fields:?}")))
            }
        }
    }

    /// What the answer has against the expectation.
    pub(crate) fn judge_answer(&self, exchange: &Exchange) -> Vec<String> {
        let Some(answer) = &exchange.answer else { return vec!["there is no answer".to_owned()] };
        let (status, shown) = &self.answer;
        if answer.status != *status {
            return vec![format!("it was answered with {} and not {status}", answer.status)];
        }
        match shown {
            Shown::Json(schema) => json(schema, &answer.message),
            Shown::Text => {
                Vec::from_iter(answer.message.body.is_none().then(|| "there is no body".to_owned()))
            }
            Shown::Stream => {
                Vec::from_iter(answer.message.body.is_some().then(|| "the answer is no stream".to_owned()))
            }
        }
    }
}

fn json(schema: &str, message: &Message) -> Vec<String> {
    if message.media_type() != "application/json" {
        return vec![format!("the media type is {:?}", message.media_type())];
    }
    let schema: Value = serde_json::from_str(schema).unwrap();
    match message.json() {
        Ok(value) => judged(&schema, &value),
        Err(complaint) => vec![complaint],
    }
}

impl Parameter {
    fn name(&self) -> &'static str {
        match self {
            Is(name, _) | Number(name) | Self::Some(name) => name,
            Handed => "",
        }
    }

    fn takes(&self, value: &str) -> bool {
        match self {
            Is(_, wanted) => value == *wanted,
            Number(_) => value.parse::<u32>().is_ok(),
            Self::Some(_) => !value.is_empty(),
            Handed => false,
        }
    }
}
