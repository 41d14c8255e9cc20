//! The control plane: its state, its subnets, EKS's own insights, and whether EKS offers the way.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::codes::Code;
use super::input::{ReadinessInput, name_some};
use super::{Finding, Severity};
use crate::model::Minor;
use crate::model::aws_status::ClusterStatus;
use crate::model::aws_status::InsightStatus;
use crate::model::aws_status::VersionStatus;
use crate::model::eks::{Insight, InsightsRefreshOutcome, Update};
use crate::plan::{AutoModeNodes, Insights};
use crate::route::StepSpec;

/// What UpdateClusterVersion asks for, in at least two zones.
const MIN_FREE_IPS: i32 = 5;
/// Support that ends within this time is worth a word.
const SUPPORT_END_NOTICE: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Judges the control plane.
pub fn check_control_plane(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let cluster = &case.inventory.cluster;
    let subject = format!("cluster {}", cluster.name);
    let hops = case.minors_ahead().next().is_some();
    // An update in progress is either the route's own next hop or in its way.
    if let Some((update, to)) = next_hop_in_progress(case) {
        out.push(Finding::new(
            Code::UpdateAdopted,
            &subject,
            format!(
                "EKS update {} already upgrades it to {to}, and this run did not start it",
                update.id
            ),
            "nothing to do: the run adopts that update as its own hop and waits until it ends",
        ));
    } else if cluster.status != ClusterStatus::Active {
        let running: Vec<String> = case
            .inventory
            .updates
            .iter()
            .map(|u| format!("update {} ({}) is in progress", u.id, u.kind))
            .collect();
        let mut detail = format!("its status is {}", cluster.status);
        if !running.is_empty() {
            detail += &format!(": {}", name_some(&running));
        }
        out.push(Finding::new(
            Code::ClusterNotActive,
            &subject,
            detail,
            "wait until its status is ACTIVE; `aws eks list-updates` shows an update in progress",
        ));
    }
    // What EKS and the API server say of the cluster today.
    for issue in &cluster.health {
        let detail = format!("{}: {}", issue.code, issue.message);
        let fix = if issue.resource_ids.is_empty() {
            "fix it: EKS does not upgrade an unhealthy cluster".to_owned()
        } else {
            format!("fix {}", name_some(&issue.resource_ids))
        };
        out.push(Finding::new(Code::ClusterHealth, &subject, detail, fix));
    }
    if let Some(server) = case.inventory.server_version
        && server != cluster.version
    {
        let detail = format!(
            "the API server reports version {server}, and EKS reports {}",
            cluster.version
        );
        // An update takes one minor at a time, so a larger difference is another cluster's API server.
        let one_hop = server == cluster.version.next() || server.next() == cluster.version;
        let (severity, fix) = if one_hop {
            let fix = "an update may just be ending: check again in a few minutes";
            (Severity::Warning, fix)
        } else {
            let fix = "check --kubeconfig and --context: they probably name another cluster";
            (Severity::Blocker, fix)
        };
        let finding = Finding::new(Code::ServerDiffers, &subject, detail, fix);
        out.push(finding.with_severity(severity));
    }
    // Told so that nobody waits for eksup to replace these nodes.
    if cluster.auto_mode {
        out.push(Finding::new(
            Code::AutoMode,
            &subject,
            "EKS replaces the nodes of Auto Mode after the control plane is upgraded, within their own disruption budgets",
            match case.plan.auto_mode {
                AutoModeNodes::Wait => "nothing to do: the run waits for them after the hop, and nothing holds them back",
                AutoModeNodes::Leave => "look at these nodes after the run, which does not wait for them",
            },
        ));
    }
    // What concerns a hop only.
    if hops {
        check_free_ips(case, &subject, out);
        check_offered(case, &subject, out);
        check_insights_known(case, &subject, out);
        for insight in &case.inventory.insights {
            check_insight(case, insight, out);
        }
    }
    check_misconfigurations(case, out);
}

