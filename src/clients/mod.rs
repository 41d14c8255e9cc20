//! Real SDK clients over a wire.
//!
//! [`aws`] builds the SDK's configuration and [`kube`] the Kubernetes client, each for production or over a given
//! [`crate::wire::Wire`]; [`credentials`] keeps the machine's credentials and [`token`] mints the EKS token; [`follow`]
//! goes where the cluster has gone; [`error`] sorts what goes wrong; [`identity`] proves that a kubeconfig and an EKS
//! cluster are one and the same; [`calls`] is the log of what was asked.

pub mod aws;
pub mod calls;
pub mod credentials;
pub mod error;
pub mod follow;
#[cfg(test)]
mod follow_tests;
pub mod https;
pub mod identity;
pub mod kube;
pub mod kube_error;
#[cfg(test)]
pub mod scripted;
pub mod token;
