//! What a step is: it looks (observe and decide), acts, and can be rolled back.
//!
//! There is no verify: a step is finished only when a fresh look says so. That makes every step idempotent and
//! resume an ordinary run. Three things differ from a bare `observe/decide/act`:
//!
//! - the before-image is a type of its own ([`Step::BeforeImage`]), because what a decision needs (every pod of a node) is
//!   far more than what an undo needs, and the journal must fit in a ConfigMap;
//! - [`Step::decide_next`] is told the step's [`StepHistory`] from the journal, so that a bake or a deadline survives a restart;
//! - [`Step::decide_undo`] answers a [`Decision`], because taking back takes time too.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::refusal::StepRefusal;
use crate::model::clock::signed_duration;
use crate::model::{ApiError, ErrorClass};

/// What a step wants next, given what it saw.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision<A> {
    /// The world is as the step wants it; the text says how.
    Done(String),
    /// Do this, then look again.
    Act(A),
    /// Nothing to do now. `why` names the objects waited for.
    Wait {
        why: String,
        /// Look again after this long even if nothing is heard.
        recheck: Duration,
    },
    /// As `Wait`, in a rollback; and what is waited for may come from steps that are rolled back later, so they go on
    /// meanwhile. A person is asked once nothing else of them is left to do and this one is `overdue`.
    Yield {
        /// What is waited for, and what a person does about it.
        refusal: StepRefusal,
        recheck: Duration,
        overdue: bool,
    },
    /// The step cannot go on and a person must look.
    Refuse(StepRefusal),
}

impl<A> Decision<A> {
    /// The same decision, with its act made into another kind of act.
    pub fn map_act<B>(self, f: impl FnOnce(A) -> B) -> Decision<B> {
        match self {
            Self::Done(how) => Decision::Done(how),
            Self::Act(act) => Decision::Act(f(act)),
            Self::Wait { why, recheck } => Decision::Wait { why, recheck },
            Self::Yield {
                refusal,
                recheck,
                overdue,
            } => Decision::Yield {
                refusal,
                recheck,
                overdue,
            },
            Self::Refuse(refusal) => Decision::Refuse(refusal),
        }
    }
}

/// Whether a step can be rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UndoKind {
    /// [`Step::decide_undo`] brings the before-image back.
    Restore,
    /// The step changes nothing that needs taking back.
    Nothing,
    /// A point of no return, and why.
    Impossible(String),
}

/// What the journal knows of a step's earlier looks and acts, by this process or another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepHistory {
    /// From when on the attempt's deadlines and bakes count: when it began, without the time in which nobody carried the
    /// run.
    pub started_at: Option<Timestamp>,
    /// When its last act was begun, as it happened: for comparison with AWS's times, with a tolerance.
    pub last_act_at: Option<Timestamp>,
    /// From when on the last act's deadlines and bakes count; absent where that is when it was begun.
    #[serde(default)]
    pub last_act_counts_from: Option<Timestamp>,
    /// When that was over, where this process did it.
    #[serde(default)]
    pub acted_at: Option<Timestamp>,
    /// Its last act.
    pub last_act: Option<Value>,
    /// How many acts were begun.
    pub acts: u32,
    /// How many times the step failed and the run was taken up again. The rest of the past starts again each time,
    /// and tokens for once-only calls differ.
    pub attempt: u32,
}

impl StepHistory {
    /// From when on there is something to watch of the last act. A call may be tried again for minutes before it takes.
    pub fn watched_from(&self) -> Option<Timestamp> {
        self.acted_at.max(self.act_counts_from())
    }

    /// From when on deadlines of the last act count; nothing before the first.
    pub fn act_counts_from(&self) -> Option<Timestamp> {
        self.last_act_counts_from.or(self.last_act_at)
    }

    /// From when on a wait counts: from the last act, or from the attempt's beginning where there is none.
    pub fn wait_counts_from(&self) -> Option<Timestamp> {
        self.act_counts_from().or(self.started_at)
    }
}

/// A step's past on both ways, for taking it back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RollbackHistory {
    /// What the way up did.
    pub forward: StepHistory,
    /// What the rollback has done so far. It began when the step before it was back.
    pub rollback: StepHistory,
    /// Steps that are rolled back before this one are not done yet; see [`RollbackPart::MayGoEarly`].
    pub early: bool,
}

