//! Derived names.
