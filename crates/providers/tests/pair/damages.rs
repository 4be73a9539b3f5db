//! What can make two roles differ, each with what has to be said about it.

/// One thing that is wrong.
pub(crate) struct Damage {
    /// How the superuser brings it about.
    pub(crate) sql: &'static str,
    /// A finding about it, from its beginning.
    pub(crate) found: &'static str,
    pub(crate) mended: Mended,
    /// The versions that have it.
    pub(crate) since: u32,
}

/// How it is made good.
#[derive(Clone, Copy)]
pub(crate) enum Mended {
    /// By `roles prepare --apply`, as an administrator that is no superuser.
    Prepared,
    /// Only by the one who has done it, in this way; `--apply` refuses and changes nothing.
    ByHand(&'static str),
    /// So before PostgreSQL 16; since then by `--apply`.
    ByHandBefore16(&'static str),
    /// The other way round: since PostgreSQL 16 CREATEROLE alone is not enough.
    ByHandSince16(&'static str),
    /// In this way, and `--apply` would make something new.
    Back(&'static str),
}

use Mended::{Back, ByHand, ByHandBefore16, ByHandSince16, Prepared};

const fn damage(sql: &'static str, found: &'static str, mended: Mended) -> Damage {
    Damage { sql, found, mended, since: 14 }
}

const fn since_16(sql: &'static str, found: &'static str, mended: Mended) -> Damage {
    Damage { sql, found, mended, since: 16 }
}

/// What is there beside the pair.
pub(crate) const AROUND: &str = "
    create role crew nologin;
    create role other_owner nologin;
    create schema elsewhere authorization other_owner;
    create foreign data wrapper nowhere;
    create server remote foreign data wrapper nowhere;
    set role other_owner;
    create table elsewhere.t (id int, secret text);
    create type elsewhere.mood as enum ('ok');
    create sequence elsewhere.s;
    create function elsewhere.f() returns int language sql as 'select 7'";

pub(crate) const ATTRIBUTES: &[Damage] = &[
    damage("alter role app_b nocreatedb", "app_b: it is not CREATEDB, as app is", Prepared),
    damage(
        "alter role app bypassrls",
        "app_b: it is not BYPASSRLS, as app is",
        ByHandBefore16("alter role app nobypassrls"),
    ),
    damage(
        "alter role app_b connection limit 3",
        "app_b: it is not CONNECTION LIMIT -1, as app is",
        Prepared,
    ),
    damage("alter role app connection limit 30", "app_b: it is not CONNECTION LIMIT 30, as app is", Prepared),
    damage(
        "alter role app_b valid until '2099-01-01'",
        "app_b: it is not VALID UNTIL 'infinity', as app is",
        Prepared,
    ),
    damage("alter role app_owner nocreaterole", "app_owner: it is not CREATEROLE, as app is", Prepared),
    damage("alter role app_b nologin", "app_b: it may not log in", Prepared),
    damage(
        "alter role app_b rename to gone",
        "app_b: there is no role",
        Back("alter role gone rename to app_b"),
    ),
    damage(
        "alter role app_owner rename to gone",
        "app_owner: there is no role",
        Back("alter role gone rename to app_owner"),
    ),
];

pub(crate) const MEMBERSHIPS: &[Damage] = &[
    damage("grant crew to app with admin option", "app_b: it is no member of crew", Prepared),
    damage(
        "grant pg_monitor to app_b",
        "app: it is no member of pg_monitor",
        ByHandSince16("revoke pg_monitor from app_b"),
    ),
    since_16(
        "grant app_owner to app_b with set false granted by app",
        "app_b: it is no member of app_owner WITH SET TRUE, so that it may act as it",
        Prepared,
    ),
    since_16(
        "grant app_owner to app_b with set false granted by app; grant app_owner to app with set false granted by app",
        "app: it is no member of app_owner WITH SET TRUE, so that it may act as it",
        Prepared,
    ),
    since_16(
        "grant app_owner to app_b with inherit false granted by app",
        "app_b: it is no member of app_owner WITH",
        Prepared,
    ),
    damage("revoke app_owner from app_b granted by app", "app_b: it is no member of app_owner", Prepared),
];

pub(crate) const SETTINGS: &[Damage] = &[
    damage(
        "alter role app_b set work_mem to '9MB'",
        "app: it has not the setting SET work_mem TO '9MB', as app_b has",
        Prepared,
    ),
    damage(
        "alter role app set work_mem to '5MB'",
        "app_b: it has not the setting SET work_mem TO '5MB', as app has",
        Prepared,
    ),
    damage(
        "alter role app_b set work_mem to '9MB'",
        "app_b: it has not the setting SET work_mem TO '5MB', as app has",
        Prepared,
    ),
    damage(
        "alter role app in database app_db set search_path to elsewhere, \"Odd\", public",
        "app_b: it has not the setting IN DATABASE app_db SET search_path TO elsewhere, \"Odd\", public, as app has",
        Prepared,
    ),
    damage(
        "alter role app in database app_db reset search_path",
        "app: it has not the setting IN DATABASE",
        Prepared,
    ),
    damage(
        "alter role app set log_min_duration_statement to 100",
        "app_b: it has not the setting SET log_min_duration_statement",
        ByHand("alter role app reset log_min_duration_statement"),
    ),
    damage("alter role app_b reset role", "app_b: what it creates is its own and not app_owner's", Prepared),
    damage(
        "alter role app set role to crew",
        "app: what it creates is its own and not app_owner's",
        Prepared,
    ),
    damage(
        "alter role app_b in database app_db set role to crew",
        "app_b: it acts as another role than app_owner: IN DATABASE app_db SET role TO 'crew'",
        Prepared,
    ),
    damage(
        "create schema app authorization app_owner",
        "app: it finds its schema app by \"$user\" in search_path",
        Prepared,
    ),
];

pub(crate) const PRIVILEGES: &[Damage] = &[
    damage(
        "grant select on elsewhere.t to app_b",
        "app: it has no SELECT ON TABLE elsewhere.t, as app_b has",
        ByHand("revoke select on elsewhere.t from app_b"),
    ),
    damage(
        "grant insert on elsewhere.t to app, app_b",
        "app_owner: it has no INSERT ON TABLE elsewhere.t, as app has",
        ByHand("revoke insert on elsewhere.t from app, app_b"),
    ),
    damage(
        "grant usage on schema elsewhere to app",
        "app_b: it has no USAGE ON SCHEMA elsewhere, as app has",
        ByHand("revoke usage on schema elsewhere from app"),
    ),
    damage(
        "grant usage on schema elsewhere to app with grant option",
        "app_b: it has no USAGE ON SCHEMA elsewhere WITH GRANT OPTION, as app has",
        Prepared,
    ),
    damage(
        "grant update (secret) on elsewhere.t to app with grant option",
        "app_b: it has no UPDATE (secret) ON TABLE elsewhere.t WITH GRANT OPTION, as app has",
        Prepared,
    ),
    damage(
        "grant create on database postgres to app_b",
        "app: it has no CREATE ON DATABASE postgres, as app_b has",
        ByHand("revoke create on database postgres from app_b"),
    ),
    damage(
        "grant execute on function elsewhere.f() to app with grant option",
        "app_b: it has no EXECUTE ON FUNCTION elsewhere.f() WITH GRANT OPTION, as app has",
        Prepared,
    ),
    damage(
        "grant usage on type elsewhere.mood to app with grant option",
        "app_b: it has no USAGE ON TYPE elsewhere.mood WITH GRANT OPTION, as app has",
        Prepared,
    ),
    damage(
        "grant usage on sequence elsewhere.s to app with grant option",
        "app_b: it has no USAGE ON SEQUENCE elsewhere.s WITH GRANT OPTION, as app has",
        Prepared,
    ),
    damage(
        "alter default privileges for role app grant select on tables to crew",
        "app_owner: what it creates gets other rights than what app creates: GRANT SELECT ON TABLES TO crew",
        Prepared,
    ),
    damage(
        "alter default privileges for role app_b revoke execute on functions from public",
        "app_owner: what it creates gets other rights than what app_b creates: REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
        Prepared,
    ),
    damage(
        "create policy one on notes to app",
        "app_b: the policy one ON notes TO app does not hold for it, as for app",
        Prepared,
    ),
    damage(
        "create policy each_one on notes to app, app_b",
        "app_owner: the policy each_one ON notes TO app, app_b does not hold for it, as for app",
        Prepared,
    ),
    damage(
        "create user mapping for app server remote",
        "app_b: the user mapping remote does not hold for it, as for app",
        ByHand("drop user mapping for app server remote"),
    ),
];

pub(crate) const OWNED: &[Damage] = &[
    damage("alter table notes owner to app", "app: it alone owns table notes", Prepared),
    damage("alter table notes owner to app_b", "app_b: it alone owns table notes", Prepared),
    damage("alter database app_db owner to app", "app: it alone owns database app_db", Prepared),
    damage("alter database app_db owner to app_b", "app_b: it alone owns database app_db", Prepared),
    damage("alter schema app owner to app_b", "app_b: it alone owns schema app", Prepared),
];
