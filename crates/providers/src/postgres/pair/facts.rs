//! What the server knows about two roles and the group that they belong to: one list of things that a role has, each
//! written as the words of SQL that would give it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use pgrotate_core::database_url::Target;
use pgrotate_core::{Error, Kind, Result};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::SimpleQueryRow;

use super::super::connection::Session;
use super::listed;

/// The roles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    pub(super) first: &'a str,
    pub(super) second: &'a str,
    /// The group that owns what both make.
    pub(super) owner: &'a str,
}

impl<'a> Names<'a> {
    pub(super) fn all(&self) -> [&'a str; 3] {
        [self.first, self.second, self.owner]
    }

    /// The setting with which a login role acts as the group.
    pub(super) fn acts_as_owner(&self) -> String {
        format!("SET role TO {}", escape_literal(self.owner).trim())
    }
}

/// One thing that a role has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Thing {
    /// As SQL would give it.
    pub(super) text: String,
    /// What comes behind the role's name there.
    pub(super) suffix: String,
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) version: u32,
    /// By role and aspect.
    things: BTreeMap<(String, String), BTreeSet<Thing>>,
}

/// Something that one role has and another one lacks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference<'a> {
    /// Who lacks it.
    pub(super) role: &'a str,
    /// Who has it.
    pub(super) other: &'a str,
    pub(super) aspect: &'static str,
    pub(super) thing: Thing,
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { other, aspect, thing: Thing { text, suffix }, .. } = self;
        let suffix = if suffix.is_empty() { String::new() } else { format!(" {suffix}") };
        match *aspect {
            "attribute" => write!(f, "it is not {text}, as {other} is"),
            "membership" => write!(f, "it is no member of {text}{suffix}, as {other} is"),
            "setting" => write!(f, "it has not the setting {text}, as {other} has"),
            "default" => write!(f, "what it creates gets other rights than what {other} creates: {text}"),
            "privilege" => write!(f, "it has no {text}{suffix}, as {other} has"),
            _ => write!(f, "the {aspect} {text} does not hold for it, as for {other}"),
        }
    }
}

/// What both login roles have to have themselves; the first is the model of the second.
const OWN: [&str; 3] = ["attribute", "membership", "setting"];
/// What they may have through the group instead.
const SHARED: [&str; 3] = ["privilege", "policy", "user mapping"];
/// What the group has to have because sessions act as it.
const ACTED: [&str; 3] = ["membership", "privilege", "default"];
/// Attributes that count for what a session does.
pub(super) const ACTIVE: [&str; 4] = ["SUPERUSER", "CREATEDB", "CREATEROLE", "BYPASSRLS"];

impl Facts {
    /// Asks the server.
    pub(super) async fn read(
        session: &Session,
        names: &Names<'_>,
        target: &Target,
        operation: &str,
    ) -> Result<Self> {
        let version = session.row("select current_setting('server_version_num')", target, operation).await?;
        let version = version.get(0).and_then(|text| text.parse().ok()).ok_or_else(|| {
            Error::new(Kind::Corrupt, operation).because("the server tells no version that could be read")
        })?;
        let rows = session.rows(&query(names, version), target, operation).await?;
        Ok(Self::of(version, rows.iter().filter_map(row)))
    }

    fn of(version: u32, rows: impl Iterator<Item = [String; 4]>) -> Self {
        let mut facts = Self { version, ..Self::default() };
        for [role, aspect, text, suffix] in rows {
            facts.things.entry((role, aspect)).or_default().insert(Thing { text, suffix });
        }
        facts
    }

    pub(super) fn things(&self, role: &str, aspect: &str) -> impl Iterator<Item = &Thing> {
        self.things.get(&(role.to_owned(), aspect.to_owned())).into_iter().flatten()
    }

    pub(super) fn has(&self, role: &str, aspect: &str, text: &str) -> bool {
        self.things(role, aspect).any(|thing| thing.text == text)
    }

    fn has_thing(&self, role: &str, aspect: &str, thing: &Thing) -> bool {
        self.things(role, aspect).any(|own| own == thing)
    }

    pub(super) fn exists(&self, role: &str) -> bool {
        self.things(role, "attribute").next().is_some()
    }

    pub(super) fn may_log_in(&self, role: &str) -> bool {
        self.has(role, "login", "LOGIN")
    }

    /// Whether one may take the login from the other.
    pub(super) fn administers(&self, one: &str, other: &str) -> bool {
        self.has(one, "administers", other)
    }

