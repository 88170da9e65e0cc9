//! The credentials of S3: the settings' own, or what AWS's tools would find.

use std::error::Error as _;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::imds;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use object_store::CredentialProvider;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use reqwest::Url;
use tokio::sync::Mutex as AsyncMutex;

use super::client::{Client, Md5};
use super::refusal::Refusal;
use super::{endpoint, refuse};
use crate::error::{ErrorKind, Reason, Result};
use crate::location::{Location, Origin, Settings};
use crate::network::{Contact, Network};
use crate::runtime;

/// How long before they expire credentials are fetched anew.
const MARGIN: Duration = Duration::from_secs(5 * 60);
/// How long credentials are kept that do not say when they expire.
const KEPT: Duration = Duration::from_secs(15 * 60);

/// Adds the credentials to a builder; nothing is asked for yet, except files.
pub(super) fn add(
    builder: AmazonS3Builder,
    location: &Location,
    network: &Network,
    client: Client,
    region: &str,
) -> Result<AmazonS3Builder> {
    let settings = &location.settings;
    let plan = plan(settings).map_err(|cause| refuse(location, cause))?;
    let sts = match settings.text("sts-endpoint") {
        Some(given) => {
            let allow_http = settings.flag("allow-http").unwrap_or(false);
            let url = endpoint("sts-endpoint", given, allow_http);
            Some(url.map_err(|cause| refuse(location, cause))?)
        }
        None => None,
    };
    let own = match &plan.source {
        Source::WebIdentity { token_file, role } => {
            let builder = builder
                .with_config(AmazonS3ConfigKey::WebIdentityTokenFile, token_file)
                .with_config(AmazonS3ConfigKey::RoleArn, role)
                .with_config(AmazonS3ConfigKey::RoleSessionName, "larder");
            return Ok(match sts {
                Some(url) => builder.with_config(AmazonS3ConfigKey::StsEndpoint, url.as_str()),
                None => builder,
            });
        }
        Source::Keys { with_token } => {
            let keys = keys(settings, *with_token).map_err(|cause| refuse(location, cause))?;
            if plan.role.is_none() {
                return Ok(builder.with_credentials(Arc::new(
                    object_store::StaticCredentialProvider::new(keys),
                )));
            }
            Some(keys)
        }
        Source::Profile(_) | Source::Found => None,
    };
    let asked = Asked {
        plan,
        own,
        sts,
        metadata: settings.text("metadata-endpoint").map(str::to_owned),
        region: region.to_owned(),
        client: Fetching::new(client, network).map_err(|cause| refuse(location, cause))?,
    };
    let provider = runtime::block_on(provider(asked))
        .and_then(|outcome| outcome)
        .map_err(|cause| refuse(location, cause))?;
    Ok(builder.with_credentials(Arc::new(Refreshed {
        provider,
        kept: Mutex::new(None),
        contact: network.contact.clone(),
        fetching: AsyncMutex::new(()),
    })))
}

/// Where the credentials come from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// The settings hold them.
    Keys { with_token: bool },
    /// A profile of AWS's configuration files.
    Profile(String),
    /// A token of somebody who vouches for this process.
    WebIdentity { token_file: String, role: String },
    /// Whatever AWS's tools would find: the default profile, containers, instances.
    Found,
}

#[derive(Debug, PartialEq, Eq)]
struct Plan {
    source: Source,
    /// A role to assume with them, and the external id that it asks for.
    role: Option<(String, Option<String>)>,
}

