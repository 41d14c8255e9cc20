//! Images that AWS makes for EKS: told by the name of the image, and where AWS publishes the newest one. Pure.

use super::Minor;

/// A line of images that AWS makes for EKS; of each there is one for every minor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageLine {
    /// `amazon-linux-2`, `amazon-linux-2-gpu` or `amazon-linux-2-arm64`.
    AmazonLinux2 { path: &'static str },
    /// Such as `x86_64/standard`.
    AmazonLinux2023 { path: String },
    /// Such as `nvidia/x86_64`, or `x86_64` without a variant.
    Bottlerocket { variant: String, arch: String },
    /// Such as `Windows_Server-2022-English-Core-EKS_Optimized`.
    Windows { name: String },
}

/// The last minor that Amazon Linux 2 images are made for.
const LAST_AMAZON_LINUX_2: Minor = Minor::new(32);

impl ImageLine {
    /// Returns the line of an image by its name; none for an image of somebody's own.
    pub fn of_image_name(name: &str) -> Option<Self> {
        if let Some(rest) = name.strip_prefix("amazon-eks-node-al2023-") {
            // x86_64-standard-1.30-v20240807
            let (line, _) = split_before_minor(rest)?;
            let (arch, variant) = line.split_once('-')?;
            return Some(Self::AmazonLinux2023 {
                path: format!("{arch}/{variant}"),
            });
        }
        let al2 = [
            ("amazon-eks-gpu-node-", "amazon-linux-2-gpu"),
            ("amazon-eks-arm64-node-", "amazon-linux-2-arm64"),
            ("amazon-eks-node-", "amazon-linux-2"),
        ];
        for (prefix, path) in al2 {
            let rest = name.strip_prefix(prefix);
            if rest.is_some_and(|rest| split_before_minor(&format!("-{rest}")).is_some()) {
                return Some(Self::AmazonLinux2 { path });
            }
        }
        if let Some(rest) = name.strip_prefix("bottlerocket-aws-k8s-") {
            // 1.30-nvidia-x86_64-v1.20.0-fcf71a47
            let (minor, rest) = rest.split_once('-')?;
            minor.parse::<Minor>().ok()?;
            let at = ["x86_64", "aarch64"]
                .iter()
                .find_map(|a| rest.find(a).map(|i| (i, *a)))?;
            return Some(Self::Bottlerocket {
                variant: rest[..at.0].trim_end_matches('-').to_owned(),
                arch: at.1.to_owned(),
            });
        }
        let (line, _) = split_before_minor(name)?;
        (name.starts_with("Windows_Server-") && line.ends_with("EKS_Optimized")).then(|| {
            Self::Windows {
                name: line.to_owned(),
            }
        })
    }

    /// The public parameter of AWS Systems Manager that holds the id of the newest image of the line for `minor`; none
    /// where AWS makes none.
    pub fn parameter_for(&self, minor: Minor) -> Option<String> {
        Some(match self {
            Self::AmazonLinux2 { .. } if minor > LAST_AMAZON_LINUX_2 => return None,
            Self::AmazonLinux2 { path } => {
                format!("/aws/service/eks/optimized-ami/{minor}/{path}/recommended/image_id")
            }
            Self::AmazonLinux2023 { path } => format!(
                "/aws/service/eks/optimized-ami/{minor}/amazon-linux-2023/{path}/recommended/image_id"
            ),
            Self::Bottlerocket { variant, arch } => {
                let dash = if variant.is_empty() { "" } else { "-" };
                // Systems Manager has its own word for the processor of ARM images.
                let arch = if arch == "aarch64" { "arm64" } else { arch };
                format!(
                    "/aws/service/bottlerocket/aws-k8s-{minor}{dash}{variant}/{arch}/latest/image_id"
                )
            }
            Self::Windows { name } => {
                format!("/aws/service/ami-windows-latest/{name}-{minor}/image_id")
            }
        })
    }
}

/// The text before `-MINOR-` and the minor.
fn split_before_minor(text: &str) -> Option<(&str, Minor)> {
    text.match_indices('-').find_map(|(at, _)| {
        let minor = text[at + 1..].split('-').next()?;
        let minor = minor.starts_with("1.").then(|| minor.parse().ok())??;
        Some((&text[..at], minor))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_image_of_the_same_line_is_found_by_the_name_of_blues() {
        let minor = Minor::new(30);
        let cases = [
            (
                "amazon-eks-node-1.28-v20240110",
                Some("/aws/service/eks/optimized-ami/1.30/amazon-linux-2/recommended/image_id"),
            ),
            (
                "amazon-eks-gpu-node-1.28-v20240110",
                Some("/aws/service/eks/optimized-ami/1.30/amazon-linux-2-gpu/recommended/image_id"),
            ),
            (
                "amazon-eks-arm64-node-1.28-v20240110",
                Some(
                    "/aws/service/eks/optimized-ami/1.30/amazon-linux-2-arm64/recommended/image_id",
                ),
            ),
            (
                "amazon-eks-node-al2023-x86_64-standard-1.28-v20240807",
                Some(
                    "/aws/service/eks/optimized-ami/1.30/amazon-linux-2023/x86_64/standard/recommended/image_id",
                ),
            ),
            (
                "amazon-eks-node-al2023-arm64-nvidia-1.31-v20250807",
                Some(
                    "/aws/service/eks/optimized-ami/1.30/amazon-linux-2023/arm64/nvidia/recommended/image_id",
                ),
            ),
            (
                "bottlerocket-aws-k8s-1.28-x86_64-v1.20.0-fcf71a47",
                Some("/aws/service/bottlerocket/aws-k8s-1.30/x86_64/latest/image_id"),
            ),
            (
                "bottlerocket-aws-k8s-1.28-nvidia-aarch64-v1.20.0-fcf71a47",
                Some("/aws/service/bottlerocket/aws-k8s-1.30-nvidia/arm64/latest/image_id"),
            ),
            (
                "Windows_Server-2022-English-Core-EKS_Optimized-1.28-2024.01.10",
                Some(
                    "/aws/service/ami-windows-latest/Windows_Server-2022-English-Core-EKS_Optimized-1.30/image_id",
                ),
            ),
            ("shop-golden-image-1.28-7", None),
            ("amazon-eks-node-custom", None),
            ("amzn2-ami-hvm-2.0", None),
        ];
        for (name, parameter) in cases {
            let found = ImageLine::of_image_name(name).and_then(|line| line.parameter_for(minor));
            assert_eq!(found.as_deref(), parameter, "{name}");
        }
    }

    #[test]
    fn there_is_no_amazon_linux_2_after_1_32() {
        let line = ImageLine::of_image_name("amazon-eks-node-1.32-v20250110").unwrap();
        assert!(line.parameter_for(Minor::new(32)).is_some());
        assert_eq!(line.parameter_for(Minor::new(33)), None);
    }
}
