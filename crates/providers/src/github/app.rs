//! GitHub Apps: the program as an installation of one.
//!
//! An App proves itself with a JWT that its private key signs (RS256, ten minutes at most), and
//! gets for it a token of one installation, good for an hour. That answer lists the permissions
//! that the token has, the only place where GitHub tells them.
//!
//! The key is ring's to use, which takes both forms in which it occurs: PKCS#1, as GitHub hands it
//! out, and PKCS#8, into which other tools turn it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use pgrotate_core::{Error, Kind, Result, Secret};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::credentials::Credentials;
use crate::shared;

/// Variables with the key itself, and with the name of its file.
const KEY: &str = "GITHUB_APP_PRIVATE_KEY";
const KEY_FILE: &str = "GITHUB_APP_PRIVATE_KEY_FILE";

/// How long before now an assertion begins: GitHub advises a minute, for clocks that differ.
const CLOCKS_APART: SignedDuration = SignedDuration::from_secs(60);
/// How long an assertion is good. GitHub takes ten minutes by its own clock.
const GOOD_FOR: SignedDuration = SignedDuration::from_mins(9);

/// What a token may do: `secrets` → `write`.
pub(crate) type Permissions = Arc<BTreeMap<String, String>>;

/// A token of an installation.
#[derive(Clone)]
pub(super) struct Installed {
    pub(super) token: Secret,
    pub(super) expires_at: Timestamp,
    pub(super) permissions: Permissions,
}

/// The body of GitHub's answer to a request for a token.
#[derive(Deserialize)]
struct Granted {
    token: String,
    expires_at: Timestamp,
    #[serde(default)]
    permissions: BTreeMap<String, String>,
}

impl Installed {
    /// Reads GitHub's answer.
    pub(super) fn read(body: &[u8]) -> Result<Self> {
        let granted: Granted = serde_json::from_slice(body).map_err(|_| {
            Error::new(Kind::Corrupt, "sign in to GitHub")
                .because("GitHub's answer holds no token")
                .later(None)
        })?;
        Ok(Self {
            token: Secret::new(Zeroizing::new(granted.token).as_str()),
            expires_at: granted.expires_at,
            permissions: Arc::new(granted.permissions),
        })
    }
}

/// An App with its key.
pub(super) struct App {
    id: String,
    key: RsaKeyPair,
}

impl App {
    /// Reads the key of the App with this id.
    pub(super) fn new(
        id: &str,
        credentials: &Credentials,
        resolve: impl Fn(&str) -> Box<Path>,
    ) -> Result<Self> {
        let (pem, from) = match (credentials.get(KEY), credentials.plain(KEY_FILE)) {
            // A file of variables, and many a CI system, keep a text of several lines in one.
            (Some(key), _) => (Zeroizing::new(key.expose().replace("\\n", "\n")), KEY.to_owned()),
            (None, Some(file)) => {
                let path = resolve(&file);
                let text = shared::read_small_text(&path).map_err(|error| {
                    refuse(format!("the key's file {}: {}", path.display(), shared::why(&error)))
                        .hint(format!("{KEY_FILE} names the file with the App's private key"))
                })?;
                (text, path.display().to_string())
            }
            (None, None) => {
                return Err(refuse(format!("app_id is set, and neither {KEY} nor {KEY_FILE} is")).hint(
                    format!("make a private key in the App's settings, and name its file in {KEY_FILE}"),
                ));
            }
        };
        let unusable = |why: &str| {
            refuse(format!("{from} holds {why}"))
                .hint("it has to be the file that GitHub hands out under the App's \"Private keys\", an RSA key in PEM form")
        };
        let key = match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
            Ok(PrivateKeyDer::Pkcs1(key)) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
            Ok(PrivateKeyDer::Pkcs8(key)) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            Ok(_) => return Err(unusable("a key that is no RSA key")),
            Err(_) => return Err(unusable("no private key in PEM form")),
        };
        let key = key.map_err(|_| unusable("no RSA key of 2048 bits or more"))?;
        Ok(Self { id: id.to_owned(), key })
    }

    /// A proof that this is the App, good for some minutes.
    pub(super) fn assertion(&self, now: Timestamp) -> Result<Secret> {
        let claims = json!({
            "iat": (now - CLOCKS_APART).as_second(),
            "exp": (now + GOOD_FOR).as_second(),
            "iss": self.id,
        });
        let part = |text: &[u8]| URL_SAFE_NO_PAD.encode(text);
        let signed =
            format!("{}.{}", part(br#"{"alg":"RS256","typ":"JWT"}"#), part(claims.to_string().as_bytes()));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| Error::internal("the App's key did not sign"))?;
        Ok(Secret::new(format!("{signed}.{}", part(&signature))))
    }
}

fn refuse(why: String) -> Error {
    Error::new(Kind::Unauthenticated, "sign in to GitHub as an App").because(why)
}

#[cfg(test)]
mod tests;
