//! `ouisync demo`: three real devices on this machine, one of them a blind safe, with a real directory.

pub mod tree;
use clap::Args;
use crate::{command_line::{DONE, Outcome}, context::Context};
const EXAMPLES: &str = "Examples:\n  ouisync demo";
/// Demo
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {}
impl Arguments {
    pub(crate) async fn run(self, _: &Context) -> Outcome { DONE }
}
