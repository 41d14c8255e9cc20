//! The thin calls against moto's server, for what moto gets right. The same calls that run against the twin.
//!
//! Runs where `EKSUP_TEST_MOTO` names a moto server, such as `http://127.0.0.1:5000`; each run begins with a reset.

use std::time::Duration;

use bytes::Bytes;
use eksup::aws::AwsApi;
use eksup::aws::elb::RuleWritten;
use eksup::model::asg::AsgTag;
use eksup::model::aws_status::TargetState;
use eksup::model::eks::*;
use eksup::model::elb::{RegisteredTarget, TargetHealth, WeightedTargetGroup};
use eksup::model::warm_pool::WarmPool;
use eksup::model::{Clock, ErrorClass, Minor};
use eksup::wire::{BoxError, Request, Wire};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// Sends every request to the server, which tells the services apart by the signature.
fn wire(server: http::Uri) -> Wire {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    Wire::new(tower::service_fn(move |mut request: Request| {
        let (client, server) = (client.clone(), server.clone());
        async move {
            let path = request.uri().path_and_query().cloned();
            let host = request.uri().host().unwrap_or_default().to_owned();
            let mut parts = server.into_parts();
            parts.path_and_query = path;
            *request.uri_mut() = http::Uri::from_parts(parts)?;
            request.headers_mut().insert("host", host.parse()?);
            let response = client.request(request.map(Full::new)).await?;
            Ok::<_, BoxError>(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
        }
    }))
}

async fn start() -> AwsApi {
    let server = std::env::var("EKSUP_TEST_MOTO").expect("EKSUP_TEST_MOTO names a moto server");
    let server: http::Uri = server.parse().expect("EKSUP_TEST_MOTO is an address");
    let reset = http::Request::post(format!("{server}moto-api/reset"))
        .body(Full::new(Bytes::new()))
        .unwrap();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    assert!(client.request(reset).await.unwrap().status().is_success());
    AwsApi::over_wire(wire(server), "us-east-1", &Clock::system())
}

/// A network in two zones.
async fn network(aws: &AwsApi) -> (String, Vec<String>) {
    let vpc = aws
        .ec2
        .create_vpc()
        .cidr_block("10.0.0.0/16")
        .send()
        .await
        .unwrap()
        .vpc
        .unwrap()
        .vpc_id
        .unwrap();
    let mut subnets = Vec::new();
    for (n, zone) in ["us-east-1a", "us-east-1b"].into_iter().enumerate() {
        let made = aws
            .ec2
            .create_subnet()
            .vpc_id(&vpc)
            .cidr_block(format!("10.0.{n}.0/24"))
            .availability_zone(zone)
            .send()
            .await
            .unwrap();
        subnets.push(made.subnet.unwrap().subnet_id.unwrap());
    }
    (vpc, subnets)
}

/// One test: moto is one server with one state.
#[tokio::test]
#[ignore = "needs moto's server: EKSUP_TEST_MOTO=http://127.0.0.1:5000 cargo test --test conformance moto:: -- --ignored"]
async fn the_calls_work_against_moto() {
    let aws = start().await;
    let (vpc, subnets) = network(&aws).await;
    compute(&aws, &subnets).await;
    super::auto_scaling::run_against_moto(&aws, &vpc, &subnets).await;
    clusters(&aws, &subnets).await;
    balancers(&aws, &vpc, &subnets).await;
    let (account, arn) = aws.get_caller_identity().await.unwrap();
    assert_eq!(account, "123456789012");
    assert!(arn.starts_with("arn:aws:"));
}

async fn compute(aws: &AwsApi, subnets: &[String]) {
    let mut asked = subnets.to_vec();
    // One of them does not exist: asked by id, EC2 refuses the whole call.
    asked.push("subnet-00000000".to_owned());
    let read = aws.describe_subnets(&asked).await.unwrap();
    assert_eq!(read.len(), 2, "an id that does not exist is absent");
    assert!(read.iter().all(|s| s.free_ips > 200 && s.zone_id.is_some()));

    // A template as a team would make it, and the version that a run makes from it.
    let data = aws_sdk_ec2::types::RequestLaunchTemplateData::builder()
        .image_id("ami-12345678")
        .instance_type("t3.large".into())
        .build();
    let made = aws
        .ec2
        .create_launch_template()
        .launch_template_name("blue")
        .launch_template_data(data.clone())
        .send()
        .await
        .unwrap();
    let id = made.launch_template.unwrap().launch_template_id.unwrap();
    let first = aws
        .describe_launch_template_version(&id, "$Latest")
        .await
        .unwrap();
    assert_eq!(
        (
            first.version,
            first.image.as_deref(),
            first.instance_type.as_deref()
        ),
        (1, Some("ami-12345678"), Some("t3.large"))
    );
    let second = aws
        .create_launch_template_version(&id, 1, "ami-87654321", "eksup run-1", "token")
        .await
        .unwrap();
    assert_eq!(
        (
            second.version,
            second.image.as_deref(),
            second.description.as_deref()
        ),
        (2, Some("ami-87654321"), Some("eksup run-1"))
    );
    let all = aws.describe_launch_template_versions(&id).await.unwrap();
    assert_eq!(all.iter().map(|v| v.version).collect::<Vec<_>>(), [2, 1]);

    // A group of two instances, read by its name.
    let group = aws
        .asg
        .create_auto_scaling_group()
        .auto_scaling_group_name("blue")
        .min_size(1)
        .max_size(3)
        .desired_capacity(2)
        .vpc_zone_identifier(subnets.join(","));
    let template = aws_sdk_autoscaling::types::LaunchTemplateSpecification::builder()
        .launch_template_id(&id)
        .version("1")
        .build();
    group.launch_template(template).send().await.unwrap();
    let names = ["blue".to_owned(), "none".to_owned()];
    let read = aws.describe_asgs(&names).await.unwrap();
    assert_eq!(read.len(), 1, "a name that does not exist is absent");
    assert_eq!((read["blue"].desired, read["blue"].instances.len()), (2, 2));
    let ids: Vec<String> = read["blue"]
        .instances
        .iter()
        .map(|i| i.id.clone())
        .chain(["i-00000000000000000".to_owned()])
        .collect();
    let instances = aws.describe_instances(&ids).await.unwrap();
    assert_eq!(instances.len(), 2, "an id that does not exist is absent");
    assert!(
        instances
            .iter()
            .all(|i| i.state == "running" && i.instance_type == "t3.large")
    );

    // The mark and the suspension that a run leaves on blue's group, and takes off again.
    let tag = AsgTag {
        key: "eksup.dev/az-rebalance-suspended-by".into(),
        value: "run-1".into(),
        propagate: false,
    };
    aws.tag_asg("blue", std::slice::from_ref(&tag))
        .await
        .unwrap();
    aws.suspend_processes("blue", &["AZRebalance"])
        .await
        .unwrap();
    let held = aws
        .describe_asgs(&names)
        .await
        .unwrap()
        .remove("blue")
        .unwrap();
    assert_eq!(
        (held.suspended.as_slice(), held.tags.contains(&tag)),
        (["AZRebalance".to_owned()].as_slice(), true)
    );
    aws.resume_processes("blue", &["AZRebalance"])
        .await
        .unwrap();
    aws.untag_asg("blue", std::slice::from_ref(&tag.key))
        .await
        .unwrap();
    let freed = aws
        .describe_asgs(&names)
        .await
        .unwrap()
        .remove("blue")
        .unwrap();
    assert!(freed.suspended.is_empty() && !freed.tags.contains(&tag));
    warm_pool(aws).await;
}

/// A warm pool given, read, changed and taken; moto starts no instance for it.
async fn warm_pool(aws: &AwsApi) {
    assert_eq!(aws.describe_warm_pool("blue").await.unwrap(), None);
    let mut pool = WarmPool {
        min: 1,
        max_prepared: None,
        state: "Stopped".into(),
        reuse: true,
    };
    aws.put_warm_pool("blue", &pool).await.unwrap();
    let told = aws.describe_warm_pool("blue").await.unwrap().unwrap();
    assert_eq!((&told.pool, told.deleting), (&pool, false));
    let groups = aws.describe_asgs(&["blue".to_owned()]).await.unwrap();
    let of_group = groups["blue"].warm_pool.as_ref().unwrap();
    assert_eq!(of_group.pool, pool, "the group tells the same");
    pool = pool.emptied();
    aws.put_warm_pool("blue", &pool).await.unwrap();
    let told = aws.describe_warm_pool("blue").await.unwrap().unwrap();
    assert!(told.pool.keeps_none(), "{told:?}");
    aws.delete_empty_warm_pool("blue").await.unwrap();
    assert_eq!(aws.describe_warm_pool("blue").await.unwrap(), None);
}

async fn clusters(aws: &AwsApi, subnets: &[String]) {
    let vpc = aws_sdk_eks::types::VpcConfigRequest::builder()
        .set_subnet_ids(Some(subnets.to_vec()))
        .build();
    aws.eks
        .create_cluster()
        .name("demo")
        .version("1.28")
        .role_arn("arn:aws:iam::123456789012:role/eks")
        .resources_vpc_config(vpc)
        .send()
        .await
        .unwrap();
    assert_eq!(aws.list_clusters().await.unwrap(), ["demo"]);
    let cluster = aws.describe_cluster("demo").await.unwrap();
    assert_eq!(
        (
            cluster.version,
            cluster.status.as_str(),
            cluster.subnet_ids.as_slice()
        ),
        (Minor::new(28), "ACTIVE", subnets)
    );
    assert_eq!(
        aws.describe_cluster("none").await.unwrap_err().class,
        ErrorClass::Absent
    );
    let error = eksup::inventory::connect::find_cluster(aws, "none")
        .await
        .unwrap_err();
    assert!(
        error.message.contains("there are `demo`"),
        "{}",
        error.message
    );

    // With settings of each kind: what is lost on the way there or back shows in the comparison below.
    let group = NewNodegroup {
        name: "green".into(),
        scaling: Scaling {
            min: 1,
            max: 4,
            desired: 2,
        },
        subnets: subnets.to_vec(),
        node_role: "arn:aws:iam::123456789012:role/node".into(),
        instance_types: vec!["t3.large".into()],
        ami_type: Some("AL2023_x86_64_STANDARD".into()),
        capacity_type: Some("ON_DEMAND".into()),
        disk_size: Some(30),
        remote_access: None,
        labels: [("colour".to_owned(), "green".to_owned())].into(),
        taints: vec![NodegroupTaint {
            key: "k".into(),
            value: Some("v".into()),
            effect: "NO_SCHEDULE".into(),
        }],
        tags: [("eksup.dev/run".to_owned(), "run-1".to_owned())].into(),
        update_config: None,
        node_repair_config: None,
        warm_pool_config: None,
        launch_template: None,
        release_version: None,
    };
    aws.create_nodegroup("demo", &group, "token-of-this-run-and-step")
        .await
        .unwrap();
    // Another token is another call, and the name is taken.
    assert_eq!(
        aws.create_nodegroup("demo", &group, "another-token")
            .await
            .unwrap_err()
            .class,
        ErrorClass::Conflict
    );
    assert_eq!(aws.list_nodegroups("demo").await.unwrap(), ["green"]);
    let read = aws.describe_nodegroup("demo", "green").await.unwrap();
    assert_eq!(
        (read.scaling, &read.instance_types, &read.labels, &read.tags),
        (
            group.scaling,
            &group.instance_types,
            &group.labels,
            &group.tags
        )
    );
    assert_eq!(
        (read.ami_type, read.disk_size, read.taints),
        (group.ami_type, group.disk_size, group.taints)
    );
    // What closing blue writes: a taint for new nodes, and a largest size.
    let change = NodegroupChange {
        max: Some(2),
        add_taints: vec![NodegroupTaint {
            key: "eksup.dev/blue".into(),
            value: Some("run-1".into()),
            effect: "NO_SCHEDULE".into(),
        }],
        ..NodegroupChange::default()
    };
    aws.update_nodegroup("demo", "green", &change, "token-of-the-change")
        .await
        .unwrap();
    let read = aws.describe_nodegroup("demo", "green").await.unwrap();
    assert!(
        read.taints.iter().any(|t| t.key == "eksup.dev/blue"),
        "{:?}",
        read.taints
    );
    assert_eq!(
        aws.list_fargate_profiles("demo").await.unwrap(),
        Vec::<String>::new()
    );
    aws.delete_nodegroup("demo", "green").await.unwrap();
    assert_eq!(
        aws.describe_nodegroup("demo", "green")
            .await
            .unwrap_err()
            .class,
        ErrorClass::Absent
    );

    // What moto does not know is neither an absent object nor worth trying again.
    for class in [
        aws.update_cluster_version("demo", Minor::new(29), "token-of-the-hop")
            .await
            .unwrap_err()
            .class,
        aws.list_addons("demo").await.unwrap_err().class,
        aws.list_insights("demo").await.unwrap_err().class,
        aws.list_cluster_versions().await.unwrap_err().class,
    ] {
        assert_eq!(class, ErrorClass::Invalid);
    }
}

async fn balancers(aws: &AwsApi, vpc: &str, subnets: &[String]) {
    use aws_sdk_elasticloadbalancingv2::types as elb;
    // The cluster's balancer, with two target groups.
    let made = aws
        .elb
        .create_load_balancer()
        .name("shop")
        .set_subnets(Some(subnets.to_vec()))
        .tags(elb::Tag::builder().key("env").value("dev").build())
        .send()
        .await
        .unwrap();
    let balancer = made
        .load_balancers
        .unwrap()
        .remove(0)
        .load_balancer_arn
        .unwrap();
    let mut groups = Vec::new();
    for name in ["blue", "green"] {
        let made = aws
            .elb
            .create_target_group()
            .name(name)
            .protocol(elb::ProtocolEnum::Http)
            .port(30080)
            .vpc_id(vpc)
            .target_type(elb::TargetTypeEnum::Instance)
            .send()
            .await
            .unwrap();
        groups.push(
            made.target_groups
                .unwrap()
                .remove(0)
                .target_group_arn
                .unwrap(),
        );
    }
    // Sticky, so that a write of weights has something to lose.
    let forward = |arn: &str| {
        let tuple = elb::TargetGroupTuple::builder()
            .target_group_arn(arn)
            .weight(1)
            .build();
        let sticky = elb::TargetGroupStickinessConfig::builder()
            .enabled(true)
            .duration_seconds(3600)
            .build();
        elb::Action::builder()
            .r#type(elb::ActionTypeEnum::Forward)
            .order(2)
            .forward_config(
                elb::ForwardActionConfig::builder()
                    .target_groups(tuple)
                    .target_group_stickiness_config(sticky)
                    .build(),
            )
            .build()
    };
    // An action before the forward, as it must come back unchanged.
    let login = elb::AuthenticateCognitoActionConfig::builder()
        .user_pool_arn("arn:aws:cognito-idp:us-east-1:1:userpool/p")
        .user_pool_client_id("shop")
        .user_pool_domain("shop")
        .build();
    let login = elb::Action::builder()
        .r#type(elb::ActionTypeEnum::AuthenticateCognito)
        .order(1)
        .authenticate_cognito_config(login)
        .build();
    let listener = aws
        .elb
        .create_listener()
        .load_balancer_arn(&balancer)
        .port(80)
        .protocol(elb::ProtocolEnum::Http)
        .default_actions(forward(&groups[0]))
        .send()
        .await
        .unwrap();
    let listener = listener.listeners.unwrap().remove(0).listener_arn.unwrap();
    let path = elb::RuleCondition::builder()
        .field("path-pattern")
        .values("/api/*")
        .build();
    let rule = aws
        .elb
        .create_rule()
        .listener_arn(&listener)
        .priority(10)
        .conditions(path)
        .actions(login)
        .actions(forward(&groups[0]))
        .send()
        .await
        .unwrap();
    let rule = rule.rules.unwrap().remove(0).rule_arn.unwrap();

    // Read by VPC: another one's balancers are not listed.
    let read = aws.describe_load_balancers(vpc).await.unwrap();
    assert_eq!(
        (
            read.len(),
            read[0].kind.as_str(),
            read[0].tags["env"].as_str()
        ),
        (1, "application", "dev")
    );
    assert!(
        aws.describe_load_balancers("vpc-of-others")
            .await
            .unwrap()
            .is_empty()
    );
    let listeners = aws.describe_listeners(&balancer).await.unwrap();
    assert_eq!(
        (listeners[0].port, listeners[0].arn.as_str()),
        (Some(80), listener.as_str())
    );
    let rules = aws.describe_rules(&listeners[0]).await.unwrap();
    assert_eq!(
        (rules.len(), rules.iter().filter(|r| r.is_default).count()),
        (2, 1)
    );

    // Once shared, once all on green; on a rule, and on a default action, which is another call.
    let weights = [(75, 25), (0, 100)].map(|(blue, green)| {
        vec![
            WeightedTargetGroup {
                arn: groups[0].clone(),
                weight: blue,
            },
            WeightedTargetGroup {
                arn: groups[1].clone(),
                weight: green,
            },
        ]
    });
    for rule in [
        rule,
        rules.iter().find(|r| r.is_default).unwrap().arn.clone(),
    ] {
        let before = aws
            .describe_rules_by_arn(std::slice::from_ref(&rule), Default::default())
            .await
            .unwrap()
            .remove(0);
        assert_eq!(
            (before.stickiness_seconds, before.listener.as_str()),
            (Some(3600), listener.as_str())
        );
        for forward in &weights {
            let now = aws
                .describe_rules_by_arn(std::slice::from_ref(&rule), Default::default())
                .await
                .unwrap()
                .remove(0);
            let written = aws.set_forward_weights(&rule, &now.forward, forward);
            assert_eq!(written.await.unwrap(), RuleWritten::AsAsked);
            let after = aws
                .describe_rules_by_arn(std::slice::from_ref(&rule), Default::default())
                .await
                .unwrap()
                .remove(0);
            assert_eq!(after.forward, *forward);
            assert_eq!(
                (&after.rest, &after.conditions, &after.priority),
                (&before.rest, &before.conditions, &before.priority)
            );
        }
    }

    // The group's targets by Auto Scaling, then one by one.
    let read = aws.describe_target_groups(vpc).await.unwrap();
    assert_eq!(read.len(), 2);
    assert!(read.iter().all(|g| g.target_type == "instance"
        && g.deregistration_delay_seconds == 300
        && !g.sticky));
    aws.attach_target_groups("blue", &groups[..1])
        .await
        .unwrap();
    assert_eq!(
        aws.describe_asgs(&["blue".to_owned()]).await.unwrap()["blue"].target_groups,
        groups[..1]
    );
    let health = aws.describe_target_health(&groups[0]).await.unwrap();
    assert_eq!(health.len(), 2, "the group registers its instances");
    aws.detach_target_groups("blue", &groups[..1])
        .await
        .unwrap();
    assert!(
        aws.describe_asgs(&["blue".to_owned()]).await.unwrap()["blue"]
            .target_groups
            .is_empty()
    );
    let at_group_port = |found: &TargetHealth| RegisteredTarget {
        instance: found.id.clone(),
        port: None,
    };
    let targets: Vec<_> = health.iter().map(at_group_port).collect();
    aws.register_targets(&groups[1], &targets).await.unwrap();
    assert_eq!(
        aws.describe_target_health(&groups[1])
            .await
            .unwrap()
            .iter()
            .map(|t| t.state.as_str())
            .collect::<Vec<_>>(),
        ["healthy", "healthy"]
    );
    aws.deregister_targets(&groups[1], &targets).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(
        aws.describe_target_health(&groups[1])
            .await
            .unwrap()
            .iter()
            .all(|t| t.state != TargetState::Healthy)
    );
}
