//! Stacks of AWS's own template for nodes: YAML, conditions, and an image that Parameter Store has.

use std::collections::BTreeMap;

use aws_sdk_cloudformation::operation::describe_change_set::DescribeChangeSetOutput;
use aws_sdk_cloudformation::types::{Capability, Parameter};

use super::cloudformation::self_managed;
use super::sdk::{Asked, said, seconds};

const NODES: &str = "web-nodes";
const IMAGE: &str = "NodeImageIdSSMParam";
const PATH: &str =
    "/aws/service/eks/optimized-ami/1.27/amazon-linux-2023/x86_64/standard/recommended/image_id";
const STORED_TYPE: &str = "Type: \"AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>\"";

fn nodes() -> Asked {
    self_managed(&[("web-blue", NODES)])
}

/// Value and resolved value of each parameter.
fn values(parameters: &[Parameter]) -> BTreeMap<&str, (&str, Option<&str>)> {
    let each = parameters.iter();
    each.map(|p| {
        let value = p.parameter_value().unwrap_or_default();
        (p.parameter_key().unwrap(), (value, p.resolved_value()))
    })
    .collect()
}

fn changes(set: &DescribeChangeSetOutput) -> BTreeMap<&str, Vec<&str>> {
    let all = set.changes().iter().filter_map(|c| c.resource_change());
    all.map(|c| {
        let scope = c.scope().iter().map(|s| s.as_str());
        (c.logical_resource_id().unwrap(), scope.collect())
    })
    .collect()
}

/// The template with every resource retained, and marked so that this is a change.
fn retaining(template: &str) -> String {
    let marked = |line: &str| match line.strip_prefix("    Type: \"AWS::") {
        Some(kind) if !kind.contains("SSM::") && !line.contains("::Id") => {
            format!("{line}\n    DeletionPolicy: Retain\n    Metadata: {{eksup: retained}}\n")
        }
        Some(_) | None => format!("{line}\n"),
    };
    template.lines().map(marked).collect()
}

impl Asked {
    /// Makes a change set in which the parameters of `given` have these values, and all others their previous ones.
    async fn node_changes(
        &self,
        template: Option<&str>,
        given: &[(&str, &str)],
    ) -> Result<DescribeChangeSetOutput, (String, String)> {
        let stack = self.stack(NODES).await;
        let parameters = stack.parameters().iter().map(|p| {
            let key = p.parameter_key().unwrap();
            let value = given.iter().find(|(name, _)| *name == key);
            let parameter = Parameter::builder().parameter_key(key);
            match value {
                Some((_, value)) => parameter.parameter_value(*value),
                None => parameter.use_previous_value(true),
            }
            .build()
        });
        let made = self
            .cloudformation
            .create_change_set()
            .stack_name(NODES)
            .change_set_name(format!("c{}", fastrand::u64(..)))
            .set_template_body(template.map(str::to_owned))
            .use_previous_template(template.is_none())
            .set_parameters(Some(parameters.collect()))
            .capabilities(Capability::CapabilityIam)
            .send()
            .await
            .map_err(said)?;
        seconds(20).await;
        let found = self
            .cloudformation
            .describe_change_set()
            .change_set_name(made.id.unwrap());
        Ok(found.send().await.unwrap())
    }

    /// Executes a change set, and waits until the stack has settled.
    async fn executed(&self, set: &DescribeChangeSetOutput) -> String {
        let call = self.cloudformation.execute_change_set();
        let call = call.change_set_name(set.change_set_id().unwrap());
        call.send().await.unwrap();
        self.settled_stack(NODES).await
    }

    /// The image of the launch template, which the stack was made with.
    async fn image_of_nodes(&self) -> String {
        let stack = self.stack(NODES).await;
        let (_, resolved) = values(stack.parameters())[IMAGE];
        resolved.unwrap().to_owned()
    }

