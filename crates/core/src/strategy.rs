//! Strategies: pure functions from an outline to a plan.

pub mod alternating;
pub mod in_place;
pub mod repair;
