//! Real SDK clients over a wire.
//!
//! [`sdk_config`] builds the SDK's configuration and [`kube`] the Kubernetes client, each for production or over a given
//! [`crate::wire::Wire`]; [`credentials`] keeps the machine's credentials and [`eks_token`] mints the EKS token; [`endpoint_rotation`]
//! goes where the cluster has gone; [`aws_error`] sorts what goes wrong; [`cluster_identity`] proves that a kubeconfig and an EKS
//! cluster are one and the same; [`request_log`] is the log of what was asked; [`call_retry`] tries
//! a call again.

pub mod aws_error;
pub mod call_counter;
pub mod call_retry;
pub mod cluster_identity;
pub mod credentials;
pub mod eks_token;
pub mod endpoint_rotation;
#[cfg(test)]
mod endpoint_rotation_tests;
#[cfg(test)]
pub mod fake_wire;
pub mod https;
pub mod kube_client;
pub mod kube_error;
pub mod request_log;
pub mod sdk_config;
