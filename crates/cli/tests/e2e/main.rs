//! The real program against the sandbox: a real PostgreSQL, a real application, the vendors'
//! interfaces. Needs what `make setup` installs.

// A test, helpers included, says what it expects by unwrapping.
#![allow(clippy::unwrap_used)]

mod canary;
mod lab;
mod memory;

mod apps;
mod bad_input;
mod contract;
mod crash;
mod dumps;
mod journal;
mod leaks;
mod promotion;
mod requests;
mod rollback;
mod rotation;
mod signin;
mod throttling;
mod trace;
mod watch;
mod ways;
