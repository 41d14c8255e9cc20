//! Whether nodes of a self-managed green may join.

use super::*;
use crate::model::node_access::AccessReading::{Found, Missing, NotAsked, Unread};
use crate::model::node_access::{AccessReading, NodeAccess, RoleMapping};
use crate::ready::unproved_profiles;

const SUBJECT: &str = "Auto Scaling group workers";
const ROLE: &str = "arn:aws:iam::1:role/team/nodes";

/// A self-managed group whose template has a second version for green, both with one profile.
fn cluster_with_profiles() -> Inventory {
    let mut i = self_managed_cluster();
    let mut newer = i.launch_templates[0].clone();
    for template in [&mut i.launch_templates[0], &mut newer] {
        template.options.instance_profile = Some("nodes".to_owned());
    }
    newer.version = 5;
    newer.image = Some(NEW_IMAGE.to_owned());
    i.launch_templates.push(newer);
    i
}

fn told(plan: &Plan, change: impl FnOnce(&mut Inventory)) -> Vec<Finding> {
    let mut i = cluster_with_profiles();
    change(&mut i);
    let mut found = judged(plan, &i);
    let codes = [Code::NodeAccess, Code::NodeAccessMissing].map(Code::as_str);
    found.retain(|f| codes.contains(&f.code.as_str()));
    found
}

fn groups(entry: &str) -> Plan {
    let text =
        format!("cluster: shop\nto: 1.29\nautoScalingGroups: [{{blue: workers, {entry}}}]\n");
    parse_plan("plan.yaml", &text)
        .map_err(|e| e.problems)
        .unwrap()
}

#[test]
fn blues_ready_nodes_show_that_its_role_may_join_and_another_profile_is_unknown() {
    let (newest, version) = (groups("ami: auto"), groups("launchTemplateVersion: 5"));
    assert_eq!(told(&newest, |_| {}), []);
    // The same profile, by its ARN.
    let arn = "arn:aws:iam::123456789012:instance-profile/team/nodes";
    let same = |i: &mut Inventory| {
        i.launch_templates[1].options.instance_profile = Some(arn.to_owned());
    };
    assert_eq!(told(&version, same), []);
    let other = told(&version, |i| {
        i.launch_templates[1].options.instance_profile = Some("others".to_owned());
    });
    only(&other, Code::NodeAccess, Severity::Warning, SUBJECT);
    let none = told(&version, |i| {
        i.launch_templates[1].options.instance_profile = None;
    });
    only(&none, Code::NodeAccessMissing, Severity::Blocker, SUBJECT);
    let unproved = told(&newest, |i| {
        for node in &mut i.nodes {
            node.ready = "False".to_owned();
        }
    });
    only(&unproved, Code::NodeAccess, Severity::Warning, SUBJECT);
}

#[test]
fn the_profiles_that_are_read_are_those_of_greens_that_blue_does_not_show_to_join() {
    let of = |entry: &str, change: fn(&mut Inventory)| {
        let plan = groups(entry);
        let mut inventory = cluster_with_profiles();
        change(&mut inventory);
        let route = build_route(&plan, &inventory).unwrap();
        let profiles = unproved_profiles(&plan, &route, &inventory);
        profiles.into_iter().collect::<Vec<String>>()
    };
    let (newest, version) = ("ami: auto", "launchTemplateVersion: 5");
    let none: [&str; 0] = [];
    assert_eq!(of(newest, |_| {}), none);
    assert_eq!(of(version, |_| {}), none);
    assert_eq!(
        of(version, |i| give_profile(
            i,
            Some("arn:aws:iam::1:instance-profile/a/others")
        )),
        ["others"]
    );
    assert_eq!(of(version, |i| give_profile(i, None)), none);
    assert_eq!(of(newest, unready), ["nodes"]);
}

fn unready(i: &mut Inventory) {
    for node in &mut i.nodes {
        node.ready = "False".to_owned();
    }
}

