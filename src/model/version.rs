//! Kubernetes minors, add-on versions, and the skew that is allowed between them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A Kubernetes minor version, such as 1.29. EKS has only ever had major 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minor(u16);

/// Why a text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}")]
pub struct BadVersion {
    text: String,
    what: &'static str,
}

impl Minor {
    /// Returns Kubernetes 1.`minor`.
    pub const fn new(minor: u16) -> Self {
        Self(minor)
    }

    /// The number after the dot.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Returns the minor after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Returns the minor before this one.
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// How many minors `self` is ahead of `other`; negative when behind.
    pub const fn ahead_of(self, other: Self) -> i32 {
        self.0 as i32 - other.0 as i32
    }

    /// How many minors a kubelet of this version may trail the API server: three from 1.25 on, two before.
    /// Source: <https://kubernetes.io/releases/version-skew-policy/>.
    pub const fn kubelet_skew(self) -> i32 {
        if self.0 >= 25 { 3 } else { 2 }
    }

    /// Whether a kubelet of version `self` may work with an API server of version `server`.
    pub const fn kubelet_may_join(self, server: Self) -> bool {
        let behind = server.ahead_of(self);
        behind >= 0 && behind <= self.kubelet_skew()
    }

    /// Reads the minor out of what a server or kubelet reports: `v1.29.3-eks-adc7111`, `1.29`, `1.22+`.
    pub fn from_reported(text: &str) -> Result<Self, BadVersion> {
        let bad = || BadVersion {
            text: text.to_owned(),
            what: "a Kubernetes version such as v1.29.3",
        };
        let mut parts = text.trim().trim_start_matches('v').split(['.', '-', '+']);
        if parts.next() != Some("1") {
            return Err(bad());
        }
        parts
            .next()
            .and_then(|m| m.parse().ok())
            .map(Self)
            .ok_or_else(bad)
    }
}

impl FromStr for Minor {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let bad = || BadVersion {
            text: text.to_owned(),
            what: "a Kubernetes minor version such as 1.29",
        };
        let digits = text.strip_prefix("1.").ok_or_else(bad)?;
        if digits.is_empty() || digits.len() > 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        digits.parse().map(Self).map_err(|_| bad())
    }
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

impl fmt::Debug for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Minor {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Minor {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// An add-on version, such as `v1.18.3-eksbuild.3`, ordered as EKS orders them.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AddonVersion(String);

impl AddonVersion {
    /// Keeps `text` as it is; order is by semver where it is one, by text where not.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The version as EKS spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The version's numbers, when it is a semver one.
    pub fn parse_semver(&self) -> Option<semver::Version> {
        semver::Version::parse(self.0.trim_start_matches('v')).ok()
    }
}

impl Ord for AddonVersion {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (self.parse_semver(), other.parse_semver()) {
            (Some(a), Some(b)) => a.cmp(&b).then_with(|| self.0.cmp(&other.0)),
            (a, b) => a
                .is_some()
                .cmp(&b.is_some())
                .then_with(|| self.0.cmp(&other.0)),
        }
    }
}

impl PartialOrd for AddonVersion {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for AddonVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AddonVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minor_is_read_as_written_and_nothing_else() {
        assert_eq!("1.30".parse::<Minor>().unwrap(), Minor::new(30));
        for bad in [
            "1.3a", "2.1", "1.", "1", "v1.29", "1.29.1", "1.-1", "1.99999", "",
        ] {
            assert!(bad.parse::<Minor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_reported_version_may_have_a_patch_and_a_plus() {
        for text in ["v1.22.17-eks-0a21954", "1.22", "1.22+", "v1.22.0+k3s1"] {
            assert_eq!(
                Minor::from_reported(text).unwrap(),
                Minor::new(22),
                "{text}"
            );
        }
    }

    #[test]
    fn skew_is_three_from_1_25_and_two_before() {
        assert!(Minor::new(25).kubelet_may_join(Minor::new(28)));
        assert!(!Minor::new(25).kubelet_may_join(Minor::new(29)));
        assert!(Minor::new(24).kubelet_may_join(Minor::new(26)));
        assert!(!Minor::new(24).kubelet_may_join(Minor::new(27)));
        assert!(!Minor::new(29).kubelet_may_join(Minor::new(28)));
    }

    #[test]
    fn eksbuild_numbers_are_numbers() {
        let v = AddonVersion::new;
        assert!(v("v1.18.1-eksbuild.3") < v("v1.18.1-eksbuild.10"));
        assert!(v("v1.18.1-eksbuild.10") < v("v1.19.0-eksbuild.1"));
    }
}
