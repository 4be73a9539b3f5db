//! Everything that a person or a script reads: data on stdout, the rest on stderr.
//!
//! Colour only where the stream is a terminal and `NO_COLOR` is not set; every line reads the
//! same without it.

mod json;
mod live;
mod plain;
mod words;

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use pgrotate_core::Error;
use pgrotate_core::drift::State;
use pgrotate_core::executor::End;
use pgrotate_core::journal::{Effect, Outcome, RunOutcome};
use pgrotate_core::observer::Observer;
use pgrotate_core::plan::Action;
use pgrotate_core::provider::{Finding, Severity};
use pgrotate_core::run::{RunState, StepStatus, Window};

pub(crate) use words::{effect, outcome, seconds};

const BOLD: anstyle::Style = anstyle::Style::new().bold();
const RED: anstyle::Style = anstyle::AnsiColor::Red.on_default().bold();
const YELLOW: anstyle::Style = anstyle::AnsiColor::Yellow.on_default();
const GREEN: anstyle::Style = anstyle::AnsiColor::Green.on_default();

/// Writes to stdout. A reader that went away (`| head`) is no failure.
pub(crate) fn out(text: &str) {
    let _ = anstream::stdout().write_all(text.as_bytes());
}

/// Writes to stderr.
pub(crate) fn err(text: &str) {
    let _ = anstream::stderr().write_all(text.as_bytes());
}

/// Writes one JSON object in a line to stdout.
pub(crate) fn json(value: &serde_json::Value) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{value}");
    let _ = stdout.flush();
}

/// Text in a style, for streams that take the style out where it can't be shown.
fn styled(style: anstyle::Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Text that stands out.
pub(crate) fn bold(text: &str) -> String {
    styled(BOLD, text)
}

/// What begins a line that says that all is well.
pub(crate) fn ok() -> String {
    styled(GREEN, "ok")
}

/// What begins a line that names what is not as it was.
pub(crate) fn broken() -> String {
    styled(RED, "broken:")
}

/// Makes room for a new picture, where there is a screen.
pub(crate) fn clear() {
    if std::io::stdout().is_terminal() {
        out("\x1b[2J\x1b[H");
    }
}

/// Says something that a person should know.
pub(crate) fn warning(text: &str) {
    err(&format!("{} {text}\n", styled(YELLOW, "warning:")));
}

/// Makes miette draw configuration errors in our width and colours.
pub(crate) fn hook() {
    let colour =
        std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stderr().is_terminal();
    let _ = miette::set_hook(Box::new(move |_| {
        Box::new(miette::MietteHandlerOpts::new().color(colour).unicode(colour).width(110).build())
    }));
}

/// Shows what is wrong with the configuration.
pub(crate) fn report(report: &miette::Report) {
    err(&format!("{report:?}\n"));
}

/// Shows a failure: what failed, each cause on its line, then what helps.
pub(crate) fn error(error: &Error) {
    err(&words::error(error));
}

/// One finding, with what helps.
pub(crate) fn finding(finding: &Finding) -> String {
    let label = match finding.severity {
        Severity::Blocks => styled(RED, "blocks: "),
        Severity::Warning => styled(YELLOW, "warning:"),
        Severity::Unseen => styled(YELLOW, "unseen: "),
        Severity::Note => "note:   ".to_owned(),
    };
    let more = finding.why.iter().chain(&finding.mend).map(|line| format!("         {line}\n"));
    format!("{label} {}: {}\n{}", finding.subject, finding.what, more.collect::<String>())
}

/// A copy's state in one word.
pub(crate) fn state(state: State) -> String {
    match state {
        State::Current => styled(GREEN, "current"),
        State::Pending => styled(YELLOW, "pending"),
        State::Stale => styled(RED, "stale"),
        State::Unseen => "unseen".to_owned(),
        State::Unreachable => styled(RED, "unreachable"),
    }
}

/// Of sessions that no consumer is declared for.
pub(crate) fn undeclared() -> String {
    styled(RED, "not declared")
}

/// A table without lines, as wide as it needs to be.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| bold(name)).collect::<Vec<_>>());
    table.add_rows(rows);
    table.trim_fmt()
}

/// Who watches a run: JSON lines, live lines on a terminal, or plain lines.
pub(crate) fn observer(json: bool) -> Arc<dyn Observer> {
    if json {
        Arc::new(json::Lines)
    } else if std::io::stdout().is_terminal() && std::io::stderr().is_terminal() {
        Arc::new(live::Live::new())
    } else {
        Arc::new(plain::Lines::default())
    }
}

