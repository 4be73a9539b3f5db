//! A file encrypted with age: a vault of record for people without 1Password.
//!
//! It is locked with a passphrase, which a variable holds, or for the owners of identity files
//! (`age-keygen`). Each change is made under a lock, opened again before it counts, and takes
//! the old file's place in one step; plain text is never on the disk. The file and the
//! identity file must be readable by their owner alone, and neither may be a symbolic link.
//!
//! `pgrotate vault ENV` makes one ([`create`]). By hand: type `{"version":1,"current":{"password":"…"}}` into
//! `age -p -a -o FILE` (or `age -r age1… -a -o FILE`), then `chmod 600 FILE`. To open it for
//! several people, list their public keys in its field `recipients` as well; whoever is not
//! listed there would be locked out by the first change, so such a file is refused.
//!
//! It needs the right to write the file's *folder*. It does not protect from somebody who can
//! read the memory or the variables of this process.

mod by_hand;
mod sealed;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use pgrotate_core::by_hand::Instruction;
use pgrotate_core::provider::{Entry, Finding, Severity, Survey, Vault, VaultState};
use pgrotate_core::{CopyId, Error, Kind, Result, RunId, Secret, VersionId};
use rustix::fs::OFlags;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::files::{self, Snapshot};
use crate::shared::Shared;
use sealed::{Content, FORMAT, Key, Lock, Slot};

/// The kind in the configuration.
const KIND: &str = "local_vault";
/// The shortest passphrase that a new file is locked with.
const SHORTEST_PASSPHRASE: usize = 12;

/// What can be set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The file; relative to the configuration file.
    pub path: String,
    /// A file with `AGE-SECRET-KEY-…` lines, if it is locked for identities.
    #[serde(default)]
    pub identity_file: Option<String>,
    /// The variable that holds the passphrase, if there is no identity file.
    #[serde(default = "default_variable")]
    pub passphrase_variable: String,
}

fn default_variable() -> String {
    "PGROTATE_VAULT_PASSPHRASE".to_owned()
}

/// A vault in one file.
pub struct LocalVault {
    id: CopyId,
    path: PathBuf,
    identity_file: Option<PathBuf>,
    variable: String,
    shared: Arc<Shared>,
    key: OnceCell<Arc<Key>>,
    /// What was last seen or written: opening a file that has not changed is half a
    /// second of work and 128 MiB for nothing.
    known: futures::lock::Mutex<Option<Known>>,
}

/// A file's content, by the digest of its bytes.
#[derive(Clone)]
struct Known {
    digest: [u8; 32],
    content: Content,
    lock: Lock,
}

/// The file as it is now.
struct Loaded {
    snapshot: Snapshot,
    known: Known,
}

impl LocalVault {
    /// Reads no file yet.
    ///
    /// # Errors
    /// When the path names no file.
    pub fn new(name: Option<String>, options: Options, shared: Arc<Shared>) -> Result<Self> {
        let path = shared.path(&options.path);
        let own = path.file_name().map(|name| name.to_string_lossy().into_owned()).ok_or_else(|| {
            Error::new(Kind::Config, "use a local vault").because(format!("{} names no file", path.display()))
        })?;
        Ok(Self {
            id: CopyId::new(format!("{KIND}:{}", name.unwrap_or(own))),
            identity_file: options.identity_file.map(|file| shared.path(&file)),
            variable: options.passphrase_variable,
            key: OnceCell::new(),
            known: futures::lock::Mutex::new(None),
            path,
            shared,
        })
    }

    fn operation(&self, verb: &str) -> String {
        format!("{verb} the vault {}", self.path.display())
    }

    async fn key(&self) -> Result<Arc<Key>> {
        let read = || async {
            match &self.identity_file {
                Some(file) => {
                    let file = file.clone();
                    files::blocking(move || read_identities(&file)).await.map(Arc::new)
                }
                None => {
                    let otherwise = "name an `identity_file` in the configuration";
                    let purpose = format!("the vault {}", self.path.display());
                    let passphrase = self.shared.credentials.need(&self.variable, &purpose, otherwise)?;
                    Ok(Arc::new(Key::Passphrase(passphrase)))
                }
            }
        };
        self.key.get_or_try_init(read).await.cloned()
    }