/// The template version of green names the profile.
fn give_profile(i: &mut Inventory, profile: Option<&str>) {
    i.launch_templates[1].options.instance_profile = profile.map(str::to_owned);
}

/// What is said where green gets another profile, of which this was read.
fn told_of(
    image: &str,
    role: AccessReading<String>,
    entry: AccessReading<&str>,
    rows: AccessReading<Vec<RoleMapping>>,
) -> Vec<Finding> {
    let entry = match entry {
        Found(kind) => Found(kind.to_owned()),
        Missing => Missing,
        NotAsked => NotAsked,
        Unread(why) => Unread(why),
    };
    let access = NodeAccess { role, entry, rows };
    told(&groups("launchTemplateVersion: 5"), |i| {
        give_profile(i, Some("others"));
        let mut new_image = i.images[0].clone();
        (new_image.id, new_image.name) = (NEW_IMAGE.to_owned(), image.to_owned());
        i.images.push(new_image);
        i.node_access.insert("others".to_owned(), access);
    })
}

fn role() -> AccessReading<String> {
    Found(ROLE.to_owned())
}

fn row(arn: &str, groups: &[&str]) -> AccessReading<Vec<RoleMapping>> {
    let groups = groups.iter().map(ToString::to_string).collect();
    let role_arn = arn.to_owned();
    Found(vec![RoleMapping { role_arn, groups }])
}

const LINUX_IMAGE: &str = "amazon-eks-node-al2023-x86_64-standard-1.29-v20240807";
const WINDOWS_IMAGE: &str = "Windows_Server-2022-English-Core-EKS_Optimized-1.29-2025.02.14";
const ROW_ARN: &str = "arn:aws:iam::1:role/nodes";
const ALL_GROUPS: [&str; 3] = [
    "system:bootstrappers",
    "system:nodes",
    "eks:kube-proxy-windows",
];

