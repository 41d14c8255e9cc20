//! The world: everything there is, one seed, one clock, and what is yet to happen, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::answer::Answer;
use super::fault::{self, Faults, What};
use super::laws::{self, Laws};
use super::{aws, k8s};
use crate::model::Clock;
use crate::wire::Request;

/// What a request takes on the way there and back.
pub const ROUND_TRIP: Duration = Duration::from_millis(5);

/// Something that will happen.
#[derive(Clone, Debug)]
pub enum Due {
    Cloud(aws::Due),
    Kube(k8s::Due),
    /// The change of the fault rule with this number.
    Fault(usize),
}

/// Everything there is.
#[derive(Clone)]
pub struct World {
    clock: Clock,
    now: Timestamp,
    began: Timestamp,
    queue: BTreeMap<(Timestamp, u64), Due>,
    next: u64,
    /// The one source of chance.
    pub rng: fastrand::Rng,
    pub cloud: aws::Cloud,
    pub kube: k8s::Cluster,
    pub faults: Faults,
    /// What must hold at every moment, where somebody wants to know.
    pub laws: Option<Laws>,
    /// How many times faster than AWS this one is.
    swift: u32,
}

impl World {
    /// An empty world at `clock`'s now.
    pub fn new(clock: Clock, seed: u64, cloud: aws::Cloud, kube: k8s::Cluster) -> Self {
        let now = clock.now();
        let mut world = Self {
            clock,
            now,
            began: now,
            queue: BTreeMap::new(),
            next: 0,
            rng: fastrand::Rng::with_seed(seed),
            cloud,
            kube,
            faults: Faults::default(),
            laws: None,
            swift: 1,
        };
        k8s::start(&mut world);
        aws::start(&mut world);
        world
    }

    /// The world goes on by another clock, which must begin at the world's now: so a copy can go another way from here.
    pub fn by(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// AWS is so many times faster from here on, and targets that go have as much less time to end their connections.
    pub fn hasten(&mut self, times: u32) {
        self.swift = times.max(1);
        self.cloud.elb.hasten(self.swift);
    }

    /// The time of what is happening.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Lets `due` happen after `wait`.
    pub fn after(&mut self, wait: Duration, due: Due) {
        let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        let at = self.now.saturating_add(wait).unwrap_or(Timestamp::MAX);
        self.queue.insert((at, self.next), due);
        self.next += 1;
    }

    /// A time between `from` and `to`, by chance; less in a swift world.
    pub fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let (a, b) = (from.as_millis() as u64, to.as_millis() as u64);
        Duration::from_millis(if b > a { self.rng.u64(a..=b) } else { a }) / self.swift
    }

    /// Makes everything happen that is due by the clock's now, in order, each at its own time.
    pub fn catch_up(&mut self) {
        let now = self.clock.now();
        while let Some(entry) = self.queue.first_entry() {
            let at = entry.key().0;
            if at > now {
                break;
            }
            let due = entry.remove();
            self.now = self.now.max(at);
            match due {
                Due::Cloud(due) => aws::happen(self, due),
                Due::Kube(due) => k8s::happen(self, due),
                Due::Fault(index) => fault::happen(self, index),
            }
            laws::happened(self);
        }
        self.now = self.now.max(now);
    }

    /// An id of EC2's form: `prefix` and seventeen hexadecimal digits.
    pub fn id(&mut self, prefix: &str) -> String {
        let number = self.rng.u128(..) >> 60;
        format!("{prefix}{number:017x}")
    }

    /// A random UUID.
    pub fn uuid(&mut self) -> String {
        let (a, b) = (self.rng.u64(..), self.rng.u64(..));
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            0x8000 | (b >> 48) & 0x3fff,
            b & 0xffff_ffff_ffff
        )
    }

    /// How long until the next thing happens.
    pub fn until_next(&self) -> Option<Duration> {
        let ((at, _), _) = self.queue.first_key_value()?;
        Some(Duration::try_from(at.duration_since(self.clock.now())).unwrap_or(Duration::ZERO))
    }

    /// How long the world has been going.
    pub fn passed(&self) -> Duration {
        Duration::try_from(self.now.duration_since(self.began)).unwrap_or(Duration::ZERO)
    }

    /// Answers a request by its signature, host and path: the cluster's API server, or a service of AWS.
    pub fn handle(&mut self, request: &Request) -> Answer {
        let call = if self.is_for_cluster(request) {
            None
        } else {
            match aws::Call::read(request) {
                Some(call) => Some(call),
                None => return aws::unreadable(),
            }
        };
        let call = call.as_ref();
        let (service, op) = match call {
            None => ("k8s", fault::kubernetes_op(request)),
            Some(call) => (call.service.short_name(), call.op.clone()),
        };
        let passed = self.passed();
        let asked = match self.faults.want_memory() && call.is_some() {
            true => fault::asked(&op, request),
            false => None,
        };
        let known = asked
            .as_ref()
            .is_some_and(|a| self.faults.remembered.knows(a));
        match self.faults.meet(service, &op, passed, known) {
            None => {
                let answer = self.serve(request, call);
                match asked {
                    Some(asked) => self.faults.remembered.keep(asked, answer),
                    None => answer,
                }
            }
            Some(What::Stale) => match asked.and_then(|a| self.faults.remembered.again(&a)) {
                Some(answer) => answer,
                None => self.serve(request, call),
            },
            Some(What::Refuse(how)) => match call {
                None => aws::refuse_kubernetes(how),
                Some(call) => aws::refuse(self, call, how),
            },
            Some(What::DropBefore) => Answer::Broken(format!(
                "connection reset before {service} {op} (a fault rule)"
            )),
            Some(What::DropAfter) => {
                self.serve(request, call);
                Answer::Broken(format!(
                    "connection reset after {service} {op} (a fault rule)"
                ))
            }
            Some(What::Delay(wait)) => match self.serve(request, call) {
                Answer::Late(more, answer) => Answer::Late(wait.saturating_add(more), answer),
                answer => Answer::Late(wait, Box::new(answer)),
            },
        }
    }

    fn serve(&mut self, request: &Request, call: Option<&aws::Call>) -> Answer {
        let change = laws::asked(self, request, call);
        let answer = laws::while_asked(self, change.is_some(), |world| match call {
            None => k8s::handle(world, request),
            Some(call) => aws::answer(world, call),
        });
        fault::served(self, request);
        laws::served(self, change, &answer);
        laws::happened(self);
        answer
    }

    /// Whether a request is for the cluster's API server: not signed for AWS, and by its host or its path.
    fn is_for_cluster(&self, request: &Request) -> bool {
        const PATHS: &[&str] = &[
            "api", "apis", "version", "openapi", "healthz", "livez", "readyz", "metrics", "logs",
        ];
        if aws::is_signed(request) {
            return false;
        }
        let host = request.uri().host().unwrap_or_default();
        let of_cluster = !host.is_empty()
            && self
                .cloud
                .eks
                .as_ref()
                .is_some_and(|eks| eks.endpoint.contains(host));
        let first = request
            .uri()
            .path()
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default();
        of_cluster || PATHS.contains(&first)
    }
}