    /// Reads the file, and opens it if it is not the one that is known.
    async fn load(&self) -> Result<Loaded> {
        let (key, path, operation) = (self.key().await?, self.path.clone(), self.operation("open"));
        // Held while the file is opened, so that two readers at once don't do the work twice.
        let mut known = self.known.lock().await;
        let before = known.take();
        let loaded = files::blocking(move || load(&path, &key, before, &operation)).await?;
        *known = Some(loaded.known.clone());
        Ok(loaded)
    }

    /// Changes the content under the file's lock. `change` says whether there is anything to write.
    async fn edit(
        &self,
        change: impl FnOnce(&mut Content) -> Result<bool> + Send + 'static,
    ) -> Result<Option<VersionId>> {
        let (key, path, operation) = (self.key().await?, self.path.clone(), self.operation("change"));
        let mut known = self.known.lock().await;
        let before = known.take();
        let after = files::blocking(move || {
            let lock = lock(&path, &operation)?;
            let Loaded { snapshot, mut known } = load(&path, &key, before, &operation)?;
            if change(&mut known.content)? {
                known.content.revision += 1;
                let bytes = sealed::seal(&known.content, &key, &known.lock, &operation)?;
                files::replace(&path, &snapshot, &bytes, &operation)?;
                known.digest = Sha256::digest(&bytes).into();
            }
            drop(lock);
            Ok(known)
        })
        .await?;
        let version = version(&after.content);
        *known = Some(after);
        Ok(version)
    }

    /// What would stop a change of a file that can be opened.
    fn findings(&self, loaded: &Loaded) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut find = |what: String, mend: String| {
            findings.push(Finding::new(Severity::Blocks, self.id.as_str(), what).mend(mend));
        };
        let folder = files::folder_of(&self.path);
        if let Some(why) = files::unwritable(&folder) {
            let mend = format!("give pgrotate's user the right to write {}", folder.display());
            find(format!("its folder can't be written: {why}"), mend);
        }
        if files::is_foreign(&loaded.snapshot.metadata) {
            find("the file belongs to another user or group".into(), "run pgrotate as that user".into());
        }
        findings
    }
}

#[async_trait]
impl Vault for LocalVault {
    fn id(&self) -> &CopyId {
        &self.id
    }

    fn location(&self) -> String {
        format!("{KIND}:{}", self.path.display())
    }

    async fn check(&self) -> Result<Survey> {
        let (loaded, key, operation) = (self.load().await?, self.key().await?, self.operation("change"));
        let mut findings = self.findings(&loaded);
        let Known { content, lock, .. } = &loaded.known;
        if let Key::Identities(own) = &*key
            && let Err(error) = sealed::audience(content, own, lock, &operation)
        {
            let finding = Finding::new(Severity::Blocks, self.id.as_str(), error.to_string());
            findings.push(finding.mend(error.hints().join("; ")));
        }
        Ok(Survey { state: Some(state(loaded)), findings, identity: None })
    }

    async fn read(&self) -> Result<VaultState> {
        self.load().await.map(state)
    }

    async fn stage(&self, run: RunId, secret: &Secret) -> Result<()> {
        let operation = self.operation("stage a password in");
        let slot = Slot { password: secret.clone(), run: Some(run), at: Some(self.shared.clock.now()) };
        self.edit(move |content| {
            let refuse = |why: String| Error::new(Kind::Conflict, operation).because(why);
            match &content.pending {
                Some(there) if there.run == Some(run) && there.password == slot.password => return Ok(false),
                Some(there) if there.run == Some(run) => {
                    return Err(refuse("this run has staged another one before".into()));
                }
                Some(Slot { run: Some(owner), .. }) => {
                    return Err(refuse(format!("a pending password of the run {owner} is there")).hint(
                        format!("finish it first: pgrotate resume {owner}, or pgrotate abort {owner}"),
                    ));
                }
                Some(_) => return Err(refuse("a pending password of an unknown run is there".into())),
                None => {}
            }
            let own = |current: &Slot| current.run == Some(run) && current.password == slot.password;
            if content.current.as_ref().is_some_and(own) {
                return Err(refuse("this run's password is already the current one".into()));
            }
            content.pending = Some(slot);
            Ok(true)
        })
        .await
        .map(drop)
    }

