//! One blue and its green within a migration.

use super::node_groups::GroupMigration;

/// One blue and its green within a migration.
pub struct GroupMove<'m, 'a> {
    pub migration: &'m GroupMigration<'a>,
    /// What stands there now: the origin, or the green of an earlier migration.
    pub blue: String,
    pub green: String,
    /// Pairs whose other side green goes to, as `(live, other)`.
    pub sides: Vec<(usize, String, String)>,
    /// Target groups that green shares with blue.
    pub shared: Vec<String>,
}

impl GroupMove<'_, '_> {
    /// Blue in messages, such as `node group apps`.
    pub fn blue_words(&self) -> String {
        format!(
            "{} {}",
            self.migration.origin.source.group_words(),
            self.blue
        )
    }

    /// Green in messages.
    pub fn green_words(&self) -> String {
        format!(
            "{} {}",
            self.migration.origin.source.group_words(),
            self.green
        )
    }

    /// Blue at the beginning of a title.
    pub fn blue_title(&self) -> String {
        format!(
            "{} {}",
            self.migration.origin.source.title_words(),
            self.blue
        )
    }
}
