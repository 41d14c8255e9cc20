//! One run's life, from a look at the cluster to its end: what `eksup apply`, `eksup rollback`, `eksup rehearse` and chaos
//! share. Whoever calls gives it a way to the cluster, a stop signal and a place for its words.
//!
//! Before a run:
//! - [`cluster_connection`]: a way to one cluster, and what is read over it
//! - [`judged_route`]: a route with what speaks against it
//! - [`permissions`]: whether the caller may do what the route does
//! - [`assess`]: an open run of the plan, or the route of a new one
//! - [`saved_plan`]: a plan with what it rests on
//! - [`credential_expiry`]: whether the credentials last
//! - [`run_target`]: which cluster, in which account, as whom
//! - [`atomic_file`]: files that are written whole or not at all
//!
//! A run:
//! - [`context`]: what it is given, and what is asked of it
//! - [`execute`]: the whole of it, with reporters and notifications
//! - [`session`]: one process's part, from taking the lock to giving it back
//! - [`kube_store`], [`stored_run`]: its journal in the cluster
//! - [`plan_gates`]: the plan's windows and approvals
//! - [`notify`]: who is told
//! - [`run_facts`], `node_watch`: what a report tells beside the steps
//!
//! Where it stands and how far back it goes:
//! - [`journal_status`], [`live_status`]: by its journal, by the cluster
//! - [`rollback_scope`], [`version_rollback`]: what is rolled back
//! - [`handback_facts`]: what the tools that own its groups have to be told
//! - [`plan_diff`]: what another plan would change
//! - [`outcome`], [`error`]: how it ends

pub mod assess;
pub mod atomic_file;
pub mod cluster_connection;
pub mod context;
pub mod credential_expiry;
mod engine_env;
pub mod error;
pub mod execute;
pub mod handback_facts;
pub mod holder;
pub mod journal_status;
pub mod judged_route;
pub mod kube_store;
mod live_node_pools;
pub mod live_status;
pub mod logging;
mod node_watch;
pub mod not_ready;
pub mod notify;
mod older_nodes;
pub mod outcome;
pub mod outline;
pub mod output;
pub mod permissions;
pub mod plan_diff;
pub mod plan_gates;
pub mod rollback_scope;
pub mod rollback_status;
pub mod run_checks;
pub mod run_facts;
pub mod run_target;
pub mod run_times;
pub mod saved_plan;
mod saved_plan_parts;
pub mod session;
pub mod stored_run;
pub mod unless_stopped;
pub mod version_rollback;

#[cfg(test)]
mod held_rollback_tests;
#[cfg(test)]
mod rollback_tests;

pub use error::{RunError, RunErrorKind};
