//! What could not be read, and what EKS says nothing of, is never taken for fine.

use super::tests::{of, only, paired, with};
use super::*;
use crate::model::aws_status::ClusterStatus;
use crate::model::eks::{InsightsRefreshOutcome, Update, UpdateStatus};
use crate::model::{Inventory, Minor};
use crate::route::fixture::*;

fn detail(findings: &[Finding], code: Code) -> &Finding {
    let found = findings.iter().find(|f| f.code == code.as_str());
    found.unwrap_or_else(|| panic!("no {code:?} in {findings:#?}"))
}

/// Takes what EKS lists of coredns for 1.29 away.
fn unlisted(i: &mut Inventory) {
    add_offers(i, "coredns", 29, &[]);
}

#[test]
fn an_addon_that_eks_lists_for_no_version_of_a_minor_blocks() {
    let found = with(&paired(""), unlisted);
    only(
        &found,
        Code::AddonNotListed,
        Severity::Blocker,
        "add-on coredns",
    );
    let said = detail(&found, Code::AddonNotListed);
    assert!(said.detail.contains("1.29"), "{}", said.detail);
    assert!(said.fix.contains("--preserve"), "{}", said.fix);
    // An earlier minor of the way counts as well as the target.
    let earlier = with(&paired(""), |i| add_offers(i, "coredns", 28, &[]));
    assert!(
        detail(&earlier, Code::AddonNotListed)
            .detail
            .contains("1.28")
    );
}

#[test]
fn an_addon_whose_catalogue_was_not_read_for_a_minor_blocks() {
    let found = with(&paired(""), |i| {
        let catalog = i.addon_catalog.get_mut("coredns").unwrap();
        catalog.remove(&Minor::new(29));
    });
    only(
        &found,
        Code::AddonNotListed,
        Severity::Blocker,
        "add-on coredns",
    );
    assert!(
        detail(&found, Code::AddonNotListed)
            .detail
            .contains("could not be read")
    );
}

#[test]
fn an_addon_without_a_version_for_the_nodes_architecture_blocks() {
    let found = with(&paired(""), |i| {
        let catalog = i.addon_catalog.get_mut("coredns").unwrap();
        for offer in catalog.get_mut(&Minor::new(29)).unwrap() {
            offer.architectures = vec!["arm64".to_owned()];
        }
    });
    only(
        &found,
        Code::AddonNotListed,
        Severity::Blocker,
        "add-on coredns",
    );
}

#[test]
fn an_addon_the_catalogue_says_nothing_of_blocks_a_hop_unless_the_plan_skips_it() {
    let market = |i: &mut Inventory| add_addon(i, "kubecost_kubecost", "v1.103.3-eksbuild.0");
    let subject = "add-on kubecost_kubecost";
    only(
        &with(&paired(""), market),
        Code::AddonUnknown,
        Severity::Blocker,
        subject,
    );
    let skipped = paired("addons: {skip: [kubecost_kubecost]}\n");
    only(
        &with(&skipped, market),
        Code::AddonUnknown,
        Severity::Warning,
        subject,
    );
}

#[test]
fn skipping_an_addon_that_eks_does_not_list_is_told_and_does_not_block() {
    let found = with(&paired("addons: {skip: [coredns]}\n"), unlisted);
    only(
        &found,
        Code::AddonSkipped,
        Severity::Warning,
        "add-on coredns",
    );
    assert_eq!(of(&found, Code::AddonNotListed), []);
}

#[test]
fn insights_that_are_missing_or_speak_of_another_version_are_told() {
    let subject = "cluster expense-dev";
    for (policy, severity) in [
        ("block", Severity::Warning),
        ("warn", Severity::Warning),
        ("ignore", Severity::Info),
    ] {
        let p = paired(&format!("controlPlane: {{insights: {policy}}}\n"));
        let none = with(&p, |i| i.insights.clear());
        only(&none, Code::InsightsMissing, severity, subject);
    }
    let late = with(&paired(""), |i| {
        i.insights[0].kubernetes_version = Some(Minor::new(27));
    });
    only(&late, Code::InsightsMissing, Severity::Warning, subject);
    assert!(detail(&late, Code::InsightsMissing).detail.contains("1.27"));
    let other = with(&paired(""), |i| {
        i.insights[0].category = "ROLLBACK_READINESS".to_owned();
    });
    only(&other, Code::InsightsMissing, Severity::Warning, subject);
}

#[test]
fn insights_that_could_not_be_refreshed_are_told_with_the_time_they_are_of() {
    let found = with(&paired(""), |i| {
        i.insights_refresh = InsightsRefreshOutcome::NotCompleted {
            why: "eks:StartInsightsRefresh: not authorized".to_owned(),
        };
    });
    only(
        &found,
        Code::InsightsOld,
        Severity::Warning,
        "cluster expense-dev",
    );
    let said = &detail(&found, Code::InsightsOld).detail;
    assert!(
        said.contains("2026-11-21 08:00 UTC") && said.contains("not authorized"),
        "{said}"
    );
    let fresh = with(&paired(""), |i| {
        i.insights_refresh = InsightsRefreshOutcome::Completed;
    });
    assert_eq!(fresh, []);
}

#[test]
fn a_misconfiguration_insight_is_told_whatever_version_it_speaks_of() {
    let found = with(&paired(""), |i| {
        let mut bad = upgrade_insight("Hybrid node routing", 27, "ERROR");
        bad.category = "MISCONFIGURATION".to_owned();
        bad.kubernetes_version = None;
        i.insights.push(bad);
    });
    only(
        &found,
        Code::Misconfiguration,
        Severity::Warning,
        "insight Hybrid node routing",
    );
}

fn hop_in_progress(i: &mut Inventory, kind: &str, to: &str) {
    i.cluster.status = ClusterStatus::Updating;
    i.updates.push(Update {
        id: "u-1".to_owned(),
        status: UpdateStatus::InProgress,
        kind: kind.to_owned(),
        params: string_map([("Version", to)]),
        created_at: None,
        errors: Vec::new(),
    });
}

#[test]
fn only_the_next_hop_in_progress_is_taken_up_and_any_other_update_blocks() {
    let subject = "cluster expense-dev";
    let next = with(&paired(""), |i| hop_in_progress(i, "VersionUpdate", "1.28"));
    only(&next, Code::UpdateAdopted, Severity::Warning, subject);
    assert_eq!(of(&next, Code::ClusterNotActive), []);
    for (kind, to) in [
        ("VersionUpdate", "1.27"),
        ("VersionUpdate", "1.29"),
        ("VersionRollback", "1.28"),
        ("LoggingUpdate", "1.28"),
    ] {
        let other = with(&paired(""), |i| hop_in_progress(i, kind, to));
        only(&other, Code::ClusterNotActive, Severity::Blocker, subject);
        let said = &detail(&other, Code::ClusterNotActive).detail;
        assert!(said.contains("u-1") && said.contains(kind), "{said}");
    }
}
