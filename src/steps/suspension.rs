//! Processes of Auto Scaling that a run suspends for blue, with the tag that says whose doing it is.

use crate::engine::StepError;
use crate::model::asg::{Asg, AsgTag};
use crate::steps::StepWorld;

/// The first of the groups for which run `run` suspended the process.
pub fn find_suspended(asgs: &[Asg], run: &str, (_, key): (&str, &str)) -> Option<String> {
    let ours = |asg: &&Asg| asg.tags.iter().any(|t| t.key == key && t.value == run);
    asgs.iter().find(ours).map(|asg| asg.name.clone())
}

/// Suspends the process for a group.
///
/// # Errors
/// Those of CreateOrUpdateTags and SuspendProcesses.
pub async fn suspend_process(
    world: &StepWorld,
    asg: &str,
    (process, key): (&str, &str),
) -> Result<(), StepError> {
    // The tag first: a suspension without it would never be rolled back.
    let tag = AsgTag {
        key: key.to_owned(),
        value: world.run.clone(),
        propagate: false,
    };
    world.aws.tag_asg(asg, &[tag]).await?;
    Ok(world.aws.suspend_processes(asg, &[process]).await?)
}

/// Resumes the process for a group, and takes the tag off.
///
/// # Errors
/// Those of ResumeProcesses and DeleteTags.
pub async fn resume_process(
    world: &StepWorld,
    asg: &str,
    (process, key): (&str, &str),
) -> Result<(), StepError> {
    // The tag goes last: a crash in between is seen by it, and the resumption repeated.
    world.aws.resume_processes(asg, &[process]).await?;
    Ok(world.aws.untag_asg(asg, &[key.to_owned()]).await?)
}
