//! Bundled clusters, each served by a process of its own: what `init` makes of one, and which is taken for which.

use crate::served_twin::ServedTwin;

#[test]
fn what_init_writes_of_six_groups_and_three_balancers_is_ready_as_it_is() {
    let twin = ServedTwin::start("multi-group", &[]);
    let written = twin.run(&["init", "--cluster", "multi-group", "--to", "1.28"]);
    assert_eq!(written.code, 0, "{}", written.err);
    let text = std::fs::read_to_string(twin.folder().join("plans/multi-group.yaml")).unwrap();
    assert_eq!(text.matches("  - blue: ").count(), 6, "{text}");
    for tie in [
        "blue: expense-blue-tg, green: expense-green-tg, nodeGroup: expense-blue",
        "blue: orders-blue-tg, green: orders-green-tg, nodeGroup: api-blue",
        "blue: users-blue-tg, green: users-green-tg, nodeGroup: api-blue",
        "blue: admin-blue-tg, green: admin-green-tg, nodeGroup: admin-blue",
    ] {
        assert!(text.contains(tie), "{tie}\n{text}");
    }
    let checked = twin.run(&["check", "--cluster", "multi-group"]);
    assert_eq!(checked.code, 0, "{}{}", checked.out, checked.err);
}

/// What `init` writes of the cluster is ready as it is, and what the bundled plan says is a route.
fn is_ready_as_it_is(name: &str, to: &str, written_words: &[&str], steps: &[&str]) {
    let twin = ServedTwin::start(name, &[]);
    let written = twin.run(&["init", "--cluster", name, "--to", to]);
    assert_eq!(written.code, 0, "{}", written.err);
    let path = format!("plans/{name}.yaml");
    let text = std::fs::read_to_string(twin.folder().join(&path)).unwrap();
    for word in written_words {
        assert!(text.contains(word), "{word}\n{text}");
    }
    let checked = twin.run(&["check", "--cluster", name]);
    assert_eq!(checked.code, 0, "{}{}", checked.out, checked.err);
    // The plan that comes with eksup for this cluster, in place of what was written.
    let bundled = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(&path);
    std::fs::copy(bundled, twin.folder().join(&path)).unwrap();
    let checked = twin.run(&["check", &path]);
    assert_eq!(checked.code, 0, "{}{}", checked.out, checked.err);
    let planned = twin.run(&["plan", &path, "--details"]);
    assert_eq!(planned.code, 0, "{}{}", planned.out, planned.err);
    for step in steps {
        assert!(planned.out.contains(step), "{step}\n{}", planned.out);
    }
}

#[test]
fn what_init_writes_of_self_managed_groups_is_ready_as_it_is() {
    let steps = ["green-web-green", "drain-web-blue", "retire-data-blue"];
    is_ready_as_it_is("self-managed", "1.29", &["blue: web-blue"], &steps);
}

#[test]
fn what_init_writes_of_karpenter_s_node_pools_is_ready_as_it_is() {
    let written = ["nodePool: general", "nodePool: batch"];
    let steps = [
        "hold-pool-general",
        "drift-pool-general",
        "drift-pool-batch",
    ];
    is_ready_as_it_is("karpenter-drift", "1.29", &written, &steps);
    let steps = ["green-general-green", "drain-general", "retire-batch"];
    is_ready_as_it_is("karpenter-blue-green", "1.29", &written, &steps);
}

#[test]
fn what_init_writes_of_pods_on_fargate_is_ready_as_it_is() {
    let steps = ["restart-fargate-1.29"];
    is_ready_as_it_is("fargate", "1.29", &[], &steps);
}

#[test]
fn what_init_writes_of_auto_mode_is_ready_as_it_is() {
    let steps = ["control-plane-1.31", "wait-auto-mode-1.31"];
    is_ready_as_it_is("auto-mode", "1.31", &[], &steps);
}

#[test]
fn what_init_writes_of_windows_nodes_is_ready_as_it_is() {
    is_ready_as_it_is("windows", "1.29", &["blue: iis-blue"], &["drain-iis-blue"]);
}

#[test]
fn a_kubeconfig_of_another_bundled_cluster_is_refused() {
    let twin = ServedTwin::start("multi-group", &[]);
    let plan = "cluster: multi-group\nto: \"1.28\"\n";
    std::fs::write(twin.folder().join("p.yaml"), plan).unwrap();
    let others = [
        ServedTwin::start("expense-dev", &[]),
        ServedTwin::start("fleet-30", &[]),
        // The same cluster from another seed is another cluster.
        ServedTwin::start("multi-group", &["--seed", "2"]),
    ];
    for other in &others {
        let kubeconfig = other.kubeconfig();
        let apply = ["apply", "p.yaml", "--auto-approve", "--kubeconfig"];
        let ended = twin.run(&[&apply[..], &[kubeconfig.to_str().unwrap()]].concat());
        assert_eq!(ended.code, 9, "{}", ended.err);
        assert!(
            ended.err.contains("which has no such instance"),
            "{}",
            ended.err
        );
        // No journal went into the wrong cluster.
        let status = other.run(&["status", "--cluster", "expense-dev"]);
        assert!(!status.out.contains("multi-group"), "{}", status.out);
    }
    let own = twin.kubeconfig();
    let check = ["check", "p.yaml", "--kubeconfig", own.to_str().unwrap()];
    assert_eq!(twin.run(&check).code, 0);
}

#[test]
fn a_served_cluster_is_named_after_its_scenario_and_its_time_may_be_faster() {
    let twin = ServedTwin::start("fleet-30", &["--speed", "600x"]);
    let plan = "cluster: fleet-30\nto: \"1.28\"\ncontrolPlane: {bake: 0s}\n";
    std::fs::write(twin.folder().join("p.yaml"), plan).unwrap();
    // A control plane takes ten minutes and more, and a test has no such time.
    let until = [
        "apply",
        "p.yaml",
        "--auto-approve",
        "--until",
        "control-plane-1.28",
    ];
    let ended = twin.run(&until);
    assert_eq!(ended.code, 7, "{}", ended.err);
    assert!(ended.err.contains("control-plane-1.28"), "{}", ended.err);
}

#[test]
fn a_served_twin_has_no_speed_without_a_bound() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = crate::program::eksup(folder.path());
    let serve = command.args(["twin", "serve", "--port", "0", "--speed", "max"]);
    let ended = crate::program::Ended::of(serve);
    assert_eq!(ended.code, 2, "{}", ended.err);
    assert!(ended.err.contains("--speed 60x"), "{}", ended.err);
}
