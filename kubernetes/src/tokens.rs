//! Whose a ServiceAccount token is, by the word of the API server.
//!
//! A proxy shows the same token on every stream, so what was said of a token is kept until shortly
//! before it ends. While the API server is away those who were known stay known.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use daemon::Clock;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::timeout};

/// So many questions are open at once.
const AT_ONCE: usize = 32;
/// How long the API server has for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many tokens are known at most.
const KNOWN: usize = 50_000;
/// So long before its end a token is asked about anew: by then its kubelet has replaced it.
const MARGIN: SignedDuration = SignedDuration::from_secs(10);
/// So long nobody asks again about a token that was refused.
const REFUSED: SignedDuration = SignedDuration::from_secs(10);
/// A longer token is none.
const LONGEST: usize = 16 << 10;

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The namespace of the ServiceAccount, and of the pod.
    pub namespace: String,
    /// The ServiceAccount.
    pub name: String,
    /// The pod that the token was made for.
    pub pod: Option<BoundPod>,
    /// It is none from then on.
    pub expires: Timestamp,
}

/// A pod that a token was made for: with it the token ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPod {
    /// Its name.
    pub name: String,
    /// What tells it from another one of this name.
    pub uid: String,
}

/// Why nobody is known by a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no such token, or one that ended, or for somebody else.
    #[error("the ServiceAccount token is refused: {0}")]
    Refused(String),
    /// Nobody knows, for now.
    #[error("the API server does not say whose the ServiceAccount token is: {0}")]
    Unavailable(String),
}

type Hash = [u8; 32];

#[derive(Debug, Default)]
struct Known {
    /// What was said of each token, and until when that counts.
    said: BTreeMap<Hash, (Result<Arc<Account>, TokenError>, Timestamp)>,
    /// By when it ends: the first is forgotten first.
    ends: std::collections::BTreeSet<(Timestamp, Hash)>,
}

impl Known {
    fn get(&self, hash: &Hash, now: Timestamp) -> Option<Result<Arc<Account>, TokenError>> {
        let (said, until) = self.said.get(hash)?;
        (now < *until).then(|| said.clone())
    }

    fn put(&mut self, hash: Hash, said: Result<Arc<Account>, TokenError>, until: Timestamp) {
        self.remove(&hash);
        while self.said.len() >= KNOWN {
            let Some((_, first)) = self.ends.pop_first() else { break };
            self.said.remove(&first);
        }
        self.said.insert(hash, (said, until));
        self.ends.insert((until, hash));
    }

    fn remove(&mut self, hash: &Hash) {
        if let Some((_, until)) = self.said.remove(hash) {
            self.ends.remove(&(until, *hash));
        }
    }
}

/// Asks the API server, and remembers.
#[derive(Debug)]
pub struct Tokens {
    reviews: Api<TokenReview>,
    audience: String,
    clock: Clock,
    known: Mutex<Known>,
    room: Semaphore,
}

impl Tokens {
    /// Takes tokens that were made for `audience`.
    #[must_use]
    pub fn new(client: Client, audience: &str, clock: Clock) -> Self {
        Self {
            reviews: Api::all(client),
            audience: audience.to_owned(),
            clock,
            known: Mutex::default(),
            room: Semaphore::new(AT_ONCE),
        }
    }

    /// Whose the token is.
    pub async fn account(&self, token: &str) -> Result<Arc<Account>, TokenError> {
        let Some(claims) = Claims::of(token) else {
            return Err(TokenError::Refused("it is no token of a ServiceAccount".into()));
        };
        // Not asked about: whoever makes up tokens shall cost the API server nothing.
        let Some(expires) = claims.expires().filter(|expires| self.clock.now() < *expires) else {
            return Err(TokenError::Refused("it has expired, or says not when it does".into()));
        };
        if !claims.is_for(&self.audience) {
            return Err(TokenError::Refused(format!("it is not for {:?}", self.audience)));
        }
        let hash = hash(token);
        if let Some(said) = self.known.lock().get(&hash, self.clock.now()) {
            return said;
        }
        let Ok(_room) = self.room.acquire().await else {
            return Err(TokenError::Unavailable("it ends".into()));
        };
        // Who waited may find that another one asked.
        if let Some(said) = self.known.lock().get(&hash, self.clock.now()) {
            return said;
        }
        let said = self.ask(token, expires).await;
        let until = match &said {
            Ok(account) => account.expires.saturating_sub(MARGIN).unwrap_or(account.expires),
            Err(TokenError::Refused(_)) => {
                self.clock.now().saturating_add(REFUSED).unwrap_or(Timestamp::MAX)
            }
            Err(TokenError::Unavailable(_)) => return said,
        };
        self.known.lock().put(hash, said.clone(), until);
        said
    }