/// That EKS says nothing against a hop counts only where it says something at all, and of the next version.
fn check_insights_known(case: &ReadinessInput<'_>, subject: &str, out: &mut Vec<Finding>) {
    let inventory = case.inventory;
    let next = inventory.cluster.version.next();
    // How much an absent insight weighs is the plan's choice.
    let severity = match case.plan.control_plane.insights {
        Insights::Block => Severity::Blocker,
        Insights::Warn => Severity::Warning,
        Insights::Ignore => Severity::Info,
    };
    // Three ways to know nothing: the list failed, it is empty, or it is of other minors.
    let upgrade: Vec<&Insight> = inventory
        .insights
        .iter()
        .filter(|i| i.category == "UPGRADE_READINESS")
        .collect();
    let unread = inventory
        .unread
        .iter()
        .find(|u| u.op.starts_with("eks:ListInsights") || u.op.starts_with("eks:DescribeInsight"));
    let missing = match unread {
        Some(unread) => Some(format!(
            "{} failed ({}), so it is unknown whether EKS reports a problem with {next}",
            unread.op, unread.why
        )),
        None if upgrade.is_empty() => Some("EKS lists no upgrade insight for it".to_owned()),
        None if !upgrade.iter().any(|i| i.kubernetes_version == Some(next)) => {
            let minors: BTreeSet<String> = upgrade
                .iter()
                .filter_map(|i| i.kubernetes_version)
                .map(|v| v.to_string())
                .collect();
            let minors: Vec<String> = minors.into_iter().collect();
            Some(format!(
                "its upgrade insights are for {} only, and the next hop goes to {next}",
                name_some(&minors)
            ))
        }
        None => None,
    };
    // Where the hop is in progress already, it is too late for advice on it.
    if let Some(detail) = missing.filter(|_| next_hop_in_progress(case).is_none()) {
        let fix = "check again in a few minutes with `aws eks list-insights` (EKS refreshes its insights once a day and \
             after each hop), or set `controlPlane.insights: warn` to continue without them";
        // What was refused may hide anything; a cluster of today, or one at the newest version, just has none yet.
        let severity = match unread {
            Some(_) => severity,
            None => severity.max(Severity::Warning),
        };
        out.push(Finding::new(Code::InsightsMissing, subject, detail, fix).with_severity(severity));
        return;
    }
    // There are insights of the next minor, and they may be of yesterday.
    if let InsightsRefreshOutcome::NotCompleted { why } = &inventory.insights_refresh {
        let last = upgrade.iter().filter_map(|i| i.last_refresh).min();
        let last = last.map_or_else(
            || "an unknown time".to_owned(),
            |t| t.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        );
        let finding = Finding::new(
            Code::InsightsOld,
            subject,
            format!(
                "EKS refreshed its upgrade insights last at {last}, and they could not be refreshed now: {why}"
            ),
            "allow eks:StartInsightsRefresh and eks:DescribeInsightsRefresh (`eksup policy` prints what is needed), or \
             read them with `aws eks list-insights`; they do not show what was fixed or broken since then",
        );
        out.push(finding.with_severity(severity.max(Severity::Warning)));
    }
}

/// Insights of the category MISCONFIGURATION, which speak of the cluster as it is, whatever it is upgraded to.
fn check_misconfigurations(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    for insight in &case.inventory.insights {
        if insight.category != "MISCONFIGURATION" || insight.status == InsightStatus::Passing {
            continue;
        }
        out.push(Finding::new(
            Code::Misconfiguration,
            format!("insight {}", insight.name),
            insight_text(insight),
            insight_advice(insight),
        ));
    }
}

/// EKS's reason, with the resources it names.
fn insight_text(insight: &Insight) -> String {
    let named = if insight.resources.is_empty() {
        String::new()
    } else {
        format!(" ({})", name_some(&insight.resources))
    };
    format!("{}: {}{named}", insight.status, insight.reason)
}

fn insight_advice(insight: &Insight) -> String {
    let advice = insight.recommendation.clone().filter(|r| !r.is_empty());
    advice.unwrap_or_else(|| "see `aws eks describe-insight`".to_owned())
}

/// The update that makes the route's first hop already. Any other update of the cluster has to end first, and so has
/// this one where node groups must be replaced before the hop.
fn next_hop_in_progress<'a>(case: &ReadinessInput<'a>) -> Option<(&'a Update, Minor)> {
    let inventory = case.inventory;
    let next = inventory.cluster.version.next();
    let [update] = inventory.updates.as_slice() else {
        return None;
    };
    let same = update.kind == "VersionUpdate"
        && update.params.get("Version").map(String::as_str) == Some(next.to_string().as_str());
    // Only a step on node groups before the hop keeps the run from adopting it.
    let first = case
        .route?
        .steps
        .iter()
        .find(|step| !matches!(step.spec, StepSpec::Addon { .. }))?;
    let wanted = matches!(first.spec, StepSpec::ControlPlane { to, .. } if to == next);
    (inventory.cluster.status == ClusterStatus::Updating && same && wanted)
        .then_some((update, next))
}

fn check_free_ips(case: &ReadinessInput<'_>, subject: &str, out: &mut Vec<Finding>) {
    let inventory = case.inventory;
    let own: Vec<_> = inventory
        .subnets
        .iter()
        .filter(|s| inventory.cluster.subnet_ids.contains(&s.id))
        .collect();
    // EKS needs two zones for the control plane's network interfaces, so zones are counted and not subnets.
    let zones: BTreeSet<&str> = own
        .iter()
        .filter(|s| s.free_ips >= MIN_FREE_IPS)
        .map(|s| s.zone.as_str())
        .collect();
    // Subnets that could not be read have a finding of their own.
    if own.is_empty() || zones.len() >= 2 {
        return;
    }
    let list: Vec<String> = own
        .iter()
        .map(|s| format!("{} ({}) has {}", s.id, s.zone, s.free_ips))
        .collect();
    out.push(Finding::new(
        Code::ControlPlaneIps,
        subject,
        format!("an upgrade needs {MIN_FREE_IPS} free addresses in subnets of two zones, and the cluster's subnets have \
             fewer: {}", name_some(&list)),
        "free up addresses, or give the cluster other subnets of the same zones with `aws eks update-cluster-config`",
    ));
}

