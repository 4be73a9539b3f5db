//! Keeps what is in memory out of core dumps, panics and logs.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Makes the process not dumpable: no core file, and no other process of the same user can
/// read its memory.
pub(crate) fn harden() {
    // Both may be refused by an odd kernel; a rotation without them is still better than none.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = rustls_provider();
}

/// Shows of a panic where it happened, and its words only if they are one text of the source. Those that are put together
/// may have values among them: a text that is cut inside of a character is quoted as a whole.
pub(crate) fn hush() {
    std::panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        crate::display::err(&words(info.payload(), &place));
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            crate::display::err(&format!("{trace}\n"));
        }
    }));
}

fn words(payload: &(dyn Any + Send), place: &str) -> String {
    let what = payload.downcast_ref::<&'static str>().copied();
    let what = what.unwrap_or("its words are not shown, because values may be among them");
    format!(
        "error: pgrotate has a mistake in it, at {place}\ncause: {what}\n\
         hint:  please report it; a run that is not over is not lost: pgrotate status, then pgrotate resume\n"
    )
}

/// Several clients share rustls; all use ring.
fn rustls_provider() -> bool {
    pgrotate_providers::http::install_crypto()
}

/// The crates whose logs may be asked for. Others log requests in full, passwords among them.
const OWN: [&str; 4] = ["pgrotate", "pgrotate_core", "pgrotate_engine", "pgrotate_providers"];

/// Logs to stderr as `PGROTATE_LOG` says: a level, or `crate=level` pairs of our own crates.
/// Off unless asked for; libraries are held at *warn* in any case.
pub(crate) fn trace() {
    use tracing_subscriber::{EnvFilter, fmt, prelude::*};
    let Ok(wish) = std::env::var("PGROTATE_LOG") else { return };
    let filter = EnvFilter::builder().parse_lossy(directives(&wish));
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}

/// A filter that lets nobody else's details through.
fn directives(wish: &str) -> String {
    let own = wish.split(',').map(str::trim).filter_map(|part| match part.split_once('=') {
        Some((target, _)) => OWN
            .iter()
            .any(|own| target == *own || target.starts_with(&format!("{own}::")))
            .then(|| part.to_owned()),
        None if part.is_empty() => None,
        None => Some(OWN.map(|own| format!("{own}={part}")).join(",")),
    });
    std::iter::once("warn".to_owned()).chain(own).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::{directives, words};

    #[test]
    fn a_panic_does_not_repeat_the_values_in_its_words() {
        let caught = |work: fn()| std::panic::catch_unwind(work).unwrap_err();
        let cut = caught(|| _ = std::hint::black_box(&"hunterü2"[..std::hint::black_box(7)]));
        assert!(cut.downcast_ref::<String>().unwrap().contains("hunter"), "the control");
        let failed = caught(|| _ = "hunter2".parse::<u8>().map_err(|_| "hunter2").expect("a number"));
        for payload in [cut, failed] {
            let shown = words(&*payload, "src/x.rs:1:2");
            assert!(shown.contains("src/x.rs:1:2") && !shown.contains("hunter"), "{shown}");
        }
        let known = caught(|| panic!("the copy exists"));
        assert!(words(&*known, "x").contains("cause: the copy exists"));
    }

    #[test]
    fn only_our_own_crates_can_be_asked_to_tell_more() {
        assert_eq!(directives("aws_smithy_runtime=trace,hyper=debug"), "warn");
        assert_eq!(
            directives("pgrotate_providers::http=debug,reqwest=trace"),
            "warn,pgrotate_providers::http=debug"
        );
        assert!(directives("trace").starts_with("warn,pgrotate=trace,pgrotate_core=trace"));
    }
}
