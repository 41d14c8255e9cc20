//! AMI types: which one a new node group has, and which instance types suit it (EKS-NG-5, EKS-NG-6, EKS-NG-31).

use crate::twin::aws::call::Input;
use crate::twin::aws::ec2;
use crate::twin::aws::state::{EksCluster, MachineImage};

/// AMI types EKS knows; CUSTOM is what it answers for an image in a launch template.
const KNOWN_AMI_TYPES: &[&str] = &[
    "AL2_x86_64",
    "AL2_x86_64_GPU",
    "AL2_ARM_64",
    "BOTTLEROCKET_ARM_64",
    "BOTTLEROCKET_x86_64",
    "BOTTLEROCKET_ARM_64_NVIDIA",
    "BOTTLEROCKET_x86_64_NVIDIA",
    "BOTTLEROCKET_ARM_64_FIPS",
    "BOTTLEROCKET_x86_64_FIPS",
    "WINDOWS_CORE_2019_x86_64",
    "WINDOWS_FULL_2019_x86_64",
    "WINDOWS_CORE_2022_x86_64",
    "WINDOWS_FULL_2022_x86_64",
    "WINDOWS_CORE_2025_x86_64",
    "WINDOWS_FULL_2025_x86_64",
    "AL2023_x86_64_STANDARD",
    "AL2023_ARM_64_STANDARD",
    "AL2023_x86_64_NEURON",
    "AL2023_x86_64_NVIDIA",
    "AL2023_ARM_64_NVIDIA",
];

/// The AMI type of a new node group, or why it cannot have the one that was asked for.
pub fn resolve_ami_type(
    eks: &EksCluster,
    input: Input,
    image: Option<&str>,
    types: &[String],
) -> Result<String, String> {
    let instance_type = types.first().map_or("", String::as_str);
    let asked = input.get_text("amiType");
    // With an image of the user's the three fields that say which image to take are refused (EKS-NG-5).
    if image.is_some() {
        for field in ["amiType", "version", "releaseVersion"] {
            if input
                .get_text(field)
                .is_some_and(|v| field != "amiType" || v != "CUSTOM")
            {
                return Err(format!(
                    "You cannot specify the field {field} when using a launch template with an image id"
                ));
            }
        }
        return Ok("CUSTOM".to_owned());
    }
    // The default changed to AL2023 with 1.30 (EKS-NG-5).
    let Some(asked) = asked else {
        let arm = ec2::images::is_arm(instance_type);
        return Ok(match (eks.version.number() >= 30, arm) {
            (true, false) => "AL2023_x86_64_STANDARD",
            (true, true) => "AL2023_ARM_64_STANDARD",
            (false, false) => "AL2_x86_64",
            (false, true) => "AL2_ARM_64",
        }
        .to_owned());
    };
    if asked == "CUSTOM" {
        return Err("AMI type CUSTOM needs a launch template with an image id".to_owned());
    }
    if !KNOWN_AMI_TYPES.contains(&asked) {
        return Err(format!("AMI Type {asked} is not supported"));
    }
    // There is no AL2 image from 1.33 (EKS-NG-6).
    if asked.starts_with("AL2_") && eks.version.number() >= 33 {
        return Err(format!(
            "AMI Type {asked} is only supported for kubernetes versions 1.32 or earlier"
        ));
    }
    // The processor of every type has to be the image's (EKS-NG-31).
    let unfit: Vec<&str> = types
        .iter()
        .map(String::as_str)
        .filter(|t| !suits_instance_type(asked, t))
        .collect();
    if !unfit.is_empty() {
        let unfit = unfit.join(", ");
        return Err(format!(
            "[{unfit}] is not a valid instance type for requested amiType {asked}"
        ));
    }
    Ok(asked.to_owned())
}

/// Whether an instance type can run an AMI type: by its processor, and by its accelerator where the AMI is made for one
/// (EKS-NG-26, EKS-NG-31).
fn suits_instance_type(ami_type: &str, instance_type: &str) -> bool {
    let family: String = instance_type
        .chars()
        .take_while(char::is_ascii_alphabetic)
        .collect();
    let neuron = matches!(family.as_str(), "inf" | "trn");
    let graphics = matches!(family.as_str(), "g" | "gr" | "p");
    let accelerator = if ami_type.ends_with("_NEURON") {
        neuron
    } else if ami_type.ends_with("_NVIDIA") {
        graphics
    } else if ami_type == "AL2_x86_64_GPU" {
        neuron || graphics
    } else {
        true
    };
    accelerator && ami_type.contains("ARM_64") == ec2::images::is_arm(instance_type)
}

/// EC2's rule that an image and an instance type have the same processor.
pub fn check_architecture(image: &MachineImage, types: &[String]) -> Result<(), String> {
    let name = |arm: bool| if arm { "arm64" } else { "x86_64" };
    match types.iter().find(|t| ec2::images::is_arm(t) != image.arm) {
        None => Ok(()),
        Some(other) => Err(format!(
            "The architecture '{}' of the specified instance type does not match the architecture '{}' of the specified AMI. Specify an instance type and an AMI that have matching architectures, and try again.",
            name(ec2::images::is_arm(other)),
            name(image.arm)
        )),
    }
}
