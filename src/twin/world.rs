//! The world: everything there is, one seed, one clock, and what is yet to happen, in order.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::answer::Answer;
use super::fault::{self, Faults, RequestFault};
use super::k8s::workload_state::{self, PodView};
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

/// Is shown everything that happens in a world, and changes nothing in it.
pub trait WorldObserver: Any + Send {
    /// Returns a copy, for a copy of the world.
    fn clone_box(&self) -> Box<dyn WorldObserver>;
    /// A request is about to be served; `call` where it is one to AWS.
    fn before_request(&mut self, world: &SimWorld, request: &Request, call: Option<&aws::AwsCall>);
    /// The request has been served; what happens from here on is nobody's request.
    fn on_request_served(&mut self);
    /// The request has been served, and the faults that wait for it have happened.
    fn after_request(&mut self, world: &SimWorld, answer: &Answer);
    /// Something has happened; `lost` are the pods that stopped serving by it, as they were before.
    fn after_event(&mut self, world: &SimWorld, lost: &[Arc<PodView>]);
    /// Something is about to happen that cannot be told from the world alone.
    fn on_notice(&mut self, world: &SimWorld, notice: WorldNotice<'_>);
}

impl Clone for Box<dyn WorldObserver> {
    fn clone(&self) -> Self {
        self.clone_box()
    }
}

/// What an observer cannot tell from the world alone: on whose account nodes go.
#[derive(Clone, Copy, Debug)]
pub enum WorldNotice<'a> {
    /// A fault rule harms this node or node group.
    Harmed { node_or_group: &'a str },
    /// The cluster autoscaler empties and ends this node.
    AutoscalerRemoves { node: &'a str },
    /// The desired size of an Auto Scaling group was changed.
    GroupResized { asg: &'a str, from: i64, to: i64 },
    /// An Auto Scaling group has no more instances than it is to have.
    GroupAtSize { asg: &'a str },
    /// An Auto Scaling group that has too many instances ends this one.
    EndedForSize { asg: &'a str, instance: &'a str },
    /// This instance is ended by its name.
    EndedByName { instance: &'a str },
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
    /// Who is shown everything that happens, where somebody wants to know.
    pub observer: Option<Box<dyn WorldObserver>>,
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
            observer: None,
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

    /// How long tokio has to sleep for `wait` to pass in this world.
    pub fn tokio_time(&self, wait: Duration) -> Duration {
        self.clock.tokio_time(wait)
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
        // Each event happens at its own time, even when several are due, so that what one of them queues falls into
        // the right place.
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
            self.show_event();
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
        // What is not for the cluster must be a call to AWS that can be read; anything else is refused with an error
        // of its own.
        let call = if self.is_for_cluster(request) {
            None
        } else {
            match aws::AwsCall::from_request(request) {
                Some(call) => Some(call),
                None => return aws::unreadable_request(),
            }
        };
        let call = call.as_ref();
        // Rules name operations of both kinds in one form: a service and an operation.
        let (service, op) = match call {
            None => ("k8s", fault::kubernetes_operation(request)),
            Some(call) => (call.service.short_name(), call.op.clone()),
        };
        // Only a rule that wants an old answer makes the twin remember answers, as each is kept whole.
        let passed = self.elapsed_time();
        let asked = match self.faults.want_stale_reads() && call.is_some() {
            true => fault::read_key(&op, request),
            false => None,
        };
        let known = asked
            .as_ref()
            .is_some_and(|a| self.faults.remembered.has_answer(a));
        // The first rule that fits decides, and only one fault happens to a request.
        match self.faults.fire_for_request(service, &op, passed, known) {
            None => {
                let answer = self.serve_request(request, call);
                match asked {
                    Some(asked) => self.faults.remembered.remember_answer(asked, answer),
                    None => answer,
                }
            }
            // A stale answer needs one from before; without it the request is answered as usual.
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
            // The request is done, and only its answer is lost: this is the case in which a caller must not do it
            // twice.
            Some(RequestFault::DropAfter) => {
                self.serve_request(request, call);
                Answer::Broken(format!(
                    "connection reset after {service} {op} (a fault rule)"
                ))
            }
            // The delay adds to one that the operation has by itself.
            Some(RequestFault::Delay(wait)) => match self.serve_request(request, call) {
                Answer::Late(more, answer) => Answer::Late(wait.saturating_add(more), answer),
                answer => Answer::Late(wait, Box::new(answer)),
            },
        }
    }

    fn serve_request(&mut self, request: &Request, call: Option<&aws::AwsCall>) -> Answer {
        self.with_observer(|observer, world| observer.before_request(world, request, call));
        let answer = match call {
            None => k8s::handle_request(self, request),
            Some(call) => aws::answer_call(self, call),
        };
        self.with_observer(|observer, _| observer.on_request_served());
        fault::on_request_served(self, request);
        self.with_observer(|observer, world| observer.after_request(world, &answer));
        self.show_event();
        answer
    }

    /// Tells the observer, where there is one, what is about to happen.
    pub fn notify_observer(&mut self, notice: WorldNotice<'_>) {
        self.with_observer(|observer, world| observer.on_notice(world, notice));
    }

    /// Something has happened: the observer sees the world as it is now.
    fn show_event(&mut self) {
        let lost = workload_state::take_losses(self);
        self.with_observer(|observer, world| observer.after_event(world, &lost));
    }

    fn with_observer(&mut self, show: impl FnOnce(&mut dyn WorldObserver, &SimWorld)) {
        if let Some(mut observer) = self.observer.take() {
            show(&mut *observer, self);
            self.observer = Some(observer);
        }
    }

    /// Whether a request is for the cluster's API server: not signed for AWS, and by its host or its path.
    fn is_for_cluster(&self, request: &Request) -> bool {
        const API_SERVER_PATHS: &[&str] = &[
            "api", "apis", "version", "openapi", "healthz", "livez", "readyz", "metrics", "logs",
        ];
        // A signature for AWS is decisive, because the twin may serve both on one port.
        if aws::is_signed(request) {
            return false;
        }
        // A client that was given the cluster's endpoint is known by it; `kubectl` on the shared port is known by its
        // paths.
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
