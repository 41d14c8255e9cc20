//! A trial: one seed's upgrade from its first process to its end, with a person at hand who mends what a stuck run names,
//! gives the next command, and takes the run back where nothing else helps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::judge::{self, World};
use super::process::{Around, End, LONGEST_PROCESS, Stage, Way};
use super::terms::skewed_clock;
use super::weather::{Fate, Weather};
use crate::cli::apply::Wish;
use crate::cli::carry::{peek, route_of};
use crate::cli::context::{Reached, silent};
use crate::cli::error::{CliError, Kind};
use crate::cli::rehearse::reach;
use crate::cli::ui::Ui;
use crate::event::Event;
use crate::journal::{Outcome, RunState};
use crate::model::snapshot::Snapshot;
use crate::model::{Clock, Inventory};
use crate::twin::laws::Laws;
use crate::twin::{Twin, fault, scenario};

/// No trial needs more processes.
const PROCESSES: usize = 60;
/// Nor more time.
const LONGEST: Duration = Duration::from_secs(14 * 86_400);

thread_local! {
    static SEED: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// The seed whose trial this thread runs; for whoever tells of a panic.
pub fn seed_here() -> Option<u64> {
    SEED.get()
}

/// How an upgrade can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Last {
    Done,
    RolledBack,
    /// A person must look; the run says at what.
    Stuck,
    /// It never began: the cluster is not ready for it.
    NotBegun,
}

/// What came of a trial.
#[derive(Debug)]
pub struct Verdict {
    /// The weather's.
    pub number: u64,
    pub last: Option<Last>,
    /// What is wrong with it; empty for a good end.
    pub faults: Vec<String>,
    pub processes: usize,
    pub deaths: usize,
    pub requests: u64,
    /// How often the laws were looked at.
    pub looks: u64,
    pub took: Duration,
    /// Each fault rule and how often it fired.
    pub fired: Vec<(String, u32)>,
    /// The fates that came about.
    pub fates: Vec<&'static str>,
    /// How the plan and the cluster differed from those that were given.
    pub varied: Vec<&'static str>,
    /// Exit codes, in order; none for a death.
    pub exits: Vec<Option<u8>>,
    /// Each process's name, and what it told.
    pub told: Vec<(String, Vec<Event>)>,
    /// What was said at each end.
    pub said: Vec<String>,
    pub begin: Option<Inventory>,
    pub end: Option<World>,
}

/// What all trials of one plan on one cluster share.
pub struct Trial<'a> {
    pub snapshot: &'a Snapshot,
    pub wish: &'a Wish,
    pub ui: &'a Ui,
    /// The end without weather; a trial that nobody meddled with ends the same.
    pub calm: Option<&'a World>,
    /// The world before anything was done.
    pub before: Option<&'a Inventory>,
    /// Keep what the processes told.
    pub tell: bool,
    /// What is put around each process's wire.
    pub around: Option<Around<'a>>,
}

