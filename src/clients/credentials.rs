//! The machine's credentials: kept while they are good, fetched again when they end, and from the whole chain again when a
//! server refuses them.
//!
//! The SDK's own cache keeps a session until it says that it ends, and a profile for as long as the process lives. A run
//! outlives both: a web identity's token file is replaced, `aws sso login` is given in another window, an agent rewrites
//! the profile. So the SDK caches nothing here, and [`CredentialChain::clear_cache`] forgets everything that was read.

use std::sync::Arc;
use std::time::Duration;

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::credential_feature::AwsCredentialFeature as Feature;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_smithy_async::rt::sleep::TokioSleep;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

use crate::model::Clock;

/// Credentials are replaced this long before they end; a call may take a while to arrive.
const CREDENTIAL_RENEWAL_MARGIN: SignedDuration = SignedDuration::from_secs(60);
/// How long fetching may take: a process or a server behind the chain may hang.
const CREDENTIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes the chain again: profile, environment, files, everything is read again.
type MakeProvider =
    Arc<dyn Fn() -> BoxFuture<'static, Option<SharedCredentialsProvider>> + Send + Sync>;

/// The machine's credentials. Clones share them.
#[derive(Clone)]
pub struct CredentialChain {
    make_provider: MakeProvider,
    clock: Clock,
    cached: Arc<Mutex<CachedCredentials>>,
}

#[derive(Default)]
struct CachedCredentials {
    provider: Option<SharedCredentialsProvider>,
    last: Option<Credentials>,
}

/// When a session ends, as far as anybody can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// It is no session: a user's own keys, which somebody has to take away.
    Never,
    /// Its credentials end then. `renewed`: the chain has a source that hands out new ones.
    At { end: Timestamp, renewed: bool },
    /// It is a session, and nobody says when it ends.
    Unknown,
}

impl std::fmt::Debug for CredentialChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chain")
    }
}

impl CredentialChain {
    /// The chain of every AWS tool.
    pub fn new(profile: Option<&str>, region: Option<&str>, clock: &Clock) -> Self {
        let (profile, region) = (profile.map(str::to_owned), region.map(str::to_owned));
        let time = clock.clone();
        let make = move || -> BoxFuture<'static, Option<SharedCredentialsProvider>> {
            let mut loader = aws_config::defaults(BehaviorVersion::latest())
                .time_source(time.clone())
                .sleep_impl(TokioSleep::new());
            if let Some(region) = &region {
                loader = loader.region(Region::new(region.clone()));
            }
            if let Some(profile) = &profile {
                let provider = named_profile_provider(profile, region.as_deref(), &time);
                loader = loader.profile_name(profile).credentials_provider(provider);
            }
            Box::pin(async move { loader.load().await.credentials_provider() })
        };
        Self::with_provider_maker(Arc::new(make), clock)
    }

    fn with_provider_maker(make: MakeProvider, clock: &Clock) -> Self {
        Self {
            make_provider: make,
            clock: clock.clone(),
            cached: Arc::default(),
        }
    }

    /// Forgets what was read: a server has refused it.
    pub async fn clear_cache(&self) {
        *self.cached.lock().await = CachedCredentials::default();
    }

    async fn current_credentials(&self) -> Result<Credentials, CredentialsError> {
        let mut held = self.cached.lock().await;
        let now = self.clock.now();
        if let Some(last) = &held.last
            && expiry_of(last).is_none_or(|end| now < end - CREDENTIAL_RENEWAL_MARGIN)
        {
            return Ok(last.clone());
        }
        // Fetched under the lock: ten calls at once must not start ten sign-ins.
        let fetched =
            tokio::time::timeout(CREDENTIAL_FETCH_TIMEOUT, self.fetch_credentials(&mut held)).await;
        match fetched.unwrap_or_else(|_| {
            Err(CredentialsError::provider_timed_out(
                CREDENTIAL_FETCH_TIMEOUT,
            ))
        }) {
            Ok(fresh) => {
                held.last = Some(fresh.clone());
                Ok(fresh)
            }
            // The source is away and what we have is good for moments more.
            Err(_)
                if held
                    .last
                    .as_ref()
                    .and_then(expiry_of)
                    .is_some_and(|end| now < end) =>
            {
                held.provider = None;
                held.last.clone().ok_or_else(no_provider_error)
            }
            Err(error) => {
                *held = CachedCredentials::default();
                Err(error)
            }
        }
    }

    async fn fetch_credentials(
        &self,
        held: &mut CachedCredentials,
    ) -> Result<Credentials, CredentialsError> {
        let provider = match &held.provider {
            Some(provider) => provider.clone(),
            None => (self.make_provider)().await.ok_or_else(no_provider_error)?,
        };
        held.provider = Some(provider.clone());
        provider.provide_credentials().await
    }
}

impl ProvideCredentials for CredentialChain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.current_credentials())
    }
}

