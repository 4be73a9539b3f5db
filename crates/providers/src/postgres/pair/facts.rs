//! What the server knows about two roles and the group that they belong to: one list of things that a role has, each
//! written as the words of SQL that would give it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use pgrotate_core::database_url::Target;
use pgrotate_core::{Error, Kind, Result};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::SimpleQueryRow;

use super::super::connection::Session;
use super::query::query;

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

impl Thing {
    /// Whether who has this has the other one too: options that are not given count for nothing.
    pub(super) fn covers(&self, wanted: &Self) -> bool {
        self.text == wanted.text && wanted.options().all(|option| self.options().any(|own| own == option))
    }

    fn options(&self) -> impl Iterator<Item = &str> {
        let options = self.suffix.trim_start_matches("WITH ").split(", ");
        options.filter(|option| !option.is_empty() && !option.ends_with(" FALSE"))
    }
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
            "policy" => write!(f, "the policy {text} does not hold for it, as for {other}"),
            "setting" => write!(f, "it has not the setting {}, as {other} has", shown(text)),
            "default" => write!(f, "what it creates gets other rights than what {other} creates: {text}"),
            "privilege" => write!(f, "it has no {text}{suffix}, as {other} has"),
            _ => write!(f, "the {aspect} {text} does not hold for it, as for {other}"),
        }
    }
}

/// A setting for people to read. The value of one that is an application's own, which its name tells by a dot, may be a
/// secret, and what is found stands in the journal and in the evidence.
pub(super) fn shown(setting: &str) -> String {
    let is_own = |before: &str| before.rsplit_once("SET ").is_some_and(|(_, name)| name.contains('.'));
    match setting.split_once(" TO ") {
        Some((before, _)) if is_own(before) => format!("{before} TO …"),
        _ => setting.to_owned(),
    }
}