/// For how long the applications could not log in, and what that went to.
pub(crate) fn window(window: &Window) -> String {
    let words = |millis: u64| seconds(Duration::from_millis(millis));
    let parts: Vec<String> =
        window.parts.iter().map(|(name, millis)| format!("{name} {}", words(*millis))).collect();
    match parts.is_empty() {
        true => "could log in at every moment".to_owned(),
        false => format!("could not log in for at most {}: {}", words(window.total), parts.join(", ")),
    }
}

/// What came of a run: the copies, and how long the applications could not log in.
pub(crate) fn summary(state: &RunState, end: &End) {
    if state.past_point_of_no_return() && !matches!(end, End::Aborted) {
        out(&format!("\n{}\n", copies(state)));
    }
    if let (End::Done, Some(own)) = (end, state.window()) {
        out(&format!("the application {}\n", window(&own)));
    }
    let (run, environment) = (state.run, &state.plan().environment);
    match end {
        End::Done => {
            let what = match state.plan().back() {
                None if !state.plan().changes_password() => "put right and proven".to_owned(),
                None => "rotated and proven".to_owned(),
                Some(back) => format!("the password from before {} is back and proven", back.run),
            };
            out(&format!("{} {environment}: {what}, run {run}\n\n", styled(GREEN, "done")));
        }
        End::Aborted if state.outcome == Some(RunOutcome::Done) => out(&format!(
            "{environment}: run {run} is done; what it may have left in the vault of record is dropped\n"
        )),
        End::Aborted => out(&format!("{environment}: called off, nothing is changed, run {run}\n")),
        End::Failed(error) => {
            err(&words::error(error));
            out(&format!("{environment}: {}, nothing is changed, run {run}\n", styled(RED, "failed")));
        }
        End::Stopped => {
            out(&format!("{environment}: stopped on request; go on with: pgrotate resume {run}\n"));
            if !state.past_point_of_no_return() {
                out(&format!("or call it off: pgrotate abort {run}\n"));
            }
        }
        End::Parked(parked) => {
            for (step, error) in parked {
                err(&format!("{} {step}\n{}", styled(YELLOW, "parked:"), words::error(error)));
            }
            out(&format!(
                "{environment}: {} at {} of {} steps; everything else that could be done is done\ngo on with: pgrotate resume {run}\n",
                styled(YELLOW, "parked"),
                parked.len(),
                state.plan().steps.len()
            ));
        }
    }
}

fn copies(state: &RunState) -> String {
    let story = |wanted: &dyn Fn(&Action) -> bool| {
        state.steps().find(|(step, _)| wanted(&step.action)).map(|(_, own)| own)
    };
    let mut rows = vec![vec![
        state.plan().vault.to_string(),
        story(&|action| *action == Action::Promote).map(standing).unwrap_or_default(),
        String::new(),
        String::new(),
    ]];
    for (step, published) in state.steps() {
        let Action::Publish { copy: id } = &step.action else { continue };
        let verified = story(&|action| matches!(action, Action::VerifyCopy { copy } if copy == id));
        let version = published.outcome.as_ref().and_then(|outcome| outcome.version.as_ref());
        rows.push(vec![
            id.to_string(),
            standing(published),
            verified.map(proof).unwrap_or_default(),
            version.map(|version| words::short(version.as_str())).unwrap_or_default(),
        ]);
    }
    table(&["copy", "written", "read back", "version"], rows)
}

fn standing(story: &pgrotate_core::run::StepState) -> String {
    match (story.status, &story.outcome) {
        (StepStatus::Done, Some(Outcome { effect, .. })) => words::effect(*effect).to_owned(),
        (StepStatus::Parked, _) => styled(RED, "parked"),
        _ => styled(YELLOW, "not yet"),
    }
}

fn proof(story: &pgrotate_core::run::StepState) -> String {
    match (story.status, &story.outcome) {
        (StepStatus::Done, Some(Outcome { effect: Effect::Unseen, .. })) => "unseen".to_owned(),
        (StepStatus::Done, _) => styled(GREEN, "current"),
        (StepStatus::Parked, _) => styled(RED, "parked"),
        _ => styled(YELLOW, "not yet"),
    }
}
