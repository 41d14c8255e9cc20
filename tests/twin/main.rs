//! Everything that runs on the twin, in virtual time: what is read of it, whole upgrades, chaos, what a policy must allow,
//! and damaged input.
//!
//! The tests share one process: chance is seeded by thread, and each test has its own twin, clock and runtime. What is the
//! process's own, whether anybody logs, is said first by everything that runs an upgrade (`disable_logging`).

mod chaos;
mod fuzz;
mod launch_configuration;
mod other_profile;
mod plans;
mod policy;
mod reading;
#[path = "../support/mod.rs"]
mod support;
mod upgrade;
mod warm_pool;
