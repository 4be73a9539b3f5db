//! Keeps what is in memory out of core dumps, and logs where a person asked for them.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Makes the process not dumpable: no core file, and no other process of the same user can
/// read its memory.
pub(crate) fn harden() {
    // Both may be refused by an odd kernel; a rotation without them is still better than none.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = rustls_provider();
}

/// Several clients share rustls; all use ring.
fn rustls_provider() -> bool {
    pgrotate_providers::http::install_crypto()
}

/// Logs to stderr at the level of `PGROTATE_LOG`, for instance `pgrotate_providers=debug`. Off
/// unless asked for. Libraries that log requests in full are held at *warn* in any case.
pub(crate) fn trace() {
    use tracing_subscriber::{EnvFilter, fmt, prelude::*};
    let Ok(wish) = std::env::var("PGROTATE_LOG") else { return };
    let own = ["pgrotate", "pgrotate_core", "pgrotate_engine", "pgrotate_providers"];
    let level = if wish.contains('=') { wish } else { own.map(|name| format!("{name}={wish}")).join(",") };
    let filter = EnvFilter::builder().parse_lossy(format!("warn,{level}"));
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}
