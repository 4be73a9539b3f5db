//! The PostgreSQL server resource: read, the one change that a rotation makes, and the operation that carries it out.

use std::sync::Arc;

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::Environment;
use super::super::azure_arm::{ArmCall, ArmFailure, REGION, resource_id};
use super::super::call::{Call, empty, lock, random_bytes, random_guid, reply, with_header};
use super::{ResourceManager, catalogue};

const KIND: &str = "Microsoft.DBforPostgreSQL/flexibleServers";

/// What a caller can't change, whatever the body of a PATCH says.
const READ_ONLY: [&str; 5] =
    ["administratorLogin", "fullyQualifiedDomainName", "state", "minorVersion", "privateEndpointConnections"];

/// A server resource.
pub(super) struct Server {
    pub(super) environment: Environment,
    resource: Value,
    /// What the next operation ends with instead of success.
    failing: Option<Value>,
}

/// A long-running operation.
pub(super) struct Operation {
    id: String,
    environment: String,
    status: &'static str,
    error: Option<Value>,
    started: String,
    /// The signed part of its URLs, which a poll has to bring back as it was.
    signature: Vec<(String, String)>,
}

impl Server {
    pub(super) fn new(environment: &Environment) -> Self {
        let name = environment.server();
        let resource = json!({
            "id": resource_id(environment, &format!("{KIND}/{name}")),
            "name": name,
            "type": KIND,
            "location": REGION.0,
            "tags": {"environment": environment.name, "team": "platform"},
            "sku": {"name": "Standard_D2ds_v5", "tier": "GeneralPurpose"},
            "systemData": {"createdAt": "2025-03-04T09:12:33.1234567Z"},
            "properties": {
                "administratorLogin": environment.postgres_user,
                "availabilityZone": "2",
                "authConfig": {"activeDirectoryAuth": "Disabled", "passwordAuth": "Enabled"},
                "backup": {
                    "backupRetentionDays": 14,
                    "earliestRestoreDate": "2026-11-09T03:00:00+00:00",
                    "geoRedundantBackup": "Disabled",
                },
                "dataEncryption": {"type": "SystemManaged"},
                "fullyQualifiedDomainName": environment.postgres_host,
                "highAvailability": {"mode": "Disabled", "state": "NotEnabled"},
                "maintenanceWindow":
                    {"customWindow": "Enabled", "dayOfWeek": 3, "startHour": 2, "startMinute": 30},
                "minorVersion": "18",
                "network": {"publicNetworkAccess": "Enabled"},
                "privateEndpointConnections": [],
                "replica": {"capacity": 5, "role": "Primary"},
                "replicaCapacity": 5,
                "replicationRole": "Primary",
                "state": "Ready",
                "storage": {
                    "autoGrow": "Enabled",
                    "iops": 500,
                    "storageSizeGB": 128,
                    "throughput": 0,
                    "tier": "P10",
                    "type": "",
                },
                "version": "15",
            },
        });
        Self { environment: environment.clone(), resource, failing: None }
    }

    /// Puts the server into a state that a test wants to see handled.
    pub(super) fn set(&mut self, what: &str, value: &Value) -> Result<(), String> {
        let properties = &mut self.resource["properties"];
        match what {
            "state" => properties["state"] = json!(value.as_str().ok_or("state takes a name")?),
            "replica" => {
                let role = if value.as_bool().ok_or("replica takes true or false")? {
                    "AsyncReplica"
                } else {
                    "Primary"
                };
                properties["replicationRole"] = json!(role);
                properties["replica"]["role"] = json!(role);
            }
            "password_auth" => {
                let on = value.as_bool().ok_or("password_auth takes true or false")?;
                properties["authConfig"]["passwordAuth"] = json!(if on { "Enabled" } else { "Disabled" });
            }
            "property" => {
                let pointer = value["pointer"].as_str().ok_or("property takes {pointer, value}")?;
                let target = self.resource.pointer_mut(pointer).ok_or("no such property")?;
                *target = value["value"].clone();
            }
            "fail_next" => self.failing = Some(value.clone()),
            other => return Err(format!("resource_manager can't set {other:?}")),
        }
        Ok(())
    }

