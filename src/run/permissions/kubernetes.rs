//! Verbs, by SelfSubjectAccessReview.

use futures::{StreamExt, TryStreamExt, stream};

use super::needs::PermissionNeeds;
use super::rbac;
use crate::k8s::KubeApi;
use crate::k8s::access::ResourceVerb;
use crate::model::{ApiError, ErrorClass, Inventory};
use crate::plan::Plan;
use crate::ready::{Code, Finding};
use crate::run::cluster_connection::retry_throttled;

/// How many reviews are under way at once.
const REVIEW_CONCURRENCY: usize = 8;

/// The verbs that the plan needs and the caller may not use. A list that was refused is told as such already.
pub async fn find_missing_verbs(
    kube: &KubeApi,
    plan: &Plan,
    inventory: &Inventory,
) -> Result<Vec<Finding>, ApiError> {
    // A list that the inventory was refused has a finding of its own already.
    let mut needs = PermissionNeeds::from_plan(Some(plan));
    needs.narrow_to_nodes(plan, inventory);
    let needed: Vec<ResourceVerb<'static>> = rbac::required_verbs(&needs)
        .into_iter()
        .filter(|v| !inventory.unread.iter().any(|u| u.op == verb_text(v)))
        .collect();
    // A review for each verb, as only the API server knows every role that is bound to a caller.
    let reviews: Vec<_> = needed
        .iter()
        .map(|verb| retry_throttled(|| kube.is_allowed(verb)))
        .collect();
    let answers: Result<Vec<bool>, ApiError> = stream::iter(reviews)
        .buffered(REVIEW_CONCURRENCY)
        .try_collect()
        .await;
    // Where reviews themselves are not allowed, the permissions are unknown, and not missing.
    match answers {
        Ok(answers) => {
            let refused = needed.iter().zip(answers).filter(|(_, allowed)| !allowed);
            Ok(refused
                .map(|(verb, _)| missing_verb_finding(verb))
                .collect())
        }
        Err(e)
            if matches!(
                e.class,
                ErrorClass::Denied | ErrorClass::Invalid | ErrorClass::Absent
            ) =>
        {
            Ok(vec![Finding::new(
                Code::PermissionsUnchecked,
                "Kubernetes permissions",
                format!("{}: {}", e.op, e.message),
                "compare the caller's roles with `eksup policy --format rbac`",
            )])
        }
        Err(e) => Err(e),
    }
}

/// Returns the verb and the resource as one text, such as `patch nodes`.
fn verb_text(verb: &ResourceVerb<'_>) -> String {
    format!("{} {}", verb.verb, verb.resource)
}

fn missing_verb_finding(verb: &ResourceVerb<'_>) -> Finding {
    let group = match verb.group {
        "" => String::new(),
        group => format!(" of API group {group}"),
    };
    let of = verb.name.map(|n| format!(" `{n}`")).unwrap_or_default();
    let place = match verb.namespace {
        Some(namespace) => format!("in namespace {namespace}"),
        None => "in the whole cluster".to_owned(),
    };
    Finding::new(
        Code::PermissionMissing,
        verb_text(verb),
        format!(
            "the caller may not {} {}{of}{group} {place}, which the plan needs",
            verb.verb, verb.resource
        ),
        "bind the roles that `eksup policy --format rbac` prints to the caller",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_is_named_with_its_resource_and_where() {
        let evict = ResourceVerb {
            verb: "create",
            group: "",
            resource: "pods/eviction",
            namespace: None,
            name: None,
        };
        let found = missing_verb_finding(&evict);
        assert_eq!(found.subject, "create pods/eviction");
        assert!(found.detail.contains("in the whole cluster"), "{found:?}");
        let lease = ResourceVerb {
            verb: "update",
            group: "coordination.k8s.io",
            resource: "leases",
            namespace: Some("kube-system"),
            name: Some("eksup-run"),
        };
        let detail = missing_verb_finding(&lease).detail;
        assert!(
            detail.contains(
                "leases `eksup-run` of API group coordination.k8s.io in namespace kube-system"
            ),
            "{detail}"
        );
    }
}
