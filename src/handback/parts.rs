//! What a handback is put together from: what a person gives, files, and steps.

use std::collections::BTreeMap;

use serde::Serialize;

use super::terraform_address::TerraformAddress;
use crate::model::group_owner::OwningTool;

/// What only a person knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandbackOptions {
    /// The tool of all groups, whatever their tags say.
    pub tool: Option<OwningTool>,
    /// The address of every group that has none of its own.
    pub address: Option<TerraformAddress>,
    /// Addresses by the name of blue.
    pub addresses: BTreeMap<String, TerraformAddress>,
}

impl HandbackOptions {
    /// Where Terraform has this blue.
    pub fn address_of(&self, blue: &str) -> Option<&TerraformAddress> {
        self.addresses.get(blue).or(self.address.as_ref())
    }
}

/// A file for the tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HandbackFile {
    pub name: String,
    /// What a Markdown fence calls its language.
    pub language: &'static str,
    pub text: String,
}

/// What to do, and the command where there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HandbackStep {
    pub what: String,
    pub command: Option<String>,
}

impl HandbackStep {
    pub fn of(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            command: None,
        }
    }

    pub fn with_command(what: impl Into<String>, command: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            command: Some(command.into()),
        }
    }
}

/// A word that a shell reads as it is. One with a zero byte, which no shell takes, stays as it is.
pub fn shell_word(word: &str) -> String {
    shlex::try_quote(word).map_or_else(|_| word.to_owned(), |q| q.into_owned())
}
