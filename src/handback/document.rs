//! The handback as a whole: a section a tool, each with files and what to do with them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::facts::{BlueState, HandbackFacts, ReplacedGroup};
use super::node_pools::{PoolSection, tell_pool_source};
use super::parts::{HandbackFile, HandbackOptions, HandbackStep};
use super::{cdk, cloudformation, eksctl, pulumi, terraform};
use crate::model::group_owner::OwningTool;

/// What to tell which tool.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HandbackDocument {
    pub cluster: String,
    pub run: String,
    /// What a reader should know before anything else.
    pub notes: Vec<String>,
    pub tools: Vec<ToolSection>,
    /// What to tell the source of NodePools; none where the run has replaced none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_pools: Option<PoolSection>,
}

/// What to tell one tool.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolSection {
    pub tool: OwningTool,
    pub groups: Vec<SectionGroup>,
    pub files: Vec<HandbackFile>,
    /// In this order.
    pub steps: Vec<HandbackStep>,
}

/// A group that a section is about.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SectionGroup {
    pub blue: String,
    pub green: String,
    /// `gone`, `there` or `unknown`.
    pub blue_is: &'static str,
}

/// Says what to tell the tools: the one that was chosen, or those that own a blue by its tags.
pub fn build_handback(facts: &HandbackFacts, options: &HandbackOptions) -> HandbackDocument {
    let mut by_tool: BTreeMap<OwningTool, Vec<&ReplacedGroup>> = BTreeMap::new();
    let mut notes = Vec::new();
    let mut of_nobody = Vec::new();
    for group in &facts.groups {
        let owner = group.moved.owner.as_ref().map(|o| o.tool);
        match options.tool.or(owner) {
            Some(tool) => by_tool.entry(tool).or_default().push(group),
            None => of_nobody.push(group.moved.blue.as_str()),
        }
    }
    // A tool that leaves no tags is named by a person, or nobody tells it.
    if !of_nobody.is_empty() {
        notes.push(format!(
            "No tag tells which tool owned {}. Terraform leaves none of its own: where a tool knows them, name it with `--tool`.",
            of_nobody.join(", ")
        ));
    }
    if facts.groups.is_empty() {
        if facts.pools.is_empty() {
            notes.push("The last run has no new group in place of another.".to_owned());
        }
        // Versions may have been changed all the same, and a tool that was named is told them.
        if let Some(tool) = options.tool.filter(|_| facts.has_changed_versions()) {
            by_tool.insert(tool, Vec::new());
        }
    }
    for group in &facts.groups {
        if let BlueState::There(blue) = &group.blue {
            notes.push(format!(
                "{} is still there, with a smallest size of {} and a largest of {}: it stays in the tool's hands until you delete it.",
                blue.name, blue.scaling.min, blue.scaling.max
            ));
        }
    }
    let tools = by_tool
        .into_iter()
        .map(|(tool, groups)| build_section(facts, options, tool, &groups));
    HandbackDocument {
        cluster: facts.cluster.clone(),
        run: facts.run.clone(),
        notes,
        tools: tools.collect(),
        node_pools: tell_pool_source(facts),
    }
}

fn build_section(
    facts: &HandbackFacts,
    options: &HandbackOptions,
    tool: OwningTool,
    groups: &[&ReplacedGroup],
) -> ToolSection {
    let (files, steps) = match tool {
        OwningTool::Terraform => terraform::tell_terraform(facts, options, groups),
        OwningTool::Eksctl => eksctl::tell_eksctl(facts, groups),
        OwningTool::Cloudformation => cloudformation::tell_cloudformation(facts, groups),
        OwningTool::Cdk => cdk::tell_cdk(facts, groups),
        OwningTool::Pulumi => pulumi::tell_pulumi(facts, groups),
    };
    let of_group = |group: &&ReplacedGroup| SectionGroup {
        blue: group.moved.blue.clone(),
        green: group.moved.green.clone(),
        blue_is: match group.blue {
            BlueState::Gone => "gone",
            BlueState::There(_) => "there",
            BlueState::Unknown(_) => "unknown",
        },
    };
    ToolSection {
        tool,
        groups: groups.iter().map(of_group).collect(),
        files,
        steps,
    }
}

impl HandbackFacts {
    /// Whether the run left the control plane or an add-on at another version.
    pub fn has_changed_versions(&self) -> bool {
        self.version != self.from || self.moved_addons().next().is_some()
    }
}

impl HandbackDocument {
    /// The document for a terminal: headings, what to do, and each file whole.
    pub fn render_text(&self) -> String {
        self.render(
            &|level, title| format!("{} {title}\n", "=".repeat(level)),
            None,
        )
    }

    /// The document for a pull request.
    pub fn render_markdown(&self) -> String {
        self.render(
            &|level, title| format!("{} {title}\n", "#".repeat(level)),
            Some("```"),
        )
    }

    fn render(&self, heading: &dyn Fn(usize, &str) -> String, fence: Option<&str>) -> String {
        let title = format!("Handback of run {} of {}", self.run, self.cluster);
        let mut out = heading(1, &title);
        for note in &self.notes {
            // Writing to a String cannot fail.
            let _ = write!(out, "\n{note}\n");
        }
        for section in &self.tools {
            let _ = write!(out, "\n{}\n", heading(2, section.tool.name()));
            for group in &section.groups {
                let _ = writeln!(
                    out,
                    "- {} was replaced by {}, and is {}",
                    group.blue,
                    group.green,
                    match group.blue_is {
                        "unknown" => "gone or not: that could not be read",
                        known => known,
                    }
                );
            }
            write_parts(&mut out, (&section.steps, &section.files), heading, fence);
        }
        if let Some(section) = &self.node_pools {
            let _ = write!(out, "\n{}\n", heading(2, "NodePools"));
            for pair in &section.node_pools {
                let _ = writeln!(out, "- {} was replaced by {}", pair.blue, pair.green);
            }
            write_parts(&mut out, (&section.steps, &section.files), heading, fence);
        }
        out
    }

    /// All files that it has.
    pub fn files(&self) -> impl Iterator<Item = &HandbackFile> {
        let of_tools = self.tools.iter().flat_map(|t| &t.files);
        of_tools.chain(self.node_pools.iter().flat_map(|s| &s.files))
    }
}

/// Writes what to do, and each file whole.
fn write_parts(
    out: &mut String,
    (steps, files): (&[HandbackStep], &[HandbackFile]),
    heading: &dyn Fn(usize, &str) -> String,
    fence: Option<&str>,
) {
    for (i, step) in steps.iter().enumerate() {
        let _ = write!(out, "\n{}. {}\n", i + 1, step.what);
        match (&step.command, fence) {
            (Some(command), Some(fence)) => {
                let _ = write!(out, "\n   {fence}sh\n   {command}\n   {fence}\n");
            }
            (Some(command), None) => {
                let _ = write!(out, "\n       {command}\n");
            }
            (None, _) => {}
        }
    }
    for file in files {
        let _ = write!(out, "\n{}\n", heading(3, &file.name));
        match fence {
            Some(fence) => {
                let _ = write!(out, "{fence}{}\n{}{fence}\n", file.language, file.text);
            }
            None => out.push_str(&file.text),
        }
    }
}
