//! The Fargate profiles of a snapshot, as AWS answers them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::model::snapshot::Snapshot;
use crate::twin::aws::call::Input;
use crate::twin::aws::fargate_profile::FargateProfile;
use crate::twin::aws::state::AwsAccount;
use crate::twin::k8s::{ProfileSelector, SchedulingProfile};

/// Fills the cluster with its profiles. One of which the snapshot has no more than the name takes no pods.
pub fn seed(cloud: &mut AwsAccount, snapshot: &Snapshot) {
    let (region, account) = (cloud.region.clone(), cloud.account.clone());
    let Some(eks) = &mut cloud.eks else {
        return;
    };
    let of = |name: &str| {
        format!(
            "arn:aws:eks:{region}:{account}:fargateprofile/{}/{name}",
            eks.name
        )
    };
    let mut profiles: BTreeMap<String, FargateProfile> = BTreeMap::new();
    for name in &snapshot.inventory.fargate_profiles {
        let spec = json!({
            "createdAt": eks.created.as_millisecond() as f64 / 1000.0,
            "podExecutionRoleArn": format!("arn:aws:iam::{account}:role/fargate"),
            "subnets": [], "selectors": [], "status": "ACTIVE", "health": {"issues": []},
        });
        let profile = FargateProfile {
            name: name.clone(),
            arn: of(name),
            spec: spec.as_object().cloned().unwrap_or_default(),
            tags: BTreeMap::new(),
        };
        profiles.insert(name.clone(), profile);
    }
    let told = snapshot.aws.get("eks:DescribeFargateProfile");
    for item in told.into_iter().flatten() {
        // A snapshot may keep the answer or what is in it.
        let item = item.get("fargateProfile").unwrap_or(item);
        let input = Input(item);
        let Some(name) = input.get_text("fargateProfileName") else {
            continue;
        };
        let profile = profiles.entry(name.to_owned()).or_default();
        profile.name = name.to_owned();
        let arn = input.get_text("fargateProfileArn");
        profile.arn = arn.map_or_else(|| of(name), str::to_owned);
        profile.tags = input.get_text_map("tags");
        for (member, value) in item.as_object().into_iter().flatten() {
            profile.spec.insert(member.clone(), value.clone());
        }
    }
    eks.fargate = profiles;
}

/// The profiles as the cluster's admission and scheduler know them. Those that are not ACTIVE take no pods.
pub fn scheduling_profiles(cloud: &AwsAccount) -> Vec<SchedulingProfile> {
    let known = cloud.eks.iter().flat_map(|eks| eks.fargate.values());
    let active = known.filter(|p| p.spec.get("status").is_none_or(|s| s == "ACTIVE"));
    active.map(scheduling_profile).collect()
}

fn scheduling_profile(profile: &FargateProfile) -> SchedulingProfile {
    let list = |member: &str| {
        let items = profile.spec.get(member).and_then(Value::as_array);
        items.into_iter().flatten()
    };
    let subnets = list("subnets").filter_map(|id| id.as_str().map(str::to_owned));
    SchedulingProfile {
        name: profile.name.clone(),
        selectors: list("selectors")
            .map(|s| ProfileSelector {
                namespace: Input(s)
                    .get_text("namespace")
                    .unwrap_or_default()
                    .to_owned(),
                labels: Input(s).get_text_map("labels"),
            })
            .collect(),
        subnets: subnets.collect(),
    }
}