impl Trial<'_> {
    /// Runs a seed's trial in a world and a time of its own.
    pub fn run(&self, weather: &Weather) -> Result<Verdict, std::io::Error> {
        silent();
        SEED.set(Some(weather.seed));
        fastrand::seed(weather.seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        let verdict = runtime.block_on(self.play(weather));
        runtime.shutdown_background();
        Ok(verdict)
    }

    async fn play(&self, weather: &Weather) -> Verdict {
        let varied = weather.variation.of_snapshot(self.snapshot);
        let snapshot = varied.as_ref().unwrap_or(self.snapshot);
        let mut world = scenario::load(snapshot, weather.seed);
        let plan = self.plan_of(weather);
        let terms = self.terms(&plan);
        world.laws = Some(Laws::new(terms.clone().unwrap_or_default()));
        world.hasten(weather.pace.world);
        fault::add(&mut world, weather.rules.clone());
        let twin = Twin::start(world);
        let wish = Wish {
            plan,
            saved: self.wish.saved.clone(),
        };
        let stage = Stage {
            twin: &twin,
            snapshot,
            wish: &wish,
            ui: self.ui,
            clock: skewed_clock(snapshot.inventory.taken_at, &weather.rules),
            around: self.around,
            requests: Arc::new(AtomicU64::new(0)),
        };
        // Only who does not know yet what there was has to look.
        let begin = match self.before {
            Some(_) => None,
            None => look(&stage).await.ok().map(|(read, _)| read),
        };
        let begun = Instant::now();
        let mut run = Run::new(self, weather, &stage);
        run.verdict.faults.extend(terms.err());
        match tokio::time::timeout(LONGEST, run.carry_on()).await {
            Ok(last) => run.verdict.last = last,
            Err(_) => run
                .verdict
                .faults
                .push(format!("no end after {} days", LONGEST.as_secs() / 86_400)),
        }
        let mut verdict = run.verdict;
        verdict.took = begun.elapsed();
        verdict.begin = begin;
        if verdict.faults.is_empty() {
            self.judge(weather, &stage, &mut verdict).await;
        }
        verdict.requests = stage.requests.load(Ordering::SeqCst);
        twin.with(|world| {
            verdict.fired = world
                .faults
                .fired()
                .into_iter()
                .map(|(r, n)| (r.to_owned(), n))
                .collect();
            if let Some(laws) = &world.laws {
                verdict.looks = laws.looks();
                verdict
                    .faults
                    .extend(laws.breaches().iter().map(|b| format!("law broken: {b}")));
            }
        });
        verdict
    }

    /// Holds the end against what it claims to be.
    async fn judge(&self, weather: &Weather, stage: &Stage<'_>, verdict: &mut Verdict) {
        let Some(last) = verdict.last else { return };
        // What others broke is mended, and the cluster comes to rest.
        stage.twin.with(|world| {
            world.faults.cease();
            fault::mend(world);
        });
        sleep(Duration::from_secs(1800)).await;
        let (read, state) = match look(stage).await {
            Ok(both) => both,
            Err(error) => {
                verdict.faults.push(format!(
                    "the cluster cannot be read at the end: {}",
                    error.message
                ));
                return;
            }
        };
        let faults = &mut verdict.faults;
        let end = World::of(&read);
        let route = state.as_ref().map(route_of);
        if last == Last::Done {
            match &route {
                Some(Ok(route)) => faults.extend(judge::undone(&read, route)),
                Some(Err(error)) => faults.push(error.message.clone()),
                None => faults.push("done, and the journal knows of no run".to_owned()),
            }
            if let Some(calm) = self.calm.filter(|_| !weather.meddled) {
                faults.extend(
                    end.differs(calm)
                        .into_iter()
                        .map(|d| format!("not as without weather: {d}")),
                );
            }
        }
        if last == Last::RolledBack && !weather.meddled {
            let differs = self
                .before
                .map(|before| end.differs(&World::of(before)))
                .unwrap_or_default();
            // Versions are kept.
            let kept = |d: &String| d.starts_with("cluster:") || d.starts_with("add-on ");
            let differs = differs.into_iter().filter(|d| !kept(d));
            faults.extend(differs.map(|d| format!("not as before the run: {d}")));
        }
        if last != Last::Stuck {
            faults.extend(judge::marks_left(&read));
            // Where somebody deletes a group nothing needs to run there.
            let deleted = |rule: &str| rule.starts_with("delete-group");
            let shrunk = |rule: &str| rule.starts_with("scale:") && rule.contains(":-");
            if !fired(stage, deleted) {
                faults.extend(judge::short(&read, fired(stage, shrunk)));
            }
        }
        verdict.end = Some(end);
    }
}

/// Whether a fault of that kind has come about.
fn fired(stage: &Stage<'_>, kind: impl Fn(&str) -> bool) -> bool {
    let rules = |world: &mut crate::twin::world::World| {
        let mut fired = world.faults.fired().into_iter();
        fired.any(|(rule, times)| times > 0 && kind(rule))
    };
    stage.twin.with(rules)
}

/// Reads the cluster and its run.
async fn look(stage: &Stage<'_>) -> Result<(Inventory, Option<RunState>), CliError> {
    let clock = Clock::starting_at(stage.twin.with(|world| world.now()));
    let reached: Reached = reach(stage.twin.wire(), stage.snapshot, &clock).await?;
    let read = reached.read(None).await?;
    Ok((read, peek(&reached).await?))
}

