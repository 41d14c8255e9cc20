//! Insights: what EKS thinks of the next upgrade, judged from what the cloud knows.

use std::time::Duration;

use serde_json::{Value, json};

use super::{EksEvent, requested_cluster, rollback_insights, schedule_after, show};
use crate::model::Minor;
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::{ClusterInsight, EksCluster};
use crate::twin::world::SimWorld;

fn show_summary(insight: &ClusterInsight) -> Value {
    let mut out = show::into_members(json!({
        "id": insight.id,
        "name": insight.name,
        "category": insight.category,
        "lastRefreshTime": show::show_time(insight.refreshed),
        "lastTransitionTime": show::show_time(insight.refreshed),
        "description": insight.description,
        "insightStatus": {"status": insight.status, "reason": insight.reason},
    }));
    if let Some(version) = insight.version {
        out.insert("kubernetesVersion".into(), json!(version));
    }
    Value::Object(out)
}

/// ListInsights.
pub fn list(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    // Insights on rollback disappear seven days after an upgrade, without anybody asking.
    rollback_insights::expire_rollback_insights(world);
    let eks = requested_cluster(world, input)?;
    let filter = input.get_input("filter");
    let texts = |member: &str| filter.map(|f| f.get_text_list(member)).unwrap_or_default();
    // Each list of the filter that is empty takes everything.
    let (categories, versions, statuses) = (
        texts("categories"),
        texts("kubernetesVersions"),
        texts("statuses"),
    );
    let found = eks.insights.iter().filter(|i| {
        (categories.is_empty() || categories.contains(&i.category))
            && (versions.is_empty() || i.version.is_some_and(|v| versions.contains(&v.to_string())))
            && (statuses.is_empty() || statuses.contains(&i.status))
    });
    let page = cut_page(
        found.map(show_summary),
        input.get_text("nextToken"),
        input.get_number("maxResults").unwrap_or(100),
    )?;
    Ok(json!({"insights": page.items, "nextToken": page.next}))
}

/// DescribeInsight.
pub fn describe(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let eks = requested_cluster(world, input)?;
    let id = input.get_text("id").unwrap_or_default();
    let Some(insight) = eks.insights.iter().find(|i| i.id == id) else {
        return Err(
            AwsError::not_found(format!("No insight found for ID: {id}"))
                .with_member("clusterName", eks.name.clone()),
        );
    };
    let mut out = show::into_members(show_summary(insight));
    // A resource is named by its ARN or by its path in the API server, in one field or the other.
    let resources: Vec<Value> = insight
        .resources
        .iter()
        .map(|name| {
            let member = if name.starts_with("arn:") { "arn" } else { "kubernetesResourceUri" };
            json!({"insightStatus": {"status": insight.status, "reason": insight.reason}, member: name})
        })
        .collect();
    out.insert("recommendation".into(), json!(insight.recommendation));
    out.insert("additionalInfo".into(), json!({}));
    out.insert("resources".into(), json!(resources));
    // The details are left empty: nothing is known of which clients use what.
    out.insert(
        "categorySpecificSummary".into(),
        json!({"deprecationDetails": [], "addonCompatibilityDetails": []}),
    );
    Ok(json!({"insight": out}))
}

/// StartInsightsRefresh: one at a time.
pub fn start_refresh(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let now = world.now();
    let eks = requested_cluster(world, input)?;
    if eks.refresh.started.is_some() && eks.refresh.ended.is_none() {
        return Err(AwsError::invalid_request(
            "An insights refresh is already in progress for this cluster",
        ));
    }
    eks.refresh.started = Some(now);
    eks.refresh.ended = None;
    let wait = world.random_duration(Duration::from_secs(20), Duration::from_secs(60));
    schedule_after(world, wait, EksEvent::InsightsRefreshed);
    Ok(json!({"message": "Insights refresh is in progress", "status": "IN_PROGRESS"}))
}

/// DescribeInsightsRefresh.
pub fn describe_refresh(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let eks = requested_cluster(world, input)?;
    let Some(started) = eks.refresh.started else {
        return Err(AwsError::not_found(
            "No insights refresh found for this cluster",
        ));
    };
    Ok(match eks.refresh.ended {
        Some(ended) => {
            json!({"message": "Insights refresh completed successfully", "status": "COMPLETED", "startedAt": show::show_time(started), "endedAt": show::show_time(ended)})
        }
        None => {
            json!({"message": "Insights refresh is in progress", "status": "IN_PROGRESS", "startedAt": show::show_time(started)})
        }
    })
}

/// The refresh is over.
pub fn finish_refresh(world: &mut SimWorld) {
    judge_insights(world);
    let now = world.now();
    if let Some(eks) = &mut world.cloud.eks {
        eks.refresh.ended = Some(now);
    }
}

