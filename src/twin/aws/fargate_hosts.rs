//! What Fargate gives the node of a pod: an address in a subnet of the pod's profile, and a kubelet of the control plane's
//! version (FARG-5, FARG-6).

use crate::twin::k8s::cloud_hooks;
use crate::twin::world::SimWorld;

/// A place for one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FargateHost {
    pub address: std::net::Ipv4Addr,
    pub zone: String,
    pub zone_id: String,
    pub region: String,
    /// `v1.29.15-eks-113cf36`.
    pub kubelet_version: String,
}

impl FargateHost {
    /// The name of its node, which has the private domain of the region.
    pub fn node_name(&self) -> String {
        let domain = match self.region.as_str() {
            "us-east-1" => "ec2.internal".to_owned(),
            region => format!("{region}.compute.internal"),
        };
        let address = self.address.to_string().replace('.', "-");
        format!("fargate-ip-{address}.{domain}")
    }
}

/// A place in one of `subnets`, by chance; none where all of them are full or unknown. The subnet's count of free addresses
/// stays, as a pod that leaves gives its address back.
pub fn take_host(world: &mut SimWorld, subnets: &[String]) -> Option<FargateHost> {
    let known = subnets.iter().filter_map(|id| world.cloud.subnets.get(id));
    let open: Vec<String> = known.filter(|s| s.free > 0).map(|s| s.id.clone()).collect();
    if open.is_empty() {
        return None;
    }
    let pick = world.rng.usize(..open.len());
    let kubelet_version = kubelet_version(world);
    let region = world.cloud.region.clone();
    let names = cloud_hooks::node_names(world);
    let subnet = world.cloud.subnets.get_mut(&open[pick])?;
    let base = subnet.cidr.split('/').next()?;
    let base = u32::from(base.parse::<std::net::Ipv4Addr>().ok()?);
    // Instances and pods take their addresses from the same count; a snapshot's Fargate nodes are not in it.
    loop {
        subnet.given += 1;
        let host = FargateHost {
            address: std::net::Ipv4Addr::from(base.wrapping_add(3 + subnet.given)),
            zone: subnet.zone.clone(),
            zone_id: subnet.zone_id.clone(),
            region: region.clone(),
            kubelet_version: kubelet_version.clone(),
        };
        if !names.contains(&host.node_name()) {
            return Some(host);
        }
    }
}

/// The newest patch of the API server's version.
fn kubelet_version(world: &SimWorld) -> String {
    let minor = cloud_hooks::server_version(world);
    let versions = world.cloud.eks.iter().flat_map(|eks| &eks.versions);
    let patch = versions
        .filter(|v| v.version == minor && !v.patch.is_empty())
        .map(|v| v.patch.clone())
        .next();
    format!(
        "v{}-eks-113cf36",
        patch.unwrap_or_else(|| format!("{minor}.0"))
    )
}
