//! What PostgreSQL refuses, ignores or keeps waiting leaves everything as it was, and is named.

use pgrotate_core::provider::{Preparation, Seat};
use pgrotate_core::{Error, Kind};

use crate::common::PASSWORD;
use crate::damages::AROUND;
use crate::world::{IDLE, World};

pub(crate) async fn each(world: World) {
    world.application(Seat::First, PASSWORD).await.run("create table notes (body text)").await;
    world.sql(AROUND).await;
    a_superusers_setting(&world).await;
    a_grant_without_effect(&world).await;
    a_statement_with_a_verifier(&world).await;
    what_is_for_a_person(&world).await;
    a_table_that_is_in_use(&world).await;
    world.apply(&world.prepare(Some(IDLE)).await).await.unwrap();
    assert_eq!(world.findings().await, Vec::<String>::new());
}

/// Nothing of it was done, and no password is told.
async fn refused(world: &World, preparation: &Preparation) -> (Kind, String) {
    let before = world.catalog().await;
    let error: Error = world.apply(preparation).await.unwrap_err();
    assert_eq!(before, world.catalog().await, "{error}");
    let told = format!("{error}: {}; {}", error.causes().join("; "), error.hints().join("; "));
    assert!(!told.contains("SCRAM-SHA-256$") && !told.contains(IDLE) && !told.contains(PASSWORD), "{told}");
    (error.kind(), told)
}

/// The last of many statements.
async fn a_superusers_setting(world: &World) {
    world.sql("alter role app set log_min_duration_statement to 100").await;
    let (kind, told) = refused(world, &world.prepare(Some(IDLE)).await).await;
    assert_eq!(kind, Kind::Forbidden, "{told}");
    assert!(
        told.contains("refuses this statement: ALTER ROLE app_b SET log_min_duration_statement TO '100'"),
        "{told}"
    );
    world.sql("alter role app reset log_min_duration_statement").await;
}

/// A warning to PostgreSQL; sessions that act as the group would miss it.
async fn a_grant_without_effect(world: &World) {
    world.sql("grant usage on schema elsewhere to app").await;
    let (kind, told) = refused(world, &world.prepare(Some(IDLE)).await).await;
    assert_eq!(kind, Kind::Forbidden, "{told}");
    assert!(
        told.contains("no effect") && told.contains("GRANT USAGE ON SCHEMA elsewhere TO app_owner"),
        "{told}"
    );
    world.sql("revoke usage on schema elsewhere from app").await;
}

/// Somebody has made the role meanwhile.
async fn a_statement_with_a_verifier(world: &World) {
    let preparation = world.prepare(Some(IDLE)).await;
    world.sql("create role app_b").await;
    let (_, told) = refused(world, &preparation).await;
    assert!(
        told.contains("CREATE ROLE app_b LOGIN PASSWORD 'SCRAM-SHA-256 verifier of a random password"),
        "{told}"
    );
    world.sql("drop role app_b").await;
}

async fn what_is_for_a_person(world: &World) {
    world.sql("create user mapping for app server remote options (password 'of the far side')").await;
    let preparation = world.prepare(Some(IDLE)).await;
    assert_eq!(
        preparation.by_hand,
        [
            "CREATE ROLE app_owner NOLOGIN; GRANT app_owner TO app",
            "CREATE USER MAPPING FOR app_owner SERVER remote, with the options of app's"
        ]
    );
    let (kind, told) = refused(world, &preparation).await;
    assert!(kind == Kind::BadState && told.contains("CREATE USER MAPPING FOR app_owner"), "{told}");

    // And when that is done it goes on.
    world
        .application(Seat::First, PASSWORD)
        .await
        .run("create role app_owner nologin; grant app_owner to app")
        .await;
    world.sql("create user mapping for app_owner server remote").await;
    assert!(world.prepare(Some(IDLE)).await.by_hand.is_empty());
}

/// Whoever waits for a table lets nobody else have it.
async fn a_table_that_is_in_use(world: &World) {
    let busy = world.application(Seat::First, PASSWORD).await;
    busy.run("begin; select * from notes").await;
    let began = std::time::Instant::now();
    let (kind, told) = refused(world, &world.prepare(Some(IDLE)).await).await;
    assert!(kind == Kind::Busy && told.contains("REASSIGN OWNED BY app TO app_owner"), "{told}");
    assert!(began.elapsed().as_secs() < 20, "it waited for {:?}", began.elapsed());
    busy.run("commit").await;
}
