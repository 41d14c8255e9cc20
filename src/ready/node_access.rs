//! Whether the nodes of a self-managed green may join the cluster: the role of their instance profile needs an access entry
//! or a row of aws-auth, and without it they only never appear (SELF-3).

use std::collections::BTreeSet;

use super::Finding;
use super::codes::Code;
use super::input::ReadinessInput;
use crate::model::Inventory;
use crate::model::eks::Nodegroup;
use crate::model::image::OsFamily;
use crate::model::node_access::{
    AccessReading, NodeAccess, RoleMapping, profile_name, without_path,
};
use crate::model::node_source::NodeSource;
use crate::plan::Plan;
use crate::route::{self, Route, StepSpec};

const NODES_GROUP: &str = "system:nodes";
/// Without it kube-proxy of a Windows node may not see Services (SELF-7).
const WINDOWS_GROUP: &str = "eks:kube-proxy-windows";
const LINUX_TYPE: &str = "EC2_LINUX";
const WINDOWS_TYPE: &str = "EC2_WINDOWS";
/// Types that are for nodes of other kinds, or for no nodes (SELF-7).
const FOREIGN_TYPES: [&str; 5] = [
    "STANDARD",
    "EC2",
    "FARGATE_LINUX",
    "HYBRID_LINUX",
    "HYPERPOD_LINUX",
];
const NAME_PROFILE_FIX: &str =
    "name an instance profile with the nodes' role in the launch template";

/// A self-managed green of which blue's nodes do not show that it may join.
struct UnprovedGreen<'a> {
    /// As green's launch template spells it; none where the template was not read or names none.
    profile: Option<&'a str>,
    has_template: bool,
    /// Why blue's nodes do not show it.
    why: String,
}

/// Whether nodes may join.
enum JoinVerdict {
    Granted,
    /// What is missing, and how to give it.
    Refused {
        what: String,
        fix: String,
    },
    /// Why nobody knows.
    Unknown(String),
}

/// The instance profiles that have to be read to know whether green's nodes may join, by name.
pub fn unproved_profiles(plan: &Plan, route: &Route, inventory: &Inventory) -> BTreeSet<String> {
    let blues = route.steps.iter().filter_map(|step| match &step.spec {
        StepSpec::CreateGreen { blue, .. } => inventory.find_nodegroup(blue),
        _ => None,
    });
    let greens = blues.filter_map(|blue| find_unproved(plan, inventory, blue));
    let profiles = greens.filter_map(|green| green.profile);
    profiles.map(|p| profile_name(p).to_owned()).collect()
}

/// Judges by blue's nodes: where they have joined, so do others of the same instance profile. Where they do not show it, what
/// the cluster knows of the role decides.
pub fn check_node_access(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    for change in &case.changes {
        let (plan, inventory, blue) = (case.plan, case.inventory, change.blue);
        let Some(green) = find_unproved(plan, inventory, blue) else {
            continue;
        };
        let plan_entry = plan.node_group(&blue.name);
        let role = GreenRole {
            cluster: &plan.cluster,
            family: route::green_os_family(inventory, blue, &plan_entry, None),
        };
        let verdict = match green.profile {
            Some(profile) => role.judge(profile, inventory.node_access.get(profile_name(profile))),
            None if green.has_template => JoinVerdict::Refused {
                what: "without one its instances have no role with which to join".to_owned(),
                fix: NAME_PROFILE_FIX.to_owned(),
            },
            None => JoinVerdict::Unknown("green's launch template was not read".to_owned()),
        };
        let subject = format!("{} {}", blue.source.group_words(), blue.name);
        let why = green.why;
        out.push(match verdict {
            JoinVerdict::Granted => continue,
            JoinVerdict::Refused { what, fix } => Finding::new(
                Code::NodeAccessMissing,
                subject,
                format!("{why}; {what}: green would get no node that works"),
                fix,
            ),
            JoinVerdict::Unknown(reason) => Finding::new(
                Code::NodeAccess,
                subject,
                format!("{why}: it is unknown whether the role of green's nodes may join the cluster ({reason}); where it may not, they never appear, and nothing says why"),
                format!(
                    "make sure that the profile's role has an access entry of type {} (`aws eks list-access-entries --cluster-name {}`), or a row of aws-auth with the group {NODES_GROUP}; eksup looks for itself where it may (`eksup policy`)",
                    role.wanted_type(),
                    plan.cluster
                ),
            ),
        });
    }
}

