//! How values of a plan are written where the program holds them otherwise: serde reads what [`super::keys`] has let pass into
//! these, and [`super::types`] is made of them.

use serde::{Deserialize, Deserializer};

use super::windows_and_approvals::parse_minutes;
use super::words::{EveryRule, TaintEffect, WholeCapacity};
use crate::model::Windows;
use crate::model::eks::NodegroupTaint;
use crate::model::maintenance_window::{Day, Window};

pub fn sorted_texts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let mut texts = Vec::<String>::deserialize(from)?;
    texts.sort_unstable();
    Ok(texts)
}

/// A window as a plan writes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenWindow {
    #[serde(default)]
    days: Vec<Day>,
    from: String,
    to: String,
    time_zone: String,
}

pub fn windows_from_times<'de, D: Deserializer<'de>>(from: D) -> Result<Windows, D::Error> {
    let written = Vec::<WrittenWindow>::deserialize(from)?;
    let minutes = |time: &str| {
        parse_minutes(time).ok_or_else(|| serde::de::Error::custom(format!("`{time}` is no time")))
    };
    let windows = written.into_iter().map(|mut w| {
        w.days.sort_unstable();
        Ok(Window {
            from: minutes(&w.from)?,
            to: minutes(&w.to)?,
            days: w.days,
            time_zone: w.time_zone,
        })
    });
    windows.collect::<Result<_, _>>().map(Windows)
}

pub fn none_where_empty<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Vec<String>>, D::Error> {
    Ok(Option::deserialize(from)?.filter(|texts: &Vec<String>| !texts.is_empty()))
}

/// A taint as a plan writes it.
#[derive(Deserialize)]
struct WrittenTaint {
    key: String,
    value: Option<String>,
    effect: TaintEffect,
}

pub fn taints_as_eks_has_them<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<NodegroupTaint>, D::Error> {
    let written = Vec::<WrittenTaint>::deserialize(from)?;
    let taints = written.into_iter().map(|taint| NodegroupTaint {
        key: taint.key,
        value: taint.value,
        effect: taint.effect.eks_name().to_owned(),
    });
    Ok(taints.collect())
}

/// A capacity as a plan writes it.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum WrittenCapacity {
    Word(WholeCapacity),
    More { surge: u32 },
}

/// A consent as a plan writes it: a word for all workloads, or a list of those that are meant.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum WrittenConsent<W> {
    Word(W),
    Only { evict: Vec<String> },
}

/// A rule as a plan writes it.
#[derive(Deserialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub enum WrittenRule {
    Arn {
        arn: String,
    },
    Match {
        load_balancer: String,
        port: u16,
        #[serde(default)]
        conditions: Vec<String>,
    },
    Word(EveryRule),
}
