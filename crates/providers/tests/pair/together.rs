//! A role with everything that a role can have becomes one of a pair; then each does what the other one did.

use std::sync::Arc;

use pgrotate_core::provider::{Authority as _, Change, Login, Pair as _, Seat, Verifier as _};
use pgrotate_core::{Kind, Secret};
use pgrotate_providers::postgres::{Options, Postgres, PostgresLogin};

use crate::common::PASSWORD;
use crate::world::{IDLE, World};

/// By somebody else, and handed on: from PostgreSQL 16 on an administrator can't do this by itself.
const GIVEN: &str = "
    create role reader nologin;
    create role other_owner nologin;
    create role nosy nologin;
    grant nosy to {app} with admin option;
    create schema elsewhere authorization other_owner;
    set role other_owner;
    create table elsewhere.t (id int, secret text);
    create sequence elsewhere.s;
    create function elsewhere.f() returns int language sql as 'select 7';
    revoke execute on function elsewhere.f() from public;
    grant usage on schema elsewhere to {app} with grant option;
    grant select, insert on elsewhere.t to {app} with grant option;
    grant update (secret) on elsewhere.t to {app} with grant option;
    grant usage on sequence elsewhere.s to {app} with grant option;
    grant execute on function elsewhere.f() to {app} with grant option;
    reset role;
    create foreign data wrapper nowhere;
    grant usage on foreign data wrapper nowhere to {app} with grant option;
    alter role {app} connection limit 17;
    alter role {app} in database {db} set work_mem to '7MB';
    alter role {app} set statement_timeout to '31s';
    alter role {app} set timezone to 'Europe/Riga';
    alter role {app} set application_name to 'it''s \\ here'";

/// What the application has made itself, before anybody thought of a second role.
const MADE: &str = "
    create schema sales;
    create schema {app};
    create table {app}.home (id serial primary key, body text);
    create table {app}.guarded (id int);
    alter table {app}.guarded enable row level security;
    alter table {app}.guarded force row level security;
    create policy mine on {app}.guarded to {app} using (true);
    insert into {app}.guarded values (1);
    create table sales.orders (id int generated always as identity primary key, total numeric);
    create index on sales.orders (total);
    create statistics sales.related on id, total from sales.orders;
    create view sales.totals as select sum(total) from sales.orders;
    create materialized view sales.snapshot as select 1 as x;
    create sequence sales.numbers;
    create type sales.mood as enum ('ok', 'bad');
    create type sales.pair as (a int, b int);
    create domain sales.positive as int check (value > 0);
    create function sales.twice(int) returns int language sql as 'select $1 * 2';
    create procedure sales.touch() language sql as 'insert into sales.orders (total) values (1)';
    create aggregate sales.total(int) (sfunc = int4pl, stype = int);
    create server remote foreign data wrapper nowhere;
    create schema \"Odd 'Schema'\";
    create table \"Odd 'Schema'\".\"T 1\" (\"a b\" int);
    alter default privileges grant select on tables to reader;
    alter default privileges in schema sales grant usage on sequences to reader;
    alter default privileges revoke execute on functions from public;
    select lo_create(4711)";

pub(crate) async fn everything(world: World) {
    world.sql(GIVEN).await;
    world.application(Seat::First, PASSWORD).await.run(MADE).await;
    becomes_a_pair(&world).await;
    acts_as_the_group(&world).await;
    for (one, other) in [(Seat::First, Seat::Second), (Seat::Second, Seat::First)] {
        alters_what_the_other_made(&world, one, other).await;
    }
    what_is_made_is_the_groups(&world).await;
    assert!(world.findings().await.is_empty(), "still a pair");
    changes_its_own_password(&world).await;
    let log = world.cluster.log();
    assert!(!log.contains(PASSWORD) && !log.contains(IDLE), "a password is in the server's log");
}

fn password(seat: Seat) -> &'static str {
    if seat == Seat::First { PASSWORD } else { IDLE }
}

async fn becomes_a_pair(world: &World) {
    let before = world.catalog().await;
    let preparation = world.prepare(Some(IDLE)).await;
    assert_eq!(before, world.catalog().await, "nothing changes before it is applied");
    assert!(preparation.by_hand.is_empty(), "{:?}", preparation.by_hand);
    for statement in &preparation.statements {
        assert!(
            !statement.shown.contains("SCRAM-SHA-256$") && !statement.shown.contains(IDLE),
            "{}",
            statement.shown
        );
    }
    let shown: Vec<&str> = preparation.statements.iter().map(|own| own.shown.as_str()).collect();
    assert!(shown.iter().any(|own| own.starts_with("REASSIGN OWNED BY")), "{shown:#?}");
    world.apply(&preparation).await.unwrap_or_else(|error| panic!("{error}: {:#?}", error.causes()));

    for live in [Seat::First, Seat::Second] {
        let pair = world.pair(false);
        let again = pair.prepare(live, &Secret::new(password(live)), None).await.unwrap();
        assert!(again.statements.is_empty() && again.by_hand.is_empty(), "{again:#?}");
        assert_eq!(world.findings_as(pair, live, password(live)).await, Vec::<String>::new());
    }
}

