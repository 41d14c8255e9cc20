//! Change sets.

use aws_sdk_cloudformation::operation::create_change_set::builders::CreateChangeSetFluentBuilder;
use aws_sdk_cloudformation::operation::describe_change_set::DescribeChangeSetOutput;
use aws_sdk_cloudformation::types::{Capability, ChangeSetType, Parameter};
use serde_json::{Value, json};

use super::cloudformation::{APPS, eksctl};
use super::sdk::{Asked, said, seconds};

impl Asked {
    fn change_set(&self, template: &Value) -> CreateChangeSetFluentBuilder {
        self.cloudformation
            .create_change_set()
            .stack_name(APPS)
            .change_set_name("retain")
            .change_set_type(ChangeSetType::Update)
            .template_body(template.to_string())
            .capabilities(Capability::CapabilityIam)
            .client_token("token-1")
    }

    async fn described(&self, arn: &str) -> DescribeChangeSetOutput {
        let found = self
            .cloudformation
            .describe_change_set()
            .change_set_name(arn);
        found.send().await.unwrap()
    }

    /// Makes a change set and waits for it.
    pub async fn made(&self, template: &Value) -> DescribeChangeSetOutput {
        let id = self.change_set(template).send().await.unwrap().id.unwrap();
        seconds(20).await;
        self.described(&id).await
    }

    /// The stack's template with every resource retained, and marked so that this is a change.
    pub async fn retaining(&self, stack: &str) -> Value {
        let mut template = self.template_json(stack).await;
        for (_, resource) in template["Resources"].as_object_mut().unwrap() {
            resource["DeletionPolicy"] = json!("Retain");
            resource["Metadata"] = json!({"eksup": "retained"});
        }
        template
    }
}

fn scopes(set: &DescribeChangeSetOutput) -> Vec<(String, Vec<String>)> {
    let changes = set.changes().iter().filter_map(|c| c.resource_change());
    let shown = changes.map(|c| {
        let scope = c.scope().iter().map(|s| s.as_str().to_owned());
        (c.logical_resource_id().unwrap().to_owned(), scope.collect())
    });
    shown.collect()
}

#[tokio::test(start_paused = true)]
async fn a_change_set_passes_through_its_statuses_and_shows_each_change() {
    let asked = eksctl();
    let template = asked.retaining(APPS).await;
    let id = asked
        .change_set(&template)
        .send()
        .await
        .unwrap()
        .id
        .unwrap();
    let first = asked.described(&id).await;
    assert_eq!(first.status().unwrap().as_str(), "CREATE_PENDING");
    assert_eq!(first.execution_status().unwrap().as_str(), "UNAVAILABLE");
    assert!(first.changes().is_empty());
    let execute = || {
        asked
            .cloudformation
            .execute_change_set()
            .change_set_name(&id)
            .send()
    };
    let error = execute().await.unwrap_err();
    assert_eq!(said(error).0, "InvalidChangeSetStatus");
    seconds(20).await;
    let made = asked.described(&id).await;
    assert_eq!(made.status().unwrap().as_str(), "CREATE_COMPLETE");
    assert_eq!(made.execution_status().unwrap().as_str(), "AVAILABLE");
    let both = |name: &str| {
        (
            name.to_owned(),
            vec!["Metadata".to_owned(), "DeletionPolicy".to_owned()],
        )
    };
    assert_eq!(
        scopes(&made),
        [
            both("LaunchTemplate"),
            both("ManagedNodeGroup"),
            both("NodeInstanceRole")
        ]
    );
    let change = made.changes()[1].resource_change().unwrap();
    assert_eq!(change.action().unwrap().as_str(), "Modify");
    assert_eq!(change.replacement().unwrap().as_str(), "False");
    assert_eq!(change.physical_resource_id(), Some("eksctl/apps"));
    let target = change.details()[0].target().unwrap();
    assert_eq!(target.attribute().unwrap().as_str(), "Metadata");
    assert_eq!(target.requires_recreation().unwrap().as_str(), "Never");
}

