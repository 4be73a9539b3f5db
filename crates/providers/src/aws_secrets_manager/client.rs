//! The SDK's client, set up as this program wants it: ring, the configured CA, no retries of
//! its own, no plain HTTP to other machines.
//!
//! Who signs in is the SDK's own chain: keys in the environment, the profile of `~/.aws` (keys, an
//! assumed role, single sign-on, `credential_process`), a web identity, a container's endpoint, an
//! EC2 instance. Two things come before it: `profile` under `[aws]`, and keys in the credentials
//! file. `[aws] endpoint` places Secrets Manager alone; the variables of the SDK
//! (`AWS_ENDPOINT_URL_STS`, `AWS_ENDPOINT_URL_SSO`) place those who give the credentials.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, ConfigLoader, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_secretsmanager::config::{Builder, ConfigBag, Intercept, RuntimeComponents, SharedHttpClient};
use aws_sdk_secretsmanager::error::BoxError;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::lock::Mutex;
use pgrotate_core::{Error, Kind, Result};

use crate::clocks;
use crate::http;
use crate::requests;
use crate::shared::Shared;

/// As with the shared HTTP client.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The client, and what else signs a request.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) credentials: SharedCredentialsProvider,
    pub(super) region: String,
}

/// Makes a client from the AWS configuration chain. Finds the region, and no credentials yet.
///
/// # Errors
/// When no region is known.
pub(super) async fn connect(shared: &Arc<Shared>, secret: &str) -> Result<Connection> {
    let http = https(shared)?;
    let timeouts =
        TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(REQUEST_TIMEOUT);
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http.clone())
        .timeout_config(timeouts.build())
        .app_name(AppName::new("pgrotate").expect("the name has only letters"));
    let region = region(shared, secret);
    if let Some(region) = region.clone() {
        loader = loader.region(region);
    }
    if let Some(endpoint) = &shared.vendors.aws.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let config = with_credentials(loader, shared, region, http).load().await;
    let refuse = |why: &str, hint: &str| {
        Error::new(Kind::Config, "reach AWS Secrets Manager").because(why.to_owned()).hint(hint.to_owned())
    };
    let Some(region) = config.region().map(ToString::to_string) else {
        let hint = "set `region` under [aws] in the configuration, or AWS_REGION";
        return Err(refuse("no region is configured", hint));
    };
    let credentials = config.credentials_provider();
    let credentials =
        credentials.ok_or_else(|| refuse("there are no AWS credentials", "aws configure list"))?;
    let credentials = SharedCredentialsProvider::new(Kept { inner: credentials, kept: Mutex::default() });
    // The executor repeats what may be repeated, with the journal knowing of it.
    let config = Builder::from(&config).retry_config(RetryConfig::disabled()).interceptor(NoPlainHttp);
    let config = config.credentials_provider(credentials.clone()).interceptor(Noted);
    let config = config.interceptor(Listener(Arc::clone(shared)));
    Ok(Connection { client: Client::from_conf(config.build()), credentials, region })
}

/// The configured region, else that of the secret's ARN, else the environment's.
pub(super) fn region(shared: &Shared, secret: &str) -> Option<Region> {
    let of_arn = || match secret.split(':').collect::<Vec<_>>()[..] {
        ["arn", _, "secretsmanager", region, ..] if !region.is_empty() => Some(region.to_owned()),
        _ => None,
    };
    let configured = shared.vendors.aws.region.clone().or_else(of_arn);
    let variables =
        || ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| shared.credentials.plain(name));
    configured.or_else(variables).map(Region::new)
}

/// A configured profile counts before the environment, as with `aws --profile`; keys of the
/// credentials file stand in for those of the environment.
fn with_credentials(
    loader: ConfigLoader,
    shared: &Shared,
    region: Option<Region>,
    http: SharedHttpClient,
) -> ConfigLoader {
    if let Some(profile) = &shared.vendors.aws.profile {
        let config = ProviderConfig::without_region().with_region(region).with_http_client(http);
        let provider =
            ProfileFileCredentialsProvider::builder().configure(&config).profile_name(profile).build();
        return loader.profile_name(profile).credentials_provider(provider);
    }
    let keys = (shared.credentials.get("AWS_ACCESS_KEY_ID"), shared.credentials.get("AWS_SECRET_ACCESS_KEY"));
    let (Some(id), Some(key)) = keys else { return loader };
    let session = shared.credentials.get("AWS_SESSION_TOKEN").map(|token| token.expose().to_owned());
    loader.credentials_provider(Credentials::new(id.expose(), key.expose(), session, None, "variables"))
}

fn https(shared: &Shared) -> Result<SharedHttpClient> {
    let mut trusted = TrustStore::default();
    for pem in shared.ca.as_deref().map(accepted).unwrap_or_default() {
        trusted.add_pem_certificate(pem);
    }
    let context = TlsContext::builder()
        .with_trust_store(trusted)
        .build()
        .map_err(|_| Error::internal("the AWS client could not be built"))?;
    // Without a proxy configuration this client uses none, whatever the environment says.
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(context)
        .build_https())
}

