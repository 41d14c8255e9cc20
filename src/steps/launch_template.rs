//! A new version of a launch template with another image, for node groups with a custom AMI.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{
    Decision, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::model::ec2::LaunchTemplateVersion;
use crate::model::eks::LaunchTemplateRef;
use crate::steps::StepWorld;
use crate::steps::attempts::CallAttempt;
use crate::steps::configuration_template::ConfigurationTemplateSpec;

/// How the launch template of a green was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateSource {
    /// A version of a template like `source_version`, with `image`.
    Version {
        template: String,
        source_version: i64,
        image: String,
    },
    /// A template of its own, made by this run of a launch configuration.
    Configuration {
        spec: ConfigurationTemplateSpec,
        run: String,
    },
}

impl TemplateSource {
    /// The template with the newest version made so. Another group, or another plan, may have made newer ones with other
    /// images.
    ///
    /// # Errors
    /// Those of reading templates and their versions.
    pub async fn find_made_template(
        &self,
        world: &StepWorld,
    ) -> Result<Option<LaunchTemplateRef>, StepError> {
        match self {
            Self::Version {
                template,
                source_version,
                image,
            } => {
                let versions = world.aws.describe_launch_template_versions(template);
                let versions = versions.await?;
                let made = find_made_version(&versions, *source_version, image);
                Ok(made.map(|v| LaunchTemplateRef {
                    id: Some(template.clone()),
                    name: None,
                    version: Some(v.version.to_string()),
                }))
            }
            Self::Configuration { spec, run } => spec.find_made_template(world, run).await,
        }
    }
}

/// A step that makes one new version of a launch template. Its undo leaves the version where it is.
pub struct LaunchTemplateStep {
    id: String,
    template: String,
    source_version: i64,
    image: String,
}

/// The newest version there was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LaunchTemplateBeforeImage {
    newest_version: Option<i64>,
}

/// The one act of the step: makes the version with this image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LaunchTemplateAct {
    image: String,
    attempt: CallAttempt,
}

/// The description by which a version made here is found again.
pub fn version_description(source: i64, image: &str) -> String {
    format!("eksup: version {source} with image {image}")
}

/// The newest version made here from `source` with `image`.
pub fn find_made_version<'a>(
    versions: &'a [LaunchTemplateVersion],
    source: i64,
    image: &str,
) -> Option<&'a LaunchTemplateVersion> {
    let wanted = version_description(source, image);
    versions
        .iter()
        .filter(|v| v.description.as_deref() == Some(&wanted) && v.image.as_deref() == Some(image))
        .max_by_key(|v| v.version)
}

impl LaunchTemplateStep {
    /// A version of `template` like `source_version` but with `image`.
    pub fn new(id: String, template: String, source_version: i64, image: String) -> Self {
        Self {
            id,
            template,
            source_version,
            image,
        }
    }
}

impl Step<StepWorld> for LaunchTemplateStep {
    type Observation = Vec<LaunchTemplateVersion>;
    type BeforeImage = LaunchTemplateBeforeImage;
    type Act = LaunchTemplateAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<Self::Observation, StepError> {
        Ok(world
            .aws
            .describe_launch_template_versions(&self.template)
            .await?)
    }

    fn decide_next(
        &self,
        seen: &Self::Observation,
        past: &StepHistory,
        _now: Timestamp,
    ) -> Decision<LaunchTemplateAct> {
        // Found by its description: a process that died after the call does not make a second version.
        if let Some(version) = find_made_version(seen, self.source_version, &self.image) {
            return Decision::Done(format!(
                "launch template {} version {} has image {}",
                self.template, version.version, self.image
            ));
        }
        if !seen.iter().any(|v| v.version == self.source_version) {
            return Decision::Refuse(StepRefusal::new(format!(
                "launch template {} has no version {}",
                self.template, self.source_version
            )));
        }
        Decision::Act(LaunchTemplateAct {
            image: self.image.clone(),
            attempt: CallAttempt::of_forward(past),
        })
    }

    fn before_image(&self, seen: &Self::Observation) -> LaunchTemplateBeforeImage {
        LaunchTemplateBeforeImage {
            newest_version: seen.iter().map(|v| v.version).max(),
        }
    }

    async fn perform_act(
        &self,
        world: &StepWorld,
        act: &LaunchTemplateAct,
    ) -> Result<(), StepError> {
        let asked = (&self.template, self.source_version, &act.image);
        let token = world.idempotency_token(
            &self.id,
            ("CreateLaunchTemplateVersion", &asked),
            &act.attempt,
        )?;
        // The description makes the version findable, where the answer with its number is lost.
        let text = version_description(self.source_version, &act.image);
        world
            .aws
            .create_launch_template_version(
                &self.template,
                self.source_version,
                &act.image,
                &text,
                &token,
            )
            .await?;
        Ok(())
    }

    fn undo_kind(&self) -> UndoKind {
        // It answers at once that the version stays: one that nobody uses does nothing, and deleting it could hit one
        // that somebody began to use.
        UndoKind::Restore
    }

    fn decide_undo(
        &self,
        _before: &LaunchTemplateBeforeImage,
        _seen: &Self::Observation,
        _trail: &RollbackHistory,
        _now: Timestamp,
    ) -> Decision<LaunchTemplateAct> {
        Decision::Done(format!(
            "the version of launch template {} with {} stays, and no node group uses it",
            self.template, self.image
        ))
    }

    fn describe_act(&self, act: &LaunchTemplateAct) -> String {
        format!(
            "CreateLaunchTemplateVersion of {} from version {} with image {}",
            self.template, self.source_version, act.image
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_by_what_it_was_made_from_and_by_its_image() {
        let version = |number: i64, source: i64, image: &str| LaunchTemplateVersion {
            id: "lt-1".to_owned(),
            name: None,
            version: number,
            description: Some(version_description(source, image)),
            image: Some(image.to_owned()),
            instance_type: None,
            user_data: None,
            options: Default::default(),
        };
        // Newer ones are another group's, or of a plan that was given up.
        let versions = [
            version(5, 3, "ami-1"),
            version(6, 3, "ami-2"),
            version(7, 4, "ami-1"),
        ];
        let found = |source, image| find_made_version(&versions, source, image).map(|v| v.version);
        assert_eq!(found(3, "ami-1"), Some(5));
        assert_eq!(found(3, "ami-2"), Some(6));
        assert_eq!(found(4, "ami-1"), Some(7));
        assert_eq!(found(4, "ami-2"), None);
    }
}
