//! Webhooks that an upgrade would run into.

use super::tests::{of, only, paired, with};
use super::*;
use crate::model::Inventory;
use crate::model::admission::{AdmissionWebhook, WebhookRule};
use crate::model::inventory::Unread;
use crate::model::kube::{NamespacedName, Selector};
use crate::plan::Plan;
use crate::route::fixture::*;

/// What is done to the inventory of a case.
type Change = fn(&mut Inventory);

const SUBJECT: &str = "ValidatingWebhookConfiguration policy";

/// A webhook about everything, with `replicas` pods on blue's nodes by turns.
fn policy(i: &mut Inventory, replicas: usize) {
    let nodes = ["expense-blue-0", "expense-blue-1"];
    let on: Vec<&str> = nodes.iter().cycle().take(replicas).copied().collect();
    add_workload(i, "policy", "policy", "Deployment", &on);
    i.services
        .push(node_port_service("policy", "policy", 31_000, "Cluster"));
    i.namespaces = [
        ("policy", "policy"),
        ("expense", "shop"),
        ("kube-system", "system"),
    ]
    .map(|(name, label)| (name.to_owned(), string_map([("is", label)])))
    .into();
    i.webhooks.push(AdmissionWebhook {
        kind: "ValidatingWebhookConfiguration".to_owned(),
        configuration: "policy".to_owned(),
        name: "validate.policy.example".to_owned(),
        fail_closed: true,
        service: Some(NamespacedName::new("policy", "policy")),
        rules: vec![WebhookRule {
            operations: vec!["CREATE".to_owned()],
            api_groups: vec!["*".to_owned()],
            resources: vec!["*".to_owned()],
            scope: "*".to_owned(),
        }],
        namespace_selector: Selector::default(),
        object_selector: Selector::default(),
        match_conditions: false,
    });
}

fn webhooks(plan: &Plan, change: impl FnOnce(&mut Inventory)) -> Vec<Finding> {
    let found = with(plan, |i| {
        policy(i, 1);
        change(i);
    });
    let about = |f: &Finding| f.code.starts_with("EKSUP-W");
    found.into_iter().filter(about).collect()
}

#[test]
fn a_webhook_that_must_answer_for_its_own_only_pod_blocks() {
    let found = webhooks(&paired(""), |_| {});
    only(
        &found,
        Code::WebhookBlocksItself,
        Severity::Blocker,
        SUBJECT,
    );
    for said in ["validate.policy.example", "expense", "expense-blue-0"] {
        assert!(found[0].detail.contains(said), "{}", found[0].detail);
    }
    let surged = paired("drain: {singleReplicas: surge}\n");
    only(
        &webhooks(&surged, |_| {}),
        Code::WebhookBlocksItself,
        Severity::Warning,
        SUBJECT,
    );
}

#[test]
fn one_that_leaves_its_own_namespace_out_is_only_away_for_a_while() {
    let shop = |i: &mut Inventory| {
        i.webhooks[0].namespace_selector.match_labels = string_map([("is", "shop")]);
    };
    let found = webhooks(&paired(""), shop);
    only(&found, Code::WebhookAway, Severity::Warning, SUBJECT);
    let own_pods = |i: &mut Inventory| {
        i.webhooks[0].object_selector.match_labels = string_map([("app", "frontend")]);
    };
    let found = webhooks(&paired(""), own_pods);
    only(&found, Code::WebhookAway, Severity::Warning, SUBJECT);
}

#[test]
fn a_webhook_without_anybody_who_answers_blocks_and_says_why() {
    let gone: [(&str, Change); 3] = [
        ("does not exist", |i| {
            i.services.retain(|s| s.key.namespace != "policy");
        }),
        ("selects no pod", |i| {
            i.pods.retain(|p| p.key.namespace != "policy");
        }),
        ("is Ready", |i| {
            i.pods
                .iter_mut()
                .filter(|p| p.key.namespace == "policy")
                .for_each(|p| p.ready = false);
        }),
    ];
    for (why, change) in gone {
        let found = webhooks(&paired(""), change);
        only(&found, Code::WebhookDown, Severity::Blocker, SUBJECT);
        assert!(found[0].detail.contains(why), "{}", found[0].detail);
    }
}

#[test]
fn what_is_not_known_of_a_webhook_is_told_and_not_taken_for_gone() {
    let unread = |i: &mut Inventory| {
        i.services.clear();
        i.unread.push(Unread {
            op: "list services".to_owned(),
            why: "denied".to_owned(),
        });
    };
    let found = webhooks(&paired(""), unread);
    only(&found, Code::WebhookDown, Severity::Warning, SUBJECT);
    assert!(
        found[0].detail.contains("it is unknown"),
        "{}",
        found[0].detail
    );
    // Namespaces that could not be read count as selected.
    let found = webhooks(&paired(""), |i| {
        i.webhooks[0].namespace_selector.match_labels = string_map([("is", "nothing")]);
        i.namespaces.clear();
    });
    only(
        &found,
        Code::WebhookBlocksItself,
        Severity::Blocker,
        SUBJECT,
    );
}

#[test]
fn webhooks_that_an_upgrade_does_not_run_into_are_not_told() {
    let harmless: [(&str, Change); 6] = [
        ("two replicas on two nodes", |i| {
            let mut second = i
                .pods
                .iter()
                .rfind(|p| p.key.namespace == "policy")
                .unwrap()
                .clone();
            second.key.name += "-too";
            second.node = Some("expense-blue-1".to_owned());
            i.pods.push(second);
        }),
        ("a replica elsewhere", |i| {
            let pod = i.pods.iter_mut().rfind(|p| p.key.namespace == "policy");
            pod.unwrap().node = Some("fargate-1".to_owned());
        }),
        ("it fails open", |i| i.webhooks[0].fail_closed = false),
        ("a URL", |i| i.webhooks[0].service = None),
        ("other resources", |i| {
            i.webhooks[0].rules[0].resources = vec!["ingresses".to_owned()];
        }),
        ("no namespace that moves", |i| {
            i.webhooks[0].rules[0].resources = vec!["pods".to_owned()];
            i.webhooks[0].namespace_selector.match_labels = string_map([("is", "nothing")]);
        }),
    ];
    for (why, change) in harmless {
        assert_eq!(webhooks(&paired(""), change), [], "{why}");
    }
}

#[test]
fn nodes_evictions_and_the_runs_own_records_count_too() {
    for (resource, said) in [
        ("nodes", "nodes that join"),
        ("pods/eviction", "evictions in expense"),
        ("nodes/status", "heartbeats"),
        ("configmaps", "own records"),
    ] {
        let found = webhooks(&paired(""), |i| {
            i.webhooks[0].rules[0].resources = vec![resource.to_owned()];
            i.webhooks[0].rules[0].operations = vec!["*".to_owned()];
        });
        only(&found, Code::WebhookAway, Severity::Warning, SUBJECT);
        assert!(found[0].detail.contains(said), "{}", found[0].detail);
        assert_eq!(of(&found, Code::WebhookBlocksItself), []);
    }
}
