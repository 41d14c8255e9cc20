//! Words that stand for steps: ids, kinds of steps, and patterns of either with `*`. Pure.

use super::step_gates::step_kind;
use super::types::{Route, RouteStep};
use crate::plan::nearest_words;
use crate::plan::windows_and_approvals::STEP_KINDS;

/// How many near ones are named.
const NAMED_STEPS_LIMIT: usize = 3;

/// A word of a plan that stands for steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepPattern<'a>(pub &'a str);

impl StepPattern<'_> {
    /// Whether it stands for a step.
    pub fn matches_step(self, step: &RouteStep) -> bool {
        self.matches_text(&step.id) || self.matches_text(step_kind(&step.spec))
    }

    /// Whether it may guard something: it stands for a step of the route, or is a kind of which the route has none.
    pub fn has_meaning_in(self, route: &Route) -> bool {
        STEP_KINDS.contains(&self.0) || route.steps.iter().any(|step| self.matches_step(step))
    }

    /// The ids and kinds that it may have meant; all kinds of the route where none is near.
    pub fn near_words(self, route: &Route) -> Vec<String> {
        let ids = route.steps.iter().map(|step| step.id.as_str());
        let kinds = route.steps.iter().map(|step| step_kind(&step.spec));
        let mut kinds: Vec<&str> = kinds.collect();
        kinds.sort_unstable();
        kinds.dedup();
        let words: Vec<&str> = ids.chain(kinds.iter().copied()).collect();
        // Of a pattern, the part before its first `*` is compared with as much of each word, or that after its last.
        let literal = match self.0.split_once('*') {
            None => None,
            Some(("", rest)) => Some((rest.rsplit('*').next().unwrap_or_default(), false)),
            Some((first, _)) => Some((first, true)),
        };
        let near = match literal {
            None => nearest_words(self.0, words.iter().map(|word| (*word, *word))),
            Some((literal, at_start)) => {
                let compared = words.iter().map(|word| {
                    let chars = word.chars().count();
                    let skip = if at_start {
                        0
                    } else {
                        chars.saturating_sub(literal.chars().count())
                    };
                    let end = skip + literal.chars().count();
                    (slice_of(word, skip, end), *word)
                });
                nearest_words(literal, compared)
            }
        };
        let near: Vec<String> = near.into_iter().map(str::to_owned).collect();
        if near.is_empty() {
            return kinds.into_iter().map(str::to_owned).collect();
        }
        near.into_iter().take(NAMED_STEPS_LIMIT).collect()
    }

    fn matches_text(self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let (Some(first), parts) = (parts.next(), parts.collect::<Vec<&str>>()) else {
            return false;
        };
        let Some((last, middle)) = parts.split_last() else {
            return self.0 == text;
        };
        let Some(mut rest) = text.strip_prefix(first) else {
            return false;
        };
        for part in middle {
            match rest.split_once(part) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

/// The characters of a text from one place to another, by number.
fn slice_of(text: &str, from: usize, to: usize) -> &str {
    let place = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
    &text[place(from)..place(to)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Minor;
    use crate::plan::Plan;
    use crate::route::{build_route, fixture};

    #[test]
    fn a_star_stands_for_any_text_and_nothing_else_is_special() {
        let matches = |pattern, text| StepPattern(pattern).matches_text(text);
        assert!(matches("drain-*", "drain-apps-blue") && matches("*", "anything"));
        assert!(matches("*-blue", "drain-apps-blue") && matches("d*-b*e", "drain-apps-blue"));
        assert!(matches("control-plane-1.2*", "control-plane-1.28"));
        assert!(!matches("drain-*", "drain") && !matches("drain", "drain-apps-blue"));
        assert!(!matches("a*a", "a") && !matches("control.plane*", "control-plane"));
        assert!(!matches("*x*", "drain") && matches("**", ""));
    }

    #[test]
    fn a_pattern_that_matches_no_step_has_the_near_ones_named() {
        let plan = Plan::with_defaults("expense-dev", Minor::new(28));
        let route = build_route(&plan, &fixture::expense_dev()).unwrap();
        let ids = |kind: &str| -> Vec<String> {
            let steps = route.steps.iter().filter(|s| step_kind(&s.spec) == kind);
            steps.map(|s| s.id.clone()).collect()
        };
        let drain = &ids("drain")[0];
        for (wrong, near) in [
            ("drian-*", drain.as_str()),
            ("control-plane-1.27", "control-plane-1.28"),
            ("retier", "retire"),
        ] {
            let pattern = StepPattern(wrong);
            assert!(!pattern.has_meaning_in(&route), "{wrong}");
            let words = pattern.near_words(&route);
            assert!(words.iter().any(|w| w == near), "{wrong}: {words:?}");
            assert!(words.len() <= NAMED_STEPS_LIMIT, "{words:?}");
        }
        let far = StepPattern("zzz-*").near_words(&route);
        assert!(far.iter().any(|w| w == "control-plane"), "{far:?}");
    }
}
