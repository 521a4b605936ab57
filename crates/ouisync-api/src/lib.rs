//! HTTP data types and typed client of the daemon.