/// Decides where the credentials come from, by what is set and where: what stands closer to this
/// program wins over the variables of AWS's tools, and keys belong together when they come from one place.
fn plan(settings: &Settings) -> std::result::Result<Plan, String> {
    let is_native = |name: &str| settings.origin(name) == Some(Origin::Native);
    let text = |name: &str| settings.text(name).map(str::to_owned);
    let role = text("role-arn");
    let token_file = text("web-identity-token-file");
    let keys = settings.origin("access-key-id");
    let is_first = |name: &str| match (settings.origin(name), keys) {
        (Some(own), Some(keys)) => own < keys,
        (own, None) => own.is_some(),
        (None, _) => false,
    };
    if keys.is_none()
        && settings
            .origin("secret-access-key")
            .is_some_and(|o| o != Origin::Native)
    {
        return Err("secret-access-key is set, but no access-key-id".to_owned());
    }
    let external_id = text("external-id");
    // AWS's own variable for a role is meant for the token file beside it, and for nothing else.
    let assumed = |role: Option<String>| match is_native("role-arn") {
        true => None,
        false => role.map(|role| (role, external_id.clone())),
    };
    if is_first("web-identity-token-file") {
        let (Some(token_file), Some(role)) = (token_file, role.clone()) else {
            return Err("web-identity-token-file needs the setting role-arn".to_owned());
        };
        return Ok(Plan {
            source: Source::WebIdentity { token_file, role },
            role: None,
        });
    }
    if is_first("profile") {
        let profile = text("profile").unwrap_or_default();
        return Ok(Plan {
            source: Source::Profile(profile),
            role: assumed(role),
        });
    }
    let source = match keys {
        Some(_) if is_native("access-key-id") != is_native("secret-access-key") => {
            return Err(
                "access-key-id and secret-access-key belong together, but one of them is set for larder \
                 and the other one for AWS's own tools only"
                    .to_owned(),
            );
        }
        Some(_) => Source::Keys {
            with_token: settings.origin("session-token") == settings.origin("access-key-id"),
        },
        None => Source::Found,
    };
    Ok(Plan {
        source,
        role: assumed(role),
    })
}

fn keys(settings: &Settings, with_token: bool) -> std::result::Result<AwsCredential, String> {
    let secret = settings.secret("secret-access-key")?;
    let Some(secret) = secret else {
        return Err("access-key-id is set, but no secret-access-key".to_owned());
    };
    let token = match with_token {
        true => settings.secret("session-token")?,
        false => None,
    };
    Ok(AwsCredential {
        key_id: settings
            .text("access-key-id")
            .unwrap_or_default()
            .to_owned(),
        secret_key: secret.as_str().to_owned(),
        token: token.map(|token| token.as_str().to_owned()),
    })
}

struct Asked {
    plan: Plan,
    own: Option<AwsCredential>,
    sts: Option<Url>,
    metadata: Option<String>,
    region: String,
    client: Fetching,
}

/// Makes what fetches the credentials.
async fn provider(asked: Asked) -> std::result::Result<SharedCredentialsProvider, String> {
    let region = Region::new(asked.region.clone());
    let config = ProviderConfig::without_region()
        .with_region(Some(region.clone()))
        .with_http_client(asked.client.clone());
    let base = match (asked.plan.source, asked.own) {
        (_, Some(own)) => SharedCredentialsProvider::new(Credentials::new(
            own.key_id,
            own.secret_key,
            own.token,
            None,
            "larder",
        )),
        (Source::Profile(name), None) => SharedCredentialsProvider::new(
            ProfileFileCredentialsProvider::builder()
                .configure(&config)
                .profile_name(name)
                .build(),
        ),
        (_, None) => {
            let chain = DefaultCredentialsChain::builder()
                .region(region.clone())
                .configure(config.clone());
            let chain = match asked.metadata {
                Some(endpoint) => {
                    let client = imds::Client::builder()
                        .configure(&config)
                        .endpoint(endpoint);
                    let client =
                        client.map_err(|error| format!("metadata-endpoint is no URL: {error}"))?;
                    chain.imds_client(client.build())
                }
                None => chain,
            };
            SharedCredentialsProvider::new(chain.build().await)
        }
    };
    let Some((role, external_id)) = asked.plan.role else {
        return Ok(base);
    };
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(region)
        .http_client(asked.client)
        .credentials_provider(base.clone());
    if let Some(url) = asked.sts {
        loader = loader.endpoint_url(url.as_str());
    }
    let mut builder = AssumeRoleProvider::builder(role)
        .session_name("larder")
        .configure(&loader.load().await);
    if let Some(id) = external_id {
        builder = builder.external_id(id);
    }
    Ok(SharedCredentialsProvider::new(
        builder.build_from_provider(base).await,
    ))
}

/// Credentials that are kept until shortly before they expire, and fetched anew then.
struct Refreshed {
    provider: SharedCredentialsProvider,
    kept: Mutex<Option<(Arc<AwsCredential>, SystemTime)>>,
    contact: Contact,
    /// Held while somebody fetches, so that one does it for all.
    fetching: AsyncMutex<()>,
}

impl fmt::Debug for Refreshed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Refreshed")
    }
}

impl Refreshed {
    /// Gives what is kept, unless less than `margin` of its time is left.
    fn kept(&self, margin: Duration) -> Option<Arc<AwsCredential>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (credential, end) = kept.as_ref()?;
        (*end > SystemTime::now() + margin).then(|| Arc::clone(credential))
    }
}

