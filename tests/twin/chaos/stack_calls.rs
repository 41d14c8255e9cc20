//! What CloudFormation is asked directly, for the record: what a run asks only when something is wrong, and what it never
//! asks.

use aws_sdk_cloudformation::types::{Capability, ChangeSetType, TemplateStage};
use eksup::aws::AwsApi;
use eksup::twin::scenario;
use eksup::wire::Wire;

use super::fixture::ask_twin;

const STACK: &str = "eksctl-eksctl-nodegroup-jobs";

/// Asks over a twin's wire, with `around` put around it.
pub fn ask(around: &(dyn Fn(Wire) -> Wire + Sync)) {
    let snapshot = scenario::find_scenario("eksctl").unwrap();
    ask_twin(&snapshot, around, async |aws, _| {
        ask_about_stacks(aws).await;
    });
}

/// Asks about the stacks of a cluster that eksctl made, and deletes one.
async fn ask_about_stacks(aws: &AwsApi) {
    let cfn = &aws.cloudformation;
    cfn.describe_stacks().send().await.unwrap();
    let nobody = cfn.describe_stacks().stack_name("nobody");
    nobody.send().await.unwrap_err();
    let resources = cfn.describe_stack_resources().stack_name(STACK);
    resources.send().await.unwrap();
    let resources = cfn.list_stack_resources().stack_name(STACK);
    resources.send().await.unwrap();
    let template = cfn.get_template().stack_name(STACK);
    let template = template.template_stage(TemplateStage::Processed);
    let template = template.send().await.unwrap().template_body.unwrap();
    let exports = cfn.list_exports().send().await.unwrap();
    let mut imported = 0;
    for name in exports.exports().iter().filter_map(|e| e.name()) {
        let imports = cfn.list_imports().export_name(name).send().await;
        imported += imports.map_or(0, |i| i.imports().len());
    }
    assert!(imported > 0);
    let imports = cfn.list_imports().export_name("nobody-has-this");
    imports.send().await.unwrap_err();
    let ask = |name: &str, body: &str| {
        cfn.create_change_set()
            .stack_name(STACK)
            .change_set_name(name)
            .change_set_type(ChangeSetType::Update)
            .template_body(body)
    };
    // IAM resources need a capability, a template has to be one, and a name is used once.
    ask("first", &template).send().await.unwrap_err();
    ask("first", "{").send().await.unwrap_err();
    let changed = template.replacen("\"Description\"", "\"Metadata\":{},\"Description\"", 1);
    let capable = || ask("first", &changed).capabilities(Capability::CapabilityNamedIam);
    capable().send().await.unwrap();
    capable().send().await.unwrap_err();
    wait(60).await;
    let described = cfn.describe_change_set().stack_name(STACK);
    described.change_set_name("first").send().await.unwrap();
    let executed = cfn.execute_change_set().stack_name(STACK);
    executed.change_set_name("second").send().await.unwrap_err();
    let deleted = cfn.delete_change_set().stack_name(STACK);
    deleted.change_set_name("first").send().await.unwrap();
    let described = cfn.describe_change_set().stack_name(STACK);
    described.change_set_name("first").send().await.unwrap_err();
    cfn.delete_stack().stack_name(STACK).send().await.unwrap();
    wait(30).await;
    cfn.describe_stacks()
        .stack_name(STACK)
        .send()
        .await
        .unwrap();
    wait(3600).await;
}

async fn wait(seconds: u64) {
    tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
}
