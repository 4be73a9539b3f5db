//! What is recorded, what is not, and what faults do to a request.

use axum::routing::put;

use super::*;

async fn send(recorder: &Arc<Recorder>, path: &str) -> Result<Response<Body>, Dropped> {
    let router = Router::new().fallback(put(|body: String| async move { format!("took {}", body.len()) }));
    let request = Request::put(path)
        .header("host", "kv.vault.localhost:1")
        .header("authorization", "Bearer canary-token")
        .body(Body::from("canary-body"))
        .unwrap();
    Arc::clone(recorder).answer("key_vault", router, request).await
}

fn fault(value: Value) -> Fault {
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn a_request_is_recorded_without_its_secrets() {
    let recorder = Arc::new(Recorder::new(Duration::ZERO, false));
    let response = send(&recorder, "/secrets/a?api-version=1&sig=canary-sig&TOKEN=canary-t").await.unwrap();
    assert_eq!(response.status(), 200);
    let text = serde_json::to_string(&recorder.requests(0)).unwrap();
    assert!(!text.contains("canary"), "{text}");
    let entry = recorder.requests(0).remove(0);
    assert_eq!(entry.path, "/secrets/a?api-version=1&sig=***&TOKEN=***");
    assert_eq!((entry.seq, entry.status, entry.host.as_str()), (1, Some(200), "kv.vault.localhost:1"));
    assert!(recorder.recording(0).is_none());
}

#[tokio::test]
async fn whole_requests_are_kept_only_when_asked_for_and_without_their_authorization() {
    let recorder = Arc::new(Recorder::new(Duration::ZERO, true));
    send(&recorder, "/secrets/a?sig=1").await.unwrap();
    let text = serde_json::to_string(&recorder.recording(0).unwrap()).unwrap();
    assert!(text.contains("canary-body") && text.contains("sig=1"), "{text}");
    assert!(!text.contains("canary-token"), "{text}");
    let request = &recorder.recording(0).unwrap()[0];
    assert!(request["headers"].to_string().contains(r#"["authorization","Bearer ***"]"#), "{request}");
    assert_eq!(request["answer"]["status"], 200);
    assert_eq!(request["answer"]["body"], "took 11");
}

#[tokio::test]
async fn a_stream_is_passed_on_while_it_is_recorded() {
    let recorder = Arc::new(Recorder::new(Duration::ZERO, true));
    let endless = || async {
        let line = Ok::<_, std::io::Error>(Bytes::from_static(b"line"));
        let lines = futures::stream::once(async { line });
        Body::from_stream(futures::StreamExt::chain(lines, futures::stream::pending()))
    };
    let router = Router::new().fallback(endless);
    let request = Request::get("/logstream").body(Body::empty()).unwrap();
    let answered = Arc::clone(&recorder).answer("app_service", router, request);
    let answer = tokio::time::timeout(Duration::from_secs(5), answered).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(recorder.recording(0).unwrap()[0]["answer"]["body"], Value::Null);
}

#[tokio::test]
async fn a_request_that_was_not_answered_is_recorded_as_such() {
    let recorder = Arc::new(Recorder::new(Duration::ZERO, true));
    recorder.faults().set(fault(json!({"when": "before", "kind": "drop"}))).unwrap();
    assert!(send(&recorder, "/").await.is_err());
    assert_eq!(recorder.recording(0).unwrap()[0]["answer"], Value::Null);
}

#[tokio::test]
async fn a_webhooks_path_is_its_credential() {
    let recorder = Arc::new(Recorder::new(Duration::ZERO, false));
    let request = Request::post("/services/T0/B0/canary").body(Body::empty()).unwrap();
    Arc::clone(&recorder).answer("webhook", Router::new(), request).await.unwrap();
    assert_eq!(recorder.requests(0)[0].path, "/services/T0/B0/***");
}

#[tokio::test]
async fn a_status_before_the_effect_replaces_it_and_one_after_hides_it() {
    let effects = Arc::new(std::sync::atomic::AtomicU32::new(0));
    for (when, expected) in [("before", 0), ("after", 1)] {
        let recorder = Arc::new(Recorder::new(Duration::ZERO, false));
        let set = json!({"when": when, "kind": "status", "status": 503, "retry_after_s": 7});
        recorder.faults().set(fault(set)).unwrap();
        let seen = effects.clone();
        let router = Router::new().fallback(move || async move {
            seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        });
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = Arc::clone(&recorder).answer("jira", router, request).await.unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "7");
        assert_eq!(effects.load(std::sync::atomic::Ordering::SeqCst), expected, "{when}");
        assert_eq!(recorder.requests(0)[0].status, Some(503));
    }
}

#[tokio::test]
async fn a_status_speaks_as_the_vendor_does_where_it_is_told_how() {
    let recorder = Arc::new(Recorder::new(Duration::ZERO, false));
    for set in [
        json!({"when": "before", "kind": "status", "status": 409, "code": "", "message": "Server X is busy"}),
        json!({"nth": 2, "when": "before", "kind": "status", "status": 403, "headers": {"X-RateLimit-Remaining": "0"}}),
    ] {
        recorder.faults().set(fault(set)).unwrap();
    }
    let busy = send(&recorder, "/").await.unwrap();
    let body = axum::body::to_bytes(busy.into_body(), usize::MAX).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"], json!({"code": "", "message": "Server X is busy"}));
    let limited = send(&recorder, "/").await.unwrap();
    assert_eq!(limited.headers()["x-ratelimit-remaining"], "0");
}

#[tokio::test]
async fn a_dropped_request_has_no_status_and_names_its_fault() {
    let recorder = Arc::new(Recorder::new(Duration::ZERO, false));
    recorder.faults().set(fault(json!({"when": "after", "kind": "drop"}))).unwrap();
    assert!(send(&recorder, "/").await.is_err());
    let entry = recorder.requests(0).remove(0);
    assert_eq!((entry.status, entry.fault, entry.abandoned), (None, Some(Kind::Drop), false));
    assert_eq!(send(&recorder, "/").await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_effect_happens_even_if_the_caller_goes_away() {
    let recorder = Arc::new(Recorder::new(Duration::ZERO, false));
    let (began, mut begun) = tokio::sync::mpsc::channel(1);
    let (done, mut finished) = tokio::sync::mpsc::channel(1);
    let router = Router::new().fallback(move || async move {
        began.send(()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        done.send(()).await.unwrap();
    });
    let request = Request::get("/").body(Body::empty()).unwrap();
    let caller = tokio::spawn(Arc::clone(&recorder).answer("github", router, request));
    begun.recv().await.unwrap();
    caller.abort();
    tokio::time::timeout(Duration::from_secs(5), finished.recv()).await.unwrap().unwrap();
    assert!(recorder.requests(0)[0].abandoned);
}

#[tokio::test]
async fn an_aws_request_is_known_by_its_operation() {
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-target", HeaderValue::from_static("secretsmanager.PutSecretValue"));
    assert_eq!(operation(&headers), "PutSecretValue");
    assert_eq!(operation(&HeaderMap::new()), "");
}
