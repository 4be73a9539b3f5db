//! What the comment on a ticket says, whichever system keeps the ticket.

use std::time::Duration;

use pgrotate_core::provider::Story;

/// The headline.
pub(crate) fn headline(story: &Story) -> String {
    let environment = &story.environment;
    match story.takes_back {
        None => format!("The PostgreSQL password of {environment} has been rotated"),
        Some(run) => {
            format!("The PostgreSQL password of {environment} is again the one from before the run {run}")
        }
    }
}

/// The facts of a run as names and texts, one a line. There is no value among them.
pub(crate) fn facts(story: &Story) -> Vec<(String, String)> {
    let mut facts = vec![
        ("Environment".to_owned(), story.environment.to_string()),
        ("Role".to_owned(), story.target.clone()),
        ("Run".to_owned(), story.run.to_string()),
        ("Operator".to_owned(), story.operator.clone()),
        ("Started".to_owned(), format!("{:.0}", story.started_at)),
        ("Proven".to_owned(), format!("{:.0}", story.proven_at)),
    ];
    if let Some(window) = story.window_ms {
        let seconds = Duration::from_millis(window).as_secs_f64();
        let words = if window == 0 { "no moment".to_owned() } else { format!("{seconds:.1} s") };
        facts.push(("No new logins for at most".to_owned(), words));
    }
    for (copy, version) in story.secret_ids() {
        facts.push((format!("Secret Id of {copy}"), version.to_string()));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{RUN, story};

    #[test]
    fn the_secret_ids_are_named_and_other_versions_are_not() {
        let facts = facts(&story(None));
        let text = facts.iter().map(|(name, text)| format!("{name}: {text}\n")).collect::<String>();
        assert!(text.contains(&format!("Run: {RUN}\n")));
        assert!(text.contains("Proven: 2026-01-01T00:01:00Z\n"), "{text}");
        assert!(text.contains("No new logins for at most: 2.3 s\n"));
        assert!(text.contains("Secret Id of azure_key_vault:database-url: https://kv-mindwell-dev."));
        assert!(!text.contains("aws_secrets_manager"));
    }
}
