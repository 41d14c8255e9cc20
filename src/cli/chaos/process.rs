//! One process of an upgrade on the twin: what `eksup apply` or `eksup rollback` runs, over a wire that can be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tower::ServiceExt;

use super::weather::Fate;
use crate::cli::apply::{Wish, ahead};
use crate::cli::carry::{Errand, Trip};
use crate::cli::ended::end;
use crate::cli::error::CliError;
use crate::cli::journey::Journey;
use crate::cli::rehearse::reach;
use crate::cli::ui::Ui;
use crate::engine::{Asker, stop};
use crate::event::{self, Event, Message};
use crate::model::Clock;
use crate::model::marks::RUN_NAMESPACE;
use crate::model::snapshot::Snapshot;
use crate::plan::digest;
use crate::twin::{Twin, laws};
use crate::wire::{Request, Wire};

/// Which way a process goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Forward,
    Back,
}

/// No upgrade of these plans takes longer; a process that has not ended by then never does.
pub const LONGEST_PROCESS: Duration = Duration::from_secs(7 * 86_400);

/// What became of a process.
#[derive(Debug)]
pub enum End {
    /// It went on without an end.
    Endless,
    /// It ended by itself.
    Exit(Result<(), CliError>),
    /// It died.
    Died,
}

/// What every process of a trial shares.
pub struct Stage<'a> {
    pub twin: &'a Twin,
    pub snapshot: &'a Snapshot,
    pub wish: &'a Wish,
    pub ui: &'a Ui,
    /// The machine's clock, which may jump.
    pub clock: Clock,
    /// What is put around each process's wire: a test's way to break the program.
    pub around: Option<Around<'a>>,
    /// Requests sent by all processes.
    pub requests: Arc<AtomicU64>,
}

/// Puts something around a wire.
pub type Around<'a> = &'a (dyn Fn(Wire) -> Wire + Sync);

/// Whether a request writes a record of the journal.
fn is_record(request: &Request) -> bool {
    let writes = request.method() == http::Method::PATCH || request.method() == http::Method::POST;
    let journal = format!("/namespaces/{RUN_NAMESPACE}/configmaps");
    writes && request.uri().path().contains(&journal)
}

/// A process's connection to the world.
struct Line {
    holder: String,
    /// Requests still to be sent before it dies; only records of the journal count where `records`.
    left: AtomicU64,
    records: bool,
    answered: bool,
    dead: watch::Sender<bool>,
    /// Frozen from, until.
    frozen: Option<(Instant, Instant)>,
    requests: Arc<AtomicU64>,
}

impl Line {
    fn frozen(&self, now: Instant) -> Option<Instant> {
        self.frozen
            .filter(|(from, until)| (*from..*until).contains(&now))
            .map(|(_, until)| until)
    }

    async fn send(
        self: Arc<Self>,
        twin: Wire,
        mut request: Request,
    ) -> Result<crate::wire::Response, crate::wire::BoxError> {
        if let Some(thaw) = self.frozen(Instant::now()) {
            sleep_until(thaw).await;
            return Err("connection timed out".into());
        }
        let counts = !self.records || is_record(&request);
        let left = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| {
                if counts {
                    n.checked_sub(1)
                } else {
                    (n > 0).then_some(n)
                }
            });
        let left = left.map(|n| if counts { n } else { u64::MAX });
        if let Ok(name) = http::HeaderValue::from_str(&self.holder) {
            request.headers_mut().insert(laws::PROCESS, name);
        }
        match left {
            Ok(1) if self.answered => {
                self.requests.fetch_add(1, Ordering::SeqCst);
                // What it would have answered is lost with the process, which dies even where nobody waits for it any more.
                let line = self.clone();
                tokio::spawn(async move {
                    let _ = twin.oneshot(request).await;
                    line.dead.send_replace(true);
                });
                std::future::pending().await
            }
            Ok(1) => {
                self.dead.send_replace(true);
                std::future::pending().await
            }
            Ok(_) => {
                self.requests.fetch_add(1, Ordering::SeqCst);
                twin.oneshot(request).await
            }
            Err(_) => std::future::pending().await,
        }
    }
}