    async fn create(&self, current: &Secret) -> Result<()> {
        let protection = match &self.identity_file {
            Some(file) => Protection::Recipients(vec![public_key(file)?]),
            None => match &*self.key().await? {
                Key::Passphrase(passphrase) => Protection::Passphrase(passphrase.clone()),
                _ => return Err(Error::internal("a vault without identity file has no passphrase")),
            },
        };
        let (path, current, at) = (self.path.clone(), current.clone(), self.shared.clock.now());
        files::blocking(move || create(&path, protection, &current, at)).await
    }

    async fn promote(&self, run: RunId, next: &Secret, user: Option<&str>) -> Result<Option<VersionId>> {
        let (next, user) = (next.clone(), user.map(str::to_owned));
        let operation = self.operation("make the new password current in");
        self.edit(move |content| {
            let ours = |slot: &Option<Slot>| {
                slot.as_ref().is_some_and(|slot| slot.run == Some(run) && slot.password == next)
            };
            if ours(&content.pending) {
                content.previous = std::mem::replace(&mut content.current, content.pending.take());
                content.user = user.or(content.user.take());
                Ok(true)
            } else if ours(&content.current) {
                Ok(false)
            } else {
                Err(Error::new(Kind::Conflict, operation)
                    .because("it does not hold this run's password as pending")
                    .hint("somebody changed the file during the run; look for a backup of it"))
            }
        })
        .await
    }

    async fn lay_aside(&self, run: RunId, idle: &Secret) -> Result<()> {
        let slot = Slot { password: idle.clone(), run: Some(run), at: Some(self.shared.clock.now()) };
        self.edit(move |content| {
            let kept = |own: &Slot| own.run == slot.run && own.password == slot.password;
            let is_kept = content.previous.as_ref().is_some_and(kept);
            let staged = content.pending.take_if(|pending| pending.run == Some(run)).is_some();
            if !is_kept {
                content.previous = Some(slot);
            }
            Ok(staged || !is_kept)
        })
        .await
        .map(drop)
    }

    async fn discard(&self, run: RunId) -> Result<()> {
        self.edit(move |content| {
            let ours = content.pending.as_ref().is_some_and(|pending| pending.run == Some(run));
            if ours {
                content.pending = None;
            }
            Ok(ours)
        })
        .await
        .map(drop)
    }

    fn by_hand(&self) -> Vec<Instruction> {
        self.instructions()
    }
}

/// How a new file is locked.
#[derive(Debug)]
pub enum Protection {
    /// With a passphrase of 12 characters or more.
    Passphrase(Secret),
    /// For the owners of these public keys (`age1…`).
    Recipients(Vec<String>),
}

/// Makes a vault that holds the password that works now.
///
/// # Errors
/// When the file exists, the passphrase is short, or a public key can't be read.
pub fn create(path: &Path, protection: Protection, current: &Secret, at: Timestamp) -> Result<()> {
    let operation = format!("make the vault {}", path.display());
    let refuse = |why: String| Error::new(Kind::Config, operation.clone()).because(why);
    let slot = Slot { password: current.clone(), run: None, at: Some(at) };
    let mut content = Content {
        user: None,
        version: FORMAT,
        revision: 1,
        recipients: Vec::new(),
        current: Some(slot),
        pending: None,
        previous: None,
    };
    let bytes = match protection {
        Protection::Passphrase(passphrase) if passphrase.expose().chars().count() < SHORTEST_PASSPHRASE => {
            return Err(refuse(format!("the passphrase has fewer than {SHORTEST_PASSPHRASE} characters")));
        }
        Protection::Passphrase(passphrase) => {
            sealed::seal(&content, &Key::Passphrase(passphrase), &Lock::new(), &operation)?
        }
        Protection::Recipients(listed) if listed.is_empty() => {
            return Err(refuse("nobody could open it: there is no public key".into()));
        }
        Protection::Recipients(listed) => {
            let recipients = sealed::parse_recipients(&listed).map_err(refuse)?;
            content.recipients = listed;
            sealed::seal_for(&content, &recipients, &operation)?
        }
    };
    files::create(path, &bytes, &operation)
}