#[tokio::test(start_paused = true)]
async fn an_executed_change_set_makes_the_template_the_stacks_and_takes_the_others_with_it() {
    let asked = eksctl();
    let template = asked.retaining(APPS).await;
    let other = asked
        .change_set(&template)
        .change_set_name("other")
        .client_token("other");
    let other = other.send().await.unwrap().id.unwrap();
    let made = asked.made(&template).await;
    let id = made.change_set_id().unwrap();
    let execute = || {
        let call = asked
            .cloudformation
            .execute_change_set()
            .change_set_name(id);
        call.client_request_token("run-1").send()
    };
    execute().await.unwrap();
    assert_eq!(asked.stack_status(APPS).await, "UPDATE_IN_PROGRESS");
    // The same request again is no second execution; another one is refused.
    execute().await.unwrap();
    let second = asked
        .cloudformation
        .execute_change_set()
        .change_set_name(id)
        .send()
        .await;
    assert_eq!(said(second.unwrap_err()).0, "InvalidChangeSetStatus");
    let gone = asked
        .cloudformation
        .describe_change_set()
        .change_set_name(&other)
        .send()
        .await;
    assert_eq!(said(gone.unwrap_err()).0, "ChangeSetNotFound");
    assert_eq!(asked.settled_stack(APPS).await, "UPDATE_COMPLETE");
    assert_eq!(asked.template_json(APPS).await, template);
    let stack = asked.stack(APPS).await;
    assert_eq!(stack.change_set_id(), Some(id));
    assert!(stack.last_updated_time().is_some());
    assert_eq!(
        asked
            .described(id)
            .await
            .execution_status()
            .unwrap()
            .as_str(),
        "EXECUTE_COMPLETE"
    );
    let statuses = asked.resources(APPS).await;
    assert!(
        statuses
            .iter()
            .all(|(_, _, status)| status == "UPDATE_COMPLETE"),
        "{statuses:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_change_of_deletion_policy_alone_changes_nothing_unless_it_counts() {
    let asked = eksctl();
    let mut template = asked.template_json(APPS).await;
    template["Resources"]["NodeInstanceRole"]["DeletionPolicy"] = json!("Retain");
    let made = asked.made(&template).await;
    assert_eq!(made.status().unwrap().as_str(), "FAILED");
    assert_eq!(
        made.status_reason(),
        Some(
            "The submitted information didn't contain changes. Submit different information to create a change set."
        )
    );
    let id = made.change_set_id().unwrap();
    asked
        .cloudformation
        .delete_change_set()
        .change_set_name(id)
        .send()
        .await
        .unwrap();
    asked
        .twin
        .with_world(|w| w.cloud.cloudformation.switches.policy_alone_is_change = true);
    let made = asked.made(&template).await;
    assert_eq!(
        scopes(&made),
        [(
            "NodeInstanceRole".to_owned(),
            vec!["DeletionPolicy".to_owned()]
        )]
    );
}

#[tokio::test(start_paused = true)]
async fn a_repeated_request_is_answered_with_what_it_made_and_another_one_of_the_name_is_refused() {
    let asked = eksctl();
    asked.fault("drop-after:cloudformation:CreateChangeSet:1");
    let template = asked.retaining(APPS).await;
    assert!(asked.change_set(&template).send().await.is_err());
    let id = asked.change_set(&template).send().await.unwrap().id;
    assert_eq!(asked.change_set(&template).send().await.unwrap().id, id);
    let other = asked
        .change_set(&template)
        .client_token("token-2")
        .send()
        .await;
    assert_eq!(said(other.unwrap_err()).0, "AlreadyExistsException");
    // A deleted one frees its name, and deleting it again is no error.
    for _ in 0..2 {
        let delete = asked.cloudformation.delete_change_set().stack_name(APPS);
        delete.change_set_name("retain").send().await.unwrap();
    }
    let again = asked
        .change_set(&template)
        .client_token("token-2")
        .send()
        .await;
    assert_ne!(again.unwrap().id, id);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_lacks_something_is_refused_before_anything_is_made() {
    let asked = eksctl();
    let template = asked.retaining(APPS).await;
    let refused =
        |set: CreateChangeSetFluentBuilder| async move { said(set.send().await.unwrap_err()) };
    let (code, message) = refused(asked.change_set(&template).set_capabilities(None)).await;
    assert_eq!(code, "InsufficientCapabilitiesException");
    assert_eq!(message, "Requires capabilities : [CAPABILITY_IAM]");
    let mut named = template.clone();
    named["Resources"]["NodeInstanceRole"]["Properties"]["RoleName"] = json!("mine");
    let (_, message) = refused(asked.change_set(&named)).await;
    assert_eq!(message, "Requires capabilities : [CAPABILITY_NAMED_IAM]");
    let mut asking = template.clone();
    asking["Parameters"] =
        json!({"A": {"Type": "String"}, "B": {"Type": "String", "Default": "b"}});
    let (_, message) = refused(asked.change_set(&asking)).await;
    assert_eq!(message, "Parameters: [A] must have values");
    let previous = Parameter::builder()
        .parameter_key("A")
        .use_previous_value(true)
        .build();
    let (_, message) = refused(asked.change_set(&asking).parameters(previous.clone())).await;
    assert_eq!(message, "Parameters: [A] must have values");
    let (_, message) = refused(asked.change_set(&template).parameters(previous)).await;
    assert_eq!(message, "Parameters: [A] do not exist in the template");
    let long = "x".repeat(60_000);
    let (_, message) = refused(asked.change_set(&template).template_body(long)).await;
    assert!(message.contains("less than or equal to 51200"), "{message}");
    let both = asked.change_set(&template).use_previous_template(true);
    assert_eq!(refused(both).await.0, "ValidationError");
    let none = asked.change_set(&template).stack_name("none");
    assert_eq!(refused(none).await.1, "Stack [none] does not exist");
    asked.change_stack(APPS, |stack| {
        stack.status = "UPDATE_ROLLBACK_FAILED".to_owned();
    });
    let (_, message) = refused(asked.change_set(&template)).await;
    assert!(
        message.ends_with("is in UPDATE_ROLLBACK_FAILED state and can not be updated."),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn parameters_keep_their_values_where_the_request_says_so() {
    let asked = eksctl();
    let mut asking = asked.template_json(APPS).await;
    asking["Parameters"] = json!({"Size": {"Type": "Number"}});
    asking["Resources"]["ManagedNodeGroup"]["Properties"]["ScalingConfig"]["MaxSize"] =
        json!({"Ref": "Size"});
    asked.change_stack(APPS, |stack| {
        stack.template = asking.to_string();
        stack.parameters.insert("Size".to_owned(), "6".to_owned());
    });
    let with = |parameter: Parameter, token: &str| {
        let set = asked
            .change_set(&asking)
            .set_template_body(None)
            .use_previous_template(true);
        set.parameters(parameter)
            .change_set_name(token)
            .client_token(token)
            .send()
    };
    let kept = Parameter::builder()
        .parameter_key("Size")
        .use_previous_value(true)
        .build();
    let kept = with(kept, "kept").await.unwrap().id.unwrap();
    let larger = Parameter::builder()
        .parameter_key("Size")
        .parameter_value("9")
        .build();
    let larger = with(larger, "larger").await.unwrap().id.unwrap();
    seconds(20).await;
    assert_eq!(
        asked.described(&kept).await.status().unwrap().as_str(),
        "FAILED"
    );
    let larger = asked.described(&larger).await;
    assert_eq!(
        scopes(&larger),
        [("ManagedNodeGroup".to_owned(), vec!["Properties".to_owned()])]
    );
}

#[tokio::test(start_paused = true)]
async fn changes_come_in_pages_that_join_to_the_whole() {
    let asked = eksctl();
    asked
        .twin
        .with_world(|w| w.cloud.cloudformation.page_size = Some(1));
    let template = asked.retaining(APPS).await;
    let made = asked.made(&template).await;
    assert_eq!(
        (made.changes().len(), made.next_token().is_some()),
        (1, true)
    );
    let pages = asked.cloudformation.describe_change_set();
    let pages = pages
        .change_set_name(made.change_set_id().unwrap())
        .into_paginator()
        .send();
    let pages: Result<Vec<_>, _> = pages.collect().await;
    let all: Vec<usize> = pages.unwrap().iter().map(|p| p.changes().len()).collect();
    assert_eq!(all, [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn an_execution_that_fails_leaves_the_stack_rolled_back_with_the_reason() {
    let asked = eksctl();
    let before = asked.template_text(APPS).await;
    asked.fault(&format!("stack-update-fails:{APPS}"));
    let template = asked.retaining(APPS).await;
    let made = asked.made(&template).await;
    let id = made.change_set_id().unwrap();
    asked
        .cloudformation
        .execute_change_set()
        .change_set_name(id)
        .send()
        .await
        .unwrap();
    assert_eq!(asked.settled_stack(APPS).await, "UPDATE_ROLLBACK_COMPLETE");
    let stack = asked.stack(APPS).await;
    assert_eq!(
        stack.stack_status_reason(),
        Some("Resource handler returned message: \"Internal Failure\"")
    );
    assert_eq!(asked.template_text(APPS).await, before);
    assert_eq!(
        asked
            .described(id)
            .await
            .execution_status()
            .unwrap()
            .as_str(),
        "EXECUTE_FAILED"
    );
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_is_taken_out_of_the_template_goes_unless_it_was_retained() {
    let asked = eksctl();
    asked.change_stack(APPS, |stack| {
        stack.add_resource("Topic", "AWS::SNS::Topic", "arn:topic", json!({}));
        stack.add_export("Topic", "topic", "arn:topic");
    });
    let mut template = asked.template_json(APPS).await;
    template["Resources"]
        .as_object_mut()
        .unwrap()
        .remove("Topic");
    template["Outputs"].as_object_mut().unwrap().remove("Topic");
    let made = asked.made(&template).await;
    let change = made.changes()[0].resource_change().unwrap();
    assert_eq!(change.action().unwrap().as_str(), "Remove");
    assert_eq!(change.policy_action().unwrap().as_str(), "Delete");
    let id = made.change_set_id().unwrap();
    asked
        .cloudformation
        .execute_change_set()
        .change_set_name(id)
        .send()
        .await
        .unwrap();
    assert_eq!(asked.settled_stack(APPS).await, "UPDATE_COMPLETE");
    assert_eq!(asked.resources(APPS).await.len(), 3);
}