    /// How many sessions a role has, if it has any.
    pub(super) fn sessions_of<'a>(&self, role: &'a str) -> Option<(&'a str, String)> {
        self.things(role, "sessions").next().map(|count| (role, count.text.clone()))
    }

    /// What keeps the two from being alike, or sessions that act as the group from doing what they did.
    pub(super) fn differences<'a>(&self, names: &Names<'a>) -> Vec<Difference<'a>> {
        let Names { first, second, owner } = *names;
        let mut found = Vec::new();
        for aspect in OWN {
            found.extend(self.lacking(second, first, aspect));
            found.extend(self.lacking(first, second, aspect));
        }
        for aspect in SHARED {
            let by_group = |own: &Difference<'_>| self.has_thing(owner, aspect, &own.thing);
            found.extend(self.lacking(second, first, aspect).filter(|own| !by_group(own)));
            found.extend(self.lacking(first, second, aspect).filter(|own| !by_group(own)));
        }
        found.extend(self.lacking_by_group(names));
        found
    }

    /// What the first role has and the group that it acts as lacks.
    pub(super) fn lacking_by_group<'a>(&self, names: &Names<'a>) -> Vec<Difference<'a>> {
        let Names { first, owner, .. } = *names;
        let itself = |own: &Difference<'_>| own.aspect == "membership" && own.thing.text == quoted(owner);
        let mut found: Vec<Difference<'a>> = ACTED
            .iter()
            .flat_map(|aspect| self.lacking(owner, first, aspect))
            .filter(|own| !itself(own))
            .collect();
        let active = |own: &Difference<'_>| ACTIVE.contains(&own.thing.text.as_str());
        found.extend(self.lacking(owner, first, "attribute").filter(active));
        found
    }

    /// What one has and the other lacks.
    pub(super) fn lacking<'a>(
        &self,
        role: &'a str,
        other: &'a str,
        aspect: &'static str,
    ) -> impl Iterator<Item = Difference<'a>> {
        let lacks = move |thing: &&Thing| !self.has_thing(role, aspect, thing);
        self.things(other, aspect)
            .filter(lacks)
            .map(move |thing| Difference { role, other, aspect, thing: thing.clone() })
            .collect::<Vec<_>>()
            .into_iter()
    }
}

pub(super) fn quoted(name: &str) -> String {
    // As the server's quote_ident does: plain names stay plain.
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { escape_identifier(name).trim().to_owned() }
}

fn row(row: &SimpleQueryRow) -> Option<[String; 4]> {
    let text = |index: usize| row.try_get(index).ok().flatten().map(str::to_owned);
    Some([text(0)?, text(1)?, text(2)?, text(3).unwrap_or_default()])
}

/// Settings whose value is a list of quoted names, which the server keeps as it has to be written
/// (`GUC_LIST_QUOTE` in its source; `pg_dumpall` has the same list).
const LISTS: &str = "'local_preload_libraries', 'search_path', 'session_preload_libraries', \
                     'shared_preload_libraries', 'temp_tablespaces', 'unix_socket_directories'";

/// Everything about the three roles: role, aspect, thing, and what comes behind the role's name where it is given.
fn query(names: &Names<'_>, version: u32) -> String {
    let all = listed(names.all());
    let logins = listed([names.first, names.second]);
    let parts = [
        attributes(&all),
        memberships(&all, &logins, version),
        settings(&all),
        owned(&logins),
        kept(&logins),
        privileges(&all, version),
        defaults(&all),
        others(&all),
        power(&logins, version),
    ];
    parts.join("\nunion all ")
}

fn attributes(all: &str) -> String {
    let flag = |column: &str, name: &str| format!("case when {column} then '{name}' else 'NO{name}' end");
    let flags = [
        ("rolsuper", "SUPERUSER"),
        ("rolcreatedb", "CREATEDB"),
        ("rolcreaterole", "CREATEROLE"),
        ("rolinherit", "INHERIT"),
        ("rolreplication", "REPLICATION"),
        ("rolbypassrls", "BYPASSRLS"),
    ];
    let flags = flags.map(|(column, name)| flag(column, name)).join(", ");
    format!(
        "select rolname::text, 'attribute', thing, '' from pg_catalog.pg_roles, lateral unnest(array[{flags}, \
         'CONNECTION LIMIT ' || rolconnlimit, 'VALID UNTIL ''' || rolvaliduntil || '''']) thing \
         where rolname in ({all}) and thing is not null\n\
         union all select rolname::text, 'login', 'LOGIN', '' from pg_catalog.pg_roles \
         where rolname in ({all}) and rolcanlogin"
    )
}

