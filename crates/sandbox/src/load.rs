//! `load`: requests to an application at a fixed rate, whatever becomes of them.
//!
//! The loop is open: each request has a time at which it is due, and goes out then, however many are still unanswered.
//! A latency counts from that time, so an application that stalls can't hide what would have come in meanwhile
//! (coordinated omission). Nothing is asked twice.

mod summary;

use std::time::Duration;

use reqwest::{Client, RequestBuilder};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use self::summary::{Answer, Kind, Summary};
use crate::error::{Context, Result};
use crate::process::direct_client_builder;

/// No answer within this time is a failure.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is asked, in turn: one request in five logs in to the database afresh, one writes, the others read.
const TURN: [Kind; 5] = [Kind::Fresh, Kind::Read, Kind::Write, Kind::Read, Kind::Read];

/// What is to be asked.
pub(crate) struct Load {
    /// The application's address.
    pub(crate) url: String,
    /// Requests a second.
    pub(crate) rate: u32,
    client: Client,
}

impl Load {
    /// Asks nothing yet.
    pub(crate) fn new(url: &str, rate: u32) -> Result<Self> {
        let client = direct_client_builder().retry(reqwest::retry::never()).timeout(PATIENCE).build();
        let client = client.context(|| "cannot make an HTTP client".into())?;
        Ok(Self { url: url.trim_end_matches('/').to_owned(), rate, client })
    }

    /// Sends until `over` comes, and waits for the last answers.
    pub(crate) async fn run(&self, over: impl Future<Output = Result<()>>) -> Result<Summary> {
        let (began, clock) = (jiff::Timestamp::now(), Instant::now());
        let mut over = std::pin::pin!(over);
        let (mut under_way, mut summary) = (JoinSet::new(), Summary::new(began, self.rate));
        let mut due = Duration::ZERO;
        for kind in TURN.into_iter().cycle() {
            tokio::select! {
                ended = &mut over => {
                    ended?;
                    break;
                }
                () = sleep_until(clock + due) => {}
            }
            summary.was_late((clock.elapsed()).saturating_sub(due));
            under_way.spawn(answered(self.request(kind), kind, clock, due));
            // What is answered already is counted now, so that a long run keeps no finished tasks.
            while let Some(Ok(answer)) = under_way.try_join_next() {
                summary.count(answer);
            }
            due += Duration::from_secs(1) / self.rate;
        }
        summary.ends(clock.elapsed());
        while let Ok(Some(Ok(answer))) = timeout(PATIENCE * 2, under_way.join_next()).await {
            summary.count(answer);
        }
        Ok(summary)
    }

    fn request(&self, kind: Kind) -> RequestBuilder {
        let url = |path: &str| format!("{}{path}", self.url);
        match kind {
            Kind::Fresh => self.client.get(url("/api/healthz")),
            Kind::Read => self.client.get(url("/api/moods?limit=5")),
            Kind::Write => self.client.post(url("/api/moods")).json(&json!({"score": 3, "note": "load"})),
        }
    }
}

async fn answered(request: RequestBuilder, kind: Kind, clock: Instant, due: Duration) -> Answer {
    let failure = match request.send().await {
        Ok(answer) if answer.status().is_success() => answer.bytes().await.err().map(|_| "cut off".into()),
        Ok(answer) => Some(format!("status {}", answer.status().as_u16())),
        Err(error) if error.is_timeout() => Some("no answer".into()),
        Err(error) if error.is_connect() => Some("no connection".into()),
        Err(_) => Some("broken off".into()),
    };
    Answer { kind, due, took: clock.elapsed().saturating_sub(due), failure }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;

    use super::*;
    use crate::listener::Bound;

    #[tokio::test]
    async fn requests_go_out_when_they_are_due_and_each_once_though_none_is_answered() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        // Stalls, then refuses: a closed loop would have asked once.
        let slow = get(async move || {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(400)).await;
            StatusCode::SERVICE_UNAVAILABLE
        });
        let moods = get(async || "[]").post(async || StatusCode::CREATED);
        let bound = Bound::new().await.unwrap();
        let load = Load::new(&format!("http://127.0.0.1:{}/", bound.port()), 100).unwrap();
        bound.serve_unrecorded(Router::new().route("/api/healthz", slow).route("/api/moods", moods));
        let summary = load.run(async {
            tokio::time::sleep(Duration::from_millis(305)).await;
            Ok(())
        });
        let shown = summary.await.unwrap().shown();
        let (sent, fresh) = (shown["sent"].as_u64().unwrap(), shown["fresh"].as_u64().unwrap());
        // On a busy machine a timer may be late, but what is due then goes out at once.
        assert!((20..=31).contains(&sent) && fresh == sent.div_ceil(5), "{shown}");
        assert_eq!(asked.load(Ordering::SeqCst) as u64, fresh, "nothing is asked twice");
        assert_eq!(shown["failed"], fresh);
        assert_eq!(shown["failures"]["fresh: status 503"].as_array().unwrap().len() as u64, fresh);
        assert!(shown["latency_ms"]["fresh"]["p50"].as_f64().unwrap() >= 400.0, "{shown}");
        assert!(shown["without_login_ms"]["longest"].as_f64().unwrap() >= 300.0, "{shown}");
    }
}
