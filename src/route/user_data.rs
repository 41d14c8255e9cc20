//! The operating systems of blue and of green, and what user data made for one does on the other. Pure.

use super::node_groups::{launch_template_of, launch_template_of_green};
use crate::model::Inventory;
use crate::model::eks::{Nodegroup, configuration_of_id};
use crate::model::image::{OsFamily, WindowsRelease};
use crate::model::user_data::UserDataTraits;
use crate::plan::{AUTO_IMAGE, NodeGroup};

/// User data that does not suit green's image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDataMisfit {
    /// Green would not come up with it, or would lack what it sets.
    pub blocks: bool,
    pub detail: String,
    pub fix: &'static str,
}

const MAKE_TEMPLATE_VERSION_FIX: &str = "make a template version whose user data suits green's image, then move blue's template to it or set `launchTemplateVersion`";
const MAKE_TEMPLATE_FIX: &str = "make a launch template whose user data suits green's image, set it on the group in place of the configuration, and plan again";
const CHECK_BY_HAND_FIX: &str = "make sure by hand that green's image understands the template's user data, or name the operating system in the image's name";

/// The family of an image by its id, as far as its name or description says.
fn image_os_family(inventory: &Inventory, image: &str) -> Option<OsFamily> {
    let found = inventory.images.iter().find(|i| i.id == image);
    found.and_then(OsFamily::of_image)
}

/// What blue's nodes run: by EKS's image type, by the image, or by what the nodes themselves say.
pub fn blue_os_family(inventory: &Inventory, blue: &Nodegroup) -> Option<OsFamily> {
    let of_type = blue.ami_type.as_deref().and_then(OsFamily::of_ami_type);
    let image = launch_template_of(inventory, blue).and_then(|t| t.image.as_deref());
    let of_image = || image.and_then(|i| image_os_family(inventory, i));
    let of_nodes = || {
        let mut nodes = inventory.nodes_of(&blue.name);
        nodes.find_map(|n| OsFamily::of_node(&n.os_image))
    };
    of_type.or_else(of_image).or_else(of_nodes)
}

/// What green's nodes will run. `ami_type`: green's; none where a custom AMI decides.
pub fn green_os_family(
    inventory: &Inventory,
    blue: &Nodegroup,
    plan_entry: &NodeGroup,
    ami_type: Option<&str>,
) -> Option<OsFamily> {
    if let Some(ami_type) = ami_type {
        return OsFamily::of_ami_type(ami_type);
    }
    // The newest image of blue's own line runs what blue runs.
    if plan_entry.ami.as_deref() == Some(AUTO_IMAGE) {
        return blue_os_family(inventory, blue);
    }
    image_os_family(inventory, image_of_green(inventory, blue, plan_entry)?)
}

/// The id of green's own image: the plan's, or that of its launch template.
fn image_of_green<'a>(
    inventory: &'a Inventory,
    blue: &Nodegroup,
    plan_entry: &'a NodeGroup,
) -> Option<&'a str> {
    let template = || launch_template_of_green(inventory, blue, plan_entry);
    let of_template = || template().and_then(|t| t.image.as_deref());
    plan_entry.ami.as_deref().or_else(of_template)
}

/// The release of Windows that blue's nodes run; none where they run none, or nobody says which.
pub fn blue_windows_release(inventory: &Inventory, blue: &Nodegroup) -> Option<WindowsRelease> {
    let of_type = blue.ami_type.as_deref().and_then(WindowsRelease::named_in);
    let of_nodes = || {
        let mut nodes = inventory.nodes_of(&blue.name);
        nodes.find_map(|n| WindowsRelease::named_in(&n.os_image))
    };
    of_type.or_else(of_nodes)
}

/// The release of Windows that green's nodes will run. `ami_type`: green's; none where a custom AMI decides.
pub fn green_windows_release(
    inventory: &Inventory,
    blue: &Nodegroup,
    plan_entry: &NodeGroup,
    ami_type: Option<&str>,
) -> Option<WindowsRelease> {
    if let Some(ami_type) = ami_type.filter(|t| *t != "CUSTOM") {
        return WindowsRelease::named_in(ami_type);
    }
    if plan_entry.ami.as_deref() == Some(AUTO_IMAGE) {
        return blue_windows_release(inventory, blue);
    }
    let image = image_of_green(inventory, blue, plan_entry)?;
    let found = inventory.images.iter().find(|i| i.id == image);
    found.and_then(|i| WindowsRelease::named_in(&i.name))
}