/// None where blue's nodes show that green's may join, and where EKS or Karpenter makes them.
fn find_unproved<'a>(
    plan: &Plan,
    inventory: &'a Inventory,
    blue: &Nodegroup,
) -> Option<UnprovedGreen<'a>> {
    if blue.source != NodeSource::AutoScalingGroup {
        return None;
    }
    let of_blue = route::launch_template_of(inventory, blue);
    let of_green = route::launch_template_of_green(inventory, blue, &plan.node_group(&blue.name));
    let profile_of_blue = of_blue.and_then(|t| t.options.instance_profile.as_deref());
    let profile = of_green.and_then(|t| t.options.instance_profile.as_deref());
    let mut nodes = inventory.nodes_of(&blue.name);
    let why = match (profile_of_blue, profile) {
        (Some(blue), Some(green)) if profile_name(blue) != profile_name(green) => {
            format!("green's instance profile is {green} and blue's {blue}")
        }
        // Where the template was read, it names none.
        (Some(blue), None) if of_green.is_some() => {
            format!("green's launch template names no instance profile, and blue's is {blue}")
        }
        _ if !nodes.any(|n| n.is_ready()) => {
            "blue has no Ready node, which would show that its role may join".to_owned()
        }
        _ => return None,
    };
    Some(UnprovedGreen {
        profile,
        has_template: of_green.is_some(),
        why,
    })
}

/// The role of green's nodes, and what it is for.
struct GreenRole<'a> {
    cluster: &'a str,
    /// None where green's image does not say it.
    family: Option<OsFamily>,
}

