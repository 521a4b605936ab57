//! Simulator, fakes and hermetic environments for tests.