/// The certificates of a PEM file that TLS can use, one PEM text each: the SDK would panic
/// over another one.
fn accepted(pem: &[u8]) -> Vec<String> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let certificates = CertificateDer::pem_slice_iter(pem).flatten();
    let usable = certificates.filter(|der| rustls::RootCertStore::empty().add(der.clone()).is_ok());
    usable
        .map(|der| {
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(&der))
        })
        .collect()
}

/// Refuses a request by plain HTTP to another machine, wherever its endpoint was configured.
#[derive(Debug)]
struct NoPlainHttp;

impl Intercept for NoPlainHttp {
    fn name(&self) -> &'static str {
        "NoPlainHttp"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        http::endpoint(context.request().uri()).map(drop).map_err(BoxError::from)
    }
}

/// Notes what AWS calls each request.
#[derive(Debug)]
struct Noted;

/// The call that a request makes. When its answer is there, the request itself is gone.
#[derive(Debug)]
struct Call(String);

impl Storable for Call {
    type Storer = StoreReplace<Self>;
}

impl Intercept for Noted {
    fn name(&self) -> &'static str {
        "Noted"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // Every call is a POST; this header says which it is.
        let target = context.request().headers().get("x-amz-target").unwrap_or_default();
        let call = target.rsplit('.').next().unwrap_or_default().to_owned();
        config.interceptor_state().store_put(Call(call));
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let what = config.load::<Call>().map(|call| call.0.clone()).unwrap_or_default();
        let looks = ["Get", "Describe", "List"].iter().any(|verb| what.starts_with(verb));
        let asked = requests::Asked { what, changes: !looks };
        requests::note(&asked, |name| context.response().headers().get(name));
        Ok(())
    }
}

/// How long before their end credentials are fetched anew.
const SPARE: Duration = Duration::from_secs(300);

/// Credentials that are fetched once for the SDK's client and for what is asked beside it: behind them may be a role that
/// has to be assumed.
#[derive(Debug)]
struct Kept {
    inner: SharedCredentialsProvider,
    kept: Mutex<Option<Credentials>>,
}

impl Kept {
    async fn fetch(&self) -> aws_credential_types::provider::Result {
        // Whoever comes second waits here for what the first one fetches.
        let mut kept = self.kept.lock().await;
        let lasts = |own: &Credentials| own.expiry().is_none_or(|end| end > SystemTime::now() + SPARE);
        if let Some(own) = kept.as_ref().filter(|own| lasts(own)) {
            return Ok(own.clone());
        }
        let fetched = self.inner.provide_credentials().await?;
        *kept = Some(fetched.clone());
        Ok(fetched)
    }
}

impl ProvideCredentials for Kept {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.fetch())
    }
}

/// Hears from each answer how late it is at AWS.
struct Listener(Arc<Shared>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

impl Intercept for Listener {
    fn name(&self) -> &'static str {
        "Listener"
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.clocks.hear_header(clocks::AWS, context.response().headers().get("date"), self.0.clock.now());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate for a test's authority, whose key nobody has; valid until 2126.
    const CA: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBcTCCARegAwIBAgIUAJyA8TfHP0nnXjzjrbHC8c/xP9cwCgYIKoZIzj0EAwIw\n\
DTELMAkGA1UEAwwCY2EwIBcNMjYxMTIzMjMzNjQ2WhgPMjEyNjEwMzAyMzM2NDZa\n\
MA0xCzAJBgNVBAMMAmNhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEWwuDJXMR\n\
B2Sli/gQAdAV5WBtOFZkSWmZ1YVw8HfXy2rsQCUzScHPkX4B+FWp0xTnrqkUCL2l\n\
e4ABY3lUzoF4yqNTMFEwHQYDVR0OBBYEFHBDP62HqGFel/vk3Ol8IEJuecyaMB8G\n\
A1UdIwQYMBaAFHBDP62HqGFel/vk3Ol8IEJuecyaMA8GA1UdEwEB/wQFMAMBAf8w\n\
CgYIKoZIzj0EAwIDSAAwRQIgXNfZXPmpGGrYXGtnYRuSv5LIK0CDOoUtsB8mZkhp\n\
nRcCIQCzExgFEp7rGoZtfGdF9Hd5wtVvrbRAF0OtdVehj06rIQ==\n\
-----END CERTIFICATE-----\n\
";

    #[test]
    fn certificates_that_tls_can_not_use_are_left_out() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let pem = format!("words\n{broken}{CA}more words\n{CA}");
        let accepted = accepted(pem.as_bytes());
        assert_eq!(accepted.len(), 2);
        // The SDK reads each of them with this and panics if it can't.
        for one in accepted {
            http::tls_config(Some(one.as_bytes())).unwrap();
        }
    }
}