    fn property(&self, name: &str) -> &str {
        self.resource["properties"][name].as_str().unwrap_or_default()
    }

    fn accepts_passwords(&self) -> bool {
        self.resource["properties"]["authConfig"]["passwordAuth"] == "Enabled"
    }

    /// Refuses what can't be changed now; the busy answer has, as Azure's, an empty code.
    fn refuse(&self, request: &Value) -> Result<(), ArmFailure> {
        let name = self.environment.server();
        match self.property("state") {
            "Ready" => {}
            "Updating" | "Starting" | "Stopping" | "Restarting" | "Provisioning" => {
                let text = format!("Server {name} is busy with other operations. Please try later");
                return Err(ArmFailure::new(409, "", text));
            }
            state => {
                let text = format!("Server {name} is not ready. Its current state is '{state}'.");
                return Err(ArmFailure::new(409, "ServerIsNotReady", text));
            }
        }
        let Some(password) = request["properties"]["administratorLoginPassword"].as_str() else {
            return Ok(());
        };
        if !matches!(self.property("replicationRole"), "Primary" | "None") {
            let text = format!("The administrator's password can't be changed on the read replica {name}.");
            return Err(ArmFailure::new(400, "OperationNotAllowedOnReadReplica", text));
        }
        if follows_rules(password, &self.environment.postgres_user) {
            return Ok(());
        }
        // The value stays out of the text, as everywhere.
        let text = "The administrator password must be 8 to 128 characters, of three of the categories upper case, \
                    lower case, digits and others, and must not contain the login or a part of it.";
        Err(ArmFailure::new(400, "InvalidParameterValue", text.to_owned()))
    }

    /// Takes over what the request names and nothing else.
    fn merge(&mut self, request: &Value) {
        for part in ["sku", "tags", "identity"] {
            if let Some(given) = request.get(part) {
                merge(&mut self.resource[part], given);
            }
        }
        let mut properties = request["properties"].clone();
        if let Some(properties) = properties.as_object_mut() {
            properties.remove("administratorLoginPassword");
            READ_ONLY.iter().for_each(|name| drop(properties.remove(*name)));
        }
        merge(&mut self.resource["properties"], &properties);
    }
}

/// Azure's rules for an administrator's password.
fn follows_rules(password: &str, login: &str) -> bool {
    let classes = [
        password.chars().any(|character| character.is_uppercase()),
        password.chars().any(|character| character.is_lowercase()),
        password.chars().any(|character| character.is_ascii_digit()),
        password.chars().any(|character| !character.is_alphanumeric()),
    ];
    let lower = password.to_lowercase();
    let login: Vec<char> = login.to_lowercase().chars().collect();
    let part_of_login = login.windows(3).any(|run| lower.contains(&run.iter().collect::<String>()));
    (8..=128).contains(&password.chars().count())
        && classes.into_iter().filter(|present| *present).count() >= 3
        && !part_of_login
}

/// Objects are merged name by name, everything else is replaced; null means "not given".
fn merge(target: &mut Value, given: &Value) {
    match given {
        Value::Null => {}
        Value::Object(fields) => {
            if !target.is_object() {
                *target = json!({});
            }
            for (name, value) in fields {
                merge(&mut target[name.as_str()], value);
            }
        }
        other => *target = other.clone(),
    }
}

