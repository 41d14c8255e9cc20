//! A twin, real clients over its wire, and the engine.

use std::sync::{Arc, Mutex};

use eksup::aws::Aws;
use eksup::engine::{About, Ended, Engine, Planned, stop};
use eksup::event::{Event, Kind};
use eksup::inventory::connect;
use eksup::journal::memory::Memory;
use eksup::journal::{FORMAT, InCluster, Journal, Opened};
use eksup::k8s::{Cache, Kube};
use eksup::model::{Clock, Inventory, Minor};
use eksup::steps::{self, World};
use eksup::twin::{Twin, scenario};

pub struct Rig {
    pub twin: Twin,
    pub clock: Clock,
    pub aws: Aws,
    pub kube: Kube,
    pub cluster: eksup::model::eks::Cluster,
}

impl Rig {
    pub async fn expense_dev(seed: u64) -> Self {
        fastrand::seed(seed);
        let snapshot = scenario::expense_dev();
        let clock = Clock::starting_at(snapshot.inventory.taken_at);
        let twin = Twin::start(scenario::load(&snapshot, seed));
        let aws = Aws::new(&eksup::clients::aws::over(
            twin.wire(),
            &snapshot.inventory.region,
            &clock,
        ));
        let cluster = connect::find(&aws, &snapshot.inventory.cluster.name)
            .await
            .unwrap();
        let kube = connect::over(&aws, &cluster, &clock, twin.wire()).unwrap();
        Self {
            twin,
            clock,
            aws,
            kube,
            cluster,
        }
    }

    pub async fn read(&self, to: Minor) -> Inventory {
        eksup::inventory::read(
            &self.aws,
            &self.kube,
            &self.cluster.name,
            Some(to),
            &self.clock,
        )
        .await
        .unwrap()
    }

    /// Runs a plan to its end; returns what was said, a line each.
    pub async fn apply(&self, plan: &str) -> (Ended, Vec<String>) {
        let plan = eksup::plan::parse("plan.yaml", plan).unwrap();
        let inventory = self.read(plan.to).await;
        let route = eksup::route::build(&plan, &inventory).unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (sink, start) = (log.clone(), self.clock.now());
        let emit = move |event: Event| {
            let at = event.at.duration_since(start).as_secs();
            let text = match &event.kind {
                Kind::Progress(p) => format!("    {}: {} {:?}", p.step, p.why, p.part),
                other => format!("{other:?}"),
            };
            sink.lock().unwrap().push(format!("{at:>6} {text}"));
        };
        let run = "run-1".to_owned();
        let world = World {
            cluster: self.cluster.name.clone(),
            run: run.clone(),
            aws: self.aws.clone(),
            kube: self.kube.clone(),
            cache: Cache::start(&self.kube),
            clock: self.clock.clone(),
            emit: Arc::new(emit),
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
        let memory = Arc::new(Memory::default());
        let mut journal = Journal::load(Box::new(InCluster::new(memory, Arc::new(|_| {}))))
            .await
            .unwrap();
        let (_asker, stop) = stop::channel();
        let mut engine = Engine {
            world: &world,
            steps: &steps,
            journal: &mut journal,
            lock: None,
            stop,
            until: None,
            resume: "eksup apply".into(),
        };
        let opened = Opened {
            format: FORMAT,
            run,
            plan_digest: eksup::plan::digest(&plan),
            cluster_arn: self.cluster.arn.clone(),
            steps: route.steps.iter().map(|s| s.id.clone()).collect(),
            route: serde_json::to_value(&route).unwrap(),
        };
        let about = About {
            cluster: route.cluster.clone(),
            from: route.from.to_string(),
            to: route.to.to_string(),
        };
        engine.open(opened, about).await.unwrap();
        let ended = engine.forward().await.unwrap();
        let log = log.lock().unwrap().clone();
        (ended, log)
    }
}
