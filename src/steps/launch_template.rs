//! A new version of a launch template with another image, for node groups with a custom AMI.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{Decision, Past, Step, StepError, Trail, Undo};
use crate::model::ec2::LaunchTemplateVersion;
use crate::steps::World;

/// How a version of a launch template was made: like `source_version`, with `image`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateSource {
    pub template: String,
    pub source_version: i64,
    pub image: String,
}

impl TemplateSource {
    /// The newest version made so. Another group, or another plan, may have made newer ones with other images.
    pub async fn made_version(&self, world: &World) -> Result<Option<i64>, StepError> {
        let versions = world.aws.launch_template_versions(&self.template).await?;
        Ok(made(&versions, self.source_version, &self.image).map(|v| v.version))
    }
}

/// One new template version.
pub struct LaunchTemplate {
    id: String,
    template: String,
    source_version: i64,
    image: String,
}

/// The newest version there was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Before {
    newest_version: Option<i64>,
}

/// Makes the version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Act {
    image: String,
}

/// The description by which a version made here is found again.
pub fn description(source: i64, image: &str) -> String {
    format!("eksup: version {source} with image {image}")
}

/// The newest version made here from `source` with `image`.
pub fn made<'a>(
    versions: &'a [LaunchTemplateVersion],
    source: i64,
    image: &str,
) -> Option<&'a LaunchTemplateVersion> {
    let wanted = description(source, image);
    versions
        .iter()
        .filter(|v| v.description.as_deref() == Some(&wanted) && v.image.as_deref() == Some(image))
        .max_by_key(|v| v.version)
}

impl LaunchTemplate {
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

impl Step<World> for LaunchTemplate {
    type Seen = Vec<LaunchTemplateVersion>;
    type Before = Before;
    type Act = Act;

    async fn observe(&self, world: &World) -> Result<Self::Seen, StepError> {
        Ok(world.aws.launch_template_versions(&self.template).await?)
    }

    fn decide(&self, seen: &Self::Seen, _past: &Past, _now: Timestamp) -> Decision<Act> {
        if let Some(version) = made(seen, self.source_version, &self.image) {
            return Decision::Done(format!(
                "launch template {} version {} has image {}",
                self.template, version.version, self.image
            ));
        }
        if !seen.iter().any(|v| v.version == self.source_version) {
            return Decision::Refuse(format!(
                "launch template {} has no version {}",
                self.template, self.source_version
            ));
        }
        Decision::Act(Act {
            image: self.image.clone(),
        })
    }

    fn before(&self, seen: &Self::Seen) -> Before {
        Before {
            newest_version: seen.iter().map(|v| v.version).max(),
        }
    }

    async fn act(&self, world: &World, act: &Act) -> Result<(), StepError> {
        let token = world.token(&self.id, &act.image);
        let text = description(self.source_version, &act.image);
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

    fn undo(&self) -> Undo {
        // It answers at once that the version stays: one that nobody uses does nothing, and deleting it could hit one
        // that somebody began to use.
        Undo::Restore
    }

    fn restore(
        &self,
        _before: &Before,
        _seen: &Self::Seen,
        _trail: &Trail,
        _now: Timestamp,
    ) -> Decision<Act> {
        Decision::Done(format!(
            "the version of launch template {} with {} stays, and nobody uses it",
            self.template, self.image
        ))
    }

    fn describe(&self, act: &Act) -> String {
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
            description: Some(description(source, image)),
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
        let found = |source, image| made(&versions, source, image).map(|v| v.version);
        assert_eq!(found(3, "ami-1"), Some(5));
        assert_eq!(found(3, "ami-2"), Some(6));
        assert_eq!(found(4, "ami-1"), Some(7));
        assert_eq!(found(4, "ami-2"), None);
    }
}
