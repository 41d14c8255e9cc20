//! How the VPC CNI plugin gives addresses to nodes and pods, as the environment of DaemonSet kube-system/aws-node says.

use serde::{Deserialize, Serialize};

/// The settings that decide how many addresses a node takes. A number that is not set is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CniSettings {
    /// AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: pods get addresses of the ENIConfigs' subnets, nodes of the group's.
    pub custom_networking: bool,
    /// ENABLE_PREFIX_DELEGATION: interfaces take prefixes of 16 addresses rather than addresses.
    pub prefix_delegation: bool,
    /// WARM_ENI_TARGET.
    pub warm_interfaces: Option<i64>,
    /// WARM_IP_TARGET.
    pub warm_addresses: Option<i64>,
    /// MINIMUM_IP_TARGET.
    pub minimum_addresses: Option<i64>,
    /// WARM_PREFIX_TARGET.
    pub warm_prefixes: Option<i64>,
}

/// An ENIConfig: where pods get their addresses with custom networking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EniConfig {
    pub name: String,
    pub subnet: Option<String>,
}
