//! How many addresses of its VPC a node takes, by the rules of the VPC CNI plugin (amazon-vpc-cni-k8s,
//! its pages on ENI and IP targets and on prefix targets). Pure.

use crate::model::cni::CniSettings;
use crate::model::ec2::InterfaceLimits;

/// Addresses of a prefix: a /28.
pub const PREFIX_ADDRESSES: i64 = 16;

/// What one node takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeAddresses {
    /// Of its node group's subnets.
    pub node_subnets: i64,
    /// Of the ENIConfigs' subnets, with custom networking.
    pub pod_subnets: i64,
}

/// What a node takes that runs `pods` pods with an address of their own. `ipv6`: pods get IPv6 addresses only.
pub fn node_addresses(
    cni: &CniSettings,
    limits: InterfaceLimits,
    pods: i64,
    ipv6: bool,
) -> NodeAddresses {
    if ipv6 {
        // The node's own; its pods share an IPv6 prefix.
        return NodeAddresses {
            node_subnets: 1,
            pod_subnets: 0,
        };
    }
    // Each interface has an address of its own, and the other places are for pods. With custom networking the first
    // interface carries none.
    let places = (limits.addresses - 1).max(1);
    let first = i64::from(cni.custom_networking);
    let interfaces = (limits.interfaces - first).max(1);
    let at_least = 1 - first;
    let by_address = cni.warm_addresses.is_some() || cni.minimum_addresses.is_some();
    let wanted = (pods + cni.warm_addresses.unwrap_or(0)).max(cni.minimum_addresses.unwrap_or(0));
    let taken = if cni.prefix_delegation {
        let prefixes = if by_address {
            ceil_div(wanted, PREFIX_ADDRESSES)
        } else {
            ceil_div(pods, PREFIX_ADDRESSES) + cni.warm_prefixes.unwrap_or(1).max(1)
        };
        let prefixes = prefixes.min(interfaces * places);
        prefixes * PREFIX_ADDRESSES + ceil_div(prefixes, places).max(at_least)
    } else if by_address {
        let addresses = wanted.min(interfaces * places);
        addresses + ceil_div(addresses, places).max(at_least)
    } else {
        // As many free places as whole interfaces have that are to be kept ready.
        let ready = cni.warm_interfaces.unwrap_or(1).max(0) * places;
        let held = ceil_div(pods + ready, places).max(at_least).min(interfaces);
        held * limits.addresses
    };
    if cni.custom_networking {
        NodeAddresses {
            node_subnets: 1,
            pod_subnets: taken,
        }
    } else {
        NodeAddresses {
            node_subnets: taken,
            pod_subnets: 0,
        }
    }
}

fn ceil_div(n: i64, by: i64) -> i64 {
    (n.max(0) + by - 1) / by
}

#[cfg(test)]
mod tests {
    use super::*;

    /// m5.large.
    const LARGE: InterfaceLimits = InterfaceLimits {
        interfaces: 3,
        addresses: 10,
    };
    /// m5.8xlarge.
    const LARGE_8: InterfaceLimits = InterfaceLimits {
        interfaces: 8,
        addresses: 30,
    };

    fn node(cni: &CniSettings, limits: InterfaceLimits, pods: i64) -> i64 {
        let taken = node_addresses(cni, limits, pods, false);
        assert_eq!(taken.pod_subnets, 0);
        taken.node_subnets
    }

    #[test]
    fn by_default_a_node_holds_whole_interfaces_and_one_of_them_is_kept_ready() {
        let default = CniSettings::default();
        // An empty node has one interface of 10, whose 9 places are the ready ones.
        assert_eq!(node(&default, LARGE, 0), 10);
        // With one pod only 8 are free, so that a second interface comes; with 10 a third.
        assert_eq!(node(&default, LARGE, 1), 20);
        assert_eq!(node(&default, LARGE, 9), 20);
        assert_eq!(node(&default, LARGE, 10), 30);
        // It has no fourth.
        assert_eq!(node(&default, LARGE, 27), 30);
        // Ten pods hold sixty addresses on a large machine.
        assert_eq!(node(&default, LARGE_8, 10), 60);
        let none_ready = CniSettings {
            warm_interfaces: Some(0),
            ..default
        };
        assert_eq!(node(&none_ready, LARGE, 9), 10);
        assert_eq!(node(&none_ready, LARGE, 10), 20);
    }

    #[test]
    fn with_address_targets_only_what_is_wanted_is_taken() {
        let warm = CniSettings {
            warm_addresses: Some(5),
            // Is passed over where an address target is set.
            warm_interfaces: Some(3),
            ..CniSettings::default()
        };
        // 10 pods and 5 ready, on two interfaces with an address each.
        assert_eq!(node(&warm, LARGE, 10), 17);
        let minimum = CniSettings {
            minimum_addresses: Some(20),
            warm_addresses: Some(2),
            ..CniSettings::default()
        };
        assert_eq!(node(&minimum, LARGE_8, 3), 21);
        assert_eq!(node(&minimum, LARGE_8, 30), 34);
        // A minimum alone keeps none ready beyond it.
        let alone = CniSettings {
            minimum_addresses: Some(4),
            ..CniSettings::default()
        };
        assert_eq!(node(&alone, LARGE, 6), 7);
    }

    #[test]
    fn prefixes_are_taken_whole_and_one_is_kept_ready() {
        let prefixes = CniSettings {
            prefix_delegation: true,
            ..CniSettings::default()
        };
        // 20 pods fill one prefix and begin a second; a third is ready: 48 addresses and the interface's own.
        assert_eq!(node(&prefixes, LARGE, 20), 49);
        assert_eq!(node(&prefixes, LARGE, 0), 17);
        // Nine prefixes fill an interface.
        assert_eq!(node(&prefixes, LARGE, 9 * 16), 10 * 16 + 2);
        let targets = CniSettings {
            warm_addresses: Some(5),
            minimum_addresses: Some(2),
            ..prefixes
        };
        // 20 pods and 5 ready fit into two prefixes.
        assert_eq!(node(&targets, LARGE, 20), 33);
    }

    #[test]
    fn with_custom_networking_pods_take_from_their_own_subnets_and_one_interface_less_carries_them()
    {
        let custom = CniSettings {
            custom_networking: true,
            ..CniSettings::default()
        };
        let taken = node_addresses(&custom, LARGE, 5, false);
        assert_eq!((taken.node_subnets, taken.pod_subnets), (1, 20));
        let full = node_addresses(&custom, LARGE, 18, false);
        assert_eq!((full.node_subnets, full.pod_subnets), (1, 20));
        let prefixes = CniSettings {
            prefix_delegation: true,
            ..custom
        };
        let taken = node_addresses(&prefixes, LARGE, 5, false);
        assert_eq!((taken.node_subnets, taken.pod_subnets), (1, 33));
    }

    #[test]
    fn pods_with_ipv6_addresses_take_none_of_the_subnets() {
        let taken = node_addresses(&CniSettings::default(), LARGE, 25, true);
        assert_eq!((taken.node_subnets, taken.pod_subnets), (1, 0));
    }
}
