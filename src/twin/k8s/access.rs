//! Who may come in: a bearer token such as EKS's, a static one, or anybody. What they may do then is RBAC's to say.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};

use super::rbac::RbacAuthorizer;
use super::status::ApiFailure;
use crate::model::Clock;
use crate::wire::Request;

/// How long a token is good, by the date inside.
const TOKEN_LIFETIME: SignedDuration = SignedDuration::from_mins(15);
/// The parameters a token may have; the real authenticator refuses any other (EKS-AUTH-1).
const TOKEN_PARAMETERS: &[&str] = &[
    "action",
    "version",
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
];

/// Who may come in.
#[derive(Clone, Debug, Default)]
pub struct AccessControl {
    pub anonymous: bool,
    pub token: Option<String>,
    /// Signed tokens made between these times are refused: whoever made them had no good credentials.
    pub refused: Option<(Timestamp, Timestamp)>,
    /// What tokens are dated by, where the cluster's time is faster than that of those who make them; None: its own.
    pub callers_clock: Option<Clock>,
    /// What who comes in may do; None: everything.
    pub rbac: Option<RbacAuthorizer>,
    /// The signed token that came last, and when it was made: a client shows the same for minutes.
    last: Option<(String, Timestamp)>,
}

impl AccessControl {
    /// Lets the request in, or not: whoever it is first, then what it asks for.
    pub fn check_request(&mut self, request: &Request, now: Timestamp) -> Result<(), ApiFailure> {
        let now = self.callers_clock.as_ref().map_or(now, Clock::now);
        self.check_identity(request, now)?;
        match &mut self.rbac {
            Some(rbac) => rbac.check_request(request),
            None => Ok(()),
        }
    }

    fn check_identity(&mut self, request: &Request, now: Timestamp) -> Result<(), ApiFailure> {
        let open = ["/healthz", "/livez", "/readyz"]
            .iter()
            .any(|p| request.uri().path().starts_with(p));
        let header = request
            .headers()
            .get(http::header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok());
        // Who shows nothing may be let in; who shows something is judged by it.
        if open || (self.anonymous && header.is_none()) {
            return Ok(());
        }
        // A static token is compared as it is; a token of EKS's is good for 15 minutes from its date (EKS-AUTH-1).
        let token = header
            .and_then(|h| h.strip_prefix("Bearer "))
            .unwrap_or_default()
            .trim();
        let known = self.token.as_deref().is_some_and(|t| t == token);
        if known
            || self
                .token_made_at(token)
                .is_some_and(|made| self.is_token_valid(made, now))
        {
            return Ok(());
        }
        Err(ApiFailure::new(401, "Unauthorized", "Unauthorized"))
    }

    /// When a signed token was made.
    fn token_made_at(&mut self, token: &str) -> Option<Timestamp> {
        if let Some((last, made)) = &self.last
            && last == token
        {
            return Some(*made);
        }
        let made = signed_at(token)?;
        self.last = Some((token.to_owned(), made));
        Some(made)
    }

    fn is_token_valid(&self, made: Timestamp, now: Timestamp) -> bool {
        let refused = self
            .refused
            .is_some_and(|(from, until)| made >= from && made < until);
        !refused && now.duration_since(made).abs() <= TOKEN_LIFETIME
    }
}

/// When `token` was made, where it is a presigned call to STS for a cluster.
fn signed_at(token: &str) -> Option<Timestamp> {
    // The verifier takes only a presigned call to the STS host, over https and with the path `/` (EKS-AUTH-1).
    let url = token
        .strip_prefix("k8s-aws-v1.")
        .and_then(|t| URL_SAFE_NO_PAD.decode(t).ok())?;
    let uri = String::from_utf8(url).ok()?.parse::<http::Uri>().ok()?;
    let host = uri.host().unwrap_or_default();
    if uri.scheme_str() != Some("https") || uri.path() != "/" || !host.starts_with("sts.") {
        return None;
    }
    let query = super::query::decode_pairs(uri.query().unwrap_or_default());
    // A parameter that stands twice counts as missing, as the verifier refuses it.
    let one = |key: &str| {
        let mut found = query.iter().filter(|(k, _)| k.eq_ignore_ascii_case(key));
        found
            .next()
            .map(|(_, v)| v.as_str())
            .filter(|_| found.next().is_none())
    };
    let date = one("x-amz-date").and_then(|d| {
        let date = jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", d)
            .ok()?
            .to_datetime()
            .ok()?;
        date.to_zoned(jiff::tz::TimeZone::UTC)
            .ok()
            .map(|z| z.timestamp())
    });
    // The signature itself is not computed: the twin has no secret to compute it with. The rest is held to the
    // verifier's rules, the cluster's header among what is signed.
    let good = query
        .iter()
        .all(|(k, _)| TOKEN_PARAMETERS.contains(&k.to_ascii_lowercase().as_str()))
        && one("action") == Some("GetCallerIdentity")
        && one("x-amz-signature").is_some_and(|s| s.len() == 64)
        && one("x-amz-signedheaders").is_some_and(|h| h.split(';').any(|h| h == "x-k8s-aws-id"));
    date.filter(|_| good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(date: &str, extra: &str) -> String {
        let url = format!(
            "https://sts.us-west-2.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIDEXAMPLE%2F20261121%2Fus-west-2%2Fsts%2Faws4_request&X-Amz-Date={date}&X-Amz-Expires=60\
             &X-Amz-SignedHeaders=host%3Bx-k8s-aws-id&X-Amz-Signature={}{extra}",
            "2859d00054e7a070bec4b75a15c79b253a1f4eabd4176c53a98be7f670e7e1a2"
        );
        format!("k8s-aws-v1.{}", URL_SAFE_NO_PAD.encode(url))
    }

    #[test]
    fn a_token_is_good_for_fifteen_minutes_and_only_as_eks_makes_it() {
        let shows = |token: &str, now: &str| {
            let request = http::Request::get("/version")
                .header("authorization", format!("Bearer {token}"))
                .body(bytes::Bytes::new())
                .unwrap();
            let mut access = AccessControl::default();
            // What was found out of a token the first time is what is said of it the second.
            let [first, second] =
                [(); 2].map(|()| access.check_request(&request, now.parse().unwrap()));
            assert_eq!(first.is_ok(), second.is_ok());
            first.is_ok()
        };
        let now = "2026-11-21T08:10:00Z";
        let good = token("20261121T080000Z", "");
        assert!(shows(&good, now));
        assert!(!shows(&good, "2026-11-21T08:16:00Z"), "16 minutes old");
        assert!(
            !shows(&token("20261121T080000Z", "&Extra=1"), now),
            "a parameter that is not allowed"
        );
        let twice = token("20261121T080000Z", "&X-Amz-Date=20261121T080000Z");
        assert!(!shows(&twice, now), "a parameter twice");
        assert!(!shows("k8s-aws-v1.garbled", now));
        assert!(!shows("", now));
    }
}