#[async_trait]
impl CredentialProvider for Refreshed {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        if let Some(kept) = self.kept(MARGIN) {
            return Ok(kept);
        }
        let _one_at_a_time = self.fetching.lock().await;
        if let Some(kept) = self.kept(MARGIN) {
            return Ok(kept);
        }
        let found = match self.provider.provide_credentials().await {
            Ok(found) => found,
            // What is about to expire is better than nothing.
            Err(error) => {
                return self
                    .kept(Duration::ZERO)
                    .ok_or_else(|| object_store::Error::Generic {
                        store: "S3",
                        source: Box::new(missing(&error, self.contact.kind_of_failure())),
                    });
            }
        };
        let credential = Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            // An empty token is how some metadata services say that there is none.
            token: found
                .session_token()
                .filter(|token| !token.is_empty())
                .map(str::to_owned),
        });
        let end = found
            .expiry()
            .unwrap_or_else(|| SystemTime::now() + MARGIN + KEPT);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some((Arc::clone(&credential), end));
        Ok(credential)
    }
}

/// Sorts why there are no credentials.
fn missing(error: &CredentialsError, unreachable: ErrorKind) -> Refusal {
    let mut causes = vec![error.to_string()];
    let mut layer = error.source();
    while let Some(source) = layer {
        let cause = source.to_string();
        if causes.last() != Some(&cause) && causes.len() < 8 {
            causes.push(cause);
        }
        layer = source.source();
    }
    let said: String = causes
        .join(": ")
        .chars()
        .take(400)
        .filter(|char| !char.is_control())
        .collect();
    let (kind, reason, what) = match error {
        CredentialsError::CredentialsNotLoaded(_) => (
            ErrorKind::Denied,
            Reason::NoCredentials,
            "no credentials were found in the settings, the environment, AWS's files or this machine's metadata",
        ),
        CredentialsError::ProviderTimedOut(_) => (
            unreachable,
            Reason::Unreachable,
            "the service that gives credentials is silent",
        ),
        CredentialsError::InvalidConfiguration(_) => (
            ErrorKind::Permanent,
            Reason::Settings,
            "AWS's configuration files make no sense",
        ),
        // A service that cannot be reached for the moment, as opposed to one that refuses.
        _ if said.contains("dispatch failure") || said.contains("timed out") => (
            unreachable,
            Reason::Unreachable,
            "the service that gives credentials cannot be reached",
        ),
        _ => (
            ErrorKind::Denied,
            Reason::NoCredentials,
            "no credentials were given",
        ),
    };
    Refusal::new(kind, reason, format!("{what} ({said})"))
}

/// The HTTP client of aws-config: ours, with our certificates; metadata services, which are on this
/// machine or its link, are reached without a proxy.
#[derive(Clone, Debug)]
struct Fetching {
    client: Client,
    direct: Client,
}

impl Fetching {
    fn new(client: Client, network: &Network) -> std::result::Result<Self, String> {
        let direct = Network {
            proxy: Some("none".to_owned()),
            // Where there is no such service, nothing answers at all.
            connect_timeout: Duration::from_secs(2).min(network.connect_timeout),
            ..network.clone()
        };
        let nowhere = Url::parse("http://localhost").map_err(|error| error.to_string())?;
        Ok(Self {
            client,
            direct: Client::new(&direct, &nowhere, Md5::Off)?,
        })
    }
}

impl HttpConnector for Fetching {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let this = self.clone();
        HttpConnectorFuture::new(async move { this.fetch(request).await })
    }
}

