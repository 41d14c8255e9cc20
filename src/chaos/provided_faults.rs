//! What a seed does to nodes that somebody else makes: Karpenter's, those of EKS Auto Mode, and Fargate's.
//!
//! It draws from a generator of its own, and only for clusters that have such nodes, so that the schedules of all others
//! stay as they are.

use super::trial_speed::TrialSpeed;
use crate::model::Inventory;
use crate::model::kube::Node;
use crate::twin::fault::WorldChangeKind;

/// What rules can be about, of nodes that somebody else makes.
#[derive(Clone, Debug, Default)]
pub struct ProvidedTargets {
    /// NodePools: Karpenter's, and those of EKS Auto Mode.
    pub pools: Vec<String>,
    /// Classes of Karpenter's NodePools.
    pub classes: Vec<String>,
    /// Pods run on Fargate.
    pub fargate: bool,
}

impl ProvidedTargets {
    /// What there is in a cluster that a plan is about to change.
    pub fn from_inventory(inventory: &Inventory) -> Self {
        let objects = inventory.karpenter.as_ref();
        let pools = objects.map_or(&[][..], |k| &k.pools);
        let classes = objects.and_then(|k| k.classes.as_deref());
        Self {
            pools: pools.iter().map(|p| p.name.clone()).collect(),
            classes: (classes.into_iter().flatten())
                .map(|c| c.name.clone())
                .collect(),
            fargate: inventory.nodes.iter().any(Node::is_fargate),
        }
    }

    /// Draws the rules of a seed: in half of the seeds one, in some two.
    pub fn draw_rules(&self, seed: u64, workloads: &[String], speed: TrialSpeed) -> Vec<String> {
        let mut kinds = Vec::new();
        if self.fargate {
            kinds.push(WorldChangeKind::FargateCapacity);
        }
        if !self.classes.is_empty() {
            kinds.push(WorldChangeKind::KarpenterDown);
            kinds.push(WorldChangeKind::NodeclassNotReady);
        }
        if !self.pools.is_empty() {
            kinds.push(WorldChangeKind::NodePoolCapacity);
            // Somebody replaces nodes in the middle of the run: more likely than in the draw of all clusters.
            kinds.push(WorldChangeKind::Karpenter);
            if !workloads.is_empty() {
                kinds.push(WorldChangeKind::DoNotDisrupt);
            }
        }
        if kinds.is_empty() {
            return Vec::new();
        }
        // The seed is spread over all bits, and by another constant than those of the schedule and the variation.
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0xa076_1d64_78bd_642f) ^ 0x9001);
        let many = [0, 0, 0, 0, 1, 1, 1, 2][rng.usize(..8)];
        let draw = |_| {
            let kind = kinds[rng.usize(..kinds.len())];
            // The first half of an upgrade is the control plane's, where these change nothing yet.
            let length = speed.expected_seconds();
            let at = rng.u64(0..length).max(rng.u64(0..length));
            let mut pick = |of: &[String]| of[rng.usize(..of.len())].clone();
            let rule = match kind {
                WorldChangeKind::NodeclassNotReady => format!("{kind}:{}", pick(&self.classes)),
                WorldChangeKind::NodePoolCapacity => format!("{kind}:{}", pick(&self.pools)),
                WorldChangeKind::DoNotDisrupt => format!("{kind}:{}", pick(workloads)),
                WorldChangeKind::FargateCapacity => format!("{kind}:{}s", rng.u32(30..2400)),
                WorldChangeKind::Karpenter => format!("{kind}:{}", rng.u32(1..=2)),
                _ => kind.to_string(),
            };
            format!("{rule}@{at}s")
        };
        (0..many).map(draw).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::fault::FaultRule;

    #[test]
    fn only_clusters_with_such_nodes_get_these_rules_and_the_grammar_knows_them() {
        let workloads = ["shop/web".to_owned()];
        let some = ProvidedTargets {
            pools: vec!["general".to_owned()],
            classes: vec!["default".to_owned()],
            fargate: true,
        };
        let mut drawn = 0;
        for seed in 0..500 {
            let speed = TrialSpeed::FASTEST;
            assert!(
                ProvidedTargets::default()
                    .draw_rules(seed, &workloads, speed)
                    .is_empty()
            );
            for text in some.draw_rules(seed, &workloads, speed) {
                let read = text.parse::<FaultRule>();
                assert!(read.is_ok(), "{text}: {read:?}");
                drawn += 1;
            }
        }
        assert!((200..400).contains(&drawn), "{drawn}");
    }
}