impl Operation {
    /// Its URLs are about 3.3 KB long, because they carry a certificate and a signature.
    fn new(environment: &str) -> Self {
        let part = |bytes| URL_SAFE_NO_PAD.encode(random_bytes(bytes));
        let signature = [
            ("t", Timestamp::now().as_millisecond().to_string()),
            ("c", part(2000)),
            ("s", part(256)),
            ("h", part(32)),
        ];
        Self {
            id: random_guid(),
            environment: environment.to_owned(),
            status: "InProgress",
            error: None,
            started: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
            signature: signature.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }

    fn url(&self, base: &str, subscription: &str, kind: &str, version: &str) -> String {
        let signature: String =
            self.signature.iter().map(|(name, value)| format!("&{name}={value}")).collect();
        format!(
            "{base}/subscriptions/{subscription}/providers/Microsoft.DBforPostgreSQL/locations/{}/{kind}/{}\
             ?api-version={version}{signature}",
            REGION.1, self.id
        )
    }

    fn body(&self) -> Value {
        let mut body = json!({"name": self.id, "status": self.status, "startTime": self.started});
        if let Some(error) = &self.error {
            body["error"] = error.clone();
        }
        body
    }
}

impl ResourceManager {
    pub(super) fn list_servers(&self, wanted: impl Fn(&Environment) -> bool) -> Vec<Value> {
        let servers = lock(&self.servers);
        servers
            .iter()
            .filter(|server| wanted(&server.environment))
            .map(|server| server.resource.clone())
            .collect()
    }

    /// A call to `flexibleServers`.
    pub(super) fn servers(
        self: &Arc<Self>,
        target: &ArmCall<'_>,
        lower: &[&str],
    ) -> Result<Response, ArmFailure> {
        let environment = &target.environment.name;
        let read = || self.gate.admit(environment, &format!("{KIND}/read"), target.scope(), false);
        match (target.call.method.as_str(), lower) {
            ("GET", ["flexibleservers"]) => {
                read()?;
                Ok(reply(
                    200,
                    json!({"value": self.list_servers(|candidate| candidate.name == *environment)}),
                ))
            }
            ("GET", ["flexibleservers", name]) => {
                read()?;
                self.with_server(target, name, |server| Ok(reply(200, server.resource.clone())))
            }
            ("GET", ["flexibleservers", name, "replicas"]) => {
                read()?;
                self.with_server(target, name, |_| Ok(reply(200, json!({"value": []}))))
            }
            ("GET", ["flexibleservers", name, "capabilities"]) => {
                read()?;
                self.with_server(target, name, |_| Ok(reply(200, catalogue::capabilities())))
            }
            ("GET", ["flexibleservers", name, "configurations", setting]) => {
                read()?;
                self.with_server(target, name, |server| configuration(server, setting))
            }
            ("PATCH", ["flexibleservers", name]) => {
                self.gate.admit(environment, &format!("{KIND}/write"), target.scope(), true)?;
                self.change(target, name)
            }
            _ => Err(ArmFailure::no_such_path(target.call)),
        }
    }

    fn with_server<T>(
        &self,
        target: &ArmCall<'_>,
        name: &str,
        act: impl FnOnce(&mut Server) -> Result<T, ArmFailure>,
    ) -> Result<T, ArmFailure> {
        let mut servers = lock(&self.servers);
        let server = servers
            .iter_mut()
            .find(|server| {
                server.environment.name == target.environment.name && server.environment.server() == name
            })
            .ok_or_else(|| ArmFailure::resource_not_found(KIND, name, target.group))?;
        act(server)
    }

    /// Accepts a change and carries it out in the background.
    fn change(self: &Arc<Self>, target: &ArmCall<'_>, name: &str) -> Result<Response, ArmFailure> {
        let request = target.call.json().map_err(|_| {
            let text = "The request content was invalid and could not be deserialized.".to_owned();
            ArmFailure::new(400, "InvalidRequestContent", text)
        })?;
        let (password, failing) = self.with_server(target, name, |server| {
            server.refuse(&request)?;
            server.merge(&request);
            server.resource["properties"]["state"] = json!("Updating");
            let password = request["properties"]["administratorLoginPassword"].as_str().map(str::to_owned);
            // With password sign-in off Azure accepts the change, reports success and changes nothing.
            Ok((password.filter(|_| server.accepts_passwords()), server.failing.take()))
        })?;
        let environment = target.environment;
        let operation = Operation::new(&environment.name);
        let version = target.call.query("api-version").unwrap_or_default();
        let url =
            |kind| operation.url(&self.endpoints.resource_manager, &environment.subscription, kind, version);
        let (poll, location) = (url("azureAsyncOperation"), url("operationResults"));
        let identifier = format!(
            "tenantId={},objectId={}/{}/{}",
            self.sign_in.tenant(),
            self.sign_in.object_id(),
            REGION.1,
            random_guid()
        );
        let body = json!({"operation": "UpsertServerManagementOperationV2", "startTime": operation.started});
        let id = operation.id.clone();
        lock(&self.operations).push(operation);
        tokio::spawn(self.clone().carry_out(environment.name.clone(), id, password, failing));
        let answer = with_header(reply(202, body), "azure-asyncoperation", &poll);
        let answer = with_header(answer, "location", &location);
        Ok(with_header(answer, "x-ms-operation-identifier", &identifier))
    }

