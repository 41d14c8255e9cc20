//! The token an EKS cluster takes: a presigned `sts:GetCallerIdentity`, minted in process.

use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

use super::aws_error;
use crate::model::{ApiError, Clock, ErrorClass};

/// The server takes a token for 15 minutes from its date; a minute is left for clocks that differ (EKS-AUTH-1).
const TOKEN_LIFETIME: SignedDuration = SignedDuration::from_mins(14);

/// Mints tokens for one cluster and remembers the last one while it is good.
#[derive(Clone)]
pub struct EksTokenSource {
    cluster: String,
    region: String,
    credentials: SharedCredentialsProvider,
    clock: Clock,
    last_minted: Arc<Mutex<Option<MintedToken>>>,
}

#[derive(Clone)]
struct MintedToken {
    token: String,
    /// The date it was signed with. A clock that was set back since makes it one of the future, which no server takes.
    signed_at: Timestamp,
    good_until: Timestamp,
}

impl EksTokenSource {
    /// Tokens for `cluster`, signed with whatever `credentials` give at the time.
    pub fn new(
        cluster: &str,
        region: &str,
        credentials: SharedCredentialsProvider,
        clock: Clock,
    ) -> Self {
        Self {
            cluster: cluster.to_owned(),
            region: region.to_owned(),
            credentials,
            clock,
            last_minted: Arc::default(),
        }
    }

    /// A token that is good now.
    pub async fn current_token(&self) -> Result<String, ApiError> {
        let mut last = self.last_minted.lock().await;
        let now = self.clock.now();
        if let Some(minted) = last
            .as_ref()
            .filter(|m| m.signed_at <= now && now < m.good_until)
        {
            return Ok(minted.token.clone());
        }
        // The credentials are asked for each time, because a run outlives a session.
        let credentials = self
            .credentials
            .provide_credentials()
            .await
            .map_err(|e| aws_error::classify_credentials_error("sign in to the cluster", e))?;
        let token = mint_token(&self.cluster, &self.region, &credentials, now)?;
        let mut good_until = now.saturating_add(TOKEN_LIFETIME).unwrap_or(Timestamp::MAX);
        // A token is no better than the session that signed it.
        if let Some(end) = credentials
            .expiry()
            .and_then(|end| Timestamp::try_from(end).ok())
        {
            good_until = good_until.min(end);
        }
        *last = Some(MintedToken {
            token: token.clone(),
            signed_at: now,
            good_until,
        });
        Ok(token)
    }

    /// Forgets `token` if it is still the one remembered: the server refused it.
    pub async fn forget_refused(&self, token: &str) {
        self.last_minted.lock().await.take_if(|m| m.token == token);
    }
}

/// Signs a token. Pure.
pub fn mint_token(
    cluster: &str,
    region: &str,
    credentials: &Credentials,
    now: Timestamp,
) -> Result<String, ApiError> {
    let failed = |e: &dyn std::fmt::Display| {
        ApiError::new(
            "sign in to the cluster",
            ErrorClass::Invalid,
            format!("no token could be signed for cluster `{cluster}`: {e}"),
        )
    };
    let url = format!(
        "https://{}/?Action=GetCallerIdentity&Version=2011-06-15",
        sts_host(region)
    );
    // The token is the address of a signed request that the cluster sends to STS, so the signature goes into the query.
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(Duration::from_secs(60));
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("sts")
        .time(now.into())
        .settings(settings)
        .build()
        .map_err(|e| failed(&e))?
        .into();
    // Signed along, so that a token for one cluster is none for another.
    let headers = [("x-k8s-aws-id", cluster)];
    let request = SignableRequest::new("GET", &url, headers.into_iter(), SignableBody::Bytes(&[]))
        .map_err(|e| failed(&e))?;
    let (instructions, _) = sign(request, &params).map_err(|e| failed(&e))?.into_parts();
    let mut presigned = http::Request::get(&url).body(()).map_err(|e| failed(&e))?;
    instructions.apply_to_request_http1x(&mut presigned);
    // The form that EKS's webhook expects, as `aws eks get-token` prints it.
    Ok(format!(
        "k8s-aws-v1.{}",
        URL_SAFE_NO_PAD.encode(presigned.uri().to_string())
    ))
}

