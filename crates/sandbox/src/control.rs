//! The control interface: what a test or a demonstration sees of the sandbox, and how it sets faults.
//!
//! It shows passwords, on purpose: it is how a test knows what every copy holds. They are made for one sandbox, and
//! open nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::faults::Fault;
use crate::postgres::{DATABASE, USER};
use crate::vendors::{self, Copy};
use crate::world::{Environment, World};

/// The control interface's routes.
pub(crate) fn router(world: Arc<World>) -> Router {
    Router::new()
        .route("/_sandbox/state", get(state))
        .route("/_sandbox/requests", get(requests))
        .route("/_sandbox/recording", get(recording))
        .route("/_sandbox/pace", get(pace))
        .route("/_sandbox/faults", get(list_faults).post(set_fault).delete(clear_faults))
        .route("/_sandbox/set", post(set_vendor))
        .with_state(world)
}

async fn state(State(world): State<Arc<World>>) -> Response {
    let mut all = Map::new();
    for environment in &world.environments {
        match state_of(&world, environment).await {
            Ok(state) => all.insert(environment.name.clone(), state),
            Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.chain()).into_response(),
        };
    }
    Json(Value::Object(all)).into_response()
}

async fn state_of(world: &World, environment: &Environment) -> Result<Value> {
    let name = &environment.name;
    let mut copies = world.vendors.copies(name);
    copies.insert(format!("env_file:{name}.env"), environment.env_file_copy());
    let secret = environment.aws_secret();
    copies.insert(format!("aws_secrets_manager:{secret}"), world.moto.copy(&secret).await?);
    let copies: Map<String, Value> = copies.into_iter().map(|(id, copy)| (id, shown(&copy))).collect();
    Ok(json!({
        "postgres": {
            "host": "localhost",
            "port": environment.cluster.port(),
            "database": DATABASE,
            "user": USER,
            "password": environment.cluster.password(),
        },
        "app": {
            "url": format!("http://{}", environment.application.host()),
            "starts": environment.application.starts(),
        },
        // The slots and the further applications, which run nothing.
        "sites": world.vendors.starts(name),
        "copies": copies,
        "neighbours": world.vendors.neighbours(name),
        "messages": world.vendors.messages(name),
        "comments": world.vendors.comments(name),
    }))
}

fn shown(copy: &Copy) -> Value {
    json!({"value": copy.value, "version": copy.version, "versions": copy.versions})
}

/// Which requests are asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Since {
    /// Only those that came after the one with this number.
    #[serde(default)]
    after: u64,
}

/// How long the vendors let everybody wait, and how long the applications themselves took to start.
async fn pace(State(world): State<Arc<World>>) -> Response {
    let starts = world.environments.iter().map(|own| (own.name.clone(), own.application.history()));
    let starts: BTreeMap<_, _> = starts.collect();
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Json(json!({
        "request_ms": milliseconds(world.recorder.latency()),
        "operation_ms": milliseconds(world.latency.operation),
        "app_start_ms": milliseconds(world.latency.app_start),
        "starts": starts,
    }))
    .into_response()
}

async fn requests(State(world): State<Arc<World>>, Query(since): Query<Since>) -> Response {
    Json(world.recorder.requests(since.after)).into_response()
}

async fn recording(State(world): State<Arc<World>>, Query(since): Query<Since>) -> Response {
    match world.recorder.recording(since.after) {
        Some(recording) => Json(recording).into_response(),
        None => (StatusCode::NOT_FOUND, "the sandbox was started without --record-bodies").into_response(),
    }
}

async fn list_faults(State(world): State<Arc<World>>) -> Response {
    Json(world.recorder.faults().list()).into_response()
}

async fn set_fault(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let fault = serde_json::from_slice::<Fault>(&body).map_err(|error| error.to_string());
    match fault.and_then(|fault| world.recorder.faults().set(fault)) {
        Ok(()) => list_faults(State(world)).await,
        Err(problem) => (StatusCode::BAD_REQUEST, problem).into_response(),
    }
}

async fn clear_faults(State(world): State<Arc<World>>) -> StatusCode {
    world.recorder.faults().clear();
    StatusCode::NO_CONTENT
}

/// Puts a vendor into a state that a test wants to see handled, such as a stopped server.
async fn set_vendor(State(world): State<Arc<World>>, body: Bytes) -> Response {
    let request = serde_json::from_slice::<Value>(&body).map_err(|error| error.to_string());
    match request.and_then(|request| vendors::apply(&world.vendors, &request)) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(problem) => (StatusCode::BAD_REQUEST, problem).into_response(),
    }
}
