//! AMIs: one per Kubernetes minor and AMI type, named by hash, and the public parameters that lead to them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::filter::passes_filters;
use crate::model::Minor;
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::{AwsAccount, InstanceLaunch, MachineImage};
use crate::twin::world::SimWorld;

/// The date in every release of the twin's AMIs.
const AMI_RELEASE_DATE: &str = "20261105";
/// The AMI types that are published.
pub const PUBLISHED_AMI_TYPES: &[&str] = &[
    "AL2_x86_64",
    "AL2_x86_64_GPU",
    "AL2_ARM_64",
    "AL2023_x86_64_STANDARD",
    "AL2023_ARM_64_STANDARD",
    "AL2023_x86_64_NVIDIA",
    "AL2023_ARM_64_NVIDIA",
    "AL2023_x86_64_NEURON",
    "BOTTLEROCKET_x86_64",
    "BOTTLEROCKET_ARM_64",
    "BOTTLEROCKET_x86_64_NVIDIA",
    "BOTTLEROCKET_ARM_64_NVIDIA",
    "BOTTLEROCKET_x86_64_FIPS",
    "BOTTLEROCKET_ARM_64_FIPS",
    "WINDOWS_CORE_2019_x86_64",
    "WINDOWS_FULL_2019_x86_64",
    "WINDOWS_CORE_2022_x86_64",
    "WINDOWS_FULL_2022_x86_64",
    "WINDOWS_CORE_2025_x86_64",
    "WINDOWS_FULL_2025_x86_64",
];
/// The date in every release of the twin's Windows AMIs.
const WINDOWS_RELEASE_DATE: &str = "2026.11.05";
/// The release of every Bottlerocket image.
const BOTTLEROCKET_RELEASE: &str = "1.49.0-aeb4a3f7";

/// The AMI of a minor and type.
pub fn image_id(minor: Minor, kind: &str) -> String {
    let hash = Sha256::digest(format!("{minor}/{kind}"));
    format!("ami-{}", &hex::encode(hash)[..17])
}

/// The latest release of the AMIs of a type that carry a patch version of Kubernetes. Those of Windows tell the minor only
/// (WIN-2).
pub fn latest_release(patch: &str, kind: &str) -> String {
    if kind.starts_with("WINDOWS_") {
        let mut parts = patch.split('.');
        let (major, minor) = (parts.next().unwrap_or("1"), parts.next().unwrap_or("0"));
        return format!("{major}.{minor}-{WINDOWS_RELEASE_DATE}");
    }
    format!("{patch}-{AMI_RELEASE_DATE}")
}

/// The image EKS publishes for a minor, whose kubelet is `patch`.
pub fn published_image(minor: Minor, patch: &str, kind: &str) -> MachineImage {
    MachineImage {
        id: image_id(minor, kind),
        name: published_name(minor, kind),
        kind: kind.to_owned(),
        arm: kind.contains("ARM_64"),
        kubelet: patch.to_owned(),
        owner: "602401143452".into(),
    }
}

/// The image of a release, such as `v20240807`; the one that is published by default is the twin's only other one.
pub fn released_image(minor: Minor, patch: &str, kind: &str, release: &str) -> MachineImage {
    let latest = published_image(minor, patch, kind);
    let current = [
        format!("v{AMI_RELEASE_DATE}"),
        format!("v{BOTTLEROCKET_RELEASE}"),
    ];
    if release == "latest" || current.iter().any(|c| c == release) {
        return latest;
    }
    let name = latest.name.replace(&current[0], release);
    let hash = Sha256::digest(format!("{minor}/{kind}/{release}"));
    MachineImage {
        id: format!("ami-{}", &hex::encode(hash)[..17]),
        name: name.replace(&current[1], release),
        ..latest
    }
}

/// An image of somebody's own that nothing has run yet, made for the version that the cluster has.
pub fn unknown_image(cloud: &AwsAccount, id: &str) -> Option<MachineImage> {
    let eks = cloud.eks.as_ref()?;
    let known = eks.versions.iter().find(|v| v.version == eks.version);
    is_image_id(id).then(|| MachineImage {
        id: id.to_owned(),
        name: format!("own-image-{id}"),
        kind: String::new(),
        arm: false,
        kubelet: known.map_or_else(|| format!("{}.0", eks.version), |v| v.patch.clone()),
        owner: cloud.account.clone(),
    })
}

