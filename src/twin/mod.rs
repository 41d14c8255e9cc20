//! The twin: a simulator of AWS and Kubernetes that real clients cannot tell apart where the program looks.
//!
//! It shares only [`crate::wire`] and [`crate::model`] with the rest, so that it cannot share a mistake with what it
//! tests. One [`world::SimWorld`] holds everything; time is tokio's, so a paused runtime makes it virtual.

pub mod answer;
pub mod aws;
pub mod fault;
pub mod glob;
pub mod k8s;
pub mod scenario;
pub mod serve;
pub mod world;

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::wire::{BoxError, Request, Response, Wire};
use answer::Answer;
use world::SimWorld;

/// A running twin. Cheap to clone; the world moves as long as one clone's wire or this handle lives.
#[derive(Clone)]
pub struct Twin {
    world: Arc<Mutex<SimWorld>>,
    /// Rung when the queue of things to come changes, so that the driver sleeps until the right time.
    bell: Arc<Notify>,
}

impl Twin {
    /// Starts `world`. Must be called inside a tokio runtime.
    pub fn start(world: SimWorld) -> Self {
        let twin = Self {
            world: Arc::new(Mutex::new(world)),
            bell: Arc::new(Notify::new()),
        };
        tokio::spawn(drive_events(Arc::downgrade(&twin.world), twin.bell.clone()));
        twin
    }

    /// Runs `f` on the world as it is now: for scenarios, faults, checks.
    pub fn with_world<T>(&self, f: impl FnOnce(&mut SimWorld) -> T) -> T {
        let out = {
            let mut world = self
                .world
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            world.catch_up();
            f(&mut world)
        };
        self.bell.notify_one();
        out
    }

    /// The wire that answers for AWS and for the cluster's API server.
    pub fn wire(&self) -> Wire {
        let twin = self.clone();
        Wire::new(tower::service_fn(move |request: Request| {
            let twin = twin.clone();
            async move { twin.answer_request(request).await }
        }))
    }

    async fn answer_request(&self, request: Request) -> Result<Response, BoxError> {
        // A request takes a moment even in the twin: nothing happens at the very instant it was asked for.
        tokio::time::sleep(world::REQUEST_ROUND_TRIP).await;
        match self.with_world(|world| world.handle_request(&request)) {
            Answer::Whole(response) => Ok(response),
            Answer::Late(wait, answer) => {
                let wait = self.with_world(|world| world.tokio_time(wait));
                tokio::time::sleep(wait).await;
                match *answer {
                    Answer::Whole(response) => Ok(response),
                    Answer::Broken(why) => Err(why.into()),
                    Answer::Late(..) => Err("the twin answers late only once".into()),
                }
            }
            Answer::Broken(why) => Err(why.into()),
        }
    }
}

/// Makes happen what is due, when it is due, for as long as the world lives.
async fn drive_events(world: std::sync::Weak<Mutex<SimWorld>>, bell: Arc<Notify>) {
    // The world is not kept alive by what drives it: a test ends when its world does.
    loop {
        let next = {
            let Some(world) = world.upgrade() else { return };
            let mut world = world
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            // What is due now is done before anybody waits.
            world.catch_up();
            world.until_next().map(|wait| world.tokio_time(wait))
        };
        // A new event can come sooner than the one that is waited for, so the bell is listened to as well.
        match next {
            Some(wait) => {
                tokio::select! {
                    biased;
                    () = bell.notified() => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
            None => bell.notified().await,
        }
    }
}
