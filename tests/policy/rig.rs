//! A run as the command line carries it, against a twin that lets it do only what a grant allows.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Arc, Mutex};

use eksup::aws::Aws;
use eksup::cli::remote::InKube;
use eksup::engine::{About, Ended, Engine, Planned, stop};
use eksup::event::Event;
use eksup::inventory::{connect, snapshot};
use eksup::journal::{FORMAT, InCluster, Journal, Lock, Opened};
use eksup::k8s::{Cache, Kube};
use eksup::model::snapshot::Snapshot;
use eksup::model::{Clock, Inventory};
use eksup::plan::Plan;
use eksup::ready::{self, Severity};
use eksup::route::Route;
use eksup::steps::{self, World};
use eksup::twin::aws::{Iam, caller};
use eksup::twin::k8s::Rbac;
use eksup::twin::{Twin, scenario};

use super::grant::{Grant, Permission};

/// What came of it.
#[derive(Debug)]
pub struct Told {
    /// Whether it ended as wished.
    pub well: bool,
    /// Everything a user was told.
    pub said: String,
    /// What was needed of the grant.
    pub used: BTreeSet<Permission>,
}

/// One world that lets its caller do what a grant allows.
pub struct Rig {
    twin: Twin,
    clock: Clock,
    region: String,
    plan: Plan,
    said: Arc<Mutex<Vec<String>>>,
}

/// Why a command ended before its end; the words are in the rig.
struct Failed;

type Result<T> = std::result::Result<T, Failed>;

impl Rig {
    pub fn new(snapshot: &Snapshot, plan: &str, grant: &Grant) -> Self {
        fastrand::seed(5);
        let mut world = scenario::load(snapshot, 5);
        world.cloud.iam = Some(Iam::new(grant.iam().parse().unwrap()));
        let user = caller(&world.cloud.account);
        world.kube.restrict(Rbac::read(&grant.rbac(), &user).unwrap());
        Self {
            twin: Twin::start(world),
            clock: Clock::starting_at(snapshot.inventory.taken_at),
            region: snapshot.inventory.region.clone(),
            plan: eksup::plan::parse("plan.yaml", plan).unwrap(),
            said: Arc::default(),
        }
    }

    /// The twin, for what happens behind the program's back.
    pub fn twin(&self) -> &Twin {
        &self.twin
    }

    fn say(&self, what: impl Into<String>) {
        self.said.lock().unwrap().push(what.into());
    }

    fn must<T, E: Display>(&self, result: std::result::Result<T, E>) -> Result<T> {
        result.map_err(|error| {
            self.say(error.to_string());
            Failed
        })
    }

    /// What was told so far.
    pub fn told(&self, well: bool) -> Told {
        let used = self.twin.with(|world| {
            let actions = world.cloud.iam.iter().flat_map(|iam| iam.used().clone());
            let verbs = world.kube.rbac().into_iter().flat_map(|r| r.used().clone());
            actions
                .map(Permission::Action)
                .chain(verbs.map(Permission::Verb))
                .collect()
        });
        Told {
            well,
            said: self.said.lock().unwrap().join("\n"),
            used,
        }
    }

    async fn reach(&self) -> Result<(Aws, Kube, String)> {
        let wire = self.twin.wire();
        let config = eksup::clients::aws::over(wire.clone(), &self.region, &self.clock);
        let aws = Aws::new(&config);
        let cluster = self.must(connect::find(&aws, &self.plan.cluster).await)?;
        let kube = self.must(connect::over(&aws, &cluster, &self.clock, wire))?;
        Ok((aws, kube, cluster.arn))
    }

    async fn read(&self, aws: &Aws, kube: &Kube) -> Result<Inventory> {
        let name = &self.plan.cluster;
        let to = Some(self.plan.to);
        self.must(eksup::inventory::read(aws, kube, name, to, &self.clock).await)
    }

    /// As `eksup snapshot`.
    pub async fn snapshot(&self) -> bool {
        let take = async {
            let (aws, kube, _) = self.reach().await?;
            let inventory = self.read(&aws, &kube).await?;
            let snapshot = self.must(snapshot::take(&kube, inventory).await)?;
            for unread in snapshot.inventory.unread {
                self.say(format!("{}: {}", unread.op, unread.why));
            }
            Ok::<_, Failed>(())
        };
        take.await.is_ok()
    }