impl HttpClient for Fetching {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl Fetching {
    async fn fetch(
        &self,
        request: HttpRequest,
    ) -> std::result::Result<HttpResponse, ConnectorError> {
        let wrong =
            |error: &dyn fmt::Display| ConnectorError::other(error.to_string().into(), None);
        let request = request.try_into_http1x().map_err(|error| wrong(&error))?;
        let (parts, body) = request.into_parts();
        let Some(bytes) = body.bytes() else {
            return Err(wrong(&"the request's body is a stream"));
        };
        let is_near = parts.uri.host().is_some_and(is_near);
        let client = if is_near { &self.direct } else { &self.client };
        let request = http::Request::from_parts(parts, bytes.to_vec().into());
        let response = client
            .send(request)
            .await
            .map_err(|refusal| match refusal.kind {
                ErrorKind::Transient => ConnectorError::timeout(Box::new(refusal)),
                _ => ConnectorError::io(Box::new(refusal)),
            })?;
        let (parts, body) = response.into_parts();
        let body = body
            .bytes()
            .await
            .map_err(|error| ConnectorError::io(Box::new(error)))?;
        let response = http::Response::from_parts(parts, SdkBody::from(body));
        HttpResponse::try_from(response).map_err(|error| wrong(&error))
    }
}

/// Tells whether a host is this machine or on its link, where metadata services are.
fn is_near(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(std::net::IpAddr::V6(address)) => {
            address.is_loopback() || address.segments().first() == Some(&0xfd00)
        }
        Err(_) => host == "localhost",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use super::*;
    use crate::location::{Layers, Scheme};

    fn settings(file: &[(&str, &str)], env: &[(&str, &str)]) -> Settings {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<_, _> {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned().into()))
                .collect()
        };
        let (file, env) = (map(file), map(env));
        let layers = Layers {
            env: Some(&env),
            file: Some(&file),
            ..Layers::default()
        };
        Settings::gather(Scheme::S3, &layers).unwrap()
    }

    fn source(file: &[(&str, &str)], env: &[(&str, &str)]) -> Source {
        plan(&settings(file, env)).unwrap().source
    }

    const NATIVE: &[(&str, &str)] = &[
        ("AWS_ACCESS_KEY_ID", "native"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_SESSION_TOKEN", "t"),
    ];

    #[test]
    fn keys_are_taken_as_a_set_from_one_place() {
        let own = &[("access-key-id", "own"), ("secret-access-key", "s")];
        assert_eq!(source(&[], NATIVE), Source::Keys { with_token: true });
        // A token that the environment holds for other keys does not belong to these.
        assert_eq!(source(own, NATIVE), Source::Keys { with_token: false });
        assert_eq!(keys(&settings(own, NATIVE), false).unwrap().token, None);
        let split = &[("access-key-id", "own")];
        assert!(
            plan(&settings(split, NATIVE))
                .unwrap_err()
                .contains("belong together")
        );
        // The secret may stand in larder's own variables while the rest is in the file.
        let env = &[("LARDER_STORAGE_SECRET_ACCESS_KEY", "s")];
        assert_eq!(source(split, env), Source::Keys { with_token: false });
        assert!(plan(&settings(&[("secret-access-key", "s")], &[])).is_err());
        let error = keys(&settings(split, &[]), false).unwrap_err();
        assert!(error.contains("no secret-access-key"), "{error}");
    }

    #[test]
    fn what_is_set_for_larder_wins_over_the_variables_of_aws() {
        let profile = &[("profile", "backup")];
        assert_eq!(
            source(profile, NATIVE),
            Source::Profile("backup".to_owned())
        );
        let both: Vec<_> = NATIVE
            .iter()
            .copied()
            .chain([("AWS_PROFILE", "p")])
            .collect();
        assert_eq!(source(&[], &both), Source::Keys { with_token: true });
        assert_eq!(
            source(&[], &[("AWS_PROFILE", "p")]),
            Source::Profile("p".to_owned())
        );
        assert_eq!(source(&[], &[]), Source::Found);
    }

    #[test]
    fn a_role_is_assumed_with_the_other_credentials_or_with_a_token() {
        let token = &[("web-identity-token-file", "/t"), ("role-arn", "r")];
        let expected = Source::WebIdentity {
            token_file: "/t".to_owned(),
            role: "r".to_owned(),
        };
        assert_eq!(source(token, NATIVE), expected);
        assert!(
            plan(&settings(&token[..1], &[]))
                .unwrap_err()
                .contains("role-arn")
        );
        let found = plan(&settings(
            &[("role-arn", "r"), ("external-id", "x")],
            NATIVE,
        ))
        .unwrap();
        assert_eq!(found.role, Some(("r".to_owned(), Some("x".to_owned()))));
        // AWS's variable alone names no role to assume.
        let native: Vec<_> = NATIVE
            .iter()
            .copied()
            .chain([("AWS_ROLE_ARN", "r")])
            .collect();
        assert_eq!(plan(&settings(&[], &native)).unwrap().role, None);
    }

    #[test]
    fn metadata_services_are_near() {
        for near in [
            "169.254.169.254",
            "169.254.170.2",
            "127.0.0.1",
            "[fd00:ec2::254]",
            "localhost",
        ] {
            assert!(is_near(near), "{near}");
        }
        for far in ["sts.amazonaws.com", "10.0.0.1", "[2001:db8::1]"] {
            assert!(!is_near(far), "{far}");
        }
    }
}