/// How each family names its images.
fn published_name(minor: Minor, kind: &str) -> String {
    let arm = kind.contains("ARM_64");
    let flavour = |prefix: &str| {
        let rest = kind.trim_start_matches(prefix);
        let rest = rest
            .trim_start_matches("x86_64")
            .trim_start_matches("ARM_64");
        rest.to_lowercase().replace('_', "-")
    };
    if kind.starts_with("AL2023_") {
        let arch = if arm { "arm64" } else { "x86_64" };
        let flavour = flavour("AL2023_");
        return format!("amazon-eks-node-al2023-{arch}{flavour}-{minor}-v{AMI_RELEASE_DATE}");
    }
    if kind.starts_with("BOTTLEROCKET_") {
        let arch = if arm { "aarch64" } else { "x86_64" };
        let flavour = flavour("BOTTLEROCKET_");
        return format!("bottlerocket-aws-k8s-{minor}{flavour}-{arch}-v{BOTTLEROCKET_RELEASE}");
    }
    if let Some((core, year)) = parse_windows_kind(kind) {
        return format!(
            "Windows_Server-{year}-English-{core}-EKS_Optimized-{minor}-{WINDOWS_RELEASE_DATE}"
        );
    }
    match kind {
        "AL2_x86_64_GPU" => format!("amazon-eks-gpu-node-{minor}-v{AMI_RELEASE_DATE}"),
        "AL2_ARM_64" => format!("amazon-eks-arm64-node-{minor}-v{AMI_RELEASE_DATE}"),
        _ => format!("amazon-eks-node-{minor}-v{AMI_RELEASE_DATE}"),
    }
}

/// Reads edition and year out of `WINDOWS_CORE_2022_x86_64`.
fn parse_windows_kind(kind: &str) -> Option<(&'static str, &str)> {
    let (edition, rest) = kind.strip_prefix("WINDOWS_")?.split_once('_')?;
    let edition = if edition == "CORE" { "Core" } else { "Full" };
    Some((edition, rest.split('_').next()?))
}

/// The year of the server that a Windows image has.
pub fn windows_year(kind: &str) -> Option<&str> {
    parse_windows_kind(kind).map(|(_, year)| year)
}

/// An image of somebody's own that nothing here has run yet was made for the version that the cluster has when a group
/// first takes it (the twin's own rule; EKS does not look into images, EKS-NG-9).
pub fn learn_image(cloud: &mut AwsAccount, launch: &InstanceLaunch) {
    let Some(eks) = &cloud.eks else { return };
    if !launch.custom || cloud.images.contains_key(&launch.image) {
        return;
    }
    let known = eks.versions.iter().find(|v| v.version == eks.version);
    let image = MachineImage {
        id: launch.image.clone(),
        name: format!("own-image-{}", launch.image),
        kind: String::new(),
        arm: is_arm(&launch.instance_type),
        kubelet: known.map_or_else(|| format!("{}.0", eks.version), |v| v.patch.clone()),
        owner: cloud.account.clone(),
    };
    cloud.images.insert(image.id.clone(), image);
}

/// Whether a type's processor is ARM: a `g` behind the generation's digit, or the first of them, a1.
pub fn is_arm(instance_type: &str) -> bool {
    let family = instance_type.split('.').next().unwrap_or_default();
    let after = family
        .trim_start_matches(|c: char| c.is_ascii_alphabetic())
        .trim_start_matches(|c: char| c.is_ascii_digit());
    family == "a1" || after.starts_with('g')
}

/// The value of a public parameter, where AWS has it.
pub fn parameter_value(cloud: &AwsAccount, name: &str) -> Option<String> {
    // The minor, the AMI type and the last segment make up the parameter's name.
    let (minor, kind, leaf) = parse_parameter_name(name)?;
    // AWS publishes parameters for the minors that EKS has, and no AL2 images from 1.33 (EKS-NG-6).
    let version = cloud
        .eks
        .as_ref()?
        .versions
        .iter()
        .find(|v| v.version == minor)?;
    if !PUBLISHED_AMI_TYPES.contains(&kind.as_str())
        || (kind.starts_with("AL2_") && minor.number() >= 33)
    {
        return None;
    }
    let (image, release) = (
        image_id(minor, &kind),
        latest_release(&version.patch, &kind),
    );
    // The same image is told by several parameters: its id, its release, its name, or all of it.
    match leaf {
        "image_id" => Some(image),
        "release_version" => Some(release),
        "image_version" => Some(BOTTLEROCKET_RELEASE.to_owned()),
        "image_name" => cloud.images.get(&image).map(|i| i.name.clone()),
        "recommended" => Some(json!({"schema_version": "2", "image_id": image, "image_name": cloud.images.get(&image).map(|i| i.name.clone()), "release_version": release}).to_string()),
        _ => None,
    }
}

