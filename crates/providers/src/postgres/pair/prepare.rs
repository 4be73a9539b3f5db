//! The SQL that makes two roles a pair, as far as it is not so yet: the first role is the model, what it owns goes to
//! the group, and both act as the group from their next login on.

use pgrotate_core::provider::{Preparation, Seat, Statement};
use pgrotate_core::{Error, Kind, Result, Secret};
use postgres_protocol::escape::escape_literal;

use super::super::connection::Session;
use super::facts::{ACTIVE, Difference, ELSEWHERE, Facts, Names, Thing, shown};
use super::{PostgresPair, verifier};

pub(super) const OPERATION: &str = "prepare the roles";

/// Whoever waits for a lock on a table keeps everybody else from it, so that the application would wait with us.
const BEGIN: &str = "begin read write; set local lock_timeout = '5s'; set local statement_timeout = '25s'";

impl PostgresPair {
    pub(super) fn preparation(
        &self,
        facts: &Facts,
        live: Seat,
        idle: Option<&Secret>,
    ) -> Result<Preparation> {
        Maker { facts, names: self.names(), live, closes: self.closes }.make(idle)
    }

    /// All of them in one transaction, which a session that ends takes back. What PostgreSQL does not grant, because the
    /// role may not grant it, is a warning to it and no error: so it is asked again before all of it holds.
    pub(super) async fn carry_out(
        &self,
        session: &Session,
        live: Seat,
        preparation: &Preparation,
    ) -> Result<()> {
        if !preparation.by_hand.is_empty() {
            return Err(first_by_hand(preparation));
        }
        session.tell(BEGIN, BEGIN, OPERATION).await?;
        for Statement { shown, sent } in &preparation.statements {
            session.tell(sent.as_ref().map_or(shown, Secret::expose), shown, OPERATION).await?;
        }
        let facts = Facts::read(session, &self.names(), self.target(live), OPERATION).await?;
        let left = self.preparation(&facts, live, None)?.statements;
        if !left.is_empty() {
            return Err(without_effect(&left));
        }
        session.tell("commit", "commit", OPERATION).await.map_err(Error::unknown)
    }
}

fn first_by_hand(preparation: &Preparation) -> Error {
    let error = Error::new(Kind::BadState, OPERATION).because(
        "sessions would act as the group before it has what only a person can give it; nothing was changed",
    );
    let error = preparation.by_hand.iter().fold(error, |error, note| error.because(note.as_str()));
    error.hint("do that first, which changes nothing for the sessions of now")
}

fn without_effect(left: &[Statement]) -> Error {
    let error = Error::new(Kind::Forbidden, OPERATION)
        .because("statements had no effect, because the role may not do that; nothing was changed");
    let error = left.iter().fold(error, |error, own| error.because(own.shown.as_str()));
    error.hint("make the group (CREATE ROLE), let the owner or a superuser carry out what is named here, then once more")
}

/// One of which everything may be shown.
fn plain(text: String) -> Statement {
    Statement { shown: text, sent: None }
}

/// One that sets something. An application's own setting may hold a secret.
fn setting(text: String) -> Statement {
    match shown(&text) {
        shown if shown == text => plain(text),
        shown => Statement { shown, sent: Some(Secret::new(text)) },
    }
}

struct Maker<'a> {
    facts: &'a Facts,
    names: Names<'a>,
    live: Seat,
    closes: bool,
}