/// What of the template's user data does not suit green's image.
pub fn find_misfits(
    inventory: &Inventory,
    blue: &Nodegroup,
    plan_entry: &NodeGroup,
    ami_type: Option<&str>,
) -> Vec<UserDataMisfit> {
    let Some(template) = launch_template_of_green(inventory, blue, plan_entry) else {
        return Vec::new();
    };
    // By what green will run, not by what blue runs: the same user data serves another image.
    let traits = template.user_data_traits();
    let own_image = ami_type.is_none();
    let mut found = match green_os_family(inventory, blue, plan_entry, ami_type) {
        Some(OsFamily::AmazonLinux2023) => {
            check_for_al2023(&traits, own_image, plan_entry.ami_type.is_some())
        }
        Some(OsFamily::AmazonLinux2) => check_for_al2(&traits, own_image),
        Some(OsFamily::Bottlerocket) => check_for_bottlerocket(&traits),
        Some(OsFamily::Windows | OsFamily::Other) => Vec::new(),
        None => check_for_unknown_os(&traits),
    };
    // A configuration cannot be given other user data, and its group can be given a template.
    if configuration_of_id(&template.id).is_some() {
        for misfit in &mut found {
            misfit.detail = misfit
                .detail
                .replace("launch template", "launch configuration");
            misfit.fix = MAKE_TEMPLATE_FIX;
        }
    }
    found
}

fn build_misfit(blocks: bool, detail: &str, fix: &'static str) -> UserDataMisfit {
    UserDataMisfit {
        blocks,
        detail: detail.to_owned(),
        fix,
    }
}

/// EKS-NG-8, EKS-NG-9. `meant`: the plan names the image type, so that somebody has looked.
fn check_for_al2023(traits: &UserDataTraits, own_image: bool, meant: bool) -> Vec<UserDataMisfit> {
    let mut found = Vec::new();
    if traits.runs_bootstrap {
        found.push(build_misfit(
            true,
            "its launch template calls /etc/eks/bootstrap.sh, which Amazon Linux 2023 images do not have",
            MAKE_TEMPLATE_VERSION_FIX,
        ));
    }
    // These edits may be harmless. Whoever names the image type or brings an image has looked.
    if traits.edits_kubelet_files {
        found.push(build_misfit(
            !own_image && !meant,
            "its launch template edits files of the kubelet or of containerd that only Amazon Linux 2 has: on Amazon Linux 2023 the edits do nothing or end the script, and settings go in a NodeConfig",
            "make a template version with a nodeadm NodeConfig instead, or set `amiType` for the group to say that green may come without these edits",
        ));
    }
    if traits.is_toml {
        found.push(build_misfit(
            true,
            "its launch template has settings for Bottlerocket, which Amazon Linux 2023 does not read",
            MAKE_TEMPLATE_VERSION_FIX,
        ));
    }
    // For a custom AMI EKS merges nothing (EKS-NG-9), so what joins the node must be in the user data or the
    // image.
    if own_image && !traits.is_unreadable && !traits.runs_bootstrap && !traits.is_toml {
        if !traits.has_node_config {
            found.push(build_misfit(
                false,
                "its launch template has no NodeConfig, and EKS adds none for a custom AMI: unless the image has one inside, green's nodes do not join",
                MAKE_TEMPLATE_VERSION_FIX,
            ));
        } else if !traits.names_cluster {
            found.push(build_misfit(
                false,
                "the NodeConfig of its launch template names no `apiServerEndpoint`, which EKS does not add for a custom AMI",
                MAKE_TEMPLATE_VERSION_FIX,
            ));
        }
    }
    found
}

fn check_for_al2(traits: &UserDataTraits, own_image: bool) -> Vec<UserDataMisfit> {
    let mut found = Vec::new();
    // Only the gravest misfit is told, because a new template version fixes all of them.
    if traits.is_toml {
        found.push(build_misfit(
            true,
            "its launch template has settings for Bottlerocket, which Amazon Linux 2 does not read",
            MAKE_TEMPLATE_VERSION_FIX,
        ));
    } else if traits.has_node_config && !traits.runs_bootstrap {
        found.push(build_misfit(
            own_image,
            "its launch template has a NodeConfig, which Amazon Linux 2 does not read",
            MAKE_TEMPLATE_VERSION_FIX,
        ));
    } else if own_image && !traits.runs_bootstrap && !traits.is_unreadable {
        found.push(build_misfit(
            false,
            "its launch template does not call /etc/eks/bootstrap.sh, and EKS does not for a custom AMI: unless the image does it itself, green's nodes do not join",
            MAKE_TEMPLATE_VERSION_FIX,
        ));
    }
    found
}

fn check_for_bottlerocket(traits: &UserDataTraits) -> Vec<UserDataMisfit> {
    if traits.has_scripts || traits.has_node_config || traits.runs_bootstrap {
        return vec![build_misfit(
            true,
            "its launch template has scripts or parts for cloud-init, and Bottlerocket takes settings in TOML only",
            MAKE_TEMPLATE_VERSION_FIX,
        )];
    }
    Vec::new()
}

fn check_for_unknown_os(traits: &UserDataTraits) -> Vec<UserDataMisfit> {
    let what = if traits.runs_bootstrap {
        "calls /etc/eks/bootstrap.sh, which only Amazon Linux 2 has"
    } else if traits.edits_kubelet_files {
        "edits files of the kubelet or of containerd that only Amazon Linux 2 has"
    } else if traits.is_toml {
        "has settings that only Bottlerocket reads"
    } else {
        return Vec::new();
    };
    vec![build_misfit(
        false,
        &format!(
            "its launch template {what}, and which operating system green's image has cannot be told from its name or description"
        ),
        CHECK_BY_HAND_FIX,
    )]
}