/// The application does, and we do not.
async fn acts_as_the_group(world: &World) {
    for seat in [Seat::First, Seat::Second] {
        let application = world.application(seat, password(seat)).await;
        assert_eq!(application.ask("select current_user::text").await, world.names[2]);
        assert_eq!(application.ask("select session_user::text").await, world.name(seat));
        assert_eq!(application.ask("select current_setting('work_mem')").await, "7MB");
        assert_eq!(application.ask("select current_setting('statement_timeout')").await, "31s");
        assert_eq!(application.ask("select current_setting('application_name')").await, "it's \\ here");
        assert_eq!(application.ask("select current_setting('timezone')").await, "Europe/Riga");
        assert_eq!(application.ask("select current_schema()::text").await, world.names[0], "search_path");

        let ours = PostgresLogin::new(world.shared(seat, true)).login(&Secret::new(password(seat))).await;
        assert_eq!(ours, Ok(Login::Accepted), "the session is the login role itself");
        let theirs = PostgresLogin::new(world.shared(seat, false)).login(&Secret::new(password(seat))).await;
        assert_eq!(theirs.unwrap_err().kind(), Kind::Conflict, "the setting works");
    }
}

/// As a migration does it.
async fn alters_what_the_other_made(world: &World, one: Seat, other: Seat) {
    let (maker, user) =
        (world.application(one, password(one)).await, world.application(other, password(other)).await);
    maker.run("create table notes (id serial primary key, body text); create schema fresh; create table fresh.t ()").await;
    maker.run("create function helper() returns int language sql as 'select 1'; create type fruit as enum ('apple')").await;
    user.run(
        "insert into notes (body) values ('x'); alter table notes add column more int; create index on notes (more);
         alter type fruit add value 'pear'; create or replace function helper() returns int language sql as 'select 2';
         drop function helper(); drop type fruit; drop schema fresh cascade; alter table notes rename to kept;
         comment on table kept is 'mine too'",
    )
    .await;
    assert_eq!(user.ask("select has_table_privilege('reader', 'kept', 'SELECT')::text").await, "true");
    user.run("create function quiet() returns int language sql as 'select 1'").await;
    assert_eq!(
        user.ask("select has_function_privilege('reader', 'quiet()', 'EXECUTE')::text").await,
        "false"
    );
    user.run("drop function quiet(); drop table kept").await;

    for application in [maker, user] {
        application
            .run(
                "insert into home (body) values ('y'); select nextval('sales.numbers'); call sales.touch();
                 select sales.twice(2); refresh materialized view sales.snapshot; select * from sales.totals;
                 create or replace view sales.totals as select sum(total) from sales.orders;
                 alter table \"Odd 'Schema'\".\"T 1\" add column if not exists c sales.positive;
                 alter statistics sales.related set statistics 50; select lo_put(4711, 0, 'x');
                 insert into elsewhere.t values (1, 'x'); update elsewhere.t set secret = 'y';
                 select nextval('elsewhere.s'); select elsewhere.f(); set role nosy; reset role;
                 create role passing; drop role passing",
            )
            .await;
        assert_eq!(
            application.ask("select count(*)::text from guarded").await,
            "1",
            "the policy holds for it"
        );
    }
}

/// Nothing is left to either.
async fn what_is_made_is_the_groups(world: &World) {
    let of_logins = world
        .ask(
            "select count(*)::text from pg_shdepend join pg_roles on pg_roles.oid = refobjid
             where deptype = 'o' and classid <> 'pg_default_acl'::regclass
             and rolname in (select session from unnest(array[$${app}$$, $${b}$$]) quoted(name),
               lateral (select replace(trim(both '\"' from name), '\"\"', '\"')) plain(session))",
        )
        .await;
    assert_eq!(of_logins, "0");
    let owner = world
        .ask("select pg_get_userbyid(datdba)::text from pg_database where datname = current_database()")
        .await;
    assert_eq!(owner, world.names[2]);
}

async fn changes_its_own_password(world: &World) {
    const NEXT: &str = "NewPw7Kd93hXbQ4r";
    for seat in [Seat::First, Seat::Second] {
        let shared = world.shared(seat, true);
        let authority = Postgres::new(None, Options {}, Arc::clone(&shared)).unwrap();
        let (current, next) = (Secret::new(password(seat)), Secret::new(NEXT));
        let run = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        assert_eq!(authority.check(&current).await.unwrap(), []);
        authority.install(&Change { run, current: &current, next: &next }).await.unwrap();
        let login = PostgresLogin::new(shared);
        assert_eq!(login.login(&next).await, Ok(Login::Accepted));
        assert_eq!(login.login(&current).await, Ok(Login::Refused));
        authority.install(&Change { run, current: &next, next: &current }).await.unwrap();
        assert_eq!(login.login(&current).await, Ok(Login::Accepted));
    }
}
