//! A launch template made of a launch configuration, for a green whose blue launches from one: a configuration has no
//! versions, so none with another image can be made of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::aws::launch_configuration::TemplateOfConfiguration;
use crate::engine::{
    Decision, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::model::ec2::{LaunchTemplate, LaunchTemplateVersion};
use crate::model::eks::LaunchTemplateRef;
use crate::model::marks;
use crate::steps::StepWorld;
use crate::steps::attempts::CallAttempt;

/// A step that makes one launch template of a launch configuration. Its undo deletes the template.
pub struct ConfigurationTemplateStep {
    id: String,
    run: String,
    group_spec: ConfigurationTemplateSpec,
}

/// What the template is made of and for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationTemplateSpec {
    pub green: String,
    pub configuration: String,
    /// The template's name.
    pub template: String,
    pub image: String,
}

/// One look at the template's name, and at what it is made of and for.
#[derive(Default)]
pub struct ConfigurationTemplateObservation {
    template: Option<LaunchTemplate>,
    versions: Vec<LaunchTemplateVersion>,
    has_configuration: bool,
    /// Green is there and launches from it.
    is_used: bool,
}

/// Whether there was a template of that name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigurationTemplateBeforeImage {
    /// Absent when there was none.
    template: Option<String>,
}

/// Makes the template; in a rollback deletes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum ConfigurationTemplateAct {
    Create { image: String, attempt: CallAttempt },
    Delete { id: String },
}

impl ConfigurationTemplateSpec {
    /// The template that run `run` has made, with the version that has the image; none where there is none.
    ///
    /// # Errors
    /// Those of DescribeLaunchTemplates and DescribeLaunchTemplateVersions.
    pub async fn find_made_template(
        &self,
        world: &StepWorld,
        run: &str,
    ) -> Result<Option<LaunchTemplateRef>, StepError> {
        let found = world.aws.find_launch_template(&self.template).await?;
        let Some(found) = found.filter(|t| is_of_run(t, run)) else {
            return Ok(None);
        };
        let versions = world.aws.describe_launch_template_versions(&found.id);
        let version = find_version_with(&versions.await?, &self.image);
        Ok(version.map(|number| LaunchTemplateRef {
            id: Some(found.id),
            name: None,
            version: Some(number.to_string()),
        }))
    }
}

fn is_of_run(template: &LaunchTemplate, run: &str) -> bool {
    template.tags.get(marks::RUN_TAG).map(String::as_str) == Some(run)
}

/// The newest version with this image.
fn find_version_with(versions: &[LaunchTemplateVersion], image: &str) -> Option<i64> {
    let with_image = versions
        .iter()
        .filter(|v| v.image.as_deref() == Some(image));
    with_image.map(|v| v.version).max()
}

impl ConfigurationTemplateStep {
    /// Makes the template of `group_spec` in run `run`.
    pub fn new(id: String, run: String, group_spec: ConfigurationTemplateSpec) -> Self {
        Self {
            id,
            run,
            group_spec,
        }
    }

    fn tags(&self) -> BTreeMap<String, String> {
        let from = &self.group_spec.configuration;
        [(marks::RUN_TAG, &self.run), (marks::CLONED_FROM_TAG, from)]
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .into()
    }
}

impl Step<StepWorld> for ConfigurationTemplateStep {
    type Observation = ConfigurationTemplateObservation;
    type BeforeImage = ConfigurationTemplateBeforeImage;
    type Act = ConfigurationTemplateAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<Self::Observation, StepError> {
        let spec = &self.group_spec;
        let Some(template) = world.aws.find_launch_template(&spec.template).await? else {
            let configuration = world.aws.has_launch_configuration(&spec.configuration);
            return Ok(ConfigurationTemplateObservation {
                has_configuration: configuration.await?,
                ..Default::default()
            });
        };
        let names = [spec.green.clone()];
        let (versions, greens) = futures::try_join!(
            world.aws.describe_launch_template_versions(&template.id),
            world.aws.describe_asgs(&names)
        )?;
        let launches = greens.values().filter_map(|g| g.launch.template.as_ref());
        let mut of_green = launches.filter_map(|t| t.id.as_ref());
        Ok(ConfigurationTemplateObservation {
            is_used: of_green.any(|id| *id == template.id),
            template: Some(template),
            versions,
            // It was there when the template was made.
            has_configuration: true,
        })
    }

    fn decide_next(
        &self,
        seen: &Self::Observation,
        past: &StepHistory,
        _now: Timestamp,
    ) -> Decision<ConfigurationTemplateAct> {
        let spec = &self.group_spec;
        let Some(template) = &seen.template else {
            if !seen.has_configuration {
                return Decision::Refuse(StepRefusal::new(format!(
                    "there is no launch configuration {} any more",
                    spec.configuration
                )));
            }
            return Decision::Act(ConfigurationTemplateAct::Create {
                image: spec.image.clone(),
                attempt: CallAttempt::of_forward(past),
            });
        };
        // Known by its tag: a process that died after the call finds its own template.
        if !is_of_run(template, &self.run) {
            return Decision::Refuse(
                StepRefusal::new(format!(
                    "launch template {} exists and was not made by this run",
                    spec.template
                ))
                .with_fix("Delete it if no group launches from it, or name another `green` in the group's entry of the plan"),
            );
        }
        match find_version_with(&seen.versions, &spec.image) {
            Some(version) => Decision::Done(format!(
                "launch template {} version {version} launches what {} does, with image {}",
                spec.template, spec.configuration, spec.image
            )),
            None => Decision::Refuse(
                StepRefusal::new(format!(
                    "no version of launch template {} has image {}",
                    spec.template, spec.image
                ))
                .with_fix("Delete the launch template"),
            ),
        }
    }

