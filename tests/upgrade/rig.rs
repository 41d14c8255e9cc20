//! A twin, real clients over its wire, and the engine: what a process does, as often as it is started.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use eksup::aws::Aws;
use eksup::engine::{About, Ended, Engine, Gates, Planned, stop};
use eksup::event::{Event, Kind};
use eksup::inventory::connect;
use eksup::journal::memory::Memory;
use eksup::journal::{FORMAT, InCluster, Journal, Opened};
use eksup::k8s::{Cache, Kube};
use eksup::model::snapshot::Snapshot;
use eksup::model::{Clock, Inventory};
use eksup::plan::Plan;
use eksup::route::Route;
use eksup::steps::{self, World};
use eksup::twin::{Twin, scenario};
use eksup::wire::{Request, Wire};

/// One world and one run's journal; processes come and go.
pub struct Rig {
    pub twin: Twin,
    pub clock: Clock,
    pub plan: Plan,
    region: String,
    journal: Arc<Memory>,
    /// How many requests the process may still send; then it is dead and hears nothing more.
    life: Arc<AtomicU64>,
    log: Arc<Mutex<Vec<String>>>,
}

/// Which way a process goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Forward,
    Back,
}

impl Rig {
    /// A world from a snapshot, and a plan for it.
    pub fn new(snapshot: &Snapshot, plan: &str, seed: u64) -> Self {
        fastrand::seed(seed);
        let clock = Clock::starting_at(snapshot.inventory.taken_at);
        Self {
            twin: Twin::start(scenario::load(snapshot, seed)),
            clock,
            plan: eksup::plan::parse("plan.yaml", plan).unwrap(),
            region: snapshot.inventory.region.clone(),
            journal: Arc::default(),
            life: Arc::new(AtomicU64::new(u64::MAX)),
            log: Arc::default(),
        }
    }

    /// The twin's wire, cut off when the process's life is over.
    fn wire(&self) -> Wire {
        let (wire, life) = (self.twin.wire(), self.life.clone());
        Wire::new(tower::service_fn(move |request: Request| {
            let (wire, life) = (wire.clone(), life.clone());
            async move {
                if life
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                    .is_err()
                {
                    return std::future::pending().await;
                }
                tower::ServiceExt::oneshot(wire, request).await
            }
        }))
    }

    async fn clients(&self) -> (Aws, Kube) {
        let aws = Aws::new(&eksup::clients::aws::over(
            self.wire(),
            &self.region,
            &self.clock,
        ));
        let cluster = connect::find(&aws, &self.plan.cluster).await.unwrap();
        let kube = connect::over(&aws, &cluster, &self.clock, self.wire()).unwrap();
        (aws, kube)
    }

    pub async fn read(&self) -> Inventory {
        let (aws, kube) = self.clients().await;
        eksup::inventory::read(
            &aws,
            &kube,
            &self.plan.cluster,
            Some(self.plan.to),
            &self.clock,
        )
        .await
        .unwrap()
    }

    /// What was said so far, a line each.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Runs to the end.
    pub async fn apply(&self) -> Ended {
        self.process(Way::Forward, None).await
    }

    /// Runs until after a step.
    pub async fn apply_until(&self, step: &str) -> Ended {
        self.process(Way::Forward, Some(step.to_owned())).await
    }

    /// Runs a process that dies after `requests`; whether it came to an end before.
    pub async fn apply_and_die_after(&self, requests: u64) -> Option<Ended> {
        self.life.store(requests, Ordering::SeqCst);
        let process = self.process(Way::Forward, None);
        // A dead process says nothing for ever; an upgrade takes hours.
        let ended = tokio::select! {
            biased;
            ended = process => Some(ended),
            () = self.dead() => None,
        };
        self.life.store(u64::MAX, Ordering::SeqCst);
        ended
    }

    async fn dead(&self) {
        while self.life.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    pub async fn rollback(&self) -> Ended {
        self.process(Way::Back, None).await
    }

    async fn process(&self, way: Way, until: Option<String>) -> Ended {
        let (aws, kube) = self.clients().await;
        let store = InCluster::new(self.journal.clone(), Arc::new(|_| {}));
        let mut journal = Journal::load(Box::new(store)).await.unwrap();
        let open = journal.state().filter(|s| !s.is_closed());
        let (run, route, fresh) = match open {
            Some(state) => (
                state.run.clone(),
                serde_json::from_value(state.route.clone()).unwrap(),
                false,
            ),
            None => {
                let name = &self.plan.cluster;
                let inventory =
                    eksup::inventory::read(&aws, &kube, name, Some(self.plan.to), &self.clock)
                        .await
                        .unwrap();
                let route: Route = eksup::route::build(&self.plan, &inventory).unwrap();
                (format!("run-{}", fastrand::u32(..)), route, true)
            }
        };
        let world = World {
            cluster: self.plan.cluster.clone(),
            run: run.clone(),
            cache: Cache::start(&kube),
            aws,
            kube,
            clock: self.clock.clone(),
            emit: self.emit(),
        };
        let steps: Vec<Planned<World>> = route
            .steps
            .iter()
            .map(|s| Planned {
                id: s.id.clone(),
                title: s.title.clone(),
                step: steps::build(s, &run, false),
            })
            .collect();
        let (_asker, stop) = stop::channel();
        let resume = "eksup apply".to_owned();
        let mut engine = Engine {
            world: &world,
            steps: &steps,
            journal: &mut journal,
            lock: None,
            stop,
            until,
            gates: Gates::default(),
            resume,
        };
        if fresh {
            let opened = Opened {
                format: FORMAT,
                run,
                plan_digest: eksup::plan::digest(&self.plan),
                cluster_arn: "arn".into(),
                steps: route.steps.iter().map(|s| s.id.clone()).collect(),
                route: serde_json::to_value(&route).unwrap(),
            };
            let about = About {
                cluster: route.cluster.clone(),
                from: route.from.to_string(),
                to: route.to.to_string(),
            };
            engine.open(opened, about).await.unwrap();
        } else {
            engine.resume("test").await.unwrap();
        }
        match way {
            Way::Forward => engine.forward().await.unwrap(),
            Way::Back => engine.back(vec![]).await.unwrap(),
        }
    }

    fn emit(&self) -> Arc<dyn Fn(Event) + Send + Sync> {
        let (log, start) = (self.log.clone(), self.clock.now());
        Arc::new(move |event: Event| {
            let at = event.at.duration_since(start).as_secs();
            let text = match &event.kind {
                Kind::Progress(p) => format!("    {}: {}", p.step, p.why),
                other => format!("{other:?}"),
            };
            log.lock().unwrap().push(format!("{at:>6} {text}"));
        })
    }
}