impl Maker<'_> {
    fn make(&self, idle: Option<&Secret>) -> Result<Preparation> {
        let mut statements: Vec<Statement> = self.group().into_iter().map(plain).collect();
        statements.extend(self.twin(idle)?);
        let rest =
            [self.memberships(), self.privileges(), self.policies(), self.ownership(), self.defaults()];
        statements.extend(rest.into_iter().flatten().map(plain));
        statements.extend(self.settings().into_iter().map(setting));
        Ok(Preparation { statements, by_hand: self.by_hand() })
    }

    fn quoted(&self, name: &str) -> String {
        self.facts.quoted(name)
    }

    fn live(&self) -> &str {
        match self.live {
            Seat::First => self.names.first,
            Seat::Second => self.names.second,
        }
    }

    fn idle(&self) -> &str {
        match self.live {
            Seat::First => self.names.second,
            Seat::Second => self.names.first,
        }
    }

    /// The group, which can do what the first role can, and can't log in.
    fn group(&self) -> Vec<String> {
        let owner = self.quoted(self.names.owner);
        let active = |thing: &&Thing| ACTIVE.contains(&thing.text.as_str());
        let wanted = self.facts.things(self.names.first, "attribute").filter(active);
        let wanted: Vec<&str> = wanted
            .filter(|thing| !self.facts.has(self.names.owner, "attribute", &thing.text))
            .map(|thing| thing.text.as_str())
            .collect();
        match (self.facts.exists(self.names.owner), wanted.is_empty()) {
            (false, true) => vec![format!("CREATE ROLE {owner} NOLOGIN")],
            (false, false) => vec![format!("CREATE ROLE {owner} NOLOGIN {}", wanted.join(" "))],
            (true, true) => Vec::new(),
            (true, false) => vec![format!("ALTER ROLE {owner} {}", wanted.join(" "))],
        }
    }

    /// The second role as the first one is, and the idle one of them with its password.
    fn twin(&self, password: Option<&Secret>) -> Result<Vec<Statement>> {
        let Names { first, second, .. } = self.names;
        if !self.facts.exists(second) {
            return Ok(vec![self.new_twin(password)?]);
        }
        let alter = |role: &str, what: &str| format!("ALTER ROLE {} {what}", self.quoted(role));
        let lacking = self.facts.lacking(second, first, "attribute");
        let mut statements: Vec<Statement> =
            lacking.map(|own| plain(alter(second, &own.thing.text))).collect();
        if let Some(password) = password {
            statements.push(with_password(&alter(self.idle(), "LOGIN"), password, "")?);
        } else if !self.closes && !self.facts.may_log_in(self.idle()) {
            statements.push(plain(alter(self.idle(), "LOGIN")));
        }
        Ok(statements)
    }

    fn new_twin(&self, password: Option<&Secret>) -> Result<Statement> {
        let Names { first, second, .. } = self.names;
        // What a new role has by itself is not said: some of it is a superuser's alone to say.
        let usual = |thing: &&Thing| {
            let text = thing.text.as_str();
            (text.starts_with("NO") && text != "NOINHERIT")
                || matches!(text, "INHERIT" | "CONNECTION LIMIT -1" | "VALID UNTIL 'infinity'")
        };
        let attributes = self.facts.things(first, "attribute").filter(|thing| !usual(thing));
        let attributes: String = attributes.map(|thing| format!(" {}", thing.text)).collect();
        let create = format!("CREATE ROLE {}", self.quoted(second));
        match (password, self.closes) {
            (Some(password), _) => with_password(&format!("{create} LOGIN"), password, &attributes),
            (None, true) => Ok(plain(format!("{create} NOLOGIN{attributes}"))),
            (None, false) => Ok(plain(format!("{create} LOGIN{attributes}"))),
        }
    }

    /// Both in the group, and both and the group in what the first is in.
    fn memberships(&self) -> Vec<String> {
        let Names { first, second, owner } = self.names;
        let group = self.quoted(owner);
        let mut statements: Vec<String> =
            [first, second].into_iter().filter_map(|role| self.membership(&group, role)).collect();
        let each_other = [(second, first), (first, second)].into_iter();
        let lacking = each_other.flat_map(|(role, other)| self.facts.lacking(role, other, "membership"));
        let lacking = lacking.chain(self.facts.ungrouped(&self.names, "membership"));
        statements
            .extend(lacking.filter(|own| own.thing.text != group).map(|own| self.grant(&own, own.role)));
        statements
    }

    /// In the group with all options, so that either can do for the other what is done here.
    fn membership(&self, group: &str, role: &str) -> Option<String> {
        let (all, but_admin) = match self.facts.version {
            160_000.. => ("WITH ADMIN TRUE, INHERIT TRUE, SET TRUE", "WITH INHERIT TRUE, SET TRUE"),
            _ => ("WITH ADMIN OPTION", "WITH ADMIN OPTION"),
        };
        let thing = |options: &str| Thing { text: group.to_owned(), suffix: options.to_owned() };
        if self.facts.has_thing(role, "membership", &thing(all)) {
            return None;
        }
        // Who makes a group has ADMIN on it by that from PostgreSQL 16 on, unless it is a superuser; and nobody can give
        // that to itself once more.
        let makes = !self.facts.exists(self.names.owner) && !self.facts.has(role, "attribute", "SUPERUSER");
        let has = self.facts.has_thing(role, "membership", &thing("WITH ADMIN TRUE"));
        let options = if role == self.live() && (makes || has) { but_admin } else { all };
        Some(format!("GRANT {group} TO {} {options}", self.quoted(role)))
    }

    /// What has been granted to one of them goes to the group, and so to both.
    fn privileges(&self) -> Vec<String> {
        let lacking = self.facts.ungrouped(&self.names, "privilege");
        lacking.iter().map(|own| self.grant(own, self.names.owner)).collect()
    }

    /// Policies hold for the group too.
    fn policies(&self) -> Vec<String> {
        let lacking = self.facts.ungrouped(&self.names, "policy").into_iter();
        lacking
            .map(|own| format!("ALTER POLICY {}, {}", own.thing.text, self.quoted(self.names.owner)))
            .collect()
    }

    fn grant(&self, own: &Difference<'_>, role: &str) -> String {
        format!("GRANT {} TO {} {}", own.thing.text, self.quoted(role), own.thing.suffix)
            .trim_end()
            .to_owned()
    }

    /// What belongs to one of them goes to the group, which has to be allowed to have it there.
    fn ownership(&self) -> Vec<String> {
        let Names { first, second, owner } = self.names;
        let here = |role: &&str| self.facts.things(role, "owns here").next().is_some();
        let owners: Vec<String> =
            [first, second].into_iter().filter(here).map(|role| self.quoted(role)).collect();
        if owners.is_empty() {
            return Vec::new();
        }
        let places = [first, second].into_iter().flat_map(|role| self.facts.things(role, "keeps in"));
        let mut statements: Vec<String> =
            places.map(|place| format!("GRANT {} TO {}", place.text, self.quoted(owner))).collect();
        statements.sort();
        statements.dedup();
        let reassign = format!("REASSIGN OWNED BY {} TO {}", owners.join(", "), self.quoted(owner));
        statements.extend(self.with_power(reassign, here(&self.idle())));
        statements
    }

    /// What belongs to the other role only who has its privileges may give away, so they are taken for as long as that.
    fn with_power(&self, statement: String, of_idle: bool) -> Vec<String> {
        let (live, idle) = (self.quoted(self.live()), self.quoted(self.idle()));
        if !of_idle || self.facts.has(self.live(), "inherits", self.idle()) {
            return vec![statement];
        }
        let options = if self.facts.version >= 160_000 { " WITH INHERIT TRUE, SET FALSE" } else { "" };
        vec![format!("GRANT {idle} TO {live}{options}"), statement, format!("REVOKE {idle} FROM {live}")]
    }

    fn defaults(&self) -> Vec<String> {
        let lacking = self.facts.ungrouped(&self.names, "default").into_iter();
        let statement = |own: Difference<'_>| {
            let Thing { text, suffix } = own.thing;
            let owner = self.quoted(self.names.owner);
            format!("ALTER DEFAULT PRIVILEGES FOR ROLE {owner} {text} {suffix}").trim_end().to_owned()
        };
        lacking.map(statement).collect()
    }

    fn settings(&self) -> Vec<String> {
        let Names { first, second, .. } = self.names;
        let alter = |role: &str, what: &str| format!("ALTER ROLE {} {what}", self.quoted(role));
        let other = |own: &Difference<'_>| !own.thing.text.contains("SET role TO ");
        let set = self.facts.lacking(second, first, "setting").filter(other);
        let mut statements: Vec<String> = set.map(|own| alter(second, &own.thing.text)).collect();
        let extra = self.facts.lacking(first, second, "setting").filter(other);
        statements.extend(extra.filter_map(|own| self.reset(second, &own.thing)));
        if let Some(Thing { text, suffix }) = self.facts.lost_path(&self.names) {
            let schema = self.quoted(first);
            let path = text.replace("\"$user\"", &schema).replace("$user", &schema);
            statements.extend(
                [first, second].map(|role| alter(role, &format!("{suffix}SET search_path TO {path}"))),
            );
        }
        for role in [first, second] {
            statements
                .extend(self.facts.other_acts(role, &self.names).filter_map(|own| self.reset(role, own)));
            let acts = self.names.acts_as_owner();
            statements.extend((!self.facts.has(role, "setting", &acts)).then(|| alter(role, &acts)));
        }
        statements
    }

    /// Takes a setting away, unless it is one that the first role has with another value.
    fn reset(&self, role: &str, own: &Thing) -> Option<String> {
        let (name, _) = own.text.split_once(" TO ")?;
        let valued = format!("{name} TO ");
        let first = self.names.first;
        if role != first && self.facts.things(first, "setting").any(|thing| thing.text.starts_with(&valued)) {
            return None;
        }
        Some(format!("ALTER ROLE {} {}", self.quoted(role), name.replacen("SET ", "RESET ", 1)))
    }

    /// What has no statement here, and has to be there before sessions act as the group.
    fn by_hand(&self) -> Vec<String> {
        let Names { first, second, owner } = self.names;
        let group = self.quoted(owner);
        let mappings = self.facts.ungrouped(&self.names, "user mapping").into_iter();
        let mut notes: Vec<String> = mappings
            .map(|own| {
                let server = own.thing.text;
                format!(
                    "CREATE USER MAPPING FOR {group} SERVER {server}, with the options of {}'s",
                    own.other
                )
            })
            .collect();
        for role in [first, second] {
            let elsewhere =
                self.facts.things(role, "owns").filter_map(|own| own.text.strip_prefix(ELSEWHERE));
            notes.extend(elsewhere.map(|base| {
                format!("in the database {base}: REASSIGN OWNED BY {} TO {group}", self.quoted(role))
            }));
        }
        if !notes.is_empty() && !self.facts.exists(owner) {
            notes.insert(0, format!("CREATE ROLE {group} NOLOGIN; GRANT {group} TO {}", self.quoted(first)));
        }
        notes
    }
}

/// The verifier is sent and never shown: who has it can try passwords without asking the server.
fn with_password(before: &str, password: &Secret, behind: &str) -> Result<Statement> {
    let text = |verifier: &str| format!("{before} PASSWORD {}{behind}", escape_literal(verifier).trim());
    Ok(Statement {
        shown: text("SCRAM-SHA-256 verifier of a random password, kept in the vault of record"),
        sent: Some(Secret::new(text(&verifier(password)?))),
    })
}