/// From PostgreSQL 16 on several grantors may have made the same role a member.
fn memberships(all: &str, logins: &str, version: u32) -> String {
    let options = match version {
        160_000.. => {
            "'WITH ADMIN ' || bool_or(m.admin_option) || ', INHERIT ' || bool_or(m.inherit_option) || ', SET ' || \
             bool_or(m.set_option)"
        }
        _ => "case when bool_or(m.admin_option) then 'WITH ADMIN OPTION' else '' end",
    };
    format!(
        "select member.rolname::text, 'membership', quote_ident(of.rolname), upper({options}) \
         from pg_catalog.pg_auth_members m join pg_catalog.pg_roles member on member.oid = m.member \
         join pg_catalog.pg_roles of on of.oid = m.roleid \
         where member.rolname in ({all}) and of.rolname not in ({logins}) group by 1, 3"
    )
}

fn settings(all: &str) -> String {
    let value = "substr(config, strpos(config, '=') + 1)";
    format!(
        "select role.rolname::text, 'setting', coalesce('IN DATABASE ' || quote_ident(base.datname) || ' ', '') || \
         'SET ' || name || ' TO ' || case when name in ({LISTS}) then {value} else quote_literal({value}) end, '' \
         from pg_catalog.pg_db_role_setting own join pg_catalog.pg_roles role on role.oid = own.setrole \
         left join pg_catalog.pg_database base on base.oid = own.setdatabase, \
         lateral unnest(own.setconfig) config, lateral (select split_part(config, '=', 1)) named(name) \
         where role.rolname in ({all})"
    )
}

/// Only this database can tell what its objects are called.
fn owned(logins: &str) -> String {
    format!(
        "select role.rolname::text, 'owns', case when own.dbid in (0, base.oid) \
           then pg_catalog.pg_describe_object(own.classid, own.objid, own.objsubid) \
           else 'something in the database ' || other.datname end, '' \
         from pg_catalog.pg_shdepend own join pg_catalog.pg_roles role on role.oid = own.refobjid \
         join pg_catalog.pg_database base on base.datname = current_database() \
         left join pg_catalog.pg_database other on other.oid = own.dbid \
         where own.refclassid = 'pg_catalog.pg_authid'::regclass and own.deptype = 'o' and role.rolname in ({logins}) \
         and own.classid not in ('pg_catalog.pg_default_acl'::regclass, 'pg_catalog.pg_auth_members'::regclass)"
    )
}

/// Whether a role owns anything that can be reassigned from here, and what its new owner needs for that: PostgreSQL
/// asks it for CREATE where the thing is.
fn kept(logins: &str) -> String {
    let things = "select relnamespace, relowner from pg_catalog.pg_class \
                  union select pronamespace, proowner from pg_catalog.pg_proc \
                  union select typnamespace, typowner from pg_catalog.pg_type";
    format!(
        "select role.rolname::text, 'owns here', 'something', '' from pg_catalog.pg_shdepend own \
         join pg_catalog.pg_roles role on role.oid = own.refobjid \
         join pg_catalog.pg_database base on base.datname = current_database() \
         where own.refclassid = 'pg_catalog.pg_authid'::regclass and own.deptype = 'o' and role.rolname in ({logins}) \
         and own.dbid in (0, base.oid) \
         and own.classid not in ('pg_catalog.pg_default_acl'::regclass, 'pg_catalog.pg_auth_members'::regclass)\n\
         union all select role.rolname::text, 'keeps in', 'USAGE, CREATE ON SCHEMA ' || quote_ident(space.nspname), '' \
         from ({things}) thing(space, owner) join pg_catalog.pg_roles role on role.oid = thing.owner \
         join pg_catalog.pg_namespace space on space.oid = thing.space \
         where role.rolname in ({logins}) and space.nspname !~ '^pg_'\n\
         union all select role.rolname::text, 'keeps in', \
         'CREATE ON DATABASE ' || quote_ident(current_database()), '' \
         from pg_catalog.pg_namespace space join pg_catalog.pg_roles role on role.oid = space.nspowner \
         where role.rolname in ({logins})"
    )
}

