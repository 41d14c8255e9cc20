//! Another image is another operating system: credentials, user data, processors.

use super::{Case, of};

#[test]
fn pods_that_live_on_the_nodes_credentials_are_named_before_al2_becomes_al2023() {
    let case = Case::new("11-imds-hop");
    let (code, found) = case.check("plan.yaml", "snapshot.json");
    assert_eq!(code, 4, "{found:#?}");
    let system = of(&found, "N090");
    let said = &system.first().expect("the system is named").detail;
    assert!(
        said.contains("changes from Amazon Linux 2 to Amazon Linux 2023"),
        "{said}"
    );
    assert!(said.contains("version 2"), "{said}");
    let lost = of(&found, "N091");
    let lost = lost.first().expect("pods are named");
    assert_eq!(lost.severity, "blocker");
    let balancers = "Deployment kube-system/aws-load-balancer-controller";
    assert!(lost.detail.contains(balancers), "{}", lost.detail);
    // The part of the driver that runs on each node calls nobody.
    assert!(!lost.detail.contains("ebs-csi-node"), "{}", lost.detail);
    // Consent is the image type in the plan.
    let plan = case.plan("plan.yaml").replace(
        "green: expense-green}",
        "green: expense-green, amiType: AL2023_x86_64_STANDARD}",
    );
    case.write_plan("consent.yaml", &plan);
    let (code, found) = case.check("consent.yaml", "snapshot.json");
    assert_eq!(code, 0, "{found:#?}");
    assert_eq!(of(&found, "N091")[0].severity, "warning");
}

#[test]
fn user_data_for_al2_is_told_where_the_system_of_an_own_image_is_unknown() {
    let case = Case::new("12-custom-ami-al2-bootstrap");
    let (_, found) = case.check("plan.yaml", "snapshot.json");
    let unsure = of(&found, "N092");
    let said = &unsure.first().expect("the user data is told").detail;
    assert!(said.contains("/etc/eks/bootstrap.sh"), "{said}");
}

#[test]
fn green_of_an_image_of_ones_own_comes_up_and_the_rehearsal_ends_done() {
    let case = Case::new("56-custom-ami-own");
    let (code, found) = case.check("plan.yaml", "snapshot.json");
    assert_eq!(code, 0, "{found:#?}");
}
