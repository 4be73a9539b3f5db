//! One question to the catalog about two roles and their group. Each row is a role, an aspect, a thing that it has as SQL
//! would give it, and what comes behind the role's name there.

use postgres_protocol::escape::escape_literal;

use super::facts::{ELSEWHERE, Names};
use super::listed;

/// Settings whose value is a list of quoted names, which the server keeps as it has to be written
/// (`GUC_LIST_QUOTE` in its source; `pg_dumpall` has the same list).
const LISTS: &str = "'local_preload_libraries', 'search_path', 'session_preload_libraries', \
                     'shared_preload_libraries', 'temp_tablespaces', 'unix_socket_directories'";

/// Everything about the three roles: role, aspect, thing, and what comes behind the role's name where it is given.
pub(super) fn query(names: &Names<'_>, version: u32) -> String {
    let all = listed(names.all());
    let logins = listed([names.first, names.second]);
    let parts = [
        attributes(&all),
        memberships(&all, &logins, version),
        quoting(&names.all()),
        settings(&all),
        paths(&listed([names.first])),
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
         'CONNECTION LIMIT ' || rolconnlimit, \
         'VALID UNTIL ''' || coalesce(rolvaliduntil, 'infinity') || '''']) thing where rolname in ({all})\n\
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

/// The server alone knows which words are keywords.
fn quoting(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| escape_literal(name)).collect();
    format!(
        "select name, 'quoted', quote_ident(name), '' from unnest(array[{}]) role(name)",
        names.join(", ")
    )
}

/// Names of an extension's settings may have capital letters, and have a dot.
fn settings(all: &str) -> String {
    let value = "substr(config, strpos(config, '=') + 1)";
    format!(
        "select role.rolname::text, 'setting', coalesce('IN DATABASE ' || quote_ident(base.datname) || ' ', '') || \
         'SET ' || (select string_agg(quote_ident(part), '.') from unnest(string_to_array(name, '.')) part) || ' TO ' || \
         case when name in ({LISTS}) then {value} else quote_literal({value}) end, '' \
         from pg_catalog.pg_db_role_setting own join pg_catalog.pg_roles role on role.oid = own.setrole \
         left join pg_catalog.pg_database base on base.oid = own.setdatabase, \
         lateral unnest(own.setconfig) config, lateral (select split_part(config, '=', 1)) named(name) \
         where role.rolname in ({all})"
    )
}

/// The search_path that holds for a role after which a schema is named, and where it is set: what is set for the role
/// in this database goes before what is set for it everywhere, that before the database's own, that before the server's.
fn paths(role: &str) -> String {
    format!(
        "select role.rolname::text, 'path', path.value, path.place from pg_catalog.pg_roles role, lateral (\
           select substr(config, strpos(config, '=') + 1) as value, case when own.setrole <> 0 and own.setdatabase <> 0 \
             then 'IN DATABASE ' || quote_ident(base.datname) || ' ' else '' end as place, \
             case when own.setrole <> 0 then 2 else 0 end + case when own.setdatabase <> 0 then 1 else 0 end as near \
           from pg_catalog.pg_database base, pg_catalog.pg_db_role_setting own, lateral unnest(own.setconfig) config \
           where base.datname = current_database() and own.setrole in (0, role.oid) \
           and own.setdatabase in (0, base.oid) and split_part(config, '=', 1) = 'search_path' \
           union all select current_setting('search_path'), '', -1 order by near desc limit 1) path \
         where role.rolname in ({role}) and exists (select from pg_catalog.pg_namespace where nspname = role.rolname)"
    )
}

/// What can be given to another owner. Default privileges and user mappings can't: they are the role's own.
const NOT_OBJECTS: &str = "'pg_catalog.pg_default_acl'::regclass, 'pg_catalog.pg_user_mapping'::regclass, \
                           'pg_catalog.pg_auth_members'::regclass";

/// Only this database can tell what its objects are called.
fn owned(logins: &str) -> String {
    format!(
        "select role.rolname::text, 'owns', case when own.dbid in (0, base.oid) \
           then pg_catalog.pg_describe_object(own.classid, own.objid, own.objsubid) \
           else '{ELSEWHERE}' || other.datname end, '' \
         from pg_catalog.pg_shdepend own join pg_catalog.pg_roles role on role.oid = own.refobjid \
         join pg_catalog.pg_database base on base.datname = current_database() \
         left join pg_catalog.pg_database other on other.oid = own.dbid \
         where own.refclassid = 'pg_catalog.pg_authid'::regclass and own.deptype = 'o' and role.rolname in ({logins}) \
         and own.classid not in ({NOT_OBJECTS})"
    )
}

/// Whether a role owns anything that can be reassigned from here, and what its new owner needs for that: PostgreSQL
/// asks it for CREATE where the thing is.
fn kept(logins: &str) -> String {
    let things = "select relnamespace, relowner from pg_catalog.pg_class \
                  union select pronamespace, proowner from pg_catalog.pg_proc \
                  union select typnamespace, typowner from pg_catalog.pg_type \
                  union select oprnamespace, oprowner from pg_catalog.pg_operator \
                  union select opcnamespace, opcowner from pg_catalog.pg_opclass \
                  union select opfnamespace, opfowner from pg_catalog.pg_opfamily \
                  union select collnamespace, collowner from pg_catalog.pg_collation \
                  union select connamespace, conowner from pg_catalog.pg_conversion \
                  union select stxnamespace, stxowner from pg_catalog.pg_statistic_ext \
                  union select dictnamespace, dictowner from pg_catalog.pg_ts_dict \
                  union select cfgnamespace, cfgowner from pg_catalog.pg_ts_config";
    format!(
        "select role.rolname::text, 'owns here', 'something', '' from pg_catalog.pg_shdepend own \
         join pg_catalog.pg_roles role on role.oid = own.refobjid \
         join pg_catalog.pg_database base on base.datname = current_database() \
         where own.refclassid = 'pg_catalog.pg_authid'::regclass and own.deptype = 'o' and role.rolname in ({logins}) \
         and own.dbid in (0, base.oid) \
         and own.classid not in ({NOT_OBJECTS})\n\
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

/// What a role grants on what it will create, and what it takes from everybody who would have it by PostgreSQL's own
/// rules.
fn defaults(all: &str) -> String {
    let kind = "case own.defaclobjtype when 'r' then 'TABLES' when 'S' then 'SEQUENCES' when 'f' then 'FUNCTIONS' \
                when 'T' then 'TYPES' when 'n' then 'SCHEMAS' else 'LARGE OBJECTS' end";
    format!(
        "select role.rolname::text, 'default', coalesce('IN SCHEMA ' || quote_ident(space.nspname) || ' ', '') || \
         'GRANT ' || item.privilege_type || ' ON ' || {kind} || ' TO ' || coalesce(quote_ident(grantee.rolname), 'PUBLIC'), \
         case when item.is_grantable then 'WITH GRANT OPTION' else '' end \
         from pg_catalog.pg_default_acl own join pg_catalog.pg_roles role on role.oid = own.defaclrole \
         left join pg_catalog.pg_namespace space on space.oid = own.defaclnamespace, \
         lateral aclexplode(own.defaclacl) item left join pg_catalog.pg_roles grantee on grantee.oid = item.grantee \
         where role.rolname in ({all}) and item.grantee <> own.defaclrole\n\
         union all select role.rolname::text, 'default', \
         'REVOKE ' || item.privilege_type || ' ON ' || {kind} || ' FROM PUBLIC', '' \
         from pg_catalog.pg_default_acl own join pg_catalog.pg_roles role on role.oid = own.defaclrole, \
         lateral aclexplode(acldefault(case own.defaclobjtype when 'S' then 's' else own.defaclobjtype end, \
           own.defaclrole)) item \
         where role.rolname in ({all}) and own.defaclnamespace = 0 and item.grantee = 0 \
         and own.defaclobjtype in ('r', 'S', 'f', 'T', 'n') and not exists (select from aclexplode(own.defaclacl) kept \
           where kept.grantee = 0 and kept.privilege_type = item.privilege_type)"
    )
}

/// A policy is written with all its roles.
fn others(all: &str) -> String {
    format!(
        "select role.rolname::text, 'policy', quote_ident(polname) || ' ON ' || polrelid::regclass || ' TO ' || \
         (select string_agg(coalesce(quote_ident(rolname), 'PUBLIC'), ', ' order by place) \
           from unnest(polroles) with ordinality every(id, place) left join pg_catalog.pg_roles each on each.oid = every.id), '' \
         from pg_catalog.pg_policy, lateral unnest(polroles) named(id) \
         join pg_catalog.pg_roles role on role.oid = named.id where role.rolname in ({all})\n\
         union all select usename::text, 'user mapping', quote_ident(srvname), '' \
         from pg_catalog.pg_user_mappings where usename in ({all})\n\
         union all select usename::text, 'sessions', count(*)::text, '' from pg_catalog.pg_stat_activity \
         where usename in ({all}) and pid <> pg_backend_pid() group by 1"
    )
}

/// Who may take the login from whom, and who has whose privileges. A flexible server lets the members of `azure_pg_admin` administer each other on
/// all versions (Azure's documentation, access control).
fn power(logins: &str, version: u32) -> String {
    let rule = match version {
        160_000.. => {
            "one.rolcreaterole and not other.rolsuper \
             and pg_has_role(one.oid, other.oid, 'MEMBER WITH ADMIN OPTION')"
        }
        _ => "one.rolcreaterole and not other.rolsuper and not other.rolreplication",
    };
    format!(
        "select one.rolname::text, 'administers', other.rolname::text, '' \
         from pg_catalog.pg_roles one, pg_catalog.pg_roles other \
         where one.rolname in ({logins}) and other.rolname in ({logins}) and one.oid <> other.oid \
         and (one.rolsuper or ({rule}) or exists (select from pg_catalog.pg_roles azure \
           where azure.rolname = 'azure_pg_admin' and one.rolcreaterole \
           and pg_has_role(one.oid, azure.oid, 'MEMBER') and pg_has_role(other.oid, azure.oid, 'MEMBER') \
           and exists (select from pg_catalog.pg_roles where rolname = 'azuresu')))\n\
         union all select one.rolname::text, 'inherits', other.rolname::text, '' \
         from pg_catalog.pg_roles one, pg_catalog.pg_roles other \
         where one.rolname in ({logins}) and other.rolname in ({logins}) and one.oid <> other.oid \
         and pg_has_role(one.oid, other.oid, 'USAGE')"
    )
}