/// The credentials of a profile that was named on the command line. As with `aws`, they come before keys in the
/// environment; a profile that names no credentials leaves them to the machine (web identity, container, instance).
fn named_profile_provider(
    profile: &str,
    region: Option<&str>,
    clock: &Clock,
) -> CredentialsProviderChain {
    let provider_config = ProviderConfig::without_region()
        .with_region(region.map(|name| Region::new(name.to_owned())))
        .with_time_source(clock.clone())
        .with_sleep_impl(TokioSleep::new());
    let named = ProfileFileCredentialsProvider::builder()
        .profile_name(profile)
        .configure(&provider_config)
        .build();
    let web_identity = WebIdentityTokenCredentialsProvider::builder()
        .configure(&provider_config)
        .build();
    let container = EcsCredentialsProvider::builder()
        .configure(&provider_config)
        .build();
    let instance = ImdsCredentialsProvider::builder()
        .configure(&provider_config)
        .build();
    // In the order of the SDK's own default chain, without the environment's keys.
    CredentialsProviderChain::first_try("Profile", named)
        .or_else("WebIdentityToken", web_identity)
        .or_else("EcsContainer", container)
        .or_else("Ec2InstanceMetadata", instance)
}

fn no_provider_error() -> CredentialsError {
    CredentialsError::not_loaded("no provider in the chain")
}

fn expiry_of(credentials: &Credentials) -> Option<Timestamp> {
    credentials.expiry().and_then(|end| end.try_into().ok())
}

