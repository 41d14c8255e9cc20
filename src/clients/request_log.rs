//! The log of calls that `-v` asks for: one line a call, when its answer is there; with `-vv` one when it leaves, too.
//! Never a body or a header: they can hold a credential.

use std::time::Duration;

use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use tokio::time::Instant;
use tower::ServiceExt;

use super::aws_error::error_chain;
use super::call_counter::CallCounter;
use crate::wire::{BoxError, Request, Wire};

/// Logs each attempt of each AWS call, and counts it.
#[derive(Clone, Debug)]
pub struct CallLogger(pub CallCounter);

#[derive(Debug)]
struct AttemptStart(Instant);

impl Storable for AttemptStart {
    type Storer = StoreReplace<Self>;
}

impl Intercept for CallLogger {
    fn name(&self) -> &'static str {
        "log of calls"
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if tracing::enabled!(tracing::Level::DEBUG) {
            tracing::debug!("{} ...", operation_name(bag));
        }
        bag.interceptor_state()
            .store_put(AttemptStart(Instant::now()));
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.count_aws(bag, context);
        if !tracing::enabled!(tracing::Level::INFO) {
            return Ok(());
        }
        let took = bag
            .load::<AttemptStart>()
            .map_or(Duration::ZERO, |b| b.0.elapsed());
        let operation = operation_name(bag);
        match context.response() {
            Some(response) => {
                // AWS Support finds a call by this id alone; services spell the header in two ways.
                let id = ["x-amzn-requestid", "x-amz-request-id"]
                    .into_iter()
                    .find_map(|name| response.headers().get(name))
                    .unwrap_or("none");
                let status = response.status().as_u16();
                tracing::info!(
                    "{operation} {status} in {} ms, request {id}",
                    took.as_millis()
                );
            }
            None => {
                // Cut short: the text of an error may hold the whole request.
                let why = context
                    .output_or_error()
                    .and_then(Result::err)
                    .map_or_else(|| "nothing was said".to_owned(), |e| format!("{e:?}"));
                let why: String = why.chars().take(200).collect();
                tracing::info!("{operation} no answer in {} ms: {why}", took.as_millis());
            }
        }
        Ok(())
    }
}

fn operation_name(bag: &ConfigBag) -> String {
    bag.load::<Metadata>()
        .map(|m| format!("{}:{}", m.service(), m.name()))
        .unwrap_or_default()
}

/// Logs each request that goes over `wire`; a watch's line is written when it begins.
pub fn log_requests(wire: Wire) -> Wire {
    Wire::new(tower::service_fn(move |request: Request| {
        let wire = wire.clone();
        async move {
            // Without a log nothing is put together for it.
            if !tracing::enabled!(tracing::Level::INFO) {
                return wire.oneshot(request).await;
            }
            let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
            let call = format!("{} {path}", request.method());
            tracing::debug!("{call} ...");
            let began = Instant::now();
            let answer = wire.oneshot(request).await;
            let took = began.elapsed().as_millis();
            match &answer {
                Ok(answer) => tracing::info!("{call} {} in {took} ms", answer.status().as_u16()),
                Err(e) => tracing::info!("{call} no answer in {took} ms: {}", error_chain(&**e)),
            }
            answer
        }
    }))
}
