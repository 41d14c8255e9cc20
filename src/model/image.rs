//! What an image is made for: its operating system, its processor, its accelerator. Pure; read off the names that AWS gives
//! image types, images and instance types.

use serde::{Deserialize, Serialize};

/// An image, as DescribeImages answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AmiImage {
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    /// x86_64 or arm64.
    pub architecture: Option<String>,
    /// `v2.0` where the image asks for session tokens of the metadata service.
    #[serde(default)]
    pub metadata_support: Option<String>,
}

/// The family of an operating system that EKS's nodes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OsFamily {
    AmazonLinux2,
    AmazonLinux2023,
    Bottlerocket,
    Windows,
    /// An operating system that bootstraps nodes in its own way, or nobody can tell.
    Other,
}

impl OsFamily {
    /// The name a reader knows it by.
    pub const fn display_name(self) -> &'static str {
        match self {
            Self::AmazonLinux2 => "Amazon Linux 2",
            Self::AmazonLinux2023 => "Amazon Linux 2023",
            Self::Bottlerocket => "Bottlerocket",
            Self::Windows => "Windows",
            Self::Other => "an operating system that is not known",
        }
    }

    /// The family of an `amiType`; none for `CUSTOM`, whose image decides.
    pub fn of_ami_type(ami_type: &str) -> Option<Self> {
        Some(match ami_type {
            "CUSTOM" => return None,
            t if t.starts_with("AL2023_") => Self::AmazonLinux2023,
            t if t.starts_with("AL2_") => Self::AmazonLinux2,
            t if t.starts_with("BOTTLEROCKET_") => Self::Bottlerocket,
            t if t.starts_with("WINDOWS_") => Self::Windows,
            _ => Self::Other,
        })
    }

    /// The family of an image, as its name or its description says; none where neither does.
    pub fn of_image(image: &AmiImage) -> Option<Self> {
        let said = format!(
            "{} {}",
            image.name,
            image.description.as_deref().unwrap_or_default()
        )
        .to_ascii_lowercase();
        let has = |word: &str| said.contains(word);
        if has("al2023") || has("amazon linux 2023") || has("amazon-linux-2023") {
            Some(Self::AmazonLinux2023)
        } else if has("bottlerocket") {
            Some(Self::Bottlerocket)
        } else if has("windows") {
            Some(Self::Windows)
        } else if has("ubuntu") || has("rhel") || has("flatcar") || has("debian") {
            Some(Self::Other)
        } else if has("amazon linux 2") || has("amazon-linux-2") || has("amzn2") || has("al2-") {
            Some(Self::AmazonLinux2)
        } else if has("amazon-eks-node-1.")
            || has("amazon-eks-gpu-node-")
            || has("amazon-eks-arm64-node-")
        {
            // EKS names its own images of Amazon Linux 2 by their version alone.
            Some(Self::AmazonLinux2)
        } else {
            None
        }
    }

    /// The family a node says in `status.nodeInfo.osImage`.
    pub fn of_node(os_image: &str) -> Option<Self> {
        let said = os_image.to_ascii_lowercase();
        if said.is_empty() {
            None
        } else if said.starts_with("amazon linux 2023") {
            Some(Self::AmazonLinux2023)
        } else if said.starts_with("amazon linux 2") {
            Some(Self::AmazonLinux2)
        } else if said.starts_with("bottlerocket") {
            Some(Self::Bottlerocket)
        } else if said.starts_with("windows") {
            Some(Self::Windows)
        } else {
            Some(Self::Other)
        }
    }
}

/// A release of Windows Server, whose containers start on its own hosts only (WIN-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WindowsRelease {
    Server2019,
    Server2022,
    Server2025,
}

impl WindowsRelease {
    const ALL: [Self; 3] = [Self::Server2019, Self::Server2022, Self::Server2025];

    /// As names of images and of nodes' systems have it.
    pub const fn year(self) -> &'static str {
        match self {
            Self::Server2019 => "2019",
            Self::Server2022 => "2022",
            Self::Server2025 => "2025",
        }
    }

    /// As kubelets label their node.
    pub const fn build(self) -> &'static str {
        match self {
            Self::Server2019 => "10.0.17763",
            Self::Server2022 => "10.0.20348",
            Self::Server2025 => "10.0.26100",
        }
    }

    /// The release that an `amiType`, an image's name or a node's `osImage` names; none where it names none, or no Windows.
    /// A year elsewhere is a date: of `Windows_Server-2022-English-Core-EKS_Optimized-1.30-2025.02.14` the first counts.
    pub fn named_in(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase().replace(['_', '-'], " ");
        let named = |release: &Self| {
            let before = ["windows server", "windows core", "windows full"];
            let mut names = before.iter().map(|b| format!("{b} {}", release.year()));
            names.any(|name| text.contains(&name))
        };
        Self::ALL.into_iter().find(named)
    }

    /// Whether containers built for `older` start on a host of this release.
    pub fn runs_containers_of(self, older: Self) -> bool {
        self == older || (self, older) == (Self::Server2025, Self::Server2022)
    }
}

/// What an instance computes with beside its processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Accelerator {
    None,
    Nvidia,
    Neuron,
    /// AMD and Intel ones, for which EKS has no image.
    Other,
}

