//! The HTTP interface: routes, who may ask, and the connections.

pub(crate) mod connections;
pub(crate) mod directory;
mod guard;
pub(crate) mod routes;

mod answer;
mod conflicts;
mod past;
mod retention;
mod streams;

#[cfg(test)]
mod tests;