impl GreenRole<'_> {
    fn runs_windows(&self) -> bool {
        self.family == Some(OsFamily::Windows)
    }

    fn wanted_type(&self) -> &'static str {
        match self.runs_windows() {
            true => WINDOWS_TYPE,
            false => LINUX_TYPE,
        }
    }

    fn wanted_groups(&self) -> &'static [&'static str] {
        match self.runs_windows() {
            true => &[NODES_GROUP, WINDOWS_GROUP],
            false => &[NODES_GROUP],
        }
    }

    fn judge(&self, profile: &str, access: Option<&NodeAccess>) -> JoinVerdict {
        let unread = |why: &str| JoinVerdict::Unknown(why.to_owned());
        let Some(access) = access else {
            return unread("its access was not read");
        };
        let role = match &access.role {
            AccessReading::Found(role) => role,
            AccessReading::Missing => {
                return JoinVerdict::Refused {
                    what: format!("there is no instance profile {profile} that has a role"),
                    fix: NAME_PROFILE_FIX.to_owned(),
                };
            }
            AccessReading::NotAsked => return unread("the profile's role was not read"),
            AccessReading::Unread(why) => return unread(why),
        };
        match (&access.entry, &access.rows) {
            // It goes before aws-auth (SELF-5).
            (AccessReading::Found(kind), _) => self.judge_entry(role, kind),
            (AccessReading::Unread(why), _) | (_, AccessReading::Unread(why)) => unread(why),
            (AccessReading::NotAsked, AccessReading::NotAsked) => {
                unread("the cluster's authentication mode is not one that eksup knows")
            }
            (AccessReading::Missing, AccessReading::NotAsked) => {
                self.refuse(role, &format!("green's role {role} has no access entry"))
            }
            (entry, rows) => {
                let rows = match rows {
                    AccessReading::Found(rows) => rows.as_slice(),
                    _ => &[],
                };
                let Some(lack) = self.find_lack(role, rows) else {
                    return JoinVerdict::Granted;
                };
                match entry {
                    AccessReading::Missing => self.refuse(
                        role,
                        &format!("green's role {role} has no access entry, and {lack}"),
                    ),
                    _ => self.refuse_by_rows(role, &lack),
                }
            }
        }
    }

    fn judge_entry(&self, role: &str, kind: &str) -> JoinVerdict {
        let what = match kind {
            LINUX_TYPE if self.runs_windows() => "which is for nodes of Linux",
            LINUX_TYPE => return JoinVerdict::Granted,
            // It gives all that nodes of Linux need, but EKS does not say that it is meant for them (SELF-7).
            WINDOWS_TYPE if self.family.is_some_and(|f| f != OsFamily::Windows) => {
                return JoinVerdict::Unknown(format!(
                    "the access entry of {role} is of type {WINDOWS_TYPE}, and green's nodes run Linux"
                ));
            }
            WINDOWS_TYPE => return JoinVerdict::Granted,
            kind if FOREIGN_TYPES.contains(&kind) => "which is not for self-managed nodes",
            _ => {
                return JoinVerdict::Unknown(format!(
                    "the access entry of {role} is of type {kind}, which eksup does not know"
                ));
            }
        };
        let (cluster, wanted) = (self.cluster, self.wanted_type());
        JoinVerdict::Refused {
            what: format!("the access entry of green's role {role} is of type {kind}, {what}"),
            fix: format!(
                "give green's nodes a role of their own, or replace the entry, whose type cannot be changed: `aws eks delete-access-entry --cluster-name {cluster} --principal-arn {role}`, then `{}`; whoever else uses the role loses what the old entry gave",
                create_command(cluster, role, wanted)
            ),
        }
    }

    /// What of the rows of aws-auth keeps nodes with this role out; none where a row lets them in.
    fn find_lack(&self, role: &str, rows: &[RoleMapping]) -> Option<String> {
        let wanted = self.wanted_groups();
        let lacks = |row: &RoleMapping| {
            let mut wanted = wanted.iter();
            wanted.find(|group| !row.groups.iter().any(|g| g == *group))
        };
        let mut known = rows.iter().filter(|row| row.names(role)).peekable();
        if known.peek().is_none() {
            return Some(match rows.first() {
                Some(row) => format!(
                    "its row of aws-auth spells it {}, which aws-auth knows without a path only",
                    row.role_arn
                ),
                None => "aws-auth has no row for it".to_owned(),
            });
        }
        // With several rows for one role any that suffices is taken to count.
        let lacking: Option<Vec<&&str>> = known.map(lacks).collect();
        let group = lacking?.into_iter().next()?;
        Some(format!("its row of aws-auth lacks the group {group}"))
    }

    fn refuse(&self, role: &str, what: &str) -> JoinVerdict {
        let command = create_command(self.cluster, role, self.wanted_type());
        JoinVerdict::Refused {
            what: what.to_owned(),
            fix: format!("create its access entry: `{command}`"),
        }
    }

    /// In a cluster that heeds aws-auth alone, and refuses access entries.
    fn refuse_by_rows(&self, role: &str, lack: &str) -> JoinVerdict {
        let groups = ["system:bootstrappers"].iter().chain(self.wanted_groups());
        let groups: Vec<String> = groups.map(|g| format!("--group {g}")).collect();
        let (cluster, arn) = (self.cluster, without_path(role));
        JoinVerdict::Refused {
            what: format!("green's role is {role}, and {lack}"),
            fix: format!(
                "give it a row in `mapRoles` of the ConfigMap kube-system/aws-auth, in place of one that it has: `eksctl create iamidentitymapping --cluster {cluster} --arn {arn} --username system:node:{{{{EC2PrivateDNSName}}}} {}`",
                groups.join(" ")
            ),
        }
    }
}

fn create_command(cluster: &str, role: &str, kind: &str) -> String {
    format!(
        "aws eks create-access-entry --cluster-name {cluster} --principal-arn {role} --type {kind}"
    )
}