impl Stage<'_> {
    /// Runs a process in its fate. Returns how it ended, and what it told.
    pub async fn run(&self, name: &str, way: Way, fate: Fate) -> (End, Vec<Event>) {
        let start = Instant::now();
        let (left, records, answered) = match fate {
            Fate::Dies { request, answered } => (request, false, answered),
            Fate::DiesAtRecord { record, answered } => (record, true, answered),
            _ => (u64::MAX, false, false),
        };
        let frozen = match fate {
            Fate::Sleeps { after, lasts } => Some((start + after, start + after + lasts)),
            _ => None,
        };
        let line = Arc::new(Line {
            holder: name.to_owned(),
            left: AtomicU64::new(left),
            records,
            answered,
            dead: watch::Sender::new(false),
            frozen,
            requests: self.requests.clone(),
        });
        let (bus, told) = event::bus();
        let (asker, stop) = stop::channel();
        let work = self.work(way, name, line.clone(), bus, stop);
        let end = {
            let work = std::pin::pin!(work);
            let mut dead = line.dead.subscribe();
            let dies = async {
                let _ = dead.wait_for(|dead| *dead).await;
            };
            tokio::select! {
                biased;
                () = dies => End::Died,
                () = sleep(LONGEST_PROCESS) => End::Endless,
                exit = fare(work, fate, &asker, &self.clock) => {
                    End::Exit(exit.map_err(|e| e.or_next(resume(way))))
                }
            }
        };
        if matches!(end, End::Exit(Ok(()))) {
            // Now, before anybody fixes anything: that it is done is what the user is told.
            self.twin.with(laws::run_done);
        }
        // Whatever of it is still about hears nothing more.
        line.left.store(0, Ordering::SeqCst);
        let events = told.try_iter().filter_map(|m| match m {
            Message::Event(event) => Some(*event),
            Message::Close => None,
        });
        (end, events.collect())
    }

    async fn work(
        &self,
        way: Way,
        name: &str,
        line: Arc<Line>,
        bus: event::Bus,
        stop: crate::engine::Stop,
    ) -> Result<(), CliError> {
        let twin = self.twin.wire();
        let wire = Wire::new(tower::service_fn(move |request: Request| {
            let (twin, line) = (twin.clone(), line.clone());
            async move { line.send(twin, request).await }
        }));
        let wire = match self.around {
            Some(around) => around(wire),
            None => wire,
        };
        let reached = reach(wire, self.snapshot, &self.clock).await?;
        let resume = resume(way);
        let trip = Trip {
            ui: self.ui,
            reached: &reached,
            stop,
            holder: name.to_owned(),
            resume: resume.to_owned(),
            record: None,
            accept_short: Vec::new(),
            passed_over: std::collections::BTreeSet::new(),
            live: false,
        };
        let errand = match way {
            Way::Forward => {
                let Some(ahead) = ahead(&reached, self.wish, None)
                    .await?
                    .go(&self.wish.plan, resume)?
                else {
                    return Ok(());
                };
                Errand::Forward {
                    plan: &self.wish.plan,
                    digest: digest(&self.wish.plan),
                    route: ahead.fresh,
                    until: None,
                }
            }
            Way::Back => Errand::Back {
                control_plane: false,
            },
        };
        let (state, ended) = Journey::new(&trip, bus, None).go(errand).await;
        let run = state.map(|s| s.run).unwrap_or_default();
        ended.and_then(|ended| end(&run, ended, resume))
    }
}

/// The command that goes on.
fn resume(way: Way) -> &'static str {
    match way {
        Way::Forward => "eksup apply plan.yaml",
        Way::Back => "eksup rollback plan.yaml",
    }
}

/// Carries a process through what its fate has in store beside its death.
async fn fare<T>(
    mut work: std::pin::Pin<&mut impl Future<Output = T>>,
    fate: Fate,
    asker: &Asker,
    clock: &Clock,
) -> T {
    let after = match fate {
        Fate::Asked { after, .. } | Fate::Sleeps { after, .. } | Fate::Jumps { after, .. } => after,
        Fate::Lives | Fate::Dies { .. } | Fate::DiesAtRecord { .. } | Fate::Rivalled { .. } => {
            return work.await;
        }
    };
    tokio::select! {
        biased;
        out = &mut work => return out,
        () = sleep(after) => {}
    }
    match fate {
        Fate::Asked { twice, .. } => {
            asker.ask();
            if twice {
                tokio::select! {
                    biased;
                    out = &mut work => return out,
                    () = sleep(Duration::from_millis(300)) => asker.ask(),
                }
            }
        }
        // What sleeps is not polled.
        Fate::Sleeps { lasts, .. } => sleep(lasts).await,
        Fate::Jumps { seconds, .. } => clock.leap(jiff::SignedDuration::from_secs(seconds)),
        Fate::Lives | Fate::Dies { .. } | Fate::DiesAtRecord { .. } | Fate::Rivalled { .. } => {}
    }
    work.await
}