/// Makes an identity file, as `age-keygen` does, and gives its public key.
///
/// # Errors
/// When the file exists or can't be written.
pub fn create_identity(path: &Path) -> Result<String> {
    use age::secrecy::ExposeSecret;
    let identity = age::x25519::Identity::generate();
    let public = identity.to_public().to_string();
    let secret = identity.to_string();
    let text = Zeroizing::new(format!("# public key: {public}\n{}\n", secret.expose_secret()));
    files::create(path, text.as_bytes(), &format!("make the identity file {}", path.display()))?;
    Ok(public)
}

/// What a loaded vault holds.
fn state(Loaded { snapshot, known: Known { content, .. } }: Loaded) -> VaultState {
    let version = version(&content);
    let entry = |slot: Option<Slot>| slot.map(|Slot { password: secret, run, .. }| Entry { secret, run });
    VaultState {
        current: entry(content.current),
        pending: entry(content.pending).into_iter().collect(),
        previous: entry(content.previous),
        user: content.user,
        version,
        updated_at: snapshot.updated_at(),
    }
}

fn version(content: &Content) -> Option<VersionId> {
    Some(VersionId::new(content.revision.to_string()))
}

fn load(path: &Path, key: &Key, known: Option<Known>, operation: &str) -> Result<Loaded> {
    let snapshot = read_private(path, operation)?;
    let digest: [u8; 32] = Sha256::digest(&*snapshot.bytes).into();
    let known = match known.filter(|known| known.digest == digest) {
        Some(known) => known,
        None => {
            let sealed::Opened { content, lock } = sealed::open(&snapshot.bytes, key, operation)?;
            Known { digest, content, lock }
        }
    };
    Ok(Loaded { snapshot, known })
}

/// The public key of an identity file, which is made if there is none.
fn public_key(path: &Path) -> Result<String> {
    if !path.exists() {
        return create_identity(path);
    }
    let operation = format!("read the identity file {}", path.display());
    let snapshot = read_private(path, &operation)?;
    let refuse =
        |why: &str| Error::new(Kind::Config, operation.clone()).because(why).hint("age-keygen makes one");
    let text = std::str::from_utf8(&snapshot.bytes).map_err(|_| refuse("it is not text"))?;
    let secret = text.lines().find(|line| line.starts_with("AGE-SECRET-KEY-"));
    let identity: age::x25519::Identity = secret
        .and_then(|line| line.trim().parse().ok())
        .ok_or_else(|| refuse("it has no AGE-SECRET-KEY-… line"))?;
    Ok(identity.to_public().to_string())
}

fn read_identities(path: &Path) -> Result<Key> {
    let operation = format!("read the identity file {}", path.display());
    let snapshot = read_private(path, &operation)?;
    let refuse = |why: String| Error::new(Kind::Config, operation.clone()).because(why);
    let text = std::str::from_utf8(&snapshot.bytes).map_err(|_| refuse("it is not text".into()))?;
    Key::from_identity_file(text).map_err(|why| refuse(why).hint("age-keygen makes one"))
}

/// Reads a file that nobody else may read.
fn read_private(path: &Path, operation: &str) -> Result<Snapshot> {
    let snapshot = files::read(path, operation)?;
    if snapshot.metadata.mode() & 0o077 == 0 {
        return Ok(snapshot);
    }
    Err(Error::new(Kind::Config, operation)
        .because("others than its owner may read or write it")
        .hint(format!("chmod 600 {}", path.display())))
}

/// The lock against a second writer: a file of its own, because the vault's is replaced.
fn lock(path: &Path, operation: &str) -> Result<files::Lock> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".lock");
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    let file: File = options
        .open(files::folder_of(path).join(name))
        .map_err(|error| files::classify(&error, operation))?;
    files::lock(file, operation)
}

#[cfg(test)]
mod tests;