/// A trial under way.
struct Run<'a, 'w> {
    trial: &'a Trial<'a>,
    weather: &'a Weather,
    stage: &'a Stage<'w>,
    verdict: Verdict,
    way: Way,
    /// Somebody has asked for the way back.
    turned: bool,
    stuck: usize,
    refused: usize,
}

impl<'a, 'w> Run<'a, 'w> {
    fn new(trial: &'a Trial<'a>, weather: &'a Weather, stage: &'a Stage<'w>) -> Self {
        let verdict = Verdict {
            number: weather.number,
            last: None,
            faults: Vec::new(),
            processes: 0,
            deaths: 0,
            requests: 0,
            looks: 0,
            took: Duration::ZERO,
            fired: Vec::new(),
            fates: Vec::new(),
            varied: weather.variation.classes(),
            exits: Vec::new(),
            told: Vec::new(),
            said: Vec::new(),
            begin: None,
            end: None,
        };
        Self {
            trial,
            weather,
            stage,
            verdict,
            way: Way::Forward,
            turned: false,
            stuck: 0,
            refused: 0,
        }
    }

    /// Process after process.
    async fn carry_on(&mut self) -> Option<Last> {
        while self.verdict.processes < PROCESSES {
            let fate = self
                .weather
                .fates
                .get(self.verdict.processes)
                .copied()
                .unwrap_or(Fate::Lives);
            let mut last = None;
            for end in self.processes(fate).await {
                last = last.or(self.after(end).await);
            }
            if last.is_some() || !self.verdict.faults.is_empty() {
                return last;
            }
            if self.weather.turns_back_after == Some(self.verdict.processes) {
                self.way = Way::Back;
                self.turned = true;
            }
        }
        self.verdict
            .faults
            .push(format!("no end after {PROCESSES} processes"));
        None
    }

    /// A process in its fate, and the one that is started beside it where there is one.
    async fn processes(&mut self, fate: Fate) -> Vec<End> {
        let (stage, way) = (self.stage, self.way);
        self.verdict.processes += 1;
        let name = format!("process-{}", self.verdict.processes);
        let beside = match fate {
            Fate::Sleeps { after, .. } => Some(after + Duration::from_secs(1)),
            Fate::Rivalled { after } => Some(after),
            _ => None,
        };
        let Some(beside) = beside else {
            let (end, told) = stage.run(&name, way, fate).await;
            self.note(&name, &end, told, fate);
            return vec![end];
        };
        let rival = format!("{name}-rival");
        let begun = Instant::now();
        let ((first, first_told), second) = tokio::join!(
            biased;
            stage.run(&name, way, fate),
            async {
                sleep(beside).await;
                stage.run(&rival, way, Fate::Lives).await
            }
        );
        let (second, second_told) = second;
        if begun.elapsed() > beside {
            self.verdict
                .fates
                .push(if matches!(fate, Fate::Sleeps { .. }) {
                    "frozen"
                } else {
                    "rival"
                });
        }
        self.note(&name, &first, first_told, Fate::Lives);
        self.note(&rival, &second, second_told, Fate::Lives);
        vec![first, second]
    }

    fn note(&mut self, name: &str, end: &End, told: Vec<Event>, fate: Fate) {
        let verdict = &mut self.verdict;
        match end {
            End::Died => {
                verdict.deaths += 1;
                let answered = matches!(
                    fate,
                    Fate::Dies { answered: true, .. } | Fate::DiesAtRecord { answered: true, .. }
                );
                verdict.fates.push(if answered {
                    "death after a request"
                } else {
                    "death before a request"
                });
                verdict.exits.push(None);
                verdict.said.push(format!("{name} died"));
            }
            End::Endless => {
                let days = LONGEST_PROCESS.as_secs() / 86_400;
                verdict.faults.push(format!("no end after {days} days"));
                verdict.said.push(format!("{name} did not end"));
            }
            End::Exit(exit) => {
                let code = exit.as_ref().err().map_or(0, |e| e.kind.code());
                verdict.exits.push(Some(code));
                let text = exit
                    .as_ref()
                    .err()
                    .map(|e| format!(": {}", e.message))
                    .unwrap_or_default();
                verdict.said.push(format!("{name} ended with {code}{text}"));
                match fate {
                    Fate::Asked { .. } if code == Kind::Paused.code() => {
                        verdict.fates.push("signal")
                    }
                    Fate::Jumps { .. } => verdict.fates.push("clock jump"),
                    _ => {}
                }
            }
        }
        if self.trial.tell {
            verdict.told.push((name.to_owned(), told));
        }
    }

