//! `pgrotate consumers ENV`

use std::time::Duration;

use pgrotate_core::census::{self, Group};
use pgrotate_core::database_url::Target;
use pgrotate_core::rotation::Rotation;
use pgrotate_core::{Error, Kind};
use serde_json::json;

use crate::app::{App, known};
use crate::display::{self, table};
use crate::exit::{Failure, Status};

/// Show who is logged in as the role, and which consumer each is declared for
///
/// Who is logged in and declared for no consumer would stop a rotation; the lines that declare them are printed. Exit
/// status 1 if there is such a one.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The environment
    #[arg(value_name = "ENV")]
    environment: String,
    /// Look for this long; for instance 30s, 5m [default: the census's window]
    #[arg(long, value_name = "TIME", value_parser = super::rotate::span)]
    window: Option<Duration>,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    let config = app.config()?;
    let environment = known(&config, &args.environment)?;
    let rotation = app.rotation(&config, &environment)?;
    let state = rotation.vault.read().await?;
    let role = rotation.role(state.live(rotation.twin_name()));
    let operation = || format!("see who is logged in as {}", role.target);
    let own = role.census.ok_or_else(|| Error::internal("nobody knows who is logged in"))?;
    let current = state.current.ok_or_else(|| {
        Error::new(Kind::BadState, operation())
            .because(format!("{} holds no current password", rotation.vault.id()))
            .hint("store the password that works now in it")
    })?;
    let window = args.window.unwrap_or(rotation.around.times.window);
    let sample = own.take(&current.secret, window).await?;
    let groups = census::groups(&rotation, &sample);
    if app.json {
        display::json(&json!({
            "environment": environment, "role": role.target.user, "at": sample.at, "sessions": groups,
        }));
    } else {
        display::out(&as_text(&rotation, role.target, &groups));
    }
    Ok(if groups.iter().any(Group::is_strange) { Status::Failed } else { Status::Done })
}

fn as_text(rotation: &Rotation, target: &Target, groups: &[Group]) -> String {
    let title = format!("{}: logged in as {target}", display::bold(rotation.environment.as_str()));
    let rows = groups.iter().map(|group| {
        vec![
            group.origin.clone(),
            group.consumer.clone().unwrap_or_else(display::undeclared),
            group.sessions.to_string(),
            format!("{:.0}", group.since),
            format!("{:.0}", group.latest),
        ]
    });
    let seen = match groups {
        [] => "nobody, but for pgrotate itself".to_owned(),
        _ => table(&["who", "consumer", "sessions", "first began", "last began"], rows.collect()),
    };
    let absent = rotation.consumers.iter().filter_map(|bound| {
        let (id, sessions) = (bound.consumer.id(), bound.sessions.as_ref()?);
        let there = groups.iter().any(|group| group.consumer.as_deref() == Some(id));
        (!there).then(|| format!("{id} is declared and not logged in ({sessions})\n"))
    });
    let strangers: String = groups.iter().filter(|group| group.is_strange()).map(declaration).collect();
    let help = match strangers.as_str() {
        "" => String::new(),
        lines => format!("\nwhoever belongs here is declared in the configuration, for instance:\n{lines}"),
    };
    format!("{title}\n{seen}\n{}{help}", absent.collect::<String>())
}

/// The lines that declare sessions of one origin.
fn declaration(group: &Group) -> String {
    let (application, address) = group.origin.rsplit_once('@').unwrap_or((&group.origin, "socket"));
    let quote = |text: &str| toml::Value::from(text).to_string();
    let addresses = match address {
        "socket" => String::new(),
        address => format!(", addresses = [{}]", quote(address)),
    };
    let name = if application.is_empty() { address } else { application };
    format!(
        "\n[[consumers]]\nkind = \"unmanaged\"\nname = {}\nsessions = {{ application_name = {}{addresses} }}\n",
        quote(name),
        quote(application)
    )
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn the_lines_for_a_stranger_are_toml_whatever_it_calls_itself() {
        let lines = |origin: &str| {
            let at = Timestamp::UNIX_EPOCH;
            declaration(&Group { origin: origin.into(), consumer: None, sessions: 1, since: at, latest: at })
        };
        let read = |origin: &str| lines(origin).parse::<toml::Table>().unwrap()["consumers"][0].clone();
        assert_eq!(read("psql@10.0.0.7")["sessions"]["addresses"][0].as_str(), Some("10.0.0.7"));
        let odd = read("a\"b\\@c@socket");
        assert_eq!(odd["sessions"]["application_name"].as_str(), Some("a\"b\\@c"));
        assert!(odd["sessions"].get("addresses").is_none());
        assert_eq!(read("@10.0.0.7")["name"].as_str(), Some("10.0.0.7"));
    }
}
