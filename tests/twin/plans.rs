//! The bundled plans against the bundled clusters, read from the twin with real clients: each has a route, and nothing
//! stands in its way.

use std::path::Path;

use eksup::aws::AwsApi;
use eksup::inventory::{self, connect};
use eksup::model::{Clock, Inventory};
use eksup::plan::{self, Plan};
use eksup::ready::{self, Severity};
use eksup::route;
use eksup::twin::{Twin, scenario};

fn plan(name: &str) -> Plan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("plans/{name}.yaml"));
    plan::load_plan(&path).unwrap_or_else(|e| panic!("{:?}", e.problems))
}

async fn read(plan: &Plan) -> Inventory {
    let snapshot = scenario::expense_dev();
    assert_eq!(snapshot.inventory.cluster.name, plan.cluster);
    let clock = Clock::starting_at(snapshot.inventory.taken_at);
    let twin = Twin::start(scenario::load_world(&snapshot, 1));
    let region = &snapshot.inventory.region;
    let aws = AwsApi::over_wire(twin.wire(), region, &clock);
    let cluster = connect::find_cluster(&aws, &plan.cluster).await.unwrap();
    let kube = connect::connect_over_wire(&aws, &cluster, &clock, twin.wire()).unwrap();
    inventory::read_inventory(&aws, &kube, &plan.cluster, Some(plan.to), &clock)
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn expense_dev_has_the_route_its_plan_promises() {
    let plan = plan("expense-dev");
    let inventory = read(&plan).await;
    let route = route::build_route(&plan, &inventory);
    let steps: Vec<&str> = match &route {
        Ok(route) => route.steps.iter().map(|s| s.id.as_str()).collect(),
        Err(problems) => panic!("{problems:#?}"),
    };
    assert_eq!(
        steps,
        [
            "control-plane-1.28",
            "bake-control-plane-1.28",
            "addon-vpc-cni-1.28",
            "addon-kube-proxy-1.28",
            "control-plane-1.29",
            "bake-control-plane-1.29",
            "addon-kube-proxy-1.29",
            "addon-coredns-1.29",
            "hold-expense-blue",
            "green-expense-green",
            "hold-expense-green",
            "attach-expense-green-expense-green-tg",
            "register-expense-green-tg",
            "cordon-expense-blue",
            "shift-expense-green-tg",
            "drain-expense-blue",
            "soak-expense-blue",
            "retire-expense-blue",
            "release-expense-green",
        ]
    );
    let findings = ready::check_readiness(&plan, &inventory, &route);
    let blocking: Vec<_> = findings
        .iter()
        .filter(|f| f.severity == Severity::Blocker)
        .collect();
    assert!(blocking.is_empty(), "{blocking:#?}");
    let warned: Vec<(&str, &str)> = findings
        .iter()
        .map(|f| (f.code.as_str(), f.subject.as_str()))
        .collect();
    assert_eq!(
        warned,
        [
            ("EKSUP-C007", "cluster expense-dev"),
            ("EKSUP-P012", "Deployment expense/redis"),
            ("EKSUP-P012", "StatefulSet expense/mysql"),
        ]
    );
}