/// Reads minor, AMI type and last segment out of a parameter's name.
fn parse_parameter_name(name: &str) -> Option<(Minor, String, &str)> {
    let parts: Vec<&str> = name.trim_matches('/').split('/').collect();
    let arch = |text: &str| match text {
        "x86_64" => Some("x86_64"),
        "arm64" => Some("ARM_64"),
        _ => None,
    };
    // The three families write their paths differently, and the flavour of AL2 contains its processor.
    match parts.as_slice() {
        [
            "aws",
            "service",
            "eks",
            "optimized-ami",
            minor,
            "amazon-linux-2023",
            cpu,
            flavour,
            rest @ ..,
        ] => Some((
            minor.parse().ok()?,
            format!("AL2023_{}_{}", arch(cpu)?, flavour.to_uppercase()),
            last_segment(rest)?,
        )),
        [
            "aws",
            "service",
            "eks",
            "optimized-ami",
            minor,
            flavour,
            rest @ ..,
        ] => {
            let kind = match *flavour {
                "amazon-linux-2" => "AL2_x86_64",
                "amazon-linux-2-arm64" => "AL2_ARM_64",
                "amazon-linux-2-gpu" => "AL2_x86_64_GPU",
                _ => return None,
            };
            Some((minor.parse().ok()?, kind.to_owned(), last_segment(rest)?))
        }
        [
            "aws",
            "service",
            "bottlerocket",
            variant,
            cpu,
            "latest",
            last,
        ] => {
            let mut words = variant.strip_prefix("aws-k8s-")?.split('-');
            let minor = words.next()?.parse().ok()?;
            let flavour: String = words.map(|w| format!("_{}", w.to_uppercase())).collect();
            Some((minor, format!("BOTTLEROCKET_{}{flavour}", arch(cpu)?), last))
        }
        ["aws", "service", "ami-windows-latest", name, "image_id"] => {
            let (year, rest) = name
                .strip_prefix("Windows_Server-")?
                .split_once("-English-")?;
            let (edition, minor) = rest.split_once("-EKS_Optimized-")?;
            let edition = match edition {
                "Core" => "CORE",
                "Full" => "FULL",
                _ => return None,
            };
            let kind = format!("WINDOWS_{edition}_{year}_x86_64");
            Some((minor.parse().ok()?, kind, "image_id"))
        }
        _ => None,
    }
}

fn last_segment<'a>(rest: &[&'a str]) -> Option<&'a str> {
    match rest {
        ["recommended"] => Some("recommended"),
        ["recommended", last] => Some(last),
        _ => None,
    }
}

fn describe_origin(image: &MachineImage) -> String {
    if image.kubelet.is_empty() {
        "An image of the account's own".to_owned()
    } else {
        format!("EKS Kubernetes Worker AMI, (k8s: {})", image.kubelet)
    }
}

fn is_image_id(id: &str) -> bool {
    let hex = id.strip_prefix("ami-").unwrap_or_default();
    matches!(hex.len(), 8 | 17) && hex.chars().all(|c| c.is_ascii_hexdigit())
}

/// An image of the account's own that nothing has run yet, with the processor of the templates that name it.
fn custom_image(world: &SimWorld, id: &str) -> MachineImage {
    let versions = world.cloud.templates.values().flat_map(|t| &t.versions);
    let text = |data: &serde_json::Map<String, Value>, member: &str| {
        data.get(member).and_then(Value::as_str).map(str::to_owned)
    };
    let mut naming = versions.filter(|v| text(&v.data, "ImageId").as_deref() == Some(id));
    let instance_type = naming.find_map(|v| text(&v.data, "InstanceType"));
    MachineImage {
        id: id.to_owned(),
        name: format!("own-image-{id}"),
        kind: String::new(),
        arm: instance_type.is_some_and(|t| is_arm(&t)),
        kubelet: String::new(),
        owner: world.cloud.account.clone(),
    }
}

