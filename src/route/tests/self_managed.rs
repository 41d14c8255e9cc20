//! Auto Scaling groups that no managed node group owns.

use super::*;
use crate::model::asg::AsgLaunch;
use crate::model::eks::LaunchTemplateRef;
use crate::model::node_source;

fn auto_plan() -> Plan {
    plan("cluster: shop\nto: 1.29\nautoScalingGroups: [{blue: workers, ami: auto}]\n")
}

#[test]
fn a_self_managed_group_moves_with_the_newest_image_of_its_line() {
    let route = build_route(&auto_plan(), &self_managed_cluster()).unwrap();
    let own = ["workers", "workers-green"].map(str::to_owned);
    assert_eq!(route.self_managed, own.into());
    let steps = ids(&route);
    let place = |id: &str| steps.iter().position(|s| *s == id).unwrap();
    let order = [
        "control-plane-1.29",
        "hold-workers",
        "template-workers-green",
        "green-workers-green",
        "cordon-workers",
        "drain-workers",
        "soak-workers",
        "retire-workers",
    ];
    assert!(order.is_sorted_by_key(|id| place(id)), "{steps:?}");
    let StepSpec::LaunchTemplate { image, .. } = &route.steps[place(order[2])].spec else {
        panic!("{steps:?}")
    };
    assert_eq!(image, NEW_IMAGE);
    let green = &route.steps[place(order[3])];
    // All tags of a clone are set as it is made; a second copy would bring back those by which a tool knows blue.
    let StepSpec::CreateGreen { copy_asg_tags, .. } = &green.spec else {
        panic!("{green:?}")
    };
    assert!(!copy_asg_tags);
    assert!(
        green
            .title
            .starts_with("Auto Scaling group workers-green: 3 nodes"),
        "{}",
        green.title
    );
}

#[test]
fn a_self_managed_group_that_the_plan_does_not_list_stays() {
    let plan = plan("cluster: shop\nto: 1.29\n");
    let route = build_route(&plan, &self_managed_cluster()).unwrap();
    assert!(route.self_managed.is_empty());
    assert!(ids(&route).iter().all(|id| !id.contains("workers")));
}

#[test]
fn each_kind_of_group_is_listed_under_its_own_key() {
    let misplaced = plan("cluster: shop\nto: 1.29\nnodeGroups: [{blue: workers}]\n");
    let problems = build_route(&misplaced, &self_managed_cluster()).unwrap_err();
    let told = problems
        .iter()
        .find(|p| p.what == Obstacle::NoSuchGroup)
        .unwrap();
    assert_eq!(
        told.fix,
        "write it under `autoScalingGroups` instead of `nodeGroups`"
    );
}

#[test]
fn what_keeps_a_clone_from_having_the_targets_kubelet_is_a_problem_before_anything_moves() {
    let of = |change: fn(&mut Inventory)| {
        let mut inventory = self_managed_cluster();
        change(&mut inventory);
        codes(&auto_plan(), &inventory)
    };
    let image_missing = vec![Obstacle::ImageMissing.code()];
    // Nobody knows whose image it is, or where the newest of its line is.
    assert_eq!(of(|i| i.images.clear()), image_missing);
    assert_eq!(
        of(|i| i.images[0].name = "shop-golden-7".into()),
        image_missing
    );
    assert_eq!(of(|i| i.optimized_images.clear()), image_missing);
    // A clone launches from one template.
    assert_eq!(
        of(|i| i.asgs.get_mut("workers").unwrap().launch.own_templates = true),
        [Obstacle::TemplateDecides.code()]
    );
    // What it launches from was not read.
    assert_eq!(
        of(|i| i.asgs.get_mut("workers").unwrap().launch.template = None),
        [Obstacle::TemplateVersionUnknown.code()]
    );
}

