//! See the workspace README.

#[allow(dead_code, unused_imports)]
mod vendors;

fn main() {}