    /// Lets the stack have been made when another image was published.
    fn age_image(&self) {
        self.change_stack(NODES, |stack| {
            let resolved = &mut stack.resolved_parameters;
            resolved.insert(IMAGE.to_owned(), "ami-00000000000000001".to_owned());
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_whose_stack_is_not_eksctls_has_one_of_awss_own_template_in_yaml() {
    let asked = nodes();
    let text = asked.template_text(NODES).await;
    assert!(text.starts_with("---\n"), "{text}");
    assert!(text.contains("HasNodeImageId: !Not"), "{text}");
    let resources = asked.resources(NODES).await;
    let physical = |logical: &str| {
        let mut all = resources.iter();
        all.find(|(l, _, _)| l == logical)
            .map(|(_, p, _)| p.as_str())
    };
    assert_eq!(physical("NodeGroup"), Some("web-blue"));
    assert_eq!(physical("NodeLaunchTemplate"), Some("lt-0a1b2c3d4e5f60718"));
    assert_eq!(physical("NodeInstanceProfile"), Some("self-managed-nodes"));
    assert_eq!(physical("NodeInstanceRole"), Some("self-managed-node"));
    assert!(physical("NodeSecurityGroup").unwrap().starts_with("sg-"));
    let rules = { resources.iter() }.filter(|(_, p, _)| p.starts_with("sgr-"));
    assert_eq!(rules.count(), 6);
    let stack = asked.stack(NODES).await;
    let given = values(stack.parameters());
    let found = asked
        .ec2
        .describe_launch_template_versions()
        .launch_template_id("lt-0a1b2c3d4e5f60718")
        .send();
    let found = found.await.unwrap().launch_template_versions.unwrap();
    let image = found[0].launch_template_data().unwrap().image_id();
    assert_eq!(given[IMAGE], (PATH, image));
    assert_eq!(given["NodeImageId"], ("", None));
    assert_eq!(given["NodeVolumeSize"], ("50", None));
    assert_eq!(given["DisableIMDSv1"], ("true", None));
    let role = stack.outputs().iter();
    let mut role = role.filter(|o| o.output_key() == Some("NodeInstanceRole"));
    assert_eq!(
        role.next().unwrap().output_value(),
        Some("arn:aws:iam::123456789012:role/self-managed-node")
    );
}

#[tokio::test(start_paused = true)]
async fn each_change_set_takes_what_parameter_store_has_now() {
    let asked = nodes();
    let published = asked.image_of_nodes().await;
    let same = asked.node_changes(None, &[]).await.unwrap();
    assert_eq!(same.status().unwrap().as_str(), "FAILED");
    asked.age_image();
    let newer = asked.node_changes(None, &[]).await.unwrap();
    assert_eq!(
        changes(&newer),
        [
            ("NodeGroup", vec!["Properties"]),
            ("NodeLaunchTemplate", vec!["Properties"]),
        ]
        .into()
    );
    assert_eq!(
        values(newer.parameters())[IMAGE],
        (PATH, Some(published.as_str()))
    );
    // The stack has what it was made with until the change set is executed.
    assert_eq!(asked.image_of_nodes().await, "ami-00000000000000001");
    assert_eq!(asked.executed(&newer).await, "UPDATE_COMPLETE");
    assert_eq!(asked.image_of_nodes().await, published);
}

#[tokio::test(start_paused = true)]
async fn a_plain_parameter_keeps_the_image_and_nothing_but_metadata_and_policies_changes() {
    let asked = nodes();
    asked.age_image();
    let image = asked.image_of_nodes().await;
    let before = asked.template_text(NODES).await;
    let marked = retaining(&before);
    let plain = marked.replace(STORED_TYPE, "Type: String");
    assert!(plain != marked && marked != before);
    let set = asked.node_changes(Some(&plain), &[(IMAGE, &image)]).await;
    let set = set.unwrap();
    let shown = changes(&set);
    assert_eq!(shown.len(), 11, "{shown:?}");
    assert!(
        shown.values().all(|s| *s == ["Metadata", "DeletionPolicy"]),
        "{shown:?}"
    );
    assert_eq!(values(set.parameters())[IMAGE], (image.as_str(), None));
    assert_eq!(asked.executed(&set).await, "UPDATE_COMPLETE");
    let stack = asked.stack(NODES).await;
    assert_eq!(values(stack.parameters())[IMAGE], (image.as_str(), None));
    // With its declaration and its path it is resolved again, to the newer image.
    let back = asked
        .node_changes(Some(&before), &[(IMAGE, PATH)])
        .await
        .unwrap();
    assert!(changes(&back)["NodeLaunchTemplate"].contains(&"Properties"));
    // Without its path the previous value is taken for one.
    let (code, message) = asked.node_changes(Some(&before), &[]).await.unwrap_err();
    assert_eq!(code, "ValidationError");
    assert_eq!(
        message,
        format!("Unable to fetch parameters [{image}] from parameter store for this account.")
    );
}

#[tokio::test(start_paused = true)]
async fn a_parameter_that_gives_its_value_itself_may_show_as_a_change_of_properties() {
    let asked = nodes();
    asked
        .twin
        .with_world(|w| w.cloud.cloudformation.switches.parameter_alone_is_change = true);
    let image = asked.image_of_nodes().await;
    let plain = asked.template_text(NODES).await;
    let plain = plain.replace(STORED_TYPE, "Type: String");
    let set = asked.node_changes(Some(&plain), &[(IMAGE, &image)]).await;
    let set = set.unwrap();
    let template = set.changes()[1].resource_change().unwrap();
    assert_eq!(template.logical_resource_id(), Some("NodeLaunchTemplate"));
    let causes = template.details().iter();
    let causes: Vec<_> = causes
        .map(|d| (d.change_source().unwrap().as_str(), d.causing_entity()))
        .collect();
    assert_eq!(
        causes,
        [
            ("ParameterReference", Some(IMAGE)),
            ("DirectModification", None)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_image_of_ones_own_takes_the_place_of_the_published_one_by_a_condition() {
    let asked = nodes();
    let published = asked.image_of_nodes().await;
    let own = asked.node_changes(None, &[("NodeImageId", "ami-00000000000000002")]);
    let own = own.await.unwrap();
    assert!(changes(&own).contains_key("NodeLaunchTemplate"));
    let same = asked
        .node_changes(None, &[("NodeImageId", &published)])
        .await;
    assert_eq!(same.unwrap().status().unwrap().as_str(), "FAILED");
}

#[tokio::test(start_paused = true)]
async fn a_path_that_is_not_there_and_one_that_may_not_be_read_are_refused() {
    let asked = nodes();
    let nowhere = asked.node_changes(None, &[(IMAGE, "/nowhere")]).await;
    assert_eq!(
        nowhere.unwrap_err(),
        (
            "ValidationError".to_owned(),
            "Unable to fetch parameters [/nowhere] from parameter store for this account."
                .to_owned()
        )
    );
    asked.allow(&["cloudformation:*"]);
    let denied = asked.node_changes(None, &[]).await;
    assert_eq!(
        denied.unwrap_err(),
        (
            "ValidationError".to_owned(),
            "AccessDenied. User doesn't have permission to call ssm:GetParameters".to_owned()
        )
    );
    asked.allow(&["cloudformation:*", "ssm:GetParameters"]);
    assert!(asked.node_changes(None, &[]).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_template_that_refers_to_what_its_condition_takes_away_is_refused() {
    let asked = nodes();
    let text = asked.template_text(NODES).await;
    let profile = "    Type: \"AWS::IAM::InstanceProfile\"\n";
    let without = text.replace(
        profile,
        &format!("{profile}    Condition: HasNodeImageId\n"),
    );
    let (_, message) = asked.node_changes(Some(&without), &[]).await.unwrap_err();
    assert_eq!(
        message,
        "Template format error: Unresolved resource dependencies [NodeInstanceProfile] in the Resources block of the template"
    );
    for (wrong, words) in [
        (
            "Condition: Nothing",
            "Template format error: Unresolved condition dependency Nothing in the Resources block of the template",
        ),
        (
            "Metadata: !If [Nothing, a, b]",
            "Template error: unresolved condition dependency Nothing in Fn::If",
        ),
    ] {
        let wrong = text.replace(profile, &format!("{profile}    {wrong}\n"));
        let (_, message) = asked.node_changes(Some(&wrong), &[]).await.unwrap_err();
        assert_eq!(message, words);
    }
}

#[tokio::test(start_paused = true)]
async fn the_stack_of_a_yaml_template_is_deleted_in_the_order_of_its_references() {
    let asked = nodes();
    let id = asked.stack(NODES).await.stack_id.unwrap();
    asked.fault(&format!("stack-delete-fails:{NODES}/NodeGroup"));
    assert_eq!(asked.delete_stack(NODES).await, "DELETE_FAILED");
    // What the group refers to was not touched.
    let kept = asked.status_of(NODES, "NodeLaunchTemplate").await;
    assert_eq!(kept.0, "CREATE_COMPLETE");
    assert_eq!(asked.delete_stack(NODES).await, "DELETE_COMPLETE");
    let all = asked.resources(&id).await;
    assert!(
        all.iter().all(|(_, _, s)| s == "DELETE_COMPLETE"),
        "{all:?}"
    );
}