/// Has the group launch from a launch configuration that says what its template did.
fn with_configuration(inventory: &mut Inventory) {
    let asg = inventory.asgs.get_mut("workers").unwrap();
    asg.launch = AsgLaunch {
        configuration: Some("nodes".into()),
        ..AsgLaunch::default()
    };
    inventory.nodegroups[0] = node_source::to_node_group(asg);
    let template = inventory.nodegroups[0].launch_template.clone().unwrap();
    let read = &mut inventory.launch_templates[0];
    read.id = template.id.unwrap();
    read.version = LaunchTemplateRef::CONFIGURATION_VERSION;
}

#[test]
fn a_template_is_made_of_a_launch_configuration_and_green_launches_from_it() {
    let mut inventory = self_managed_cluster();
    with_configuration(&mut inventory);
    let route = build_route(&auto_plan(), &inventory).unwrap();
    let of = |id: &str| &route.steps.iter().find(|s| s.id == id).unwrap().spec;
    let StepSpec::ConfigurationTemplate {
        green,
        configuration,
        template,
        image,
    } = of("template-workers-green")
    else {
        panic!("{:?}", ids(&route))
    };
    assert_eq!(
        [green, configuration, template, image],
        ["workers-green", "nodes", "eksup-workers-green", NEW_IMAGE]
    );
    let StepSpec::CreateGreen {
        group,
        template_from,
        ..
    } = of("green-workers-green")
    else {
        panic!("{:?}", ids(&route))
    };
    assert_eq!(template_from.as_ref(), Some(template));
    let launches = group.launch_template.as_ref().unwrap();
    assert_eq!(
        (launches.id.as_ref(), launches.name.as_ref()),
        (None, Some(template))
    );
    let told = route
        .notes
        .iter()
        .any(|n| n.contains("a RAM disk or ClassicLink"));
    assert!(told, "{:?}", route.notes);

    // A configuration has no versions that a plan could name, and none of its user data can be changed.
    let text =
        "cluster: shop\nto: 1.29\nautoScalingGroups: [{blue: workers, launchTemplateVersion: 7}]\n";
    let problems = build_route(&plan(text), &inventory).unwrap_err();
    let found: Vec<Obstacle> = problems.iter().map(|p| p.what).collect();
    assert_eq!(found, [Obstacle::TemplateDecides]);
    inventory.launch_templates[0].user_data =
        Some("IyEvYmluL2Jhc2gKL2V0Yy9la3MvYm9vdHN0cmFwLnNoIHNob3AK".into());
    let problems = build_route(&auto_plan(), &inventory).unwrap_err();
    let [problem] = problems.as_slice() else {
        panic!("{problems:?}")
    };
    assert_eq!(problem.what, Obstacle::OldBootstrap);
    assert!(
        problem.detail.contains("its launch configuration calls")
            && problem.fix.contains("make a launch template"),
        "{problem:?}"
    );
}

#[test]
fn a_self_managed_group_that_is_too_old_for_the_target_is_to_be_listed() {
    let mut inventory = self_managed_cluster();
    for node in &mut inventory.nodes {
        node.kubelet_version = "v1.25.16-eks-473151a".into();
    }
    let plan = plan("cluster: shop\nto: 1.29\n");
    let problems = build_route(&plan, &inventory).unwrap_err();
    let told: Vec<&str> = problems.iter().map(|p| p.subject.as_str()).collect();
    assert_eq!(told, ["Auto Scaling group workers"]);
    assert!(
        problems[0]
            .fix
            .starts_with("list it under `autoScalingGroups`")
    );
}

#[test]
fn the_overrides_of_a_mixed_policy_say_which_types_green_may_get() {
    let mut inventory = self_managed_cluster();
    inventory.launch_templates[0].instance_type = Some("t3.large".into());
    let entry = auto_plan().node_group("workers");
    let types = |i: &Inventory| green_instance_types(i, &i.nodegroups[0], &entry);
    inventory.nodegroups[0].instance_types.clear();
    assert_eq!(types(&inventory), ["t3.large"]);
    inventory.nodegroups[0].instance_types = vec!["m5.large".into(), "m6i.large".into()];
    assert_eq!(types(&inventory), ["m5.large", "m6i.large"]);
}

