//! One role takes the login from the other one, where the server lets it.

use pgrotate_core::provider::{Authority as _, Change, Login, Pair as _, Seat, Verifier as _};
use pgrotate_core::{Kind, Result, Secret};
use pgrotate_providers::postgres::{PostgresLogin, PostgresTwin};

use crate::common::PASSWORD;
use crate::world::{IDLE, World};

/// Administrators that are no superusers: before PostgreSQL 16 CREATEROLE is enough.
pub(crate) async fn as_administrators(world: World) {
    become_a_pair(&world).await;
    let found = world.findings_as(world.pair(true), Seat::First, PASSWORD).await;
    if world.version < 16 {
        assert_eq!(found, Vec::<String>::new());
        return both_ways(&world).await;
    }
    // Who has made the other one may, and not the other way round: membership has no loops.
    let asked = "which is what `retire = \"nologin\"` asks for";
    assert_eq!(found, [format!("app_b: it may not take the login from app, {asked}")]);
    open(&world, Seat::First, IDLE).await.unwrap();
    let error = world.pair(true).close(Seat::Second, &Secret::new(IDLE)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Forbidden, "{error}");
    assert_eq!(login(&world, Seat::First, PASSWORD).await, Ok(Login::Accepted));
    let error = open(&world, Seat::Second, "whatever").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Forbidden, "{error}");
    let loops =
        world.superuser().await.batch_execute("grant app to app_b with admin option").await.unwrap_err();
    assert!(loops.as_db_error().unwrap().message().contains("is a member of role"), "{loops:?}");
    close(&world, Seat::First, PASSWORD).await;
}

/// Superusers can on every version.
pub(crate) async fn as_superusers(world: World) {
    // What is unknown to the server is a superuser's to set, and keeps its capital letters.
    world.sql("alter role app superuser; alter role app set \"My.Setting\" to 'its value'").await;
    become_a_pair(&world).await;
    let found = world.findings_as(world.pair(true), Seat::First, PASSWORD).await;
    assert_eq!(found, Vec::<String>::new());
    both_ways(&world).await;
}

async fn become_a_pair(world: &World) {
    let (pair, password) = (world.pair(true), Secret::new(PASSWORD));
    let preparation = pair.prepare(Seat::First, &password, None).await.unwrap();
    assert!(
        preparation.statements.iter().any(|own| own.shown.starts_with("CREATE ROLE app_b NOLOGIN")),
        "{preparation:#?}"
    );
    pair.apply(Seat::First, &password, &preparation).await.unwrap();
    let again = pair.prepare(Seat::First, &password, None).await.unwrap();
    assert!(again.statements.is_empty(), "{again:#?}");
}

async fn both_ways(world: &World) {
    open(world, Seat::First, IDLE).await.unwrap();
    assert_eq!(login(world, Seat::Second, IDLE).await, Ok(Login::Accepted));

    let left = world.application(Seat::Second, IDLE).await;
    let found = world.findings_as(world.pair(true), Seat::First, PASSWORD).await;
    assert_eq!(found, ["app_b: it should be idle, and sessions are logged in as it: 1"]);
    drop(left);

    close(world, Seat::Second, IDLE).await;
    assert_eq!(login(world, Seat::First, PASSWORD).await, Ok(Login::Refused), "as to a wrong password");
    assert_eq!(world.findings_as(world.pair(true), Seat::Second, IDLE).await, Vec::<String>::new());
    open(world, Seat::Second, PASSWORD).await.unwrap();
    assert_eq!(login(world, Seat::First, PASSWORD).await, Ok(Login::Accepted));
    close(world, Seat::First, PASSWORD).await;
    assert_eq!(login(world, Seat::Second, IDLE).await, Ok(Login::Refused));
}

async fn login(world: &World, seat: Seat, password: &str) -> Result<Login> {
    PostgresLogin::new(world.shared(seat, true)).login(&Secret::new(password)).await
}

/// The live role gives the other one a password.
async fn open(world: &World, live: Seat, next: &str) -> Result<()> {
    let current = Secret::new(if live == Seat::First { PASSWORD } else { IDLE });
    let twin = PostgresTwin::new(world.shared(live, true), world.name(live.other()).to_owned());
    let run = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
    twin.install(&Change { run, current: &current, next: &Secret::new(next) }).await.map(drop)
}

/// Twice, because it may be repeated.
async fn close(world: &World, live: Seat, password: &str) {
    for _ in 0..2 {
        world.pair(true).close(live, &Secret::new(password)).await.unwrap();
    }
}
