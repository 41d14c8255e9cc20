//! How Kubernetes behaves where this program looks: the same bodies run against the twin, in virtual time, and against
//! any cluster named by `EKSUP_TEST_KUBECONFIG`, in real time. Where the two differ, the real one is right.
//!
//! On a real cluster each body works in a namespace of its own, which it deletes. It needs a schedulable node whose
//! kubelet runs (or pretends to run) pods.
//!
//! `moto` asks an AWS that nobody here wrote, where `EKSUP_TEST_MOTO` names one.

mod agreement;
mod auto_scaling;
mod bodies;
mod call;
mod drain_facts;
mod fixed_fields;
mod moto;
mod pod_security;
mod preemption;
mod quotas;
mod real;
mod scenes;
mod scheduling;
mod stateful_sets;
mod twin;
