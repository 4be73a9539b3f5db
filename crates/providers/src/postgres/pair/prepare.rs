//! The SQL that makes two roles a pair, as far as it is not so yet: the first role is the model, what it owns goes to
//! the group, and both act as the group from their next login on.

use pgrotate_core::provider::{Preparation, Seat, Statement};
use pgrotate_core::{Error, Result, Secret};
use postgres_protocol::escape::escape_literal;

use super::super::connection::Session;
use super::facts::{ACTIVE, Difference, Facts, Names, Thing, quoted};
use super::{PostgresPair, verifier};

impl PostgresPair {
    pub(super) fn preparation(
        &self,
        facts: &Facts,
        live: Seat,
        idle: Option<&Secret>,
    ) -> Result<Preparation> {
        Maker { facts, names: self.names(), live, closes: self.closes }.make(idle)
    }
}

/// One of which everything may be shown.
fn plain(text: String) -> Statement {
    Statement { shown: text, sent: None }
}

/// All of them in one transaction. A session that ends takes an open one back.
pub(super) async fn carry_out(session: &Session, preparation: &Preparation) -> Result<()> {
    let operation = "prepare the roles";
    session.tell("begin", "begin", operation).await?;
    for Statement { shown, sent } in &preparation.statements {
        session.tell(sent.as_ref().map_or(shown, Secret::expose), shown, operation).await?;
    }
    session.tell("commit", "commit", operation).await.map_err(Error::unknown)
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
            [self.memberships(), self.privileges(), self.ownership(), self.defaults(), self.settings()];
        statements.extend(rest.into_iter().flatten().map(plain));
        Ok(Preparation { statements, by_hand: self.by_hand() })
    }

    fn idle(&self) -> &str {
        match self.live {
            Seat::First => self.names.second,
            Seat::Second => self.names.first,
        }
    }

    /// The group, which can do what the first role can, and can't log in.
    fn group(&self) -> Vec<String> {
        let owner = quoted(self.names.owner);
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
        let mut statements = Vec::new();
        let mut password = password;
        if !self.facts.exists(second) {
            // What a new role has by itself is not said: some of it is a superuser's alone to say.
            let usual = |thing: &&Thing| {
                let text = thing.text.as_str();
                (text.starts_with("NO") && text != "NOINHERIT")
                    || matches!(text, "INHERIT" | "CONNECTION LIMIT -1")
            };
            let attributes = self.facts.things(first, "attribute").filter(|thing| !usual(thing));
            let attributes: String = attributes.map(|thing| format!(" {}", thing.text)).collect();
            let create = format!("CREATE ROLE {}", quoted(second));
            statements.push(match password.take() {
                Some(password) => with_password(&format!("{create} LOGIN"), password, &attributes)?,
                None => plain(format!("{create} NOLOGIN{attributes}")),
            });
        } else {
            let lacking = self.facts.lacking(second, first, "attribute");
            statements.extend(
                lacking.map(|own| plain(format!("ALTER ROLE {} {}", quoted(second), own.thing.text))),
            );
        }
        if let Some(password) = password {
            statements.push(with_password(
                &format!("ALTER ROLE {} LOGIN", quoted(self.idle())),
                password,
                "",
            )?);
        } else if !self.closes && self.facts.exists(self.idle()) && !self.facts.may_log_in(self.idle()) {
            statements.push(plain(format!("ALTER ROLE {} LOGIN", quoted(self.idle()))));
        }
        Ok(statements)
    }

    /// Both in the group, and both and the group in what the first is in.
    fn memberships(&self) -> Vec<String> {
        let Names { first, second, owner } = self.names;
        let live = if self.live == Seat::First { first } else { second };
        let options = match self.facts.version {
            160_000.. => "WITH ADMIN TRUE, INHERIT TRUE, SET TRUE",
            _ => "WITH ADMIN OPTION",
        };
        let wanted = Thing { text: quoted(owner), suffix: options.to_owned() };
        let mut statements = Vec::new();
        for role in [first, second] {
            let own = self.facts.things(role, "membership").find(|thing| thing.text == wanted.text);
            if own == Some(&wanted) {
                continue;
            }
            // Who has made the group has ADMIN on it, and can't give it to itself once more.
            let options = match self.facts.version {
                160_000.. if role == live => "WITH INHERIT TRUE, SET TRUE",
                _ => options,
            };
            statements.push(format!("GRANT {} TO {} {options}", wanted.text, quoted(role)));
        }
        let itself = |own: &Difference<'_>| own.thing.text == wanted.text;
        for (role, other) in [(second, first), (first, second), (owner, first)] {
            let lacking = self.facts.lacking(role, other, "membership").filter(|own| !itself(own));
            statements.extend(lacking.map(|own| grant(&own, role)));
        }
        statements
    }

    /// What has been granted to one of them goes to the group, and so to both.
    fn privileges(&self) -> Vec<String> {
        let Names { first, second, owner } = self.names;
        let lacking = |other| self.facts.lacking(owner, other, "privilege").collect::<Vec<_>>();
        let mut statements: Vec<String> =
            lacking(first).into_iter().chain(lacking(second)).map(|own| grant(&own, owner)).collect();
        statements.dedup();
        statements
    }

    /// What belongs to one of them goes to the group, which has to be allowed to have it there.
    fn ownership(&self) -> Vec<String> {
        let Names { first, second, owner } = self.names;
        let here = |role: &&str| self.facts.things(role, "owns here").next().is_some();
        let owners: Vec<String> = [first, second].into_iter().filter(here).map(quoted).collect();
        if owners.is_empty() {
            return Vec::new();
        }
        let places = [first, second].into_iter().flat_map(|role| self.facts.things(role, "keeps in"));
        let mut statements: Vec<String> =
            places.map(|place| format!("GRANT {} TO {}", place.text, quoted(owner))).collect();
        statements.sort();
        statements.dedup();
        statements.push(format!("REASSIGN OWNED BY {} TO {}", owners.join(", "), quoted(owner)));
        statements
    }

    fn defaults(&self) -> Vec<String> {
        let Names { first, second, owner } = self.names;
        let lacking =
            [first, second].into_iter().flat_map(|other| self.facts.lacking(owner, other, "default"));
        let statement = |own: Difference<'_>| {
            let Thing { text, suffix } = own.thing;
            format!("ALTER DEFAULT PRIVILEGES FOR ROLE {} {text} {suffix}", quoted(owner))
                .trim_end()
                .to_owned()
        };
        let mut statements: Vec<String> = lacking.map(statement).collect();
        statements.dedup();
        statements
    }

    fn settings(&self) -> Vec<String> {
        let Names { first, second, .. } = self.names;
        let acts = self.names.acts_as_owner();
        let set = self.facts.lacking(second, first, "setting").filter(|own| own.thing.text != acts);
        let set = set.map(|own| format!("ALTER ROLE {} {}", quoted(second), own.thing.text));
        let reset = self.facts.lacking(first, second, "setting").filter(|own| own.thing.text != acts);
        let reset = reset.filter_map(|own| {
            let (name, _) = own.thing.text.split_once(" TO ")?;
            let name = name.replacen("SET ", "RESET ", 1);
            // A setting that both have gets the first one's value.
            let has = |thing: &Thing| thing.text.starts_with(&name.replacen("RESET ", "SET ", 1));
            let both = self.facts.things(first, "setting").any(has);
            (!both).then(|| format!("ALTER ROLE {} {name}", quoted(second)))
        });
        let acting = [first, second].into_iter().filter(|role| !self.facts.has(role, "setting", &acts));
        let acting = acting.map(|role| format!("ALTER ROLE {} {acts}", quoted(role)));
        set.chain(reset).chain(acting).collect()
    }

    /// What differs and has no statement here.
    fn by_hand(&self) -> Vec<String> {
        let Names { first, second, owner } = self.names;
        let mut notes: Vec<String> = Vec::new();
        for aspect in ["policy", "user mapping"] {
            let lacking =
                [first, second].into_iter().flat_map(|other| self.facts.lacking(owner, other, aspect));
            notes.extend(lacking.map(|own| format!("{}: {own}", own.role)));
        }
        for role in [first, second] {
            let elsewhere = self.facts.things(role, "owns").filter(|own| own.text.starts_with(ELSEWHERE));
            notes.extend(elsewhere.map(|own| {
                let base = own.text.trim_start_matches(ELSEWHERE);
                format!("in the database {base}: REASSIGN OWNED BY {} TO {}", quoted(role), quoted(owner))
            }));
        }
        notes
    }
}

/// How facts name what is in another database.
const ELSEWHERE: &str = "something in the database ";

fn grant(own: &Difference<'_>, role: &str) -> String {
    format!("GRANT {} TO {} {}", own.thing.text, quoted(role), own.thing.suffix).trim_end().to_owned()
}

/// The verifier is sent and never shown: who has it can try passwords without asking the server.
fn with_password(before: &str, password: &Secret, behind: &str) -> Result<Statement> {
    let text = |verifier: &str| format!("{before} PASSWORD {}{behind}", escape_literal(verifier).trim());
    Ok(Statement {
        shown: text("SCRAM-SHA-256 verifier of a random password, kept in the vault of record"),
        sent: Some(Secret::new(text(&verifier(password)?))),
    })
}