/// DescribeImages.
pub fn describe_images(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    // Image ids are looked at before anything else, so that a misspelt one is an error and not an empty answer.
    let (ids, owners) = (input.get_text_list("ImageId"), input.get_text_list("Owner"));
    let malformed: Vec<&str> = ids
        .iter()
        .filter(|id| !is_image_id(id))
        .map(String::as_str)
        .collect();
    if !malformed.is_empty() {
        return Err(AwsError::new(
            400,
            "InvalidAMIID.Malformed",
            format!("Invalid id: \"{}\"", malformed.join(", ")),
        ));
    }
    // A snapshot does not say which images an account has: one that is asked for by its id is taken to be there.
    let unknown = ids
        .iter()
        .filter(|id| !world.cloud.images.contains_key(*id));
    let unknown: Vec<MachineImage> = unknown.map(|id| custom_image(world, id)).collect();
    // The two names for owners mean everybody but this account, and this account alone.
    let owned = |image: &&MachineImage| {
        owners.is_empty()
            || owners.iter().any(|o| {
                *o == image.owner
                    || (o == "amazon" && image.owner != world.cloud.account)
                    || (o == "self" && image.owner == world.cloud.account)
            })
    };
    let mut found = Vec::new();
    for image in world
        .cloud
        .images
        .values()
        .chain(&unknown)
        .filter(|i| ids.is_empty() || ids.contains(&i.id))
        .filter(owned)
    {
        let arch = if image.arm { "arm64" } else { "x86_64" };
        let pass = passes_filters(input, &BTreeMap::new(), |name| {
            Some(vec![match name {
                "name" => image.name.clone(),
                "image-id" => image.id.clone(),
                "architecture" => arch.to_owned(),
                "state" => "available".to_owned(),
                "owner-id" => image.owner.clone(),
                _ => return None,
            }])
        })?;
        if pass {
            found.push(json!({
                "imageId": image.id, "name": image.name, "imageState": "available", "imageOwnerId": image.owner, "isPublic": image.owner != world.cloud.account,
                "architecture": arch, "imageType": "machine", "rootDeviceType": "ebs", "rootDeviceName": "/dev/xvda", "virtualizationType": "hvm",
                "description": describe_origin(image), "creationDate": "2026-11-05T00:00:00.000Z",
            }));
        }
    }
    let page = cut_page(
        found,
        input.get_text("NextToken"),
        input.get_number("MaxResults").unwrap_or(1000),
    )?;
    Ok(json!({"imagesSet": page.items, "nextToken": page.next}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graviton_is_told_by_the_name() {
        for arm in [
            "t4g.large",
            "m6g.large",
            "m7gd.xlarge",
            "c7gn.large",
            "a1.medium",
            "g5g.xlarge",
            "im4gn.large",
        ] {
            assert!(is_arm(arm), "{arm}");
        }
        for intel in [
            "t3.large",
            "m5.large",
            "g4dn.xlarge",
            "g5.xlarge",
            "p4de.24xlarge",
        ] {
            assert!(!is_arm(intel), "{intel}");
        }
    }

    #[test]
    fn parameters_name_minor_and_kind() {
        let name = "/aws/service/eks/optimized-ami/1.29/amazon-linux-2023/x86_64/standard/recommended/image_id";
        assert_eq!(
            parse_parameter_name(name),
            Some((
                Minor::new(29),
                "AL2023_x86_64_STANDARD".to_owned(),
                "image_id"
            ))
        );
        let name = "/aws/service/bottlerocket/aws-k8s-1.30-nvidia/arm64/latest/image_version";
        assert_eq!(
            parse_parameter_name(name),
            Some((
                Minor::new(30),
                "BOTTLEROCKET_ARM_64_NVIDIA".to_owned(),
                "image_version"
            ))
        );
        let name = "/aws/service/ami-windows-latest/Windows_Server-2022-English-Core-EKS_Optimized-1.29/image_id";
        let kind = "WINDOWS_CORE_2022_x86_64".to_owned();
        assert_eq!(
            parse_parameter_name(name),
            Some((Minor::new(29), kind, "image_id"))
        );
        assert_eq!(
            parse_parameter_name("/aws/service/eks/optimized-ami/1.29/windows"),
            None
        );
    }

    #[test]
    fn images_have_the_names_that_their_publishers_give_them() {
        for (kind, name) in [
            ("AL2_x86_64", "amazon-eks-node-1.29-v20261105"),
            ("AL2_ARM_64", "amazon-eks-arm64-node-1.29-v20261105"),
            ("AL2_x86_64_GPU", "amazon-eks-gpu-node-1.29-v20261105"),
            (
                "AL2023_x86_64_STANDARD",
                "amazon-eks-node-al2023-x86_64-standard-1.29-v20261105",
            ),
            (
                "AL2023_ARM_64_NVIDIA",
                "amazon-eks-node-al2023-arm64-nvidia-1.29-v20261105",
            ),
            (
                "BOTTLEROCKET_x86_64",
                "bottlerocket-aws-k8s-1.29-x86_64-v1.49.0-aeb4a3f7",
            ),
            (
                "BOTTLEROCKET_ARM_64_NVIDIA",
                "bottlerocket-aws-k8s-1.29-nvidia-aarch64-v1.49.0-aeb4a3f7",
            ),
            (
                "WINDOWS_FULL_2022_x86_64",
                "Windows_Server-2022-English-Full-EKS_Optimized-1.29-2026.11.05",
            ),
        ] {
            assert_eq!(published_name(Minor::new(29), kind), name);
        }
    }
}
