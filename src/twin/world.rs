//! The world: everything there is, one seed, one clock, and what is yet to happen, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::answer::Answer;
use super::fault::{self, Faults, RequestFault};
use super::invariants::{self, Invariants};
use super::{aws, k8s};
use crate::model::Clock;
use crate::wire::Request;

/// What a request takes on the way there and back.
pub const REQUEST_ROUND_TRIP: Duration = Duration::from_millis(5);

/// Something that will happen.
#[derive(Clone, Debug)]
pub enum ScheduledEvent {
    Cloud(aws::CloudEvent),
    Kube(k8s::KubeEvent),
    /// The change of the fault rule with this number.
    Fault(usize),
}

/// Everything there is.
#[derive(Clone)]
pub struct SimWorld {
    clock: Clock,
    now: Timestamp,
    began: Timestamp,
    queue: BTreeMap<(Timestamp, u64), ScheduledEvent>,
    next: u64,
    /// The one source of chance.
    pub rng: fastrand::Rng,
    pub cloud: aws::AwsAccount,
    pub kube: k8s::SimCluster,
    pub faults: Faults,
    /// What must hold at every moment, where somebody wants to know.
    pub invariants: Option<Invariants>,
    /// How many times faster than AWS this one is.
    speed_factor: u32,
}

impl SimWorld {
    /// An empty world at `clock`'s now.
    pub fn new(clock: Clock, seed: u64, cloud: aws::AwsAccount, kube: k8s::SimCluster) -> Self {
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
            invariants: None,
            speed_factor: 1,
        };
        k8s::start_cluster(&mut world);
        aws::start_background_work(&mut world);
        world
    }

    /// The world goes on by another clock, which must begin at the world's now: so a copy can go another way from here.
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// AWS is so many times faster from here on, and targets that go have as much less time to end their connections.
    pub fn set_speed_factor(&mut self, times: u32) {
        self.speed_factor = times.max(1);
        self.cloud
            .elb
            .shorten_deregistration_delays(self.speed_factor);
    }

    /// The time of what is happening.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Lets `due` happen after `wait`.
    pub fn schedule_after(&mut self, wait: Duration, due: ScheduledEvent) {
        let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        let at = self.now.saturating_add(wait).unwrap_or(Timestamp::MAX);
        self.queue.insert((at, self.next), due);
        self.next += 1;
    }

    /// A time between `from` and `to`, by chance; less in a swift world.
    pub fn random_duration(&mut self, from: Duration, to: Duration) -> Duration {
        let (a, b) = (from.as_millis() as u64, to.as_millis() as u64);
        Duration::from_millis(if b > a { self.rng.u64(a..=b) } else { a }) / self.speed_factor
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
                ScheduledEvent::Cloud(due) => aws::handle_event(self, due),
                ScheduledEvent::Kube(due) => k8s::handle_event(self, due),
                ScheduledEvent::Fault(index) => fault::apply_change(self, index),
            }
            invariants::check_state(self);
        }
        self.now = self.now.max(now);
    }

    /// An id of EC2's form: `prefix` and seventeen hexadecimal digits.
    pub fn new_ec2_id(&mut self, prefix: &str) -> String {
        let number = self.rng.u128(..) >> 60;
        format!("{prefix}{number:017x}")
    }

    /// A random UUID.
    pub fn new_uuid(&mut self) -> String {
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
    pub fn elapsed_time(&self) -> Duration {
        Duration::try_from(self.now.duration_since(self.began)).unwrap_or(Duration::ZERO)
    }

    /// Answers a request by its signature, host and path: the cluster's API server, or a service of AWS.
    pub fn handle_request(&mut self, request: &Request) -> Answer {
        let call = if self.is_for_cluster(request) {
            None
        } else {
            match aws::AwsCall::from_request(request) {
                Some(call) => Some(call),
                None => return aws::unreadable_request(),
            }
        };
        let call = call.as_ref();
        let (service, op) = match call {
            None => ("k8s", fault::kubernetes_operation(request)),
            Some(call) => (call.service.short_name(), call.op.clone()),
        };
        let passed = self.elapsed_time();
        let asked = match self.faults.want_stale_reads() && call.is_some() {
            true => fault::read_key(&op, request),
            false => None,
        };
        let known = asked
            .as_ref()
            .is_some_and(|a| self.faults.remembered.has_answer(a));
        match self.faults.fire_for_request(service, &op, passed, known) {
            None => {
                let answer = self.serve_request(request, call);
                match asked {
                    Some(asked) => self.faults.remembered.remember_answer(asked, answer),
                    None => answer,
                }
            }
            Some(RequestFault::Stale) => {
                match asked.and_then(|a| self.faults.remembered.replay_answer(&a)) {
                    Some(answer) => answer,
                    None => self.serve_request(request, call),
                }
            }
            Some(RequestFault::Refuse(how)) => match call {
                None => aws::refuse_kubernetes(how),
                Some(call) => aws::refuse_call(self, call, how),
            },
            Some(RequestFault::DropBefore) => Answer::Broken(format!(
                "connection reset before {service} {op} (a fault rule)"
            )),
            Some(RequestFault::DropAfter) => {
                self.serve_request(request, call);
                Answer::Broken(format!(
                    "connection reset after {service} {op} (a fault rule)"
                ))
            }
            Some(RequestFault::Delay(wait)) => match self.serve_request(request, call) {
                Answer::Late(more, answer) => Answer::Late(wait.saturating_add(more), answer),
                answer => Answer::Late(wait, Box::new(answer)),
            },
        }
    }

    fn serve_request(&mut self, request: &Request, call: Option<&aws::AwsCall>) -> Answer {
        let change = invariants::check_request(self, request, call);
        let answer = invariants::while_asked(self, change.is_some(), |world| match call {
            None => k8s::handle_request(world, request),
            Some(call) => aws::answer_call(world, call),
        });
        fault::on_request_served(self, request);
        invariants::check_answer(self, change, &answer);
        invariants::check_state(self);
        answer
    }

    /// Whether a request is for the cluster's API server: not signed for AWS, and by its host or its path.
    fn is_for_cluster(&self, request: &Request) -> bool {
        const API_SERVER_PATHS: &[&str] = &[
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
        of_cluster || API_SERVER_PATHS.contains(&first)
    }
}
