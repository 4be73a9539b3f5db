//! What stands in the way of two roles taking turns.

use pgrotate_core::provider::{Finding, Seat, Severity};

use super::PostgresPair;
use super::facts::{Facts, Names};

/// How many of a role's objects are named.
const SHOWN: usize = 5;

impl PostgresPair {
    pub(super) fn findings(&self, facts: &Facts, live: Seat) -> Vec<Finding> {
        let names = self.names();
        if let Some(missing) = names.all().into_iter().find(|name| !facts.exists(name)) {
            return vec![self.block(missing, "there is no role of this name on the server".to_owned())];
        }
        let differences = facts.differences(&names).into_iter().map(|own| (own.role, own.to_string()));
        let alone = [names.first, names.second].into_iter().flat_map(|role| alone(facts, &names, role));
        let mut findings: Vec<Finding> =
            differences.chain(alone).map(|(role, what)| self.block(role, what)).collect();
        if self.closes {
            findings.extend(busy(facts, &names, live));
            findings.extend(power(facts, &names));
        } else {
            let closed = [names.first, names.second].into_iter().filter(|role| !facts.may_log_in(role));
            findings.extend(closed.map(|role| self.block(role, "it may not log in".to_owned())));
        }
        findings
    }

    fn block(&self, subject: &str, what: String) -> Finding {
        let environment = &self.roles[0].shared.environment;
        let mend = format!(
            "pgrotate roles prepare {environment} shows the SQL that makes it so, and --apply carries it out"
        );
        Finding::new(Severity::Blocks, subject, what)
            .why("after the change consumers would find that something fails which worked before")
            .mend(mend)
    }
}

/// What one role has or does for itself, where it should be the group.
fn alone<'a>(facts: &Facts, names: &Names<'a>, role: &'a str) -> Vec<(&'a str, String)> {
    let owner = names.owner;
    let mut found: Vec<String> = owned(facts, role).into_iter().collect();
    if !facts.may_act(role, names) {
        let may = if facts.version >= 160_000 { "WITH SET TRUE, so that it may act as it" } else { "" };
        found.push(format!("it is no member of {owner} {may}").trim_end().to_owned());
    }
    if !facts.has(role, "setting", &names.acts_as_owner()) {
        found.push(format!("what it creates is its own and not {owner}'s"));
    }
    found.extend(
        facts
            .other_acts(role, names)
            .map(|own| format!("it acts as another role than {owner}: {}", own.text)),
    );
    if role == names.first && facts.lost_path(names).is_some() {
        found.push(format!(
            "it finds its schema {} by \"$user\" in search_path, which means {owner} when it acts as that",
            facts.quoted(role)
        ));
    }
    found.into_iter().map(|what| (role, what)).collect()
}

/// What belongs to a login role alone.
fn owned(facts: &Facts, role: &str) -> Option<String> {
    let owned: Vec<&str> = facts.things(role, "owns").map(|thing| thing.text.as_str()).collect();
    let rest = owned.len().saturating_sub(SHOWN);
    let named = owned.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match (owned.is_empty(), rest) {
        (true, _) => None,
        (false, 0) => Some(format!("it alone owns {named}")),
        (false, rest) => Some(format!("it alone owns {named} and {rest} more")),
    }
}

/// Who is logged in as the role that will get another password.
fn busy(facts: &Facts, names: &Names<'_>, live: Seat) -> Option<Finding> {
    let idle = match live {
        Seat::First => names.second,
        Seat::Second => names.first,
    };
    let what = format!("it should be idle, and sessions are logged in as it: {}", facts.sessions_of(idle)?);
    let finding = Finding::new(Severity::Blocks, idle, what)
        .why("they would be locked out: the run gives that role another password")
        .mend("let them log in as the role that is live, which the copies name");
    Some(finding)
}

/// Whether each may close the other.
fn power(facts: &Facts, names: &Names<'_>) -> Vec<Finding> {
    let pairs = [(names.first, names.second), (names.second, names.first)].into_iter();
    let lacks = pairs.filter(|(one, other)| !facts.administers(one, other)).map(|(one, other)| {
        let what = format!("it may not take the login from {other}, which is what `retire = \"nologin\"` asks for");
        let why = match facts.version {
            160_000.. => {
                "from PostgreSQL 16 on that needs CREATEROLE and ADMIN OPTION on the other role, and two roles can't have \
                 it of each other"
            }
            _ => "before PostgreSQL 16 that needs CREATEROLE, and a superuser if the other has REPLICATION or is one",
        };
        Finding::new(Severity::Blocks, one, what)
            .why(why)
            .mend("set `retire = \"password\"` under [roles]: that needs no power over the other role")
    });
    lacks.collect()
}