    fn before_image(&self, seen: &Self::Observation) -> ConfigurationTemplateBeforeImage {
        ConfigurationTemplateBeforeImage {
            template: seen.template.as_ref().map(|t| t.id.clone()),
        }
    }

    async fn perform_act(
        &self,
        world: &StepWorld,
        act: &ConfigurationTemplateAct,
    ) -> Result<(), StepError> {
        match act {
            ConfigurationTemplateAct::Create { image, attempt } => {
                let spec = &self.group_spec;
                let asked = (&spec.configuration, &spec.template, image);
                let asked = ("CreateLaunchTemplate", &asked);
                let token = world.idempotency_token(&self.id, asked, attempt)?;
                let template = TemplateOfConfiguration {
                    configuration: &spec.configuration,
                    name: &spec.template,
                    image,
                    tags: &self.tags(),
                };
                let create = world
                    .aws
                    .create_template_of_configuration(&template, &token);
                Ok(create.await?)
            }
            ConfigurationTemplateAct::Delete { id } => {
                Ok(world.aws.delete_launch_template(id).await?)
            }
        }
    }

    fn undo_kind(&self) -> UndoKind {
        UndoKind::Restore
    }

    fn decide_undo(
        &self,
        before: &ConfigurationTemplateBeforeImage,
        seen: &Self::Observation,
        _trail: &RollbackHistory,
        _now: Timestamp,
    ) -> Decision<ConfigurationTemplateAct> {
        let name = format!("launch template {}", self.group_spec.template);
        let Some(template) = &seen.template else {
            return Decision::Done(format!("{name} is gone"));
        };
        // Only a template that this run has made is deleted.
        if before.template.is_some() || !is_of_run(template, &self.run) {
            return Decision::Done(format!("{name} was not made by this run, and stays"));
        }
        // EC2 would delete it under the group, whose launches would fail from then on (EC2-8).
        if seen.is_used {
            return Decision::Done(format!(
                "{name} stays, because Auto Scaling group {} launches from it",
                self.group_spec.green
            ));
        }
        Decision::Act(ConfigurationTemplateAct::Delete {
            id: template.id.clone(),
        })
    }

    fn describe_act(&self, act: &ConfigurationTemplateAct) -> String {
        let spec = &self.group_spec;
        match act {
            ConfigurationTemplateAct::Create { image, .. } => format!(
                "CreateLaunchTemplate {} from launch configuration {} with image {image}",
                spec.template, spec.configuration
            ),
            ConfigurationTemplateAct::Delete { id } => {
                format!("DeleteLaunchTemplate {} ({id})", spec.template)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step() -> ConfigurationTemplateStep {
        let spec = ConfigurationTemplateSpec {
            green: "web-green".into(),
            configuration: "web-nodes".into(),
            template: "eksup-web-green".into(),
            image: "ami-new".into(),
        };
        ConfigurationTemplateStep::new("template-web-green".into(), "run".into(), spec)
    }

    fn made_by(run: &str, image: &str) -> ConfigurationTemplateObservation {
        let tags = [(marks::RUN_TAG.to_owned(), run.to_owned())];
        ConfigurationTemplateObservation {
            template: Some(LaunchTemplate {
                id: "lt-1".into(),
                name: "eksup-web-green".into(),
                tags: tags.into(),
            }),
            versions: vec![LaunchTemplateVersion {
                id: "lt-1".into(),
                name: None,
                version: 1,
                description: None,
                image: Some(image.into()),
                instance_type: None,
                user_data: None,
                options: Default::default(),
            }],
            has_configuration: true,
            is_used: false,
        }
    }

    fn next(seen: &ConfigurationTemplateObservation) -> Decision<ConfigurationTemplateAct> {
        step().decide_next(seen, &StepHistory::default(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_template_is_made_once_and_only_while_its_configuration_is_there() {
        let mut seen = ConfigurationTemplateObservation::default();
        assert!(matches!(next(&seen), Decision::Refuse(_)));
        seen.has_configuration = true;
        let Decision::Act(ConfigurationTemplateAct::Create { image, .. }) = next(&seen) else {
            panic!("it is not made")
        };
        assert_eq!(image, "ami-new");
        assert!(matches!(
            next(&made_by("run", "ami-new")),
            Decision::Done(_)
        ));
        // Another's template of the same name, and one with another image, are not taken for it.
        assert!(matches!(
            next(&made_by("other", "ami-new")),
            Decision::Refuse(_)
        ));
        assert!(matches!(
            next(&made_by("run", "ami-old")),
            Decision::Refuse(_)
        ));
    }

    #[test]
    fn a_rollback_deletes_only_a_template_that_the_run_made_and_that_no_group_needs() {
        let undo = |seen: &ConfigurationTemplateObservation, before: Option<&str>| {
            let before = ConfigurationTemplateBeforeImage {
                template: before.map(str::to_owned),
            };
            let trail = RollbackHistory::default();
            let next = step().decide_undo(&before, seen, &trail, Timestamp::UNIX_EPOCH);
            matches!(next, Decision::Act(ConfigurationTemplateAct::Delete { id }) if id == "lt-1")
        };
        let ours = made_by("run", "ami-new");
        assert!(undo(&ours, None));
        assert!(!undo(&ours, Some("lt-1")));
        assert!(!undo(&made_by("other", "ami-new"), None));
        let used = ConfigurationTemplateObservation {
            is_used: true,
            ..ours
        };
        assert!(!undo(&used, None));
        assert!(!undo(&ConfigurationTemplateObservation::default(), None));
    }
}
