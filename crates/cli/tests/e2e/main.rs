//! The real program against the sandbox: a real PostgreSQL, a real application, the vendors'
//! interfaces. Needs what `make setup` installs.

// A test, helpers included, says what it expects by unwrapping, and tells whoever reads of its failure what it saw.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod canary;
mod lab;
mod memory;

mod apps;
mod bad_input;
mod consumers;
mod contract;
mod crash;
mod disk;
mod dumps;
mod evidence;
mod fence;
mod journal;
mod kill;
mod leaks;
mod promotion;
mod requests;
mod rollback;
mod rotation;
mod signin;
mod stop;
mod taken_away;
mod throttling;
mod trace;
mod turns;
mod watch;
mod ways;