    /// What the person does about an end. Returns the upgrade's end when it is one.
    async fn after(&mut self, end: End) -> Option<Last> {
        let error = match end {
            End::Died => return None,
            End::Endless => return Some(Last::Stuck),
            End::Exit(Ok(())) => return Some(Last::Done),
            End::Exit(Err(error)) => error,
        };
        if error.message.trim().is_empty() || error.next.is_none() {
            self.verdict.faults.push(format!(
                "an end that says nothing or no next command: {error:?}"
            ));
        }
        match error.kind {
            Kind::RolledBack => return Some(Last::RolledBack),
            Kind::Paused => {}
            // Fresh credentials come by and by; so does the lock.
            Kind::Expired | Kind::Locked => sleep(Duration::from_secs(300)).await,
            Kind::Stuck => return self.stuck().await,
            Kind::NotReady | Kind::Unexpected => return self.refused(&error).await,
            // Somebody has begun to take the run back: that goes on. Nothing else is a reason not to know one's own run.
            Kind::Mismatch if self.way == Way::Forward => {
                if !self.turned {
                    self.verdict.faults.push(format!(
                        "nobody has taken anything back, and yet: {}",
                        error.message
                    ));
                }
                self.way = Way::Back;
            }
            // Taken back already, or nothing to take back.
            Kind::Mismatch => return self.nothing_to_take_back().await,
            Kind::Usage | Kind::PlanInvalid | Kind::ChangesPending => {
                self.verdict.faults.push(format!(
                    "ended with {}: {}",
                    error.kind.code(),
                    error.message
                ));
            }
        }
        None
    }

    /// A person mends and goes on, then takes back, then leaves it to others.
    async fn stuck(&mut self) -> Option<Last> {
        self.stuck += 1;
        self.stage.twin.with(|world| self.weather.mend(world));
        sleep(Duration::from_secs(900)).await;
        match (self.stuck, self.way) {
            (1..=3, _) => None,
            (4, Way::Forward) => {
                self.way = Way::Back;
                self.turned = true;
                None
            }
            (4..=7, Way::Back) => None,
            _ => Some(Last::Stuck),
        }
    }

    async fn refused(&mut self, error: &CliError) -> Option<Last> {
        self.refused += 1;
        self.stage.twin.with(|world| {
            self.weather.mend(world);
            // A person waits until what cannot be reached can be.
            if self.refused >= 6 {
                world.faults.cease();
            }
        });
        sleep(Duration::from_secs(900)).await;
        if self.refused < 8 {
            return None;
        }
        let open = match look(self.stage).await {
            Ok((_, state)) => state.is_some_and(|s| !s.is_closed()),
            Err(_) => true,
        };
        if open {
            self.verdict
                .faults
                .push(format!("an open run cannot go on: {}", error.message));
        }
        Some(Last::NotBegun)
    }

    async fn nothing_to_take_back(&mut self) -> Option<Last> {
        match look(self.stage).await {
            Ok((_, Some(state))) => match state.outcome {
                Some(Outcome::RolledBack) => Some(Last::RolledBack),
                Some(Outcome::Stuck) => Some(Last::Stuck),
                Some(Outcome::Done) | Some(Outcome::Rerouted) | None => {
                    self.way = Way::Forward;
                    None
                }
            },
            Ok((_, None)) => {
                self.way = Way::Forward;
                None
            }
            // A fault may stand in the way of one look; the number of processes bounds how often this is tried.
            Err(_) => None,
        }
    }
}
