//! Everything that is parsed, fed with what is damaged: plans, snapshots, journals, saved plans, event files, fault
//! rules, policies, and every reply of AWS and Kubernetes.
//!
//! Each test starts from a real input and damages it, in its bytes or in its structure. The chance is seeded: the same
//! run gives the same cases. `EKSUP_FUZZ_CASES` says how many cases each test tries (the default keeps the whole under
//! half a minute), `EKSUP_FUZZ_SEED` where chance begins.

mod damage;
mod files;
mod plans;
mod replies;
mod requests;
mod rules;
mod runs;
mod upgrades;

use std::fmt::Debug;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

/// Tries `claim` on `cases` inputs, or on as many as are asked for.
fn try_all<S: Strategy>(
    cases: u32,
    inputs: &S,
    claim: impl Fn(S::Value) -> Result<(), TestCaseError>,
) where
    S::Value: Debug,
{
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let cases = number("EKSUP_FUZZ_CASES").unwrap_or(cases);
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&number("EKSUP_FUZZ_SEED").unwrap_or(1).to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    if let Err(error) = TestRunner::new_with_rng(config, rng).run(inputs, claim) {
        panic!("{error}");
    }
}

/// A runtime of virtual time, as a rehearsal has one.
fn virtual_time<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(work)
}
