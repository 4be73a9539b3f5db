//! Each way in which two roles can differ is found and named, and nothing is changed by looking.

use pgrotate_core::Secret;
use pgrotate_core::provider::{Pair as _, Seat};

use crate::common::PASSWORD;
use crate::damages::{AROUND, ATTRIBUTES, Damage, MEMBERSHIPS, Mended, OWNED, PRIVILEGES, SETTINGS};
use crate::world::{IDLE, World};

pub(crate) async fn each(world: World) {
    world.application(Seat::First, PASSWORD).await.run("create table notes (body text)").await;
    world.sql(AROUND).await;
    world.apply(&world.prepare(Some(IDLE)).await).await.unwrap();
    assert_eq!(world.findings().await, Vec::<String>::new());

    for damages in [ATTRIBUTES, MEMBERSHIPS, SETTINGS, PRIVILEGES, OWNED] {
        for damage in damages.iter().filter(|damage| damage.since <= world.version) {
            suffer(&world, damage).await;
        }
        for (live, password) in [(Seat::First, PASSWORD), (Seat::Second, IDLE)] {
            assert_eq!(world.findings_as(world.pair(false), live, password).await, Vec::<String>::new());
            let left = world.pair(false).prepare(live, &Secret::new(password), None).await.unwrap();
            assert!(left.statements.is_empty() && left.by_hand.is_empty(), "{left:#?}");
        }
    }
    without_membership(&world).await;
    in_another_database(&world).await;
}

/// The setting is not enough: the server ignores it, with a warning.
async fn without_membership(world: &World) {
    let acts = async || world.application(Seat::Second, IDLE).await.ask("select current_user::text").await;
    assert_eq!(acts().await, "app_owner");
    let revoke = match world.version {
        16.. => "grant app_owner to app_b with set false granted by app",
        _ => "revoke app_owner from app_b",
    };
    world.sql(revoke).await;
    assert_eq!(acts().await, "app_b");
    world.apply(&world.prepare(None).await).await.unwrap();
    assert_eq!(acts().await, "app_owner");
}

async fn suffer(world: &World, damage: &Damage) {
    let said = format!("{} on {}", damage.sql, world.version);
    world.sql(&for_version(damage.sql, world.version)).await;
    let before = world.catalog().await;
    let found = world.findings().await;
    assert!(found.iter().any(|found| found.starts_with(damage.found)), "{said}: {found:#?}");
    let preparation = world.prepare(None).await;
    assert_eq!(before, world.catalog().await, "{said}: looking changes nothing");

    let undo = match damage.mended {
        Mended::Prepared => None,
        Mended::ByHand(undo) => Some(undo),
        Mended::ByHandBefore16(undo) => Some(undo).filter(|_| world.version < 16),
        Mended::ByHandSince16(undo) => Some(undo).filter(|_| world.version >= 16),
        Mended::Back(undo) => return go_back(world, undo, &said).await,
    };
    let applied = world.apply(&preparation).await;
    match undo {
        None => applied.unwrap_or_else(|error| panic!("{said}: {error}: {:#?}", error.causes())),
        Some(undo) => {
            assert!(applied.is_err(), "{said}: {preparation:#?}");
            assert_eq!(before, world.catalog().await, "{said}: what is refused changes nothing");
            world.sql(undo).await;
        }
    }
}

async fn go_back(world: &World, undo: &str, said: &str) {
    world.sql(undo).await;
    assert_eq!(world.findings().await, Vec::<String>::new(), "{said}");
}

/// Who has granted a membership counts since PostgreSQL 16 alone.
fn for_version(sql: &str, version: u32) -> String {
    if version < 16 { sql.replace(" granted by app", "") } else { sql.to_owned() }
}

/// Only there can it be given away.
async fn in_another_database(world: &World) {
    world.sql("create database other owner app_owner").await;
    let there = world.elsewhere("other").await;
    there
        .batch_execute("create schema s; create table s.t (); alter table s.t owner to app_b")
        .await
        .unwrap();
    let found = world.findings().await;
    assert!(found.contains(&"app_b: it alone owns something in the database other".to_owned()), "{found:#?}");
    let preparation = world.prepare(None).await;
    assert_eq!(preparation.by_hand, ["in the database other: REASSIGN OWNED BY app_b TO app_owner"]);
    let error = world.apply(&preparation).await.unwrap_err();
    assert!(error.causes().join("; ").contains("in the database other"), "{error}");
    there.batch_execute("reassign owned by app_b to app_owner").await.unwrap();
    assert_eq!(world.findings().await, Vec::<String>::new());
}