/// How a step takes part in a rollback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RollbackPart {
    /// Rolled back by itself, when everything before it is.
    #[default]
    Alone,
    /// Rolled back together with its neighbours of this kind: where one yields, the next ones go on.
    Together,
    /// Rolled back by itself; but while the steps before it yield it is asked whether it can go first.
    MayGoEarly,
}

impl RollbackHistory {
    /// Whether the rollback has stood still for longer than `patience`: since its last act, or since it began.
    pub fn is_late(&self, now: Timestamp, patience: Duration) -> bool {
        let patience = signed_duration(patience);
        let since = self
            .rollback
            .act_counts_from()
            .max(self.rollback.started_at);
        since.is_some_and(|t| now.duration_since(t) > patience)
    }
}

/// Why a look or an act failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A call failed; its class says what the engine does about it.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The world or the program is not as the step requires; a person must look.
    #[error("{0}")]
    Broken(String),
    /// The API refuses this step until node groups match the control plane; the route has to be made again.
    #[error("{0}")]
    Reroute(String),
}

impl StepError {
    /// The class of the failed call, when it was one.
    pub fn class(&self) -> Option<ErrorClass> {
        match self {
            Self::Api(error) => Some(error.class),
            Self::Broken(_) | Self::Reroute(_) => None,
        }
    }
}

/// One step of an upgrade, over a world `W` (the clients and whatever a step may ask).
pub trait Step<W>: Send + Sync {
    /// What one look reads.
    type Observation: Send + Sync;
    /// What an undo needs of what was there before the first act; goes into the journal, so keep it small.
    type BeforeImage: Serialize + DeserializeOwned + Send + Sync;
    /// What is to be done; journaled before it is done.
    type Act: Serialize + DeserializeOwned + Clone + fmt::Debug + PartialEq + Send + Sync;

    /// Looks at the world. I/O, no choices.
    fn observe_state(
        &self,
        world: &W,
    ) -> impl Future<Output = Result<Self::Observation, StepError>> + Send;
    /// Decides from one look, the step's past and the time. Does no I/O, so a decision can be repeated.
    fn decide_next(
        &self,
        seen: &Self::Observation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<Self::Act>;
    /// Cuts what was seen before the first act down to what [`Step::decide_undo`] needs.
    fn before_image(&self, seen: &Self::Observation) -> Self::BeforeImage;
    /// Performs an act that [`Step::decide_next`] or [`Step::decide_undo`] chose and the journal has. It must be safe
    /// to do again: a process that died in it, or lost the answer, does it once more after the next look.
    fn perform_act(
        &self,
        world: &W,
        act: &Self::Act,
    ) -> impl Future<Output = Result<(), StepError>> + Send;
    /// Whether the step can be rolled back.
    fn undo_kind(&self) -> UndoKind;
    /// Looks at the world on rollback, where that takes another look.
    fn observe_for_undo(
        &self,
        world: &W,
    ) -> impl Future<Output = Result<Self::Observation, StepError>> + Send {
        self.observe_state(world)
    }
    /// Chooses what brings `before` back, from how the world is now. Touches only our own marks.
    fn decide_undo(
        &self,
        before: &Self::BeforeImage,
        seen: &Self::Observation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Decision<Self::Act>;
    /// Describes an act for people, naming its objects.
    fn describe_act(&self, act: &Self::Act) -> String;
    /// Whether an act begins a part of the step that may as well wait for the next maintenance window: another node,
    /// another share of the traffic. A step's first act always does.
    fn begins_new_part(&self, _act: &Self::Act) -> bool {
        false
    }
    /// Whether nothing that was begun is under way, so that the step may be left as it is until the next window.
    fn is_at_rest(&self, _seen: &Self::Observation) -> bool {
        true
    }
}

/// A boxed future, as [`DynStep`] returns it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What one look came to, with types erased.
pub struct LookOutcome {
    pub decision: Decision<Value>,
    /// The image of this very look; the engine keeps the way up's first as the before-image.
    pub before_image: Value,
    /// Whether the act that was decided on begins a part that may wait for a window.
    pub begins_new_part: bool,
    /// Whether the step may be left as it is until then.
    pub is_at_rest: bool,
}

/// A [`Step`] with its types erased to JSON: all that engine and journal know of it.
pub trait DynStep<W>: Send + Sync {
    /// Observes and decides on the way up. `now` is asked after the reading, which may take long.
    fn look_forward<'a>(
        &'a self,
        world: &'a W,
        past: &'a StepHistory,
        now: &'a (dyn Fn() -> Timestamp + Send + Sync),
    ) -> BoxFuture<'a, Result<LookOutcome, StepError>>;
    /// Observes and decides how to bring `before` back.
    fn look_for_undo<'a>(
        &'a self,
        world: &'a W,
        before: &'a Value,
        trail: &'a RollbackHistory,
        now: &'a (dyn Fn() -> Timestamp + Send + Sync),
    ) -> BoxFuture<'a, Result<LookOutcome, StepError>>;
    /// Acts.
    fn perform_act<'a>(
        &'a self,
        world: &'a W,
        act: &'a Value,
    ) -> BoxFuture<'a, Result<(), StepError>>;
    /// Whether the step can be rolled back.
    fn undo_kind(&self) -> UndoKind;
    /// Describes an act for people.
    fn describe_act(&self, act: &Value) -> String;
}

