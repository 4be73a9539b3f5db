//! Which requests each call of a provider sends, as the real one does for the runbook's configuration.

use std::fmt;

/// A system that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vendor {
    /// Azure's resource manager.
    ResourceManager,
    /// A vault's own side.
    KeyVault,
    /// An application's own side.
    AppService,
    /// GitHub.
    Github,
    /// AWS.
    Aws,
    /// A Connect server of 1Password.
    Onepassword,
    /// The on-call channel.
    Webhook,
    /// The tickets.
    Jira,
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ResourceManager => "resource_manager",
            Self::KeyVault => "key_vault",
            Self::AppService => "app_service",
            Self::Github => "github",
            Self::Aws => "aws",
            Self::Onepassword => "onepassword",
            Self::Webhook => "webhook",
            Self::Jira => "jira",
        })
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// To whom.
    pub vendor: Vendor,
    /// Whose budget it draws on: a subscription, a vault, an owner, an account.
    pub place: String,
    /// Whether it is more than a GET, however harmless; vendors count by that.
    pub writes: bool,
}

/// Several requests of one kind, one after the other.
pub(super) type Sent = (Vendor, bool, usize);

const fn reads(vendor: Vendor, number: usize) -> Sent {
    (vendor, false, number)
}

const fn writes(vendor: Vendor, number: usize) -> Sent {
    (vendor, true, number)
}

/// What a provider's calls send.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Calls {
    pub(super) check: &'static [Sent],
    /// Of an authority or a vault of record: its change; of a sink: its write; of a consumer: its restart; of a recorder: its line.
    pub(super) change: &'static [Sent],
    /// What comes after it: promotion, read-back.
    pub(super) after: &'static [Sent],
    /// How long the system takes beside its answers.
    pub(super) takes_ms: u64,
}

use Vendor::{AppService, Aws, Github, Jira, KeyVault, Onepassword, ResourceManager, Webhook};

/// Finds vault and item, and tries an empty patch; each write is a look and a patch.
pub(super) const VAULT: Calls = Calls {
    check: &[reads(Onepassword, 3), writes(Onepassword, 1)],
    change: &[reads(Onepassword, 1), writes(Onepassword, 1)],
    after: &[reads(Onepassword, 1), writes(Onepassword, 1)],
    takes_ms: 0,
};
/// Rights, locks, deny assignments and the server; a look, the patch, its operation, a look.
pub(super) const SERVER: Calls = Calls {
    check: &[reads(ResourceManager, 4)],
    change: &[reads(ResourceManager, 1), writes(ResourceManager, 1), reads(ResourceManager, 2)],
    after: &[],
    takes_ms: 5_000,
};
/// The first copy in a vault also asks for the vault itself, and is told where to sign in.
pub(super) const FIRST_SECRET: Calls =
    Calls { check: &[reads(ResourceManager, 3), reads(KeyVault, 2)], ..SECRET };
pub(super) const SECRET: Calls = Calls {
    check: &[reads(KeyVault, 1)],
    change: &[reads(KeyVault, 1), writes(KeyVault, 1)],
    after: &[reads(KeyVault, 1)],
    takes_ms: 0,
};
/// Settings are shown to a POST alone.
pub(super) const SETTING: Calls = Calls {
    check: &[reads(ResourceManager, 6), writes(ResourceManager, 2)],
    change: &[writes(ResourceManager, 2)],
    after: &[writes(ResourceManager, 1), reads(ResourceManager, 1)],
    takes_ms: 0,
};
/// The first copy in a repository also asks for what all copies there want to know.
pub(super) const FIRST_ACTIONS_SECRET: Calls = Calls { check: &[reads(Github, 10)], ..ACTIONS_SECRET };
pub(super) const ACTIONS_SECRET: Calls = Calls {
    check: &[reads(Github, 1)],
    change: &[writes(Github, 1)],
    after: &[reads(Github, 1)],
    takes_ms: 0,
};
pub(super) const AWS_SECRET: Calls = Calls {
    check: &[reads(Aws, 5)],
    change: &[reads(Aws, 1), writes(Aws, 1)],
    after: &[reads(Aws, 1)],
    takes_ms: 0,
};
/// A file here asks nobody.
pub(super) const FILE: Calls = Calls { check: &[], change: &[], after: &[], takes_ms: 0 };
pub(super) const APPLICATION: Calls = Calls {
    check: &[reads(ResourceManager, 1)],
    change: &[writes(ResourceManager, 1)],
    after: &[reads(AppService, 1)],
    takes_ms: 2_000,
};
pub(super) const CHAT: Calls = Calls { check: &[], change: &[writes(Webhook, 1)], after: &[], takes_ms: 0 };
pub(super) const TICKET: Calls =
    Calls { check: &[reads(Jira, 2)], change: &[reads(Jira, 1), writes(Jira, 1)], after: &[], takes_ms: 0 };