#[test]
fn a_warm_pool_leaves_blue_before_it_is_closed_and_comes_to_green_when_blue_is_empty() {
    use crate::model::asg::WarmPoolReading;
    use crate::model::warm_pool::WarmPool;
    let pool = WarmPool {
        min: 2,
        max_prepared: None,
        state: "Stopped".into(),
        reuse: false,
    };
    let mut inventory = self_managed_cluster();
    let mut reading = WarmPoolReading {
        pool: pool.clone(),
        deleting: false,
        instances: vec![],
    };
    let workers = inventory.asgs.get_mut("workers").unwrap();
    workers.warm_pool = Some(reading.clone());
    // An instance that has warmed and is no node: the user data starts the kubelet later.
    reading.instances.push(crate::model::asg::AsgInstance {
        id: "i-0warm".into(),
        zone: String::new(),
        lifecycle: "Warmed:Stopped".into(),
        healthy: true,
        protected: false,
    });
    inventory.warm_pools.insert("workers".into(), reading);
    let route = build_route(&auto_plan(), &inventory).unwrap();
    let steps = ids(&route);
    let place = |id: &str| steps.iter().position(|s| *s == id).unwrap();
    let order = [
        "green-workers-green",
        "remove-warm-pool-workers",
        "cordon-workers",
        "drain-workers",
        "add-warm-pool-workers-green",
        "soak-workers",
        "retire-workers",
    ];
    assert!(order.is_sorted_by_key(|id| place(id)), "{steps:?}");
    let added = &route.steps[place("add-warm-pool-workers-green")];
    assert!(
        matches!(&added.spec, StepSpec::AddWarmPool { green, pool: given } if green == "workers-green" && *given == pool)
    );
    assert!(
        route
            .notes
            .iter()
            .any(|n| n.contains("its warm pool (Stopped, at least 2")),
        "{:?}",
        route.notes
    );
    // Where its instances are nodes, or nothing is known of them, it goes before an add-on could miss its pods on them.
    let mut joined = inventory.clone();
    let node = joined.nodes[0].instance_id().unwrap().to_owned();
    joined.warm_pools.get_mut("workers").unwrap().instances[0].id = node;
    let mut unknown = inventory.clone();
    unknown.warm_pools.clear();
    for early in [joined, unknown] {
        let route = build_route(&auto_plan(), &early).unwrap();
        let steps = ids(&route);
        let removals = steps.iter().filter(|id| id.starts_with("remove-warm"));
        assert_eq!(removals.count(), 1);
        assert_eq!(steps[0], "remove-warm-pool-workers");
    }
    // A rollback gives blue its pool back when the pods are back on it, and before green is deleted.
    let back: Vec<&str> = { route.rollback_order().into_iter() }
        .map(|s| s.id.as_str())
        .collect();
    let place = |id: &str| back.iter().position(|s| *s == id).unwrap();
    let order = [
        "add-warm-pool-workers-green",
        "drain-workers",
        "remove-warm-pool-workers",
        "green-workers-green",
    ];
    assert!(order.is_sorted_by_key(|id| place(id)), "{back:?}");
    // Where an earlier run has removed it, blue's mark tells what it was.
    let mut resumed = inventory.clone();
    let workers = resumed.asgs.get_mut("workers").unwrap();
    workers.warm_pool = None;
    workers.tags.push(crate::model::asg::AsgTag {
        key: crate::model::marks::WARM_POOL_TAG.into(),
        value: pool.to_tag_value(),
        propagate: false,
    });
    let again = build_route(&auto_plan(), &resumed).unwrap();
    assert!(ids(&again).contains(&"add-warm-pool-workers-green"));
    // One that is being deleted is nobody's any more.
    let workers = inventory.asgs.get_mut("workers").unwrap();
    workers.warm_pool.as_mut().unwrap().deleting = true;
    let route = build_route(&auto_plan(), &inventory).unwrap();
    assert!(ids(&route).iter().all(|id| !id.contains("warm-pool")));
}