#[test]
fn an_entry_of_the_right_type_or_a_row_with_the_right_groups_lets_nodes_in() {
    let granted = |image, entry, rows| told_of(image, role(), entry, rows);
    for (image, kind) in [
        (LINUX_IMAGE, "EC2_LINUX"),
        (WINDOWS_IMAGE, "EC2_WINDOWS"),
        ("golden-1", "EC2_LINUX"),
        ("golden-1", "EC2_WINDOWS"),
    ] {
        assert_eq!(granted(image, Found(kind), NotAsked), [], "{image} {kind}");
    }
    for (image, groups) in [
        (LINUX_IMAGE, &ALL_GROUPS[..2]),
        (WINDOWS_IMAGE, &ALL_GROUPS),
    ] {
        let rows = || row(ROW_ARN, groups);
        assert_eq!(granted(image, Missing, rows()), [], "{image}");
        assert_eq!(granted(image, NotAsked, rows()), [], "{image}");
    }
    // Another row for the same role does no harm.
    let two = || match (row(ROW_ARN, &[]), row(ROW_ARN, &ALL_GROUPS)) {
        (Found(mut rows), Found(more)) => {
            rows.extend(more);
            Found(rows)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(granted(LINUX_IMAGE, Missing, two()), []);
}

#[test]
fn what_is_known_to_be_missing_blocks_with_the_command_that_gives_it() {
    let create = |kind: &str| {
        format!(
            "`aws eks create-access-entry --cluster-name shop --principal-arn {ROLE} --type {kind}`"
        )
    };
    let map = |groups: &str| {
        format!(
            "`eksctl create iamidentitymapping --cluster shop --arn {ROW_ARN} --username system:node:{{{{EC2PrivateDNSName}}}} --group system:bootstrappers --group system:nodes{groups}`"
        )
    };
    let cases = [
        // Mode API, and both.
        (
            LINUX_IMAGE,
            Missing,
            NotAsked,
            "has no access entry",
            create("EC2_LINUX"),
        ),
        (
            WINDOWS_IMAGE,
            Missing,
            Missing,
            "aws-auth has no row",
            create("EC2_WINDOWS"),
        ),
        (
            LINUX_IMAGE,
            Missing,
            Found(Vec::new()),
            "no access entry, and aws-auth has no row",
            create("EC2_LINUX"),
        ),
        // Mode CONFIG_MAP.
        (
            LINUX_IMAGE,
            NotAsked,
            Missing,
            "aws-auth has no row",
            map(""),
        ),
        (
            LINUX_IMAGE,
            NotAsked,
            row(ROLE, &ALL_GROUPS),
            "without a path",
            map(""),
        ),
        (
            LINUX_IMAGE,
            NotAsked,
            row(ROW_ARN, &["system:masters"]),
            "lacks the group system:nodes",
            map(""),
        ),
        (
            WINDOWS_IMAGE,
            NotAsked,
            row(ROW_ARN, &ALL_GROUPS[..2]),
            "lacks the group eks:kube-proxy-windows",
            map(" --group eks:kube-proxy-windows"),
        ),
        // The entry decides, whatever the row says.
        (
            LINUX_IMAGE,
            Found("STANDARD"),
            row(ROW_ARN, &ALL_GROUPS),
            "of type STANDARD",
            create("EC2_LINUX"),
        ),
        (
            LINUX_IMAGE,
            Found("EC2"),
            NotAsked,
            "of type EC2,",
            create("EC2_LINUX"),
        ),
        (
            LINUX_IMAGE,
            Found("HYBRID_LINUX"),
            NotAsked,
            "of type HYBRID_LINUX",
            create("EC2_LINUX"),
        ),
        (
            WINDOWS_IMAGE,
            Found("EC2_LINUX"),
            NotAsked,
            "for nodes of Linux",
            create("EC2_WINDOWS"),
        ),
    ];
    for (image, entry, rows, what, command) in cases {
        let found = told_of(image, role(), entry.clone(), rows.clone());
        only(&found, Code::NodeAccessMissing, Severity::Blocker, SUBJECT);
        let Finding { detail, fix, .. } = &found[0];
        assert!(
            detail.contains(what) && detail.contains(ROLE),
            "{what}: {detail}"
        );
        assert!(fix.contains(&command), "{what}: {fix}");
        let replaces = fix.contains("delete-access-entry");
        assert_eq!(replaces, matches!(entry, Found(_)), "{fix}");
    }
    let found = told_of(LINUX_IMAGE, Missing, NotAsked, NotAsked);
    only(&found, Code::NodeAccessMissing, Severity::Blocker, SUBJECT);
    assert!(
        found[0].detail.contains("no instance profile others"),
        "{found:?}"
    );
}

#[test]
fn what_was_not_read_or_does_not_tell_stays_a_warning_with_the_reason() {
    let unread = |why: &str| Unread(why.to_owned());
    let denied = || Unread("iam:GetInstanceProfile: denied".to_owned());
    let rows = || row(ROW_ARN, &ALL_GROUPS);
    for (role, entry, rows, reason) in [
        (
            denied(),
            NotAsked,
            NotAsked,
            "iam:GetInstanceProfile: denied",
        ),
        // The row may be overridden by an entry that nobody saw.
        (role(), unread("eks: denied"), rows(), "eks: denied"),
        (
            role(),
            Missing,
            Unread("get configmaps: forbidden".to_owned()),
            "get configmaps: forbidden",
        ),
        (role(), NotAsked, Unread("no list".to_owned()), "no list"),
        (role(), NotAsked, NotAsked, "authentication mode"),
        (
            role(),
            Found("EC2_WINDOWS"),
            NotAsked,
            "green's nodes run Linux",
        ),
        (role(), Found("EC2_MARS"), NotAsked, "EC2_MARS"),
    ] {
        let found = told_of(LINUX_IMAGE, role, entry, rows);
        only(&found, Code::NodeAccess, Severity::Warning, SUBJECT);
        assert!(found[0].detail.contains(reason), "{reason}: {found:?}");
    }
}
