//! Real SDK clients over a wire.
//!
//! [`aws`] builds the SDK's configuration and [`kube`] the Kubernetes client, each for production or over a given
//! [`crate::wire::Wire`]; [`token`] mints the EKS token; [`error`] sorts what goes wrong; [`identity`] proves that a
//! kubeconfig and an EKS cluster are one and the same.

pub mod aws;
pub mod credentials;
pub mod error;
pub mod follow;
pub mod https;
pub mod identity;
pub mod kube;
pub mod kube_error;
#[cfg(test)]
pub mod scripted;
pub mod token;