/// The letters and the generation's digits of an instance type's family: `g4dn` is `g`, `4` and `dn`.
fn split_family(instance_type: &str) -> (&str, &str) {
    let name = instance_type.split('.').next().unwrap_or_default();
    let letters = name.find(|c: char| c.is_ascii_digit());
    let letters = letters.unwrap_or(name.len());
    // `u-6tb1` has its size between the two.
    let rest = name[letters..].trim_start_matches(|c: char| c.is_ascii_digit());
    (&name[..letters], rest)
}

/// Whether the processor of an instance type is ARM's: a `g` right behind the generation's digit, or a1, the first of them.
pub fn is_arm(instance_type: &str) -> bool {
    let (letters, rest) = split_family(instance_type);
    letters == "a" || rest.starts_with('g')
}

/// The accelerator of an instance type.
pub fn accelerator_of(instance_type: &str) -> Accelerator {
    match split_family(instance_type) {
        ("inf" | "trn", _) => Accelerator::Neuron,
        ("g", "ad") => Accelerator::Other,
        ("g" | "gr" | "p", _) => Accelerator::Nvidia,
        ("dl" | "vt" | "f", _) => Accelerator::Other,
        _ => Accelerator::None,
    }
}

/// Whether images of an `amiType` are for ARM; none for `CUSTOM`.
pub fn ami_type_is_arm(ami_type: &str) -> Option<bool> {
    (ami_type != "CUSTOM").then(|| ami_type.contains("ARM_64"))
}

/// What drivers images of an `amiType` carry; EKS's Amazon Linux 2 has those of both makers in one.
pub fn ami_type_carries(ami_type: &str, accelerator: Accelerator) -> bool {
    match accelerator {
        Accelerator::Neuron => ami_type.ends_with("NEURON") || ami_type == "AL2_x86_64_GPU",
        Accelerator::Nvidia => ami_type.contains("NVIDIA") || ami_type == "AL2_x86_64_GPU",
        Accelerator::None | Accelerator::Other => true,
    }
}

/// Whether an `amiType` carries drivers of an accelerator at all.
pub fn ami_type_is_accelerated(ami_type: &str) -> bool {
    ami_type.contains("NVIDIA") || ami_type.ends_with("NEURON") || ami_type.ends_with("_GPU")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, description: &str) -> AmiImage {
        AmiImage {
            id: "ami-1".to_owned(),
            name: name.to_owned(),
            description: Some(description.to_owned()),
            architecture: None,
            metadata_support: None,
        }
    }

    #[test]
    fn a_release_of_windows_is_named_by_image_types_images_and_nodes_and_a_date_is_none() {
        for (text, release) in [
            ("WINDOWS_CORE_2019_x86_64", Some(WindowsRelease::Server2019)),
            ("WINDOWS_FULL_2025_x86_64", Some(WindowsRelease::Server2025)),
            (
                "Windows_Server-2022-English-Core-EKS_Optimized-1.30-2025.02.14",
                Some(WindowsRelease::Server2022),
            ),
            (
                "Windows Server 2022 Datacenter",
                Some(WindowsRelease::Server2022),
            ),
            ("windows-golden-2025-03-01", None),
            ("AL2023_x86_64_STANDARD", None),
        ] {
            assert_eq!(WindowsRelease::named_in(text), release, "{text}");
        }
    }

    #[test]
    fn an_image_is_told_by_its_name_or_description_and_otherwise_not() {
        for (name, description, family) in [
            (
                "amazon-eks-node-al2023-x86_64-standard-1.33-v20251120",
                "",
                Some(OsFamily::AmazonLinux2023),
            ),
            (
                "amazon-eks-node-1.29-v20240703",
                "EKS Kubernetes Worker AMI with AmazonLinux2 image",
                Some(OsFamily::AmazonLinux2),
            ),
            (
                "amazon-eks-gpu-node-1.29-v20240703",
                "",
                Some(OsFamily::AmazonLinux2),
            ),
            (
                "bottlerocket-aws-k8s-1.33-x86_64-v1.49.0",
                "",
                Some(OsFamily::Bottlerocket),
            ),
            (
                "golden-2026-11",
                "hardened from Amazon Linux 2023",
                Some(OsFamily::AmazonLinux2023),
            ),
            (
                "golden-2026-11",
                "hardened from Amazon Linux 2",
                Some(OsFamily::AmazonLinux2),
            ),
            (
                "ubuntu-eks/k8s_1.33/images/hvm-ssd/ubuntu-noble-24.04",
                "",
                Some(OsFamily::Other),
            ),
            ("golden-2026-11", "ours", None),
        ] {
            assert_eq!(
                OsFamily::of_image(&image(name, description)),
                family,
                "{name} {description}"
            );
        }
    }

    #[test]
    fn instance_types_say_processor_and_accelerator_by_their_names() {
        for arm in [
            "t4g.large",
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
            "gr6.4xlarge",
            "p4de.24xlarge",
        ] {
            assert!(!is_arm(intel), "{intel}");
        }
        for (name, wanted) in [
            ("inf2.xlarge", Accelerator::Neuron),
            ("trn1.2xlarge", Accelerator::Neuron),
            ("g4dn.xlarge", Accelerator::Nvidia),
            ("p5.48xlarge", Accelerator::Nvidia),
            ("g4ad.xlarge", Accelerator::Other),
            ("m5.large", Accelerator::None),
            ("i3.large", Accelerator::None),
        ] {
            assert_eq!(accelerator_of(name), wanted, "{name}");
        }
    }
}
