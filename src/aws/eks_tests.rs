//! EKS's answers as the model reads them, and what is sent when something is changed.

use serde_json::{Value, json as j};

use crate::aws::AwsApi;
use crate::clients::fake_wire::{
    RecordedRequests, answering_wire, eks_error_answer, json_answer, test_clock,
};
use crate::clients::sdk_config::config_over_wire;
use crate::model::aws_status::InsightStatus;
use crate::model::eks::*;
use crate::model::{AddonVersion, ErrorClass, Minor};

fn recorded(name: &str) -> Value {
    let path = format!(
        "{}/tests/data/expense-dev/aws/eks-{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn answering(body: Value) -> (AwsApi, RecordedRequests) {
    let (wire, asked) = answering_wire(move |_, _| json_answer(200, &body));
    (
        AwsApi::new(&config_over_wire(wire, "us-east-1", &test_clock())),
        asked,
    )
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_read_with_all_that_a_plan_needs() {
    let cluster = answering(recorded("describe-cluster"))
        .0
        .describe_cluster("expense-dev")
        .await
        .unwrap();
    assert_eq!(
        (cluster.version, cluster.status.as_str()),
        (Minor::new(27), "ACTIVE")
    );
    assert_eq!(cluster.vpc_id.as_deref(), Some("vpc-bf6d50bf25522105e"));
    assert_eq!(cluster.subnet_ids.len(), 3);
    assert_eq!(cluster.support_type.as_deref(), Some("EXTENDED"));
    assert_eq!(
        cluster.authentication_mode.as_deref(),
        Some("API_AND_CONFIG_MAP")
    );
    assert_eq!(cluster.tags["env"], "dev");
    assert_eq!(
        cluster.created_at.unwrap().to_string(),
        "2026-11-21T08:14:58.982Z"
    );
    assert!(
        !cluster.auto_mode && cluster.endpoint.is_some() && cluster.certificate_authority.is_some()
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_group_is_read_with_all_that_its_clone_needs() {
    let group = answering(recorded("describe-nodegroup-expense-blue"))
        .0
        .describe_nodegroup("expense-dev", "expense-blue")
        .await
        .unwrap();
    assert_eq!(
        group.scaling,
        Scaling {
            min: 3,
            max: 6,
            desired: 3
        }
    );
    assert_eq!(
        (group.version, group.ami_type.as_deref()),
        (Some(Minor::new(27)), Some("AL2023_x86_64_STANDARD"))
    );
    assert_eq!(
        group.asgs,
        ["eks-expense-blue-5fa9ad04-5dee-48aa-8576-da0674dfc9d9"]
    );
    assert_eq!(group.labels["colour"], "blue");
    assert_eq!(group.update_config.unwrap().max_unavailable, Some(1));
    assert_eq!((group.disk_size, group.launch_template), (Some(20), None));
}

#[tokio::test(start_paused = true)]
async fn offers_are_those_of_the_minor_newest_first_with_one_default() {
    let (aws, asked) = answering(recorded("describe-addon-versions-1.28"));
    let offers = aws
        .list_addon_offers(Minor::new(28), &["coredns".to_owned()])
        .await
        .unwrap();
    let versions: Vec<&str> = offers["coredns"]
        .iter()
        .map(|o| o.version.as_str())
        .collect();
    assert_eq!(versions, ["v1.11.1-eksbuild.9", "v1.10.1-eksbuild.18"]);
    assert_eq!(offers["coredns"].iter().filter(|o| o.default).count(), 1);
    assert_eq!(
        asked.request_lines(),
        ["GET /addons/supported-versions?kubernetesVersion=1.28&addonName=coredns"]
    );
    let other = answering(recorded("describe-addon-versions-1.28"))
        .0
        .list_addon_offers(Minor::new(29), &["coredns".to_owned()])
        .await
        .unwrap();
    assert!(
        other["coredns"].is_empty(),
        "what is compatible with 1.28 only is not offered on 1.29"
    );
}

#[tokio::test(start_paused = true)]
async fn an_add_on_the_catalogue_does_not_know_has_no_offers() {
    let (wire, _) = answering_wire(|_, _| {
        eks_error_answer(
            400,
            "InvalidParameterException",
            "Addon mine is not supported",
        )
    });
    let offers = AwsApi::new(&config_over_wire(wire, "us-east-1", &test_clock()))
        .list_addon_offers(Minor::new(28), &["mine".to_owned()])
        .await
        .unwrap();
    assert!(offers["mine"].is_empty());
}

#[tokio::test(start_paused = true)]
async fn lists_are_read_to_their_last_page() {
    let (wire, asked) = answering_wire(|request, _| {
        let second = request
            .uri()
            .query()
            .unwrap_or_default()
            .contains("nextToken=n2");
        json_answer(
            200,
            &if second {
                j!({"nodegroups": ["c"]})
            } else {
                j!({"nodegroups": ["a", "b"], "nextToken": "n2"})
            },
        )
    });
    let names = AwsApi::new(&config_over_wire(wire, "us-east-1", &test_clock()))
        .list_nodegroups("demo")
        .await
        .unwrap();
    assert_eq!(
        (names, asked.all_requests().len()),
        (vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], 2)
    );
}

#[tokio::test(start_paused = true)]
async fn only_insights_that_do_not_pass_are_described() {
    let (wire, asked) = answering_wire(|request, _| {
        if request.method() == http::Method::POST {
            return json_answer(
                200,
                &j!({"insights": [
                {"id": "good", "name": "fine", "category": "UPGRADE_READINESS", "kubernetesVersion": "1.28", "insightStatus": {"status": "PASSING", "reason": "ok"}},
                {"id": "bad", "name": "apis", "category": "UPGRADE_READINESS", "kubernetesVersion": "1.28", "insightStatus": {"status": "ERROR", "reason": "in use"}},
                {"id": "went", "name": "away", "category": "UPGRADE_READINESS", "insightStatus": {"status": "UNKNOWN"}}]}),
            );
        }
        if request.uri().path().ends_with("/went") {
            return eks_error_answer(404, "ResourceNotFoundException", "no such insight");
        }
        json_answer(
            200,
            &j!({"insight": {"id": "bad", "recommendation": "move on", "resources": [{"kubernetesResourceUri": "/apis/x/v1beta1/y", "insightStatus": {"status": "ERROR"}}],
            "categorySpecificSummary": {"deprecationDetails": [{"usage": "/apis/flowcontrol/v1beta2", "replacedWith": "v1", "stopServingVersion": "1.29", "clientStats": [{"userAgent": "old-operator"}]}]}}}),
        )
    });
    let insights = AwsApi::new(&config_over_wire(wire, "us-east-1", &test_clock()))
        .list_insights("demo")
        .await
        .unwrap();
    assert_eq!(asked.all_requests().len(), 3);
    let bad = insights.iter().find(|i| i.id == "bad").unwrap();
    assert_eq!(bad.recommendation.as_deref(), Some("move on"));
    assert_eq!(
        bad.resources,
        [
            "/apis/x/v1beta1/y (ERROR)",
            "/apis/flowcontrol/v1beta2, not served from 1.29, use v1, called by old-operator"
        ]
    );
    assert!(
        insights
            .iter()
            .any(|i| i.id == "went" && i.status == InsightStatus::Unknown)
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_node_group_is_sent_with_what_it_says_and_nothing_else() {
    let (aws, asked) = answering(recorded("describe-nodegroup-expense-blue"));
    // Some fields are set and some are empty: an empty list would be a value for EKS, and not its default.
    let group = NewNodegroup {
        name: "green".into(),
        scaling: Scaling {
            min: 1,
            max: 3,
            desired: 2,
        },
        subnets: vec!["subnet-1".into()],
        node_role: "arn:role".into(),
        instance_types: vec![],
        ami_type: None,
        capacity_type: Some("SPOT".into()),
        disk_size: None,
        remote_access: None,
        labels: [("colour".to_owned(), "green".to_owned())].into(),
        taints: vec![NodegroupTaint {
            key: "k".into(),
            value: None,
            effect: "NO_SCHEDULE".into(),
        }],
        tags: [("eksup.dev/run".to_owned(), "r1".to_owned())].into(),
        update_config: Some(UpdateConfig {
            max_unavailable: None,
            max_unavailable_percentage: Some(33),
            update_strategy: Some("MINIMAL".into()),
        }),
        node_repair_config: None,
        warm_pool_config: None,
        // Both are known, and EKS takes only one of them.
        launch_template: Some(LaunchTemplateRef {
            id: Some("lt-1".into()),
            name: Some("both".into()),
            version: Some("4".into()),
        }),
        release_version: None,
    };
    aws.create_nodegroup("expense-dev", &group, "token-1")
        .await
        .unwrap();
    assert_eq!(
        asked.request_lines(),
        ["POST /clusters/expense-dev/node-groups"]
    );
    let sent: Value = serde_json::from_str(&asked.request_bodies()[0]).unwrap();
    assert_eq!(
        sent,
        j!({"nodegroupName": "green", "clientRequestToken": "token-1", "scalingConfig": {"minSize": 1, "maxSize": 3, "desiredSize": 2}, "subnets": ["subnet-1"], "nodeRole": "arn:role",
            "capacityType": "SPOT", "labels": {"colour": "green"}, "taints": [{"key": "k", "effect": "NO_SCHEDULE"}], "tags": {"eksup.dev/run": "r1"},
            "updateConfig": {"maxUnavailablePercentage": 33, "updateStrategy": "MINIMAL"}, "launchTemplate": {"id": "lt-1", "version": "4"}})
    );
}

#[tokio::test(start_paused = true)]
async fn an_add_on_update_always_says_what_to_do_about_conflicts() {
    let (aws, asked) = answering(
        j!({"update": {"id": "u1", "status": "InProgress", "type": "AddonUpdate", "params": [{"type": "AddonVersion", "value": "v2"}], "createdAt": 1795248898.5}}),
    );
    let change = AddonChange {
        name: "vpc-cni".into(),
        version: AddonVersion::new("v2"),
        resolve_conflicts: "PRESERVE".into(),
        service_account_role_arn: None,
    };
    let update = aws
        .update_addon("demo", &change, Some("{\"a\":1}"), "token-2")
        .await
        .unwrap();
    assert_eq!(
        (
            update.status,
            update.kind.as_str(),
            update.params["AddonVersion"].as_str()
        ),
        (UpdateStatus::InProgress, "AddonUpdate", "v2")
    );
    let sent: Value = serde_json::from_str(&asked.request_bodies()[0]).unwrap();
    assert_eq!(
        sent,
        j!({"addonVersion": "v2", "resolveConflicts": "PRESERVE", "configurationValues": "{\"a\":1}", "clientRequestToken": "token-2"})
    );
}

#[tokio::test(start_paused = true)]
async fn an_update_of_a_node_group_is_described_as_such() {
    let (aws, asked) = answering(
        j!({"update": {"id": "u1", "status": "Failed", "type": "ConfigUpdate", "errors": [{"errorCode": "NodeCreationFailure", "errorMessage": "no", "resourceIds": ["i-1"]}]}}),
    );
    let update = aws
        .describe_update("demo", UpdateOf::Nodegroup("blue"), "u1")
        .await
        .unwrap();
    assert_eq!(
        asked.request_lines(),
        ["GET /clusters/demo/updates/u1?nodegroupName=blue"]
    );
    assert_eq!(
        update.errors,
        [HealthIssue {
            code: "NodeCreationFailure".into(),
            message: "no".into(),
            resource_ids: vec!["i-1".into()]
        }]
    );
    assert_eq!(update.status, UpdateStatus::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_second_update_is_a_conflict_whatever_its_code() {
    let (wire, _) = answering_wire(|_, _| {
        eks_error_answer(
            400,
            "InvalidRequestException",
            "Unsupported because cluster demo currently has update 7d in progress",
        )
    });
    let error = AwsApi::new(&config_over_wire(wire, "us-east-1", &test_clock()))
        .update_cluster_version("demo", Minor::new(28), "t")
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Conflict);
}
