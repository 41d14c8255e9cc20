//! Why instances of green do not launch, in the words of those who launch them.

use crate::engine::StepError;
use crate::model::ErrorClass;
use crate::model::eks::Nodegroup;
use crate::steps::StepWorld;

/// How many different reasons are told.
const MAX_LAUNCH_REASONS: usize = 2;

/// The latest reasons of green's Auto Scaling group; nothing where no launch failed.
pub async fn failed_launches(
    world: &StepWorld,
    green: &Nodegroup,
) -> Result<Vec<String>, StepError> {
    let mut reasons = Vec::new();
    for asg in &green.asgs {
        match world.aws.list_failed_launches(asg).await {
            Ok(found) => {
                let told = found.into_iter().take(MAX_LAUNCH_REASONS);
                reasons.extend(
                    told.map(|why| format!("Auto Scaling says: {}", why.trim_end_matches('.'))),
                );
            }
            // It only explains: without it the wait goes on.
            Err(error)
                if matches!(
                    error.class,
                    ErrorClass::Denied | ErrorClass::Invalid | ErrorClass::Absent
                ) =>
            {
                reasons.push(format!(
                    "what Auto Scaling says of its launches could not be read ({}: {})",
                    error.op, error.message
                ));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(reasons)
}