    /// The operation itself. The password changes half-way, so that for a while the old one is refused although the
    /// operation hasn't succeeded yet.
    async fn carry_out(
        self: Arc<Self>,
        environment: String,
        id: String,
        password: Option<String>,
        failing: Option<Value>,
    ) {
        let half = self.latency.operation / 2;
        tokio::time::sleep(half).await;
        let mut error = failing.as_ref().map(|failing| {
            json!({
                "code": failing["code"].as_str().unwrap_or("InternalServerError"),
                "message": failing["message"].as_str().unwrap_or("An unexpected error occured."),
            })
        });
        let applies = failing.is_none_or(|failing| failing["applied"] == true);
        if let Some(password) = password.filter(|_| applies)
            && let Err(text) = self.set_password(&environment, &password).await
        {
            error = Some(json!({"code": "InternalServerError", "message": text}));
        }
        tokio::time::sleep(half).await;
        for server in lock(&self.servers).iter_mut().filter(|server| server.environment.name == environment) {
            server.resource["properties"]["state"] = json!("Ready");
        }
        for operation in lock(&self.operations).iter_mut().filter(|operation| operation.id == id) {
            operation.status = if error.is_some() { "Failed" } else { "Succeeded" };
            operation.error = error.clone();
        }
    }

    async fn set_password(&self, environment: &str, password: &str) -> Result<(), String> {
        let server = self.environments.iter().find(|candidate| candidate.name == environment);
        let server = server.ok_or("no such server")?;
        self.control.set_password(&server.server(), &server.postgres_user, password).await
    }

    /// A poll of an operation by either of its URLs.
    pub(super) fn poll(&self, call: &Call, kind: &str, id: &str) -> Result<Response, ArmFailure> {
        let operations = lock(&self.operations);
        let operation = operations.iter().find(|operation| operation.id == id).ok_or_else(|| {
            ArmFailure::new(404, "ResourceNotFound", format!("The operation '{id}' was not found."))
        })?;
        let name = if kind == "azureasyncoperation" { "azureAsyncOperation" } else { "operationResults" };
        let action = format!("Microsoft.DBforPostgreSQL/locations/{name}/read");
        self.gate.admit(&operation.environment, &action, &call.path, false)?;
        // A URL that was cut, re-encoded or built anew isn't the one that was handed out.
        if operation.signature.iter().any(|(name, value)| call.query(name) != Some(value)) {
            let text = "The signature of the operation's URL is not valid.".to_owned();
            return Err(ArmFailure::new(403, "InvalidOperationSignature", text));
        }
        Ok(match (kind, operation.status) {
            ("operationresults", "InProgress") => empty(202),
            ("operationresults", "Succeeded") => empty(200),
            _ => reply(200, operation.body()),
        })
    }
}

fn configuration(server: &Server, setting: &str) -> Result<Response, ArmFailure> {
    let value = match setting {
        "password_encryption" => "scram-sha-256",
        "require_secure_transport" => "on",
        _ => {
            let group = server.environment.resource_group();
            return Err(ArmFailure::resource_not_found(&format!("{KIND}/configurations"), setting, &group));
        }
    };
    Ok(reply(
        200,
        json!({
            "id": format!("{}/configurations/{setting}", server.resource["id"].as_str().unwrap_or_default()),
            "name": setting,
            "type": format!("{KIND}/configurations"),
            "properties": {
                "value": value,
                "defaultValue": value,
                "source": "system-default",
                "dataType": "Enumeration",
                "isDynamicConfig": true,
                "isReadOnly": false,
            },
        }),
    ))
}
