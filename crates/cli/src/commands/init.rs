//! stub
/// stub
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}
pub(crate) async fn run(_: &crate::app::App, _: Args) -> Result<crate::exit::Status, crate::exit::Failure> { todo!() }
