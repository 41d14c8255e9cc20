//! eksup takes an EKS cluster to a new Kubernetes version, blue to green.
//!
//! The layers, top to bottom; a module imports only from those above it (`tests/source/layers` holds this):
//!
//! - [`wire`]: the one seam between this program and any server
//! - [`model`]: plain data, versions, the clock
//! - [`scheduling`]: whether a pod can run on a node, as the Kubernetes scheduler decides it (pure)
//! - [`journal`]: the run's durable record
//! - [`event`]: what a reporter sees
//! - [`engine`]: steps forward and back, retries, stop signals
//! - [`plan`]: the plan file
//! - [`clients`]: real SDK clients over a wire
//! - [`aws`], [`k8s`]: thin calls, model in, model out
//! - [`inventory`]: one reading of a cluster
//! - [`route`]: plan and inventory to steps (pure)
//! - [`ready`]: readiness findings
//! - [`handback`]: what to tell the tools that own the groups of a run (pure)
//! - [`steps`]: what an upgrade is made of
//! - [`report`]: sinks for events
//! - [`run`]: one run's life: what is ahead, the lock, the session, its end, how far back it goes
//! - [`twin`]: a simulator of AWS and Kubernetes; shares only [`wire`] and [`model`] with the rest
//! - [`chaos`]: upgrades on the twin while a seed decides what goes wrong, and the invariants they are held to
//! - [`cli`]: the command line
#![forbid(unsafe_code)]

pub mod aws;
pub mod chaos;
pub mod cli;
pub mod clients;
pub mod engine;
pub mod event;
pub mod handback;
pub mod inventory;
pub mod journal;
pub mod k8s;
pub mod model;
pub mod plan;
pub mod ready;
pub mod report;
pub mod route;
pub mod run;
pub mod scheduling;
pub mod steps;
pub mod twin;
pub mod wire;