/// When the session of these credentials ends. `told`: what the environment says of keys that it holds itself.
pub fn session_end(credentials: &Credentials, told: Option<Timestamp>) -> SessionEnd {
    // Keys that somebody put into the environment or a profile are not handed out again by anybody.
    let features = credentials.get_property::<Vec<Feature>>();
    let by_hand = features.is_none_or(|all| {
        let given = [
            Feature::CredentialsEnvVars,
            Feature::CredentialsProfile,
            Feature::CredentialsCode,
        ];
        all.iter().all(|f| given.contains(f))
    });
    match expiry_of(credentials).or(told.filter(|_| by_hand)) {
        Some(end) => SessionEnd::At {
            end,
            renewed: !by_hand,
        },
        None if credentials.session_token().is_some() => SessionEnd::Unknown,
        None => SessionEnd::Never,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use aws_config::web_identity_token::StaticConfiguration;

    use super::*;
    use crate::aws::AwsApi;
    use crate::clients::fake_wire::{
        RecordedRequests, answering_wire, eks_error_answer, json_answer, test_clock, xml_answer,
    };
    use crate::clients::sdk_config::{WireHttpClient, config_over_wire, with_credential_chain};
    use crate::model::ErrorClass;
    use crate::wire::Wire;

    /// STS hands out 15 minutes for the token it is shown, and EKS takes the last key only.
    fn services() -> (Wire, RecordedRequests) {
        let handed = Arc::new(AtomicU32::new(0));
        answering_wire(move |request, _| {
            let host = request.uri().host().unwrap_or_default();
            if host.starts_with("sts.") {
                let n = handed.fetch_add(1, Ordering::SeqCst) + 1;
                let end = "2026-11-21T08:00:00Z".parse::<Timestamp>().unwrap()
                    + SignedDuration::from_mins(15 * i64::from(n));
                return xml_answer(
                    200,
                    &format!(
                        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>KEY{n}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>{end}</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
                    ),
                );
            }
            let signed = request.headers()["authorization"].to_str().unwrap();
            if signed.contains("Credential=REVOKED/") {
                return eks_error_answer(
                    403,
                    "ExpiredTokenException",
                    "The security token included in the request is expired",
                );
            }
            json_answer(200, &serde_json::json!({"clusters": []}))
        })
    }

    fn web_identity(file: &std::path::Path, wire: &Wire, clock: &Clock) -> CredentialChain {
        let provider_config = ProviderConfig::without_region()
            .with_region(Some(Region::new("eu-west-1")))
            .with_time_source(clock.clone())
            .with_sleep_impl(TokioSleep::new())
            .with_http_client(WireHttpClient(wire.clone()));
        let file = file.to_owned();
        let make = move || -> BoxFuture<'static, Option<SharedCredentialsProvider>> {
            let provider = WebIdentityTokenCredentialsProvider::builder()
                .configure(&provider_config)
                .static_configuration(StaticConfiguration {
                    web_identity_token_file: file.clone(),
                    role_arn: "arn:aws:iam::111122223333:role/upgrade".to_owned(),
                    session_name: "run".to_owned(),
                })
                .build();
            Box::pin(async move { Some(SharedCredentialsProvider::new(provider)) })
        };
        CredentialChain::with_provider_maker(Arc::new(make), clock)
    }

    fn shown(asked: &RecordedRequests) -> Vec<String> {
        let bodies = asked.request_bodies();
        let token = |b: &String| {
            let value = b.split_once("WebIdentityToken=")?.1;
            Some(value.split('&').next().unwrap_or_default().to_owned())
        };
        bodies.iter().filter_map(token).collect()
    }

    fn keys(asked: &RecordedRequests) -> Vec<String> {
        let all = asked.all_requests();
        let key = |r: &crate::wire::Request| {
            let signed = r.headers().get("authorization")?.to_str().ok()?;
            let after = signed.split_once("Credential=")?.1;
            Some(after.split('/').next().unwrap_or_default().to_owned())
        };
        all.iter().filter_map(key).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_web_identity_file_is_read_again_when_its_session_ends() {
        let (folder, clock) = (tempfile::tempdir().unwrap(), test_clock());
        let file = folder.path().join("token");
        std::fs::write(&file, "first").unwrap();
        let (wire, asked) = services();
        let chain = web_identity(&file, &wire, &clock);
        let config = with_credential_chain(config_over_wire(wire, "eu-west-1", &clock), chain);
        let aws = AwsApi::new(&config);
        aws.list_clusters().await.unwrap();
        std::fs::write(&file, "second").unwrap();
        aws.list_clusters().await.unwrap();
        assert_eq!(shown(&asked), ["first"], "good credentials are kept");
        tokio::time::sleep(Duration::from_secs(14 * 60 + 1)).await;
        aws.list_clusters().await.unwrap();
        assert_eq!(shown(&asked), ["first", "second"]);
        assert_eq!(keys(&asked), ["KEY1", "KEY1", "KEY2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_is_away_is_borne_while_the_old_credentials_last() {
        let clock = test_clock();
        let base = clock.now();
        #[derive(Debug)]
        struct Once(Timestamp, AtomicU32);
        impl ProvideCredentials for Once {
            fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
            where
                Self: 'a,
            {
                future::ProvideCredentials::ready(match self.1.fetch_add(1, Ordering::SeqCst) {
                    0 => Ok(Credentials::new(
                        "K",
                        "s",
                        None,
                        Some(self.0.into()),
                        "test",
                    )),
                    _ => Err(CredentialsError::provider_error("away")),
                })
            }
        }
        let once = SharedCredentialsProvider::new(Once(
            base + SignedDuration::from_mins(10),
            AtomicU32::new(0),
        ));
        let make = move || -> BoxFuture<'static, Option<SharedCredentialsProvider>> {
            let once = once.clone();
            Box::pin(async move { Some(once) })
        };
        let chain = CredentialChain::with_provider_maker(Arc::new(make), &clock);
        assert!(chain.current_credentials().await.is_ok());
        tokio::time::sleep(Duration::from_secs(9 * 60 + 30)).await;
        assert!(chain.current_credentials().await.is_ok());
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(chain.current_credentials().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_server_refuses_is_fetched_again_from_a_new_chain() {
        let (wire, asked) = services();
        let clock = test_clock();
        let made = Arc::new(AtomicU32::new(0));
        let count = made.clone();
        let make = move || -> BoxFuture<'static, Option<SharedCredentialsProvider>> {
            let n = count.fetch_add(1, Ordering::SeqCst);
            let key = if n == 0 { "REVOKED" } else { "FRESH" };
            let keys = Credentials::new(key, "s", Some("t".into()), None, "test");
            Box::pin(async move { Some(SharedCredentialsProvider::new(keys)) })
        };
        let chain = CredentialChain::with_provider_maker(Arc::new(make), &clock);
        let config =
            with_credential_chain(config_over_wire(wire, "eu-west-1", &clock), chain.clone());
        let aws = AwsApi::new(&config);
        let error = aws.list_clusters().await.unwrap_err();
        assert_eq!((error.class, keys(&asked).len()), (ErrorClass::Expired, 1));
        chain.clear_cache().await;
        aws.list_clusters().await.unwrap();
        assert_eq!(keys(&asked), ["REVOKED", "FRESH"]);
        assert_eq!(made.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_sessions_end_is_told_by_it_or_by_the_environment_or_by_nobody() {
        let end: Timestamp = "2026-11-21T09:00:00Z".parse().unwrap();
        let keys = |token: Option<&str>, end: Option<Timestamp>| {
            Credentials::new("K", "s", token.map(str::to_owned), end.map(Into::into), "t")
        };
        let by = |mut keys: Credentials, feature: Feature| {
            keys.get_property_mut_or_default::<Vec<Feature>>()
                .push(feature);
            keys
        };
        assert_eq!(session_end(&keys(None, None), None), SessionEnd::Never);
        assert_eq!(
            session_end(&keys(Some("t"), None), None),
            SessionEnd::Unknown
        );
        let told = session_end(
            &by(keys(Some("t"), None), Feature::CredentialsEnvVars),
            Some(end),
        );
        assert_eq!(
            told,
            SessionEnd::At {
                end,
                renewed: false
            }
        );
        let role = by(keys(Some("t"), Some(end)), Feature::CredentialsImds);
        assert_eq!(
            session_end(&role, None),
            SessionEnd::At { end, renewed: true }
        );
    }
}