/// Judges again what can be judged; the others (deprecated APIs: thirty days of audit log) stay as they were found and
/// speak of the next version only while they pass.
pub fn judge_insights(world: &mut SimWorld) {
    // The rollback's insights are judged with the upgrade's, as one refresh does both.
    rollback_insights::judge_rollback_insights(world);
    let now = world.now();
    let Some(eks) = &mut world.cloud.eks else {
        return;
    };
    let next = eks.version.next();
    let (kubelets, addons) = (judge_kubelet_skew(eks), judge_addons(eks));
    for insight in eks
        .insights
        .iter_mut()
        .filter(|i| i.category == "UPGRADE_READINESS")
    {
        insight.refreshed = now;
        // Only the insights that the twin can judge are judged; the others keep what the snapshot says.
        let judged = match insight.name.as_str() {
            "Kubelet version skew" => Some(&kubelets),
            "EKS add-on version compatibility" => Some(&addons),
            _ => None,
        };
        match judged {
            Some(judged) => {
                insight.version = Some(next);
                insight.status = judged.status.into();
                insight.reason = judged.reason.into();
                insight.recommendation = judged.recommendation.into();
                insight.resources.clone_from(&judged.resources);
            }
            // An insight that was passing speaks of the next version as it changes; one that was not keeps the
            // version that it was about.
            None if insight.status == "PASSING" => insight.version = Some(next),
            None => {}
        }
    }
}

/// A judgement.
struct InsightJudgement {
    status: &'static str,
    reason: &'static str,
    recommendation: &'static str,
    resources: Vec<String>,
}

/// Node groups whose kubelets the version after the next one (a warning) or the next one (an error) would leave behind
/// (EKS-INS-1, EKS-CP-8).
fn judge_kubelet_skew(eks: &EksCluster) -> InsightJudgement {
    // The kubelet of a group that is being deleted does not count.
    let behind = |target: Minor| -> Vec<String> {
        eks.nodegroups
            .values()
            .filter(|g| g.deleting.is_none() && !g.version.kubelet_may_join(target))
            .map(|g| g.arn.clone())
            .collect()
    };
    let recommendation = "Upgrade your worker nodes to match the cluster's Kubernetes version before upgrading the control plane.";
    // An error is about the next minor, a warning about the one after it (EKS-INS-1).
    let (errors, warnings) = (
        behind(eks.version.next()),
        behind(eks.version.next().next()),
    );
    if !errors.is_empty() {
        let reason = "Node kubelet version would violate the supported skew after an upgrade to the next Kubernetes version.";
        return InsightJudgement {
            status: "ERROR",
            reason,
            recommendation,
            resources: errors,
        };
    }
    if !warnings.is_empty() {
        let reason = "Node kubelet version is within the supported skew for the next Kubernetes version, but not for the one after it.";
        return InsightJudgement {
            status: "WARNING",
            reason,
            recommendation,
            resources: warnings,
        };
    }
    let reason =
        "Node kubelet versions match the cluster control plane version or are within the skew.";
    InsightJudgement {
        status: "PASSING",
        reason,
        recommendation: "",
        resources: Vec::new(),
    }
}

/// Add-ons whose version the next minor does not take.
fn judge_addons(eks: &EksCluster) -> InsightJudgement {
    let next = eks.version.next();
    // An add-on is unfit only where the catalogue knows a version for the next minor: otherwise nothing can be said.
    let unfit: Vec<String> = eks
        .addons
        .values()
        .filter(|addon| {
            let offered = eks
                .catalog
                .get(&addon.name)
                .and_then(|o| o.versions.iter().find(|v| v.version == addon.version));
            // A version the catalogue does not list is one this snapshot did not record: nothing can be said of it.
            offered.is_some_and(|v| !v.minors.is_empty() && !v.minors.contains_key(&next))
                && eks
                    .catalog
                    .get(&addon.name)
                    .is_some_and(|o| o.versions.iter().any(|v| v.minors.contains_key(&next)))
        })
        .map(|addon| addon.arn.clone())
        .collect();
    if unfit.is_empty() {
        let reason =
            "All installed EKS add-on versions are compatible with next Kubernetes version.";
        return InsightJudgement {
            status: "PASSING",
            reason,
            recommendation: "",
            resources: unfit,
        };
    }
    let reason = "One or more installed EKS add-on versions are not compatible with the next Kubernetes version.";
    let recommendation =
        "Upgrade the add-ons to versions that are compatible with the next Kubernetes version.";
    InsightJudgement {
        status: "ERROR",
        reason,
        recommendation,
        resources: unfit,
    }
}
