//! What is played under a policy. Together the scenes need everything that a policy can hold.

use std::collections::BTreeSet;
use std::time::Duration;

use eksup::engine::RunOutcome;
use eksup::model::elb::{ClassicBalancer, TargetHealth};
use eksup::model::snapshot::Snapshot;
use eksup::twin::aws::{IamAuthorizer, PermissionRecord, caller_arn};
use eksup::twin::k8s::RbacAuthorizer;
use eksup::twin::scenario;
use eksup::twin::world::SimWorld;
use serde_json::{Value, json};

use super::grant::{Grant, Permission};
use crate::launch_configuration::with_launch_configuration;
use crate::other_profile::{PLAN_CHANGE, with_row_of_other_profile};
use crate::support::wire_rig::Rig;
use crate::warm_pool::with_stopped_pool;

/// What came of a scene.
#[derive(Debug)]
pub struct Told {
    /// Whether it ended as wished.
    pub well: bool,
    /// Everything a user was told.
    pub said: String,
    /// What was needed of the grant.
    pub used: BTreeSet<Permission>,
    /// Which operation of AWS needed which action on what.
    pub asked: BTreeSet<PermissionRecord>,
}

/// A plan on a bundled cluster, and what is done with it.
pub struct Scene {
    pub name: &'static str,
    /// A plan in `plans/`, of the cluster of the same name.
    plan: &'static str,
    /// What is put in place of what in the plan.
    change: &'static [(&'static str, &'static str)],
    cluster: fn(Snapshot) -> Snapshot,
    /// What the world has besides.
    besides: fn(&mut SimWorld),
    play: Play,
}

