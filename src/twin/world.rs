//! The world: everything there is, one seed, one clock, and what is yet to happen, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::answer::Answer;
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
}

/// Everything there is.
pub struct World {
    clock: Clock,
    now: Timestamp,
    queue: BTreeMap<(Timestamp, u64), Due>,
    next: u64,
    /// The one source of chance.
    pub rng: fastrand::Rng,
    pub cloud: aws::Cloud,
    pub kube: k8s::Cluster,
}

impl World {
    /// An empty world at `clock`'s now.
    pub fn new(clock: Clock, seed: u64, cloud: aws::Cloud, kube: k8s::Cluster) -> Self {
        let now = clock.now();
        let rng = fastrand::Rng::with_seed(seed);
        let mut world = Self { clock, now, queue: BTreeMap::new(), next: 0, rng, cloud, kube };
        k8s::start(&mut world);
        world
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

    /// A time between `from` and `to`, by chance.
    pub fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let (a, b) = (from.as_millis() as u64, to.as_millis() as u64);
        Duration::from_millis(if b > a { self.rng.u64(a..=b) } else { a })
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
            }
        }
        self.now = self.now.max(now);
    }

    /// How long until the next thing happens.
    pub fn until_next(&self) -> Option<Duration> {
        let ((at, _), _) = self.queue.first_key_value()?;
        Some(Duration::try_from(at.duration_since(self.clock.now())).unwrap_or(Duration::ZERO))
    }

    /// Answers a request by its host and path: the cluster's API server, or a service of AWS.
    pub fn handle(&mut self, request: &Request) -> Answer {
        if self.is_for_cluster(request) { k8s::handle(self, request) } else { aws::handle(self, request) }
    }

    fn is_for_cluster(&self, request: &Request) -> bool {
        let signed = request.headers().get("authorization").is_some_and(|v| v.as_bytes().starts_with(b"AWS4-HMAC-SHA256"));
        let host = request.uri().host().unwrap_or_default();
        !signed && (host.contains(".eks.amazonaws.com") && host.split('.').count() > 4 || ["/api", "/apis", "/version", "/openapi", "/healthz", "/livez", "/readyz"].iter().any(|p| request.uri().path().starts_with(p)))
    }
}
