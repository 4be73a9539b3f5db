//! Two login roles that take turns, on every version of PostgreSQL from 14 to 18 that can be had: real servers, real
//! logins, an administrator that is no superuser, as Azure's is. `make postgres` fetches the versions that Debian does
//! not have; one that is missing is said to be *skipped*.

#![allow(clippy::unwrap_used, reason = "tests say what they expect by unwrapping, and so do their helpers")]

mod closing;
#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "the tests of one role use the rest")]
mod common;
mod damages;
mod differences;
mod refusals;
mod together;
mod world;

use world::World;

/// One test of each name for each version.
macro_rules! on_version {
    ($module:ident, $version:literal) => {
        mod $module {
            use super::*;

            #[tokio::test]
            async fn a_prepared_pair_does_everything_both_ways_whatever_its_names() {
                if let Some(world) = World::start_odd($version).await {
                    together::everything(world).await;
                }
            }

            #[tokio::test]
            async fn what_differs_is_named_and_mended_where_that_is_possible() {
                if let Some(world) = World::start($version).await {
                    differences::each(world).await;
                }
            }

            #[tokio::test]
            async fn what_is_refused_changes_nothing() {
                if let Some(world) = World::start($version).await {
                    refusals::each(world).await;
                }
            }

            #[tokio::test]
            async fn superusers_take_the_login_from_each_other() {
                if let Some(world) = World::start($version).await {
                    closing::as_superusers(world).await;
                }
            }

            #[tokio::test]
            async fn one_takes_the_login_from_the_other_where_the_server_lets_it() {
                if let Some(world) = World::start($version).await {
                    closing::as_administrators(world).await;
                }
            }
        }
    };
}

on_version!(v14, 14);
on_version!(v15, 15);
on_version!(v16, 16);
on_version!(v17, 17);
on_version!(v18, 18);

/// Debian's server has its messages in many languages.
#[tokio::test]
async fn a_server_may_speak_german() {
    if let Some(world) = World::start_german(15).await {
        refusals::each(world).await;
    }
}