/// The regional STS host; the server takes only one of its own partition.
fn sts_host(region: &str) -> String {
    let suffix = match region {
        r if r.starts_with("cn-") => "amazonaws.com.cn",
        r if r.starts_with("us-isob-") => "sc2s.sgov.gov",
        r if r.starts_with("us-isof-") => "csp.hci.ic.gov",
        r if r.starts_with("us-iso-") => "c2s.ic.gov",
        r if r.starts_with("eu-isoe-") => "cloud.adc-e.uk",
        r if r.starts_with("eusc-") => "amazonaws.eu",
        _ => "amazonaws.com",
    };
    format!("sts.{region}.{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minted(session: Option<&str>) -> String {
        let credentials = Credentials::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            session.map(str::to_owned),
            None,
            "test",
        );
        let token = mint_token(
            "demo",
            "us-west-2",
            &credentials,
            "2026-11-21T08:00:00Z".parse().unwrap(),
        )
        .unwrap();
        let encoded = token.strip_prefix("k8s-aws-v1.").unwrap();
        String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap()
    }

    #[test]
    fn a_token_is_what_the_reference_signer_makes() {
        let url = minted(None);
        assert!(
            url.starts_with(
                "https://sts.us-west-2.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15&"
            ),
            "{url}"
        );
        assert!(
            url.contains("X-Amz-SignedHeaders=host%3Bx-k8s-aws-id"),
            "{url}"
        );
        assert!(url.contains("X-Amz-Expires=60"), "{url}");
        assert!(url.contains("X-Amz-Date=20261121T080000Z"), "{url}");
        assert!(
            url.contains(
                "X-Amz-Signature=2859d00054e7a070bec4b75a15c79b253a1f4eabd4176c53a98be7f670e7e1a2"
            ),
            "{url}"
        );
        assert!(!url.contains("X-Amz-Security-Token"), "{url}");
    }

    #[test]
    fn a_session_token_is_signed_too() {
        let url = minted(Some("FwoGZXIvYXdzEXAMPLE//tok=="));
        assert!(
            url.contains(
                "X-Amz-Signature=87a6580b6614b7f6a066950e5a1eae8af0b5322d9ff84e7d9b5269d37f44cb87"
            ),
            "{url}"
        );
        assert!(
            url.contains("X-Amz-Security-Token=FwoGZXIvYXdzEXAMPLE%2F%2Ftok%3D%3D"),
            "{url}"
        );
    }

    #[test]
    fn each_partition_has_its_own_host() {
        assert_eq!(sts_host("eu-central-1"), "sts.eu-central-1.amazonaws.com");
        assert_eq!(sts_host("us-gov-west-1"), "sts.us-gov-west-1.amazonaws.com");
        assert_eq!(sts_host("cn-north-1"), "sts.cn-north-1.amazonaws.com.cn");
        assert_eq!(
            sts_host("us-isob-east-1"),
            "sts.us-isob-east-1.sc2s.sgov.gov"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_kept_for_fourteen_minutes_and_no_longer_than_its_credentials() {
        let start: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let clock = Clock::starting_at(start);
        let lasting = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
        let tokens = EksTokenSource::new(
            "demo",
            "us-west-2",
            SharedCredentialsProvider::new(lasting),
            clock.clone(),
        );
        let first = tokens.current_token().await.unwrap();
        tokio::time::sleep(Duration::from_secs(13 * 60)).await;
        assert_eq!(tokens.current_token().await.unwrap(), first);
        tokio::time::sleep(Duration::from_secs(61)).await;
        let second = tokens.current_token().await.unwrap();
        assert_ne!(second, first);
        tokens.forget_refused(&first).await;
        assert_eq!(
            tokens.current_token().await.unwrap(),
            second,
            "an old token's refusal leaves the new one"
        );

        let end = clock.now() + SignedDuration::from_mins(5);
        let passing = Credentials::new("AKIDEXAMPLE", "secret", None, Some(end.into()), "test");
        let tokens = EksTokenSource::new(
            "demo",
            "us-west-2",
            SharedCredentialsProvider::new(passing),
            clock,
        );
        let first = tokens.current_token().await.unwrap();
        tokio::time::sleep(Duration::from_secs(5 * 60)).await;
        assert_ne!(tokens.current_token().await.unwrap(), first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_right_makes_a_new_token_whichever_way_it_was_wrong() {
        for hours in [-2, 2] {
            let clock = Clock::starting_at("2026-11-21T08:00:00Z".parse().unwrap());
            let keys = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
            let credentials = SharedCredentialsProvider::new(keys);
            let tokens = EksTokenSource::new("demo", "us-west-2", credentials, clock.clone());
            let first = tokens.current_token().await.unwrap();
            clock.jump_by(SignedDuration::from_hours(hours));
            assert_ne!(tokens.current_token().await.unwrap(), first, "{hours} h");
        }
    }
}