    /// Asks anew about the tokens of a pod that is gone.
    pub fn forget(&self, pod_uid: &str) {
        let mut known = self.known.lock();
        let of_pod = |account: &Account| account.pod.as_ref().is_some_and(|pod| pod.uid == pod_uid);
        let gone: Vec<Hash> = known
            .said
            .iter()
            .filter(|(_, (said, _))| said.as_ref().is_ok_and(|account| of_pod(account)))
            .map(|(hash, _)| *hash)
            .collect();
        for hash in &gone {
            known.remove(hash);
        }
    }

    async fn ask(&self, token: &str, expires: Timestamp) -> Result<Arc<Account>, TokenError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: Some(vec![self.audience.clone()]),
            },
            ..TokenReview::default()
        };
        let asked = timeout(PATIENCE, self.reviews.create(&PostParams::default(), &review)).await;
        let review = match asked {
            Ok(Ok(review)) => review,
            Ok(Err(error)) => return Err(TokenError::Unavailable(error.to_string())),
            Err(_) => return Err(TokenError::Unavailable("it does not answer".into())),
        };
        account(review.status.unwrap_or_default(), &self.audience, expires).map(Arc::new)
    }
}

fn hash(token: &str) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

fn account(
    status: TokenReviewStatus,
    audience: &str,
    expires: Timestamp,
) -> Result<Account, TokenError> {
    let refused = |reason: &str| Err(TokenError::Refused(reason.to_owned()));
    if status.authenticated != Some(true) {
        let reason = status.error.unwrap_or_default();
        return refused(if reason.is_empty() { "nobody has it" } else { &reason });
    }
    // A server that knows no audiences says none, and its word is about its own.
    if !status.audiences.iter().flatten().any(|it| it == audience) {
        return refused("it is for somebody else");
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let parts: Vec<&str> = name.split(':').collect();
    let ["system", "serviceaccount", namespace, name] = parts[..] else {
        return refused("it is not that of a ServiceAccount");
    };
    let mut extra = user.extra.unwrap_or_default();
    let mut only = |key: &str| extra.remove(key).and_then(|mut values| values.pop());
    let pod = only(POD_NAME).zip(only(POD_UID)).map(|(name, uid)| BoundPod { name, uid });
    Ok(Account { namespace: namespace.into(), name: name.into(), pod, expires })
}

/// What a token says about itself, which nobody has verified.
#[derive(Deserialize)]
struct Claims {
    exp: Option<i64>,
    #[serde(default)]
    aud: Audience,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Claims {
    fn of(token: &str) -> Option<Self> {
        if token.len() > LONGEST {
            return None;
        }
        let mut parts = token.split('.');
        let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    fn expires(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.exp?).ok()
    }

    fn is_for(&self, audience: &str) -> bool {
        match &self.aud {
            Audience::One(one) => one == audience,
            Audience::Many(many) => many.iter().any(|it| it == audience),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::client::Body;
    use serde_json::{Value, json};
    use std::convert::Infallible;

    /// An API server that says `answers` in turn, and then is away; and the questions it got.
    fn server(answers: Vec<Value>) -> (Client, Arc<Mutex<usize>>) {
        let (asked, answers) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(answers.into_iter())));
        let count = asked.clone();
        let service = tower::service_fn(move |_: http::Request<Body>| {
            *count.lock() += 1;
            let answer = answers.lock().next();
            async move {
                let (status, body) = match answer {
                    Some(answer) => (201, json!({ "spec": {}, "status": answer })),
                    None => (503, json!({ "kind": "Status", "status": "Failure", "code": 503 })),
                };
                let body = Body::from(serde_json::to_vec(&body).unwrap_or_default());
                let response = http::Response::builder().status(status).body(body);
                Ok::<_, Infallible>(response.expect("the parts are constants"))
            }
        });
        (Client::new(service, "default"), asked)
    }

    fn token(exp: i64, audience: &str) -> String {
        let claims = json!({ "exp": exp, "aud": [audience] }).to_string();
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    fn good() -> Value {
        json!({
            "authenticated": true,
            "audiences": ["atoll"],
            "user": {
                "username": "system:serviceaccount:shop:cart",
                "extra": { POD_NAME: ["cart-1"], POD_UID: ["u-1"] },
            },
        })
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn tokens(client: Client) -> (Tokens, Arc<Mutex<Timestamp>>) {
        let now = Arc::new(Mutex::new(at(1000)));
        let shown = now.clone();
        (Tokens::new(client, "atoll", Clock::of(move || *shown.lock())), now)
    }

    #[tokio::test]
    async fn a_token_is_asked_about_once_until_shortly_before_its_end() {
        let (client, asked) = server(vec![good()]);
        let (tokens, now) = tokens(client);
        let token = token(2000, "atoll");
        let account = tokens.account(&token).await.unwrap();
        let expected = Account {
            namespace: "shop".into(),
            name: "cart".into(),
            pod: Some(BoundPod { name: "cart-1".into(), uid: "u-1".into() }),
            expires: at(2000),
        };
        assert_eq!(*account, expected);
        *now.lock() = at(1989);
        assert_eq!(*tokens.account(&token).await.unwrap(), expected);
        assert_eq!(*asked.lock(), 1);
        *now.lock() = at(1990);
        let error = tokens.account(&token).await.unwrap_err();
        assert!(matches!(error, TokenError::Unavailable(_)), "{error}");
        *now.lock() = at(2000);
        let error = tokens.account(&token).await.unwrap_err();
        assert!(matches!(error, TokenError::Refused(_)), "{error}");
    }

    #[tokio::test]
    async fn while_the_api_server_is_away_only_those_who_were_known_are() {
        let (client, _) = server(vec![good()]);
        let (tokens, _) = tokens(client);
        tokens.account(&token(2000, "atoll")).await.unwrap();
        tokens.account(&token(2000, "atoll")).await.unwrap();
        let error = tokens.account(&token(2001, "atoll")).await.unwrap_err();
        assert!(matches!(error, TokenError::Unavailable(_)), "{error}");
        tokens.forget("u-2");
        tokens.account(&token(2000, "atoll")).await.unwrap();
        tokens.forget("u-1");
        let error = tokens.account(&token(2000, "atoll")).await.unwrap_err();
        assert!(matches!(error, TokenError::Unavailable(_)), "{error}");
    }

    #[tokio::test]
    async fn a_token_that_is_made_up_costs_no_request() {
        let (client, asked) = server(vec![good()]);
        let (tokens, _) = tokens(client);
        let long = format!("a.{}.c", "b".repeat(LONGEST));
        for made_up in
            ["", "a.b", "a.!.c", "e30.e30.c", &long, &token(999, "atoll"), &token(2000, "kube")]
        {
            let error = tokens.account(made_up).await.unwrap_err();
            assert!(matches!(error, TokenError::Refused(_)), "{error}");
        }
        assert_eq!(*asked.lock(), 0);
    }

    #[tokio::test]
    async fn what_the_api_server_does_not_vouch_for_is_refused_and_remembered_for_a_moment() {
        let stranger = json!({ "authenticated": false, "error": "token has been invalidated" });
        let elsewhere =
            json!({ "authenticated": true, "audiences": ["kube"], "user": good()["user"] });
        let person = json!({
            "authenticated": true, "audiences": ["atoll"], "user": { "username": "system:admin" },
        });
        let (client, asked) = server(vec![stranger, elsewhere, person, good()]);
        let (tokens, now) = tokens(client);
        let mut refused = Vec::new();
        for exp in [2000, 2001, 2002] {
            let token = token(exp, "atoll");
            for _ in 0..2 {
                refused.push(tokens.account(&token).await.unwrap_err().to_string());
            }
        }
        refused.dedup();
        let expected = [
            "the ServiceAccount token is refused: token has been invalidated",
            "the ServiceAccount token is refused: it is for somebody else",
            "the ServiceAccount token is refused: it is not that of a ServiceAccount",
        ];
        assert_eq!(
            (refused.iter().map(String::as_str).collect::<Vec<_>>(), *asked.lock()),
            (expected.to_vec(), 3)
        );
        *now.lock() = at(1010);
        tokens.account(&token(2000, "atoll")).await.unwrap();
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut known = Known::default();
        let name = |i: usize| hash(&i.to_string());
        let said = || Err(TokenError::Refused(String::new()));
        for i in 0..KNOWN + 10 {
            let until = at(i64::try_from(i).unwrap());
            known.put(name(i), said(), until);
            known.put(name(i), said(), until);
        }
        assert_eq!((known.said.len(), known.ends.len()), (KNOWN, KNOWN));
        assert!(known.get(&name(9), at(0)).is_none() && known.get(&name(10), at(0)).is_some());
    }
}
