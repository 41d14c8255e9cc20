//! What a group has done: launches, failed launches, terminations.

use serde_json::{Value, json};

use super::groups::page_size;
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::{AutoScalingGroup, ScalingActivity};
use crate::twin::world::SimWorld;

/// How many activities of a group are kept.
const MAX_ACTIVITIES_KEPT: usize = 100;

fn record(world: &mut SimWorld, name: &str, activity: ScalingActivity) {
    let Some(asg) = world.cloud.asgs.get_mut(name) else {
        return;
    };
    // A group that fails to launch for hours would fill its list, so the oldest activities go.
    if asg.activities.len() >= MAX_ACTIVITIES_KEPT {
        asg.activities.remove(0);
    }
    asg.activities.push(activity);
}

fn new_activity(world: &mut SimWorld) -> ScalingActivity {
    ScalingActivity {
        id: world.new_uuid(),
        began: world.now(),
        instance: None,
        message: String::new(),
        ends: false,
        ended: None,
    }
}

/// No instance could be launched, in EC2's words.
pub fn record_failure(world: &mut SimWorld, name: &str, message: String) {
    let made = new_activity(world);
    let ended = Some(made.began);
    let made = ScalingActivity {
        message,
        ended,
        ..made
    };
    record(world, name, made);
}

/// An instance is being launched.
pub fn record_launch(world: &mut SimWorld, name: &str, instance: &str) {
    let made = new_activity(world);
    let instance = Some(instance.to_owned());
    record(world, name, ScalingActivity { instance, ..made });
}

/// An instance is being ended.
pub fn record_termination(world: &mut SimWorld, name: &str, instance: &str) {
    // The id is made of the instance's, as an instance ends once.
    let digits = format!("{:0>32}", instance.trim_start_matches("i-"));
    let made = ScalingActivity {
        id: format!(
            "{}-{}-4{}-8{}-{}",
            &digits[..8],
            &digits[8..12],
            &digits[13..16],
            &digits[17..20],
            &digits[20..32]
        ),
        began: world.now(),
        instance: Some(instance.to_owned()),
        message: String::new(),
        ends: true,
        ended: None,
    };
    record(world, name, made);
}

/// The launch or the termination of an instance is over.
pub fn finish(world: &mut SimWorld, name: &str, instance: &str, ends: bool) {
    let now = world.now();
    let asg = world.cloud.asgs.get_mut(name);
    let mut all = asg.into_iter().flat_map(|a| &mut a.activities);
    let of_it = |a: &&mut ScalingActivity| {
        a.instance.as_deref() == Some(instance) && a.ends == ends && a.ended.is_none()
    };
    if let Some(activity) = all.find(of_it) {
        activity.ended = Some(now);
    }
}

/// DescribeScalingActivities: newest first.
pub fn describe(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let name = input.get_text("AutoScalingGroupName");
    let ids = input.get_text_list("ActivityIds");
    let groups = world.cloud.asgs.values();
    // Without a name the activities of all groups are shown.
    let mut all: Vec<(&AutoScalingGroup, &ScalingActivity)> = groups
        .filter(|asg| name.is_none_or(|n| n == asg.name))
        .flat_map(|asg| asg.activities.iter().map(move |a| (asg, a)))
        .filter(|(_, a)| ids.is_empty() || ids.contains(&a.id))
        .collect();
    all.sort_by_key(|(_, a)| std::cmp::Reverse(a.began));
    let page = cut_page(all, input.get_text("NextToken"), page_size(input)?)?;
    let shown: Vec<Value> = page.items.iter().map(|(asg, a)| show(asg, a)).collect();
    Ok(json!({"Activities": shown, "NextToken": page.next}))
}

fn show(asg: &AutoScalingGroup, activity: &ScalingActivity) -> Value {
    let at = activity.began.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let end = activity
        .ended
        .map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let cause = match activity.ends {
        true => format!("At {at} an instance was taken out of service."),
        false => format!(
            "At {at} an instance was started in response to a difference between desired and actual capacity."
        ),
    };
    let mut shown = json!({
        "ActivityId": activity.id,
        "AutoScalingGroupName": asg.name,
        "Cause": cause,
        "StartTime": at,
        "EndTime": end,
        "Progress": if activity.ended.is_some() { 100 } else { 50 },
        "Details": "{}",
        "AutoScalingGroupARN": asg.arn,
    });
    // An activity without an instance is a failed launch, and its message is where the reason is found (EKS-NG-32).
    match &activity.instance {
        Some(instance) => {
            let what = if activity.ends {
                "Terminating"
            } else {
                "Launching a new"
            };
            shown["Description"] = json!(format!("{what} EC2 instance: {instance}"));
            shown["StatusCode"] = json!(if activity.ended.is_some() {
                "Successful"
            } else {
                "InProgress"
            });
        }
        None => {
            let message = &activity.message;
            shown["Description"] = json!(format!(
                "Launching a new EC2 instance.  Status Reason: {message}"
            ));
            shown["StatusCode"] = json!("Failed");
            shown["StatusMessage"] = json!(message);
        }
    }
    shown
}
