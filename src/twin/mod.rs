//! twin.