fn to_journal_json<T: Serialize>(value: &T) -> Result<Value, StepError> {
    serde_json::to_value(value)
        .map_err(|e| StepError::Broken(format!("cannot write the journal's entry: {e}")))
}

fn from_journal_json<T: DeserializeOwned>(value: &Value, what: &str) -> Result<T, StepError> {
    T::deserialize(value)
        .map_err(|e| StepError::Broken(format!("the journal's {what} cannot be read: {e}")))
}

fn erase_act_type<A: Serialize>(decision: Decision<A>) -> Result<Decision<Value>, StepError> {
    Ok(match decision {
        Decision::Act(act) => Decision::Act(to_journal_json(&act)?),
        other @ (Decision::Done(_)
        | Decision::Wait { .. }
        | Decision::Yield { .. }
        | Decision::Refuse(_)) => other.map_act(|_| Value::Null),
    })
}

impl<W: Send + Sync, S: Step<W>> DynStep<W> for S {
    fn look_forward<'a>(
        &'a self,
        world: &'a W,
        past: &'a StepHistory,
        now: &'a (dyn Fn() -> Timestamp + Send + Sync),
    ) -> BoxFuture<'a, Result<LookOutcome, StepError>> {
        Box::pin(async move {
            // The time is read after the look, because a look may be retried for long and a deadline is judged by what
            // it saw.
            let seen = self.observe_state(world).await?;
            let decision = self.decide_next(&seen, past, now());
            Ok(LookOutcome {
                begins_new_part: matches!(&decision, Decision::Act(act) if self.begins_new_part(act)),
                is_at_rest: self.is_at_rest(&seen),
                decision: erase_act_type(decision)?,
                before_image: to_journal_json(&self.before_image(&seen))?,
            })
        })
    }

    fn look_for_undo<'a>(
        &'a self,
        world: &'a W,
        before: &'a Value,
        trail: &'a RollbackHistory,
        now: &'a (dyn Fn() -> Timestamp + Send + Sync),
    ) -> BoxFuture<'a, Result<LookOutcome, StepError>> {
        Box::pin(async move {
            let before = from_journal_json(before, "before-image")?;
            let seen = self.observe_for_undo(world).await?;
            Ok(LookOutcome {
                // The rollback waits for no window.
                begins_new_part: false,
                is_at_rest: true,
                decision: erase_act_type(self.decide_undo(&before, &seen, trail, now()))?,
                before_image: to_journal_json(&self.before_image(&seen))?,
            })
        })
    }

    fn perform_act<'a>(
        &'a self,
        world: &'a W,
        act: &'a Value,
    ) -> BoxFuture<'a, Result<(), StepError>> {
        Box::pin(async move {
            let act: S::Act = from_journal_json(act, "act")?;
            Step::perform_act(self, world, &act).await
        })
    }

    fn undo_kind(&self) -> UndoKind {
        Step::undo_kind(self)
    }

    fn describe_act(&self, act: &Value) -> String {
        match S::Act::deserialize(act) {
            Ok(act) => Step::describe_act(self, &act),
            Err(_) => act.to_string(),
        }
    }
}
