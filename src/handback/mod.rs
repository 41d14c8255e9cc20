//! What to tell the tools that own the groups of a run, so that their next plan is empty. Pure: facts in, text out.
//!
//! Nothing here is invented. A value that could not be read is a comment that begins with `unknown:`, and what only a
//! person knows, such as an address in Terraform's state, is a placeholder that begins with `REPLACE_WITH`.

mod cdk;
mod cloudformation;
mod cloudformation_nodegroup;
mod document;
mod eksctl;
mod facts;
mod hcl;
mod node_pools;
mod parts;
mod pulumi;
mod terraform;
mod terraform_address;
mod terraform_group;
mod terraform_module;
mod yaml;

#[cfg(test)]
mod tests;

pub use document::{HandbackDocument, SectionGroup, ToolSection, build_handback};
pub use facts::{
    AddonFact, BlueState, GroupKind, GroupMove, HandbackFacts, Reading, ReplacedGroup,
    changed_addons, moved_groups, moved_pools,
};
pub use node_pools::{PoolPair, PoolSection, ReplacedPool};
pub use parts::{HandbackFile, HandbackOptions, HandbackStep};
pub use terraform_address::TerraformAddress;