#[derive(Clone, Copy)]
enum Play {
    Snapshot,
    Forward,
    /// Until it is stuck, and once more from there.
    Twice,
    /// Until after a step, and all the rollback.
    Back(&'static str),
    /// The same, and the control plane too.
    WholeBack(&'static str),
}

const fn forward(plan: &'static str) -> Scene {
    Scene {
        name: plan,
        plan,
        change: &[],
        cluster: |s| s,
        besides: |_| {},
        play: Play::Forward,
    }
}

/// In the order of how long they take.
pub const SCENES: &[Scene] = &[
    Scene {
        name: "a snapshot",
        play: Play::Snapshot,
        ..forward("expense-dev")
    },
    forward("minimal"),
    Scene {
        name: "a binding of EKS Auto Mode",
        cluster: |mut snapshot| {
            let path = "/apis/eks.amazonaws.com/v1/targetgroupbindings".to_owned();
            let binding = json!({
                "apiVersion": "eks.amazonaws.com/v1", "kind": "TargetGroupBinding",
                "metadata": {"name": "web", "namespace": "expense", "uid": "6a1f2b3c-0000-4000-8000-00000000000a", "resourceVersion": "561"},
                "spec": {"targetGroupARN": "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/web/0123456789abcdef", "targetType": "ip", "serviceRef": {"name": "web", "port": 80}},
            });
            snapshot.kubernetes.insert(path, vec![binding]);
            snapshot
        },
        ..forward("minimal")
    },
    Scene {
        name: "minimal and back, the control plane too",
        play: Play::WholeBack("control-plane-1.30"),
        ..forward("minimal")
    },
    forward("expense-dev"),
    Scene {
        name: "expense-dev and back",
        play: Play::Back("drain-expense-blue"),
        ..forward("expense-dev")
    },
    Scene {
        name: "add-ons that are configured, an insight that warns",
        cluster: |mut snapshot| {
            for addon in &mut snapshot.inventory.addons {
                let values = match addon.name.as_str() {
                    "coredns" => "{\"replicaCount\":2}",
                    "aws-ebs-csi-driver" => "{\"node\":{}}",
                    _ => "{\"podAnnotations\":{\"team\":\"platform\"}}",
                };
                addon.configuration_values = Some(values.to_owned());
                addon.service_account_role_arn =
                    Some("arn:aws:iam::123456789012:role/addon".to_owned());
            }
            snapshot.inventory.insights[0].status = "WARNING".into();
            snapshot
        },
        ..forward("expense-dev")
    },
    Scene {
        name: "a budget that lets nothing go, and a deadline that deletes",
        change: &[("onDeadline: stop", "onDeadline: delete")],
        cluster: |mut snapshot| {
            budgets(&mut snapshot)[0]["spec"]["minAvailable"] = json!(3);
            snapshot
        },
        ..forward("expense-dev")
    },
    Scene {
        name: "one replica under a budget, restarted",
        change: &[("order: easiest", "order: easiest\n  singleReplicas: surge")],
        cluster: |mut snapshot| {
            let mut redis = budgets(&mut snapshot)[1].clone();
            redis["metadata"]["name"] = json!("redis");
            redis["metadata"]["uid"] = json!("6a1f2b3c-0000-4000-8000-000000000003");
            redis["spec"]["selector"] = json!({"matchLabels": {"app": "redis"}});
            budgets(&mut snapshot).push(redis);
            snapshot
        },
        ..forward("expense-dev")
    },
    Scene {
        name: "the traffic is the listener's default action",
        change: &[(
            "rule:\n        loadBalancer: expense-dev-alb\n        port: 80\n        conditions: [\"path-pattern=/*\"]",
            "rule: every",
        )],
        cluster: |mut snapshot| {
            snapshot.inventory.rules.retain(|rule| !rule.is_default);
            let rule = &mut snapshot.inventory.rules[0];
            (rule.is_default, rule.priority) = (true, "default".to_owned());
            rule.conditions.clear();
            snapshot
        },
        ..forward("expense-dev")
    },
    Scene {
        name: "a classic load balancer, which others serve too",
        cluster: |mut snapshot| {
            let asg = snapshot.inventory.asgs.values_mut().next();
            asg.unwrap().load_balancers.push("old".to_owned());
            classic_load_balancer(&mut snapshot, "old");
            snapshot
        },
        besides: |world| {
            let mut other = world.cloud.instances.values().next().unwrap().clone();
            other.id = "i-0123456789abcdef0".to_owned();
            let classic = world.cloud.elb.classics.get_mut("old").unwrap();
            classic.registered.insert(other.id.clone());
            world.cloud.instances.insert(other.id.clone(), other);
        },
        ..forward("expense-dev")
    },
    Scene {
        name: "instances that were registered one by one, and back",
        cluster: |mut snapshot| {
            let ids: Vec<String> = (snapshot.inventory.asgs.values())
                .flat_map(|a| a.instances.iter().map(|i| i.id.clone()))
                .collect();
            classic_load_balancer(&mut snapshot, "by-hand");
            let target = |id: &String| TargetHealth {
                id: id.clone(),
                port: None,
                zone: None,
                state: "healthy".into(),
                reason: None,
            };
            let targets = ids.iter().map(target).collect();
            let health = &mut snapshot.inventory.target_health;
            health.insert("by-hand".to_owned(), targets);
            snapshot
        },
        play: Play::Back("detach-expense-blue-by-hand"),
        ..forward("expense-dev")
    },
    forward("controller-ingress"),
    forward("custom-ami"),
    forward("local-policy"),
    Scene {
        name: "local-policy and back",
        play: Play::Back("drain-expense-blue"),
        ..forward("local-policy")
    },
    forward("canary"),
    forward("multi-hop"),
    forward("self-managed"),
    Scene {
        name: "self-managed and back",
        play: Play::Back("detach-web-blue-expense-blue-tg"),
        ..forward("self-managed")
    },
    Scene {
        name: "a template made of a launch configuration",
        cluster: with_launch_configuration,
        ..forward("self-managed")
    },
    Scene {
        name: "a template made of a launch configuration, and back",
        cluster: with_launch_configuration,
        play: Play::Back("green-data-green"),
        ..forward("self-managed")
    },
    Scene {
        name: "a role of green's own, which a row of aws-auth lets in",
        change: &[PLAN_CHANGE],
        cluster: with_row_of_other_profile,
        ..forward("self-managed")
    },
    // The first change set cannot be carried out, so that it is deleted and made again.
    Scene {
        name: "a stack that goes with its group",
        besides: |world| {
            let (cfn, stack) = (
                &mut world.cloud.cloudformation,
                "eksctl-eksctl-nodegroup-apps",
            );
            let fails = &mut cfn.switches.execution_fails;
            fails.insert(stack.to_owned(), "a hook refuses it".to_owned());
            // What nobody imports is in nobody's way.
            let stack = cfn.find_stack_mut(stack).unwrap();
            stack.add_export("Role", "apps::Role", "role");
            // A parameter that no resource has, as the CDK writes one: CloudFormation reads it all the same.
            let mut template: Value = serde_json::from_str(&stack.template).unwrap();
            template["Parameters"]["Newest"] =
                json!({"Type": "AWS::SSM::Parameter::Value<String>"});
            stack.template = template.to_string();
            let source = "/aws/service/eks/optimized-ami/1.29/amazon-linux-2023/x86_64/standard/recommended/image_id";
            for (of, value) in [
                (&mut stack.parameters, source),
                (&mut stack.resolved_parameters, "ami-0123456789abcdef0"),
            ] {
                of.insert("Newest".to_owned(), value.to_owned());
            }
        },
        play: Play::Twice,
        ..forward("eksctl")
    },
    Scene {
        name: "a warm pool",
        cluster: with_stopped_pool,
        ..forward("self-managed")
    },
    Scene {
        name: "a warm pool, and back",
        cluster: with_stopped_pool,
        play: Play::Back("add-warm-pool-web-green"),
        ..forward("self-managed")
    },
    forward("auto-mode"),
    Scene {
        name: "auto-mode and back",
        play: Play::Back("bake-control-plane-1.31"),
        ..forward("auto-mode")
    },
    forward("fargate"),
    Scene {
        name: "fargate and back",
        play: Play::Back("restart-fargate-1.29"),
        ..forward("fargate")
    },
    forward("karpenter-drift"),
    Scene {
        name: "karpenter-drift and back",
        play: Play::Back("drift-pool-general"),
        ..forward("karpenter-drift")
    },
    forward("karpenter-blue-green"),
    Scene {
        name: "karpenter-blue-green and back",
        play: Play::Back("drain-general"),
        ..forward("karpenter-blue-green")
    },
    Scene {
        name: "a node class for green's own image, and back",
        change: &[(
            "capacity: full",
            "capacity: full\n    ami: bottlerocket@latest",
        )],
        play: Play::Back("drain-general"),
        ..forward("karpenter-blue-green")
    },
    Scene {
        name: "NodePools that are kept without nodes",
        change: &[("karpenter:", "retire: {then: keep-at-zero}\nkarpenter:")],
        ..forward("karpenter-blue-green")
    },
    forward("windows"),
    Scene {
        name: "windows and back",
        play: Play::Back("drain-iis-blue"),
        ..forward("windows")
    },
];

/// A classic load balancer in the cluster's VPC, which no controller made.
fn classic_load_balancer(snapshot: &mut Snapshot, name: &str) {
    let inventory = &mut snapshot.inventory;
    inventory.classic_balancers.push(ClassicBalancer {
        name: name.to_owned(),
        vpc: inventory.cluster.vpc_id.clone(),
        zones: vec!["us-east-1a".to_owned()],
        instance_ports: vec![30080],
        tags: Default::default(),
    });
}

fn budgets(snapshot: &mut Snapshot) -> &mut Vec<Value> {
    let path = "/apis/policy/v1/poddisruptionbudgets";
    snapshot.kubernetes.get_mut(path).unwrap()
}

impl Scene {
    /// The plan's text, with nothing to sit out: a bake needs no permission that a look does not.
    pub fn plan(&self) -> String {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
        let mut text = std::fs::read_to_string(dir.join(format!("{}.yaml", self.plan))).unwrap();
        for (old, new) in self.change {
            assert!(text.contains(old), "{}: {old}", self.name);
            text = text.replace(old, new);
        }
        let to = eksup::plan::parse_plan("plan.yaml", &text).unwrap().to;
        let mut plan: Value = serde_saphyr::from_str(&text).unwrap();
        // As a number 1.30 would be 1.3.
        plan["to"] = json!(to.to_string());
        for (section, time) in [
            ("controlPlane", "bake"),
            ("drain", "bake"),
            ("drain", "canaryBake"),
            ("traffic", "bake"),
            ("retire", "soak"),
        ] {
            if time != "canaryBake" || plan["strategy"] == "canary" {
                plan[section][time] = json!("1s");
            }
        }
        plan.to_string()
    }

    /// Plays it under `grant`.
    pub async fn play(&self, grant: &Grant) -> Told {
        let snapshot = (self.cluster)(scenario::find_scenario(self.plan).unwrap());
        let rig = Rig::new(&snapshot, &self.plan());
        rig.twin.with_world(|world| {
            (self.besides)(world);
            world.cloud.iam = Some(IamAuthorizer::new(grant.iam().parse().unwrap()));
            let user = caller_arn(&world.cloud.account);
            world
                .kube
                .restrict_to(RbacAuthorizer::parse_roles(&grant.rbac(), &user).unwrap());
        });
        let paused = |ended: &_| matches!(ended, Ok(RunOutcome::Paused { .. }));
        // What is never allowed may be waited for without end; a person has looked by then.
        let patience = Duration::from_secs(2 * 86_400);
        let well = tokio::time::timeout(patience, async {
            match self.play {
                Play::Snapshot => rig.snapshot().await.is_ok(),
                Play::Forward => matches!(rig.apply(None).await, Ok(RunOutcome::Done)),
                Play::Twice => {
                    matches!(rig.apply(None).await, Ok(RunOutcome::Stuck { .. }))
                        && matches!(rig.apply(None).await, Ok(RunOutcome::Done))
                }
                Play::WholeBack(step) => {
                    paused(&rig.apply(Some(step)).await)
                        && matches!(
                            rig.rollback_control_plane().await,
                            Ok(RunOutcome::RolledBack { .. })
                        )
                }
                Play::Back(step) => {
                    paused(&rig.apply(Some(step)).await)
                        && matches!(rig.rollback().await, Ok(RunOutcome::RolledBack { .. }))
                }
            }
        })
        .await
        .unwrap_or(false);
        let used = rig.twin.with_world(|world| {
            let actions = world
                .cloud
                .iam
                .iter()
                .flat_map(|iam| iam.used_actions().clone());
            let verbs = world
                .kube
                .rbac()
                .into_iter()
                .flat_map(|r| r.used_permissions().clone());
            let actions = actions.map(Permission::Action);
            actions.chain(verbs.map(Permission::Verb)).collect()
        });
        let asked = rig.twin.with_world(|world| {
            let iam = world.cloud.iam.iter();
            iam.flat_map(|iam| iam.permission_records().clone())
                .collect()
        });
        Told {
            well,
            said: rig.said(),
            used,
            asked,
        }
    }
}