    /// As `eksup apply`.
    pub async fn apply(&self, until: Option<&str>) -> bool {
        let apply = async {
            let (aws, kube, arn) = self.reach().await?;
            let inventory = self.read(&aws, &kube).await?;
            let route = eksup::route::build(&self.plan, &inventory);
            let findings = ready::judge(&self.plan, &inventory, &route);
            for f in &findings {
                self.say(format!("{} {} {}", f.code, f.subject, f.detail));
            }
            if findings.iter().any(|f| f.severity == Severity::Blocker) {
                return Err(Failed);
            }
            let route = route.map_err(|_| Failed)?;
            self.run(aws, kube, arn, Some(&route), until).await
        };
        let ended = apply.await;
        match until {
            None => matches!(ended, Ok(Ended::Done)),
            Some(_) => matches!(ended, Ok(Ended::Paused { .. })),
        }
    }

    /// As `eksup rollback --control-plane`.
    pub async fn rollback(&self) -> bool {
        let back = async {
            let (aws, kube, arn) = self.reach().await?;
            self.run(aws, kube, arn, None, None).await
        };
        matches!(back.await, Ok(Ended::RolledBack { .. }))
    }

    /// One process's part in a run: lock, journal, engine. Without a route: back.
    async fn run(
        &self,
        aws: Aws,
        kube: Kube,
        arn: String,
        fresh: Option<&Route>,
        until: Option<&str>,
    ) -> Result<Ended> {
        let remote = Arc::new(InKube(kube.clone()));
        let lock = Lock::take(remote.clone(), self.clock.clone(), "test", &|_| {}).await;
        let lock = self.must(lock)?;
        let store = InCluster::new(remote, Arc::new(|_| {}));
        let mut journal = self.must(Journal::load(Box::new(store)).await)?;
        let (run, route) = match (fresh, journal.state()) {
            (Some(route), _) => ("20261121-080000-test".to_owned(), route.clone()),
            (None, Some(state)) => (
                state.run.clone(),
                serde_json::from_value(state.route.clone()).unwrap(),
            ),
            (None, None) => panic!("there is no run to take back"),
        };
        let said = self.said.clone();
        let world = World {
            cluster: self.plan.cluster.clone(),
            run: run.clone(),
            cache: Cache::start(&kube),
            aws,
            kube,
            clock: self.clock.clone(),
            emit: Arc::new(move |event: Event| {
                if let eksup::event::Kind::Notice { text, .. } = event.kind {
                    said.lock().unwrap().push(text);
                }
            }),
        };
        let planned = |s: &eksup::route::RouteStep| Planned {
            id: s.id.clone(),
            title: s.title.clone(),
            step: steps::build(s, &run, true),
        };
        let steps: Vec<Planned<World>> = route.steps.iter().map(planned).collect();
        let (_asker, stop) = stop::channel();
        let mut engine = Engine {
            world: &world,
            steps: &steps,
            journal: &mut journal,
            lock: Some(&lock),
            stop,
            until: until.map(str::to_owned),
            resume: "eksup apply".to_owned(),
        };
        let ended = match fresh {
            Some(route) => {
                let opened = Opened {
                    format: FORMAT,
                    run: run.clone(),
                    plan_digest: eksup::plan::digest(&self.plan),
                    cluster_arn: arn,
                    steps: route.steps.iter().map(|s| s.id.clone()).collect(),
                    route: serde_json::to_value(route).unwrap(),
                };
                let about = About {
                    cluster: route.cluster.clone(),
                    from: route.from.to_string(),
                    to: route.to.to_string(),
                };
                self.must(engine.open(opened, about).await)?;
                engine.forward().await
            }
            None => {
                self.must(engine.resume("test").await)?;
                engine.back(Vec::new()).await
            }
        };
        let ended = self.must(ended)?;
        self.say(format!("{ended:?}"));
        lock.release().await;
        Ok(ended)
    }
}
