//! The credentials of a site's SCM site: what Basic authentication takes there while the site's policy allows it.
//!
//! The vendor's tool asks the policy first. Where it allows Basic authentication the tool reads these and uses them
//! for the log stream; elsewhere it shows its token.

use serde_json::{Value, json};

use super::super::azure_arm::REGION;
use super::super::call::random_hex;
use super::site::Site;

/// User and password; every site and slot has its own, for as long as it lives.
pub(super) struct Publishing {
    user: String,
    password: String,
}

impl Publishing {
    /// New credentials: the user is named after the site, `$app` or `$app__slot`.
    pub(super) fn new(app: &str, slot: Option<&str>) -> Self {
        let slot = slot.map_or_else(String::new, |slot| format!("__{slot}"));
        Self { user: format!("${app}{slot}"), password: random_hex(30) }
    }
}

impl Site {
    /// Whether the SCM site takes this user and password.
    pub(super) fn accepts_basic(&self, user: &str, password: &str) -> bool {
        self.basic_auth && user == self.publishing.user && password == self.publishing.password
    }

    /// The credentials as a resource. They are shown whatever the policy says, as in Azure.
    pub(super) fn publishing_resource(&self, scm: &str) -> Value {
        let Publishing { user, password } = &self.publishing;
        let label = self.label();
        let host = host(scm);
        json!({
            "id": format!("{}/publishingcredentials/{user}", self.id()),
            "name": user,
            "type": format!("{}/publishingcredentials", self.kind()),
            "location": REGION.0,
            "properties": {
                "name": null,
                "publishingUserName": user,
                "publishingPassword": password,
                "publishingPasswordHash": null,
                "publishingPasswordHashSalt": null,
                "metadata": null,
                "isDeleted": false,
                "scmUri": format!("https://{user}:{password}@{label}.{host}"),
            },
        })
    }

    /// The publishing profile; with Basic authentication off its user and password aren't shown.
    pub(super) fn publish_profile(&self, scm: &str) -> String {
        let label = self.label();
        let (user, password) = if self.basic_auth {
            (self.publishing.user.as_str(), self.publishing.password.as_str())
        } else {
            ("REDACTED", "REDACTED")
        };
        format!(
            "<publishData><publishProfile profileName=\"{label} - FTP\" publishMethod=\"FTP\" \
             publishUrl=\"ftps://{label}.{}/site/wwwroot\" ftpPassiveMode=\"True\" userName=\"{user}\" \
             userPWD=\"{password}\" destinationAppUrl=\"http://{}\"></publishProfile></publishData>",
            host(scm),
            self.environment.app_host
        )
    }
}

fn host(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, host)| host)
}