/// How facts name what is in another database.
pub(super) const ELSEWHERE: &str = "something in the database ";
/// What both login roles have to have themselves; the first is the model of the second.
const OWN: [&str; 3] = ["attribute", "membership", "setting"];
/// What the group has to have because sessions act as it: of its members' own it is given nothing.
const ACTED: [&str; 5] = ["membership", "privilege", "default", "policy", "user mapping"];
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

    pub(super) fn has_thing(&self, role: &str, aspect: &str, thing: &Thing) -> bool {
        self.things(role, aspect).any(|own| own.covers(thing))
    }

    /// A name as SQL writes it: plain ones stay plain, unless they are keywords.
    pub(super) fn quoted(&self, name: &str) -> String {
        let told = self.things(name, "quoted").next().map(|own| own.text.clone());
        told.unwrap_or_else(|| escape_identifier(name).trim().to_owned())
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
    pub(super) fn sessions_of(&self, role: &str) -> Option<&str> {
        self.things(role, "sessions").next().map(|count| count.text.as_str())
    }

    /// Whether a role can act as the group: from PostgreSQL 16 on not every member may.
    pub(super) fn may_act(&self, role: &str, names: &Names<'_>) -> bool {
        let options = if self.version >= 160_000 { "WITH SET TRUE" } else { "" };
        let wanted = Thing { text: self.quoted(names.owner), suffix: options.to_owned() };
        self.has_thing(role, "membership", &wanted)
    }

    /// What a role is set to act as in one database, instead of the group: that goes before its setting for all.
    pub(super) fn other_acts(&self, role: &str, names: &Names<'_>) -> impl Iterator<Item = &Thing> {
        let acts = names.acts_as_owner();
        self.things(role, "setting").filter(move |own| {
            own.text.starts_with("IN DATABASE ")
                && own.text.contains(" SET role TO ")
                && !own.text.ends_with(&acts)
        })
    }

    /// The search_path in which `$user` stands for a schema of the first role, and stands for nothing any more when its
    /// sessions act as the group.
    pub(super) fn lost_path(&self, names: &Names<'_>) -> Option<&Thing> {
        self.things(names.first, "path").find(|path| path.text.contains("$user"))
    }

    /// What keeps the two from being alike, or sessions that act as the group from doing what they did.
    pub(super) fn differences<'a>(&self, names: &Names<'a>) -> Vec<Difference<'a>> {
        let Names { first, second, .. } = *names;
        let mut found: Vec<Difference<'a>> = Vec::new();
        for aspect in OWN {
            found.extend(self.lacking(second, first, aspect));
            found.extend(self.lacking(first, second, aspect));
        }
        // Where the other of the two lacks it as well, that says more.
        found.extend(self.lacking_by_group(names).into_iter().filter_map(|own| {
            let twin = if own.other == first { second } else { first };
            match (own.aspect, self.has_thing(twin, own.aspect, &own.thing)) {
                ("attribute" | "membership", false) => None,
                ("privilege" | "policy" | "user mapping", false) => Some(Difference { role: twin, ..own }),
                _ => Some(own),
            }
        }));
        found
    }

    /// What one of the two has and the group that they act as lacks.
    pub(super) fn lacking_by_group<'a>(&self, names: &Names<'a>) -> Vec<Difference<'a>> {
        let group = self.quoted(names.owner);
        let mut found: Vec<Difference<'a>> =
            ACTED.iter().flat_map(|aspect| self.ungrouped(names, aspect)).collect();
        found.retain(|own| own.aspect != "membership" || own.thing.text != group);
        let active = |own: &Difference<'_>| ACTIVE.contains(&own.thing.text.as_str());
        found.extend(self.lacking(names.owner, names.first, "attribute").filter(active));
        found
    }

    /// The same of one aspect; what both have is named once.
    pub(super) fn ungrouped<'a>(&self, names: &Names<'a>, aspect: &'static str) -> Vec<Difference<'a>> {
        let Names { first, second, owner } = *names;
        let new = |own: &Difference<'_>| !self.has_thing(first, aspect, &own.thing);
        self.lacking(owner, first, aspect).chain(self.lacking(owner, second, aspect).filter(new)).collect()
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

fn row(row: &SimpleQueryRow) -> Option<[String; 4]> {
    let text = |index: usize| row.try_get(index).ok().flatten().map(str::to_owned);
    Some([text(0)?, text(1)?, text(2)?, text(3).unwrap_or_default()])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names<'_> = Names { first: "app", second: "app_b", owner: "group" };

    fn facts(version: u32, rows: &[[&str; 4]]) -> Facts {
        Facts::of(version, rows.iter().map(|row| row.map(str::to_owned)))
    }

    fn said(rows: &[[&str; 4]]) -> Vec<String> {
        let facts = facts(180_000, rows);
        facts.differences(&NAMES).iter().map(|own| format!("{}: {own}", own.role)).collect()
    }

    #[test]
    fn what_an_application_keeps_in_a_setting_of_its_own_is_not_repeated() {
        let own = "IN DATABASE app SET app.jwt_secret TO 'hunter2'";
        let found = said(&[["app", "setting", own, ""], ["app_b", "setting", "SET work_mem TO '5MB'", ""]]);
        assert!(found.contains(
            &"app_b: it has not the setting IN DATABASE app SET app.jwt_secret TO …, as app has".into()
        ));
        assert!(
            found.contains(&"app: it has not the setting SET work_mem TO '5MB', as app_b has".into()),
            "{found:?}"
        );
        assert!(!found.concat().contains("hunter2"));
        assert_eq!(shown("SET search_path TO \"a.b\", public"), "SET search_path TO \"a.b\", public");
    }

    #[test]
    fn more_options_are_no_lack() {
        let thing = |suffix: &str| Thing { text: "x".into(), suffix: suffix.into() };
        for (has, wanted, covers) in [
            ("WITH GRANT OPTION", "", true),
            ("", "WITH GRANT OPTION", false),
            ("WITH ADMIN TRUE, INHERIT TRUE, SET TRUE", "WITH ADMIN FALSE, INHERIT TRUE, SET TRUE", true),
            ("WITH ADMIN FALSE, INHERIT TRUE, SET TRUE", "WITH SET TRUE", true),
            ("WITH ADMIN TRUE, INHERIT TRUE, SET FALSE", "WITH SET TRUE", false),
        ] {
            assert_eq!(thing(has).covers(&thing(wanted)), covers, "{has} for {wanted}");
        }
        let other = Thing { text: "y".into(), suffix: String::new() };
        assert!(!other.covers(&thing("")));
    }

    #[test]
    fn what_one_of_the_two_lacks_is_said_of_it_and_what_the_group_lacks_of_the_group() {
        let privilege = |role| [role, "privilege", "SELECT ON TABLE t", ""];
        assert_eq!(said(&[privilege("app")]), ["app_b: it has no SELECT ON TABLE t, as app has"]);
        assert_eq!(said(&[privilege("app_b")]), ["app: it has no SELECT ON TABLE t, as app_b has"]);
        let both = [privilege("app"), privilege("app_b")];
        assert_eq!(said(&both), ["group: it has no SELECT ON TABLE t, as app has"]);
        assert_eq!(said(&[privilege("app"), privilege("group")]), Vec::<String>::new());
    }

    #[test]
    fn membership_in_the_group_is_nothing_that_the_group_lacks() {
        let member = |role| [role, "membership", "\"group\"", "WITH ADMIN FALSE, INHERIT TRUE, SET TRUE"];
        let quoted = ["group", "quoted", "\"group\"", ""];
        let rows = [quoted, member("app"), member("app_b")];
        assert_eq!(said(&rows), Vec::<String>::new());
        assert!(facts(180_000, &rows).may_act("app", &NAMES));
        assert!(!facts(180_000, &[quoted]).may_act("app", &NAMES));
        let without = ["app", "membership", "\"group\"", "WITH ADMIN TRUE, INHERIT TRUE, SET FALSE"];
        assert!(!facts(180_000, &[quoted, without]).may_act("app", &NAMES));
        assert!(facts(150_000, &[quoted, ["app", "membership", "\"group\"", ""]]).may_act("app", &NAMES));
    }

    #[test]
    fn a_name_of_which_the_server_has_told_nothing_is_quoted() {
        let facts = facts(180_000, &[["plain", "quoted", "plain", ""]]);
        assert_eq!(facts.quoted("plain"), "plain");
        assert_eq!(facts.quoted("say \"so\""), "\"say \"\"so\"\"\"");
    }
}