/// What has been granted to a role on what it does not own.
fn privileges(all: &str, version: u32) -> String {
    let mut sources = vec![
        "select relowner, relacl, case relkind when 'S' then 'SEQUENCE ' else 'TABLE ' end || oid::regclass \
         from pg_catalog.pg_class where relkind in ('r', 'p', 'v', 'm', 'f', 'S')",
        "select nspowner, nspacl, 'SCHEMA ' || quote_ident(nspname) from pg_catalog.pg_namespace",
        "select datdba, datacl, 'DATABASE ' || quote_ident(datname) from pg_catalog.pg_database",
        "select proowner, proacl, case prokind when 'p' then 'PROCEDURE ' else 'FUNCTION ' end || oid::regprocedure \
         from pg_catalog.pg_proc",
        "select typowner, typacl, 'TYPE ' || oid::regtype from pg_catalog.pg_type",
        "select lanowner, lanacl, 'LANGUAGE ' || quote_ident(lanname) from pg_catalog.pg_language",
        "select fdwowner, fdwacl, 'FOREIGN DATA WRAPPER ' || quote_ident(fdwname) \
         from pg_catalog.pg_foreign_data_wrapper",
        "select srvowner, srvacl, 'FOREIGN SERVER ' || quote_ident(srvname) from pg_catalog.pg_foreign_server",
        "select spcowner, spcacl, 'TABLESPACE ' || quote_ident(spcname) from pg_catalog.pg_tablespace",
        "select lomowner, lomacl, 'LARGE OBJECT ' || oid from pg_catalog.pg_largeobject_metadata",
    ];
    if version >= 150_000 {
        sources.push("select 0::oid, paracl, 'PARAMETER ' || parname from pg_catalog.pg_parameter_acl");
    }
    let sources = sources.join(" union all ");
    let option = "case when item.is_grantable then 'WITH GRANT OPTION' else '' end";
    format!(
        "select role.rolname::text, 'privilege', item.privilege_type || ' ON ' || named, {option} \
         from ({sources}) thing(owner, acl, named), lateral aclexplode(acl) item \
         join pg_catalog.pg_roles role on role.oid = item.grantee \
         where role.rolname in ({all}) and item.grantee <> owner\n\
         union all select role.rolname::text, 'privilege', \
         item.privilege_type || ' (' || quote_ident(attname) || ') ON TABLE ' || attrelid::regclass, {option} \
         from pg_catalog.pg_attribute, lateral aclexplode(attacl) item \
         join pg_catalog.pg_roles role on role.oid = item.grantee where role.rolname in ({all})"
    )
}

/// What a role grants on what it will create.
fn defaults(all: &str) -> String {
    format!(
        "select role.rolname::text, 'default', coalesce('IN SCHEMA ' || quote_ident(space.nspname) || ' ', '') || \
         'GRANT ' || item.privilege_type || ' ON ' || case own.defaclobjtype when 'r' then 'TABLES' \
           when 'S' then 'SEQUENCES' when 'f' then 'FUNCTIONS' when 'T' then 'TYPES' when 'n' then 'SCHEMAS' \
           else 'LARGE OBJECTS' end || ' TO ' || coalesce(quote_ident(grantee.rolname), 'PUBLIC'), \
         case when item.is_grantable then 'WITH GRANT OPTION' else '' end \
         from pg_catalog.pg_default_acl own join pg_catalog.pg_roles role on role.oid = own.defaclrole \
         left join pg_catalog.pg_namespace space on space.oid = own.defaclnamespace, \
         lateral aclexplode(own.defaclacl) item left join pg_catalog.pg_roles grantee on grantee.oid = item.grantee \
         where role.rolname in ({all}) and item.grantee <> own.defaclrole"
    )
}

fn others(all: &str) -> String {
    format!(
        "select role.rolname::text, 'policy', quote_ident(polname) || ' on ' || polrelid::regclass, '' \
         from pg_catalog.pg_policy, lateral unnest(polroles) named(id) \
         join pg_catalog.pg_roles role on role.oid = named.id where role.rolname in ({all})\n\
         union all select usename::text, 'user mapping', quote_ident(srvname), '' \
         from pg_catalog.pg_user_mappings where usename in ({all})\n\
         union all select usename::text, 'sessions', count(*)::text, '' from pg_catalog.pg_stat_activity \
         where usename in ({all}) and pid <> pg_backend_pid() group by 1"
    )
}

/// Who may take the login from whom. A flexible server lets the members of `azure_pg_admin` administer each other on
/// all versions (Azure's documentation, access control).
fn power(logins: &str, version: u32) -> String {
    let rule = match version {
        160_000.. => "one.rolcreaterole and pg_has_role(one.oid, other.oid, 'MEMBER WITH ADMIN OPTION')",
        _ => "one.rolcreaterole and not other.rolsuper",
    };
    format!(
        "select one.rolname::text, 'administers', other.rolname::text, '' \
         from pg_catalog.pg_roles one, pg_catalog.pg_roles other \
         where one.rolname in ({logins}) and other.rolname in ({logins}) and one.oid <> other.oid \
         and (one.rolsuper or ({rule}) or exists (select from pg_catalog.pg_roles azure \
           where azure.rolname = 'azure_pg_admin' and one.rolcreaterole \
           and pg_has_role(one.oid, azure.oid, 'MEMBER') and pg_has_role(other.oid, azure.oid, 'MEMBER') \
           and exists (select from pg_catalog.pg_roles where rolname = 'azuresu')))"
    )
}