fn check_offered(case: &ReadinessInput<'_>, subject: &str, out: &mut Vec<Finding>) {
    let versions = &case.inventory.cluster_versions;
    // Not read: that is told elsewhere, and nothing can be said here.
    if versions.is_empty() {
        return;
    }
    // Each minor on the route must be offered, as EKS goes one at a time.
    for minor in case.minors_ahead() {
        let found = versions.iter().find(|v| v.version == minor);
        if found.is_none_or(|v| v.status == VersionStatus::Unsupported) {
            let mut known: Vec<String> = versions
                .iter()
                .filter(|v| v.status != VersionStatus::Unsupported)
                .map(|v| v.version.to_string())
                .collect();
            known.sort();
            out.push(Finding::new(
                Code::TargetNotOffered,
                subject,
                format!("EKS does not offer {minor}"),
                format!("choose a `to` that EKS offers: {}", known.join(", ")),
            ));
        }
    }
    // The target is where the cluster stays, so that its support alone matters.
    let Some(target) = versions.iter().find(|v| v.version == case.plan.to) else {
        return;
    };
    let now = case.inventory.taken_at;
    // With STANDARD EKS upgrades at the end of standard support; every other policy has extended support after it.
    let extended = case.inventory.cluster.support_type.as_deref() != Some("STANDARD");
    // The later end says all: what is out of extended support is out of standard support too.
    for (end, what) in [
        (target.end_of_extended_support, "extended support"),
        (target.end_of_standard_support, "standard support"),
    ] {
        let Some(end) = end else { continue };
        let left = end.duration_since(now);
        if left > SUPPORT_END_NOTICE {
            continue;
        }
        let date = end.strftime("%Y-%m-%d");
        let detail = if left.is_negative() {
            format!("{what} of {} ended on {date}", case.plan.to)
        } else {
            format!("{what} of {} ends on {date}", case.plan.to)
        };
        let fix = if extended {
            "choose a newer `to`, or plan the next upgrade; extended support costs extra"
        } else {
            "choose a newer `to`, or plan the next upgrade: the cluster's upgrade policy is STANDARD, so EKS upgrades it \
             by itself at the end of standard support"
        };
        out.push(Finding::new(Code::TargetSupport, subject, detail, fix));
        return;
    }
}

fn check_insight(case: &ReadinessInput<'_>, insight: &Insight, out: &mut Vec<Finding>) {
    let concerns = insight.category == "UPGRADE_READINESS"
        && insight
            .kubernetes_version
            .is_none_or(|v| v > case.inventory.cluster.version && v <= case.plan.to);
    if !concerns {
        return;
    }
    let subject = match insight.kubernetes_version {
        Some(version) => format!("insight {} for {version}", insight.name),
        None => format!("insight {}", insight.name),
    };
    let (detail, advice) = (insight_text(insight), insight_advice(insight));
    match &insight.status {
        InsightStatus::Error => {
            let severity = match case.plan.control_plane.insights {
                // What the route itself fixes before the hop need not stop it.
                Insights::Block if is_fixed_by_route(case, insight) => Severity::Warning,
                Insights::Block => Severity::Blocker,
                Insights::Warn => Severity::Warning,
                Insights::Ignore => Severity::Info,
            };
            let finding = Finding::new(Code::InsightError, subject, detail, advice);
            out.push(finding.with_severity(severity));
        }
        InsightStatus::Warning | InsightStatus::Unknown | InsightStatus::Other(_) => {
            out.push(Finding::new(Code::InsightWarning, subject, detail, advice));
        }
        InsightStatus::Passing => {}
    }
}

fn is_fixed_by_route(case: &ReadinessInput<'_>, insight: &Insight) -> bool {
    // What comes after the hop would fix the insight too late for EKS.
    let before_hop = || {
        case.route.iter().flat_map(|r| &r.steps).take_while(
            |s| !matches!(&s.spec, StepSpec::ControlPlane { to, .. } if insight.kubernetes_version.is_none_or(|v| *to >= v)),
        )
    };
    let name = insight.name.to_ascii_lowercase();
    if name.contains("add-on") || name.contains("kube-proxy") {
        before_hop().any(|s| matches!(s.spec, StepSpec::Addon { .. }))
    } else if name.contains("kubelet") {
        before_hop().any(|s| matches!(s.spec, StepSpec::CreateGreen { .. }))
    } else {
        // Amazon Linux 2 ends with the greens, which come after the hop by nature.
        name.contains("amazon linux 2")
            && case
                .changes
                .iter()
                .any(|c| c.blue.ami_type != c.green.ami_type)
    }
}
