//! A real PostgreSQL cluster, set up as Azure's flexible server is: TLS alone, SCRAM alone, and an administrator who
//! may create roles and databases but is no superuser.
//!
//! The superuser comes in through the socket in the cluster's own folder, which nobody else can enter; that is how a
//! password is changed, as Azure's control plane does it. PostgreSQL refuses to run as root, so root hands the
//! cluster to the user `postgres`.

use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Command;
use tokio_postgres::{Client, NoTls};

use crate::ca::Leaf;
use crate::error::{Context, Result};
use crate::process::{Identity, Launcher, Port, Process, is_executable};

/// The administrator's role, by the runbook.
pub(crate) const USER: &str = "mindwelladmin";
/// The application's database, by the runbook.
pub(crate) const DATABASE: &str = "mindwell_app";
/// The group of administrators on a flexible server; its members may make others members.
const ADMINISTRATORS: &str = "azure_pg_admin";
/// The superuser, as Microsoft names its own.
const SUPERUSER: &str = "azuresu";
/// How long a cluster may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where PostgreSQL is, and whom it runs as.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    programs: PathBuf,
    identity: Option<Identity>,
}

/// Where a cluster goes.
pub(crate) struct Folders {
    /// The folder of its data and its socket; it must not exist yet.
    pub(crate) cluster: PathBuf,
    /// The file of its log.
    pub(crate) log: PathBuf,
}

/// A running cluster.
pub(crate) struct Cluster {
    port: Port,
    folder: PathBuf,
    password: Mutex<String>,
}

impl Installation {
    /// Finds PostgreSQL's server programs, and a user for them if this one is root.
    pub(crate) fn find() -> Result<Self> {
        let programs = programs().context(|| {
            "PostgreSQL's server programs are not installed: run `make setup`, or `apt-get install postgresql`".into()
        })?;
        let identity = if rustix::process::geteuid().is_root() { Some(unprivileged_user()?) } else { None };
        Ok(Self { programs, identity })
    }

    fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// A folder or file that the server's user owns.
    fn hand_over(&self, path: &Path) -> Result<()> {
        let Some(Identity { uid, gid }) = self.identity else { return Ok(()) };
        chown(path, Some(uid), Some(gid)).context(|| format!("cannot hand {} over", path.display()))
    }

    fn run_as(&self, command: &mut Command) {
        if let Some(Identity { uid, gid }) = self.identity {
            command.uid(uid).gid(gid);
        }
    }

    fn write(&self, path: &Path, text: &str) -> Result<()> {
        use std::io::Write;
        let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .context(|| format!("cannot write {}", path.display()))?;
        self.hand_over(path)
    }
}

impl Cluster {
    /// Makes a cluster, starts it, and gives it the administrator with `password` and its database.
    pub(crate) async fn start(
        launcher: &Launcher,
        installation: &Installation,
        folders: &Folders,
        leaf: &Leaf,
        password: &str,
    ) -> Result<Arc<Self>> {
        initialize(launcher, installation, &folders.cluster, leaf).await?;
        let port = Port::reserve()?;
        let process = spawn(launcher, installation, folders, port.number())?;
        let superuser = wait_until_ready(&process, &folders.cluster, port.number()).await;
        let superuser =
            superuser.context(|| format!("PostgreSQL does not start, see {}", folders.log.display()))?;
        let cluster = Self { port, folder: folders.cluster.clone(), password: Mutex::default() };
        let group = format!("CREATE ROLE {ADMINISTRATORS} NOLOGIN");
        let role = format!("CREATE ROLE {USER} LOGIN CREATEDB CREATEROLE NOSUPERUSER");
        let member = format!("GRANT {ADMINISTRATORS} TO {USER} WITH ADMIN OPTION");
        // One statement each: a database can't be created in the transaction that a joined text would be.
        for statement in [group, role, member, format!("CREATE DATABASE {DATABASE} OWNER {USER}")] {
            superuser.batch_execute(&statement).await.context(|| "cannot set the cluster up".into())?;
        }
        cluster.set_password(USER, password).await?;
        Ok(Arc::new(cluster))
    }

    /// Changes a role's password. The server is sent a SCRAM verifier, so the password itself can't reach its log.
    pub(crate) async fn set_password(&self, user: &str, password: &str) -> Result<()> {
        let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
        let role = user.replace('"', "\"\"");
        let statement = format!("ALTER ROLE \"{role}\" PASSWORD '{verifier}'");
        let superuser = connect(&self.folder, self.port.number()).await?;
        superuser
            .batch_execute(&statement)
            .await
            .context(|| format!("PostgreSQL refused to change the password of role {user}"))?;
        if user == USER {
            password.clone_into(&mut self.password.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Ok(())
    }

    /// Its port on the loopback.
    pub(crate) const fn port(&self) -> u16 {
        self.port.number()
    }

    /// The administrator's present password.
    pub(crate) fn password(&self) -> String {
        self.password.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn initialize(
    launcher: &Launcher,
    installation: &Installation,
    folder: &Path,
    leaf: &Leaf,
) -> Result<()> {
    let private = std::fs::DirBuilder::new().mode(0o700).create(folder);
    private.context(|| format!("cannot make {}", folder.display()))?;
    installation.hand_over(folder)?;
    let data = folder.join("data");
    let mut command = launcher.command(&installation.program("initdb"), Signal::KILL);
    command.arg("--pgdata").arg(&data);
    command.args(["--username", SUPERUSER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C"]);
    // Segments of 1 MB: the usual 16 MB would be most of what is written.
    command.args(["--no-sync", "--no-instructions", "--wal-segsize", "1"]);
    command.current_dir(folder).env("LANG", "C").env("PATH", "/usr/bin:/bin");
    installation.run_as(&mut command);
    launcher.run("initdb", command).await?;
    installation.write(&folder.join("server.crt"), &leaf.certificate_pem())?;
    installation.write(&folder.join("server.key"), &leaf.key_pem())?;
    installation.write(&data.join("postgresql.conf"), &settings(folder))?;
    let rules = data.join("pg_hba.conf");
    std::fs::remove_file(&rules).context(|| format!("cannot replace {}", rules.display()))?;
    installation.write(&rules, RULES)
}

/// Sessions without TLS find no line here, as on a flexible server with `require_secure_transport`.
const RULES: &str = "\
# type  database  user      address        method
local   all       azuresu                  trust
hostssl all       all       127.0.0.1/32   scram-sha-256
";

fn settings(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "\n# the sandbox\n\
         listen_addresses = '127.0.0.1'\n\
         unix_socket_directories = '{folder}'\n\
         unix_socket_permissions = 0700\n\
         ssl = on\n\
         ssl_cert_file = '{folder}/server.crt'\n\
         ssl_key_file = '{folder}/server.key'\n\
         password_encryption = 'scram-sha-256'\n\
         log_statement = 'ddl'\n\
         log_line_prefix = '%m [%p] %u@%d '\n\
         log_timezone = 'UTC'\n\
         # A cluster that lives for minutes: nothing has to survive, little has to fit in memory.\n\
         fsync = off\n\
         synchronous_commit = off\n\
         full_page_writes = off\n\
         autovacuum = off\n\
         max_connections = 60\n\
         shared_buffers = '16MB'\n\
         max_wal_size = '32MB'\n\
         min_wal_size = '2MB'\n"
    )
}

fn spawn(launcher: &Launcher, installation: &Installation, folders: &Folders, port: u16) -> Result<Process> {
    let log = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&folders.log);
    let log = log.context(|| "cannot open PostgreSQL's log".into())?;
    let also = log.try_clone().context(|| "cannot open PostgreSQL's log".into())?;
    // SIGQUIT makes the server take its shared memory with it, which SIGKILL would leave behind.
    let mut command = launcher.command(&installation.program("postgres"), Signal::QUIT);
    command.arg("-D").arg(folders.cluster.join("data")).args(["-p", &port.to_string()]);
    command.stdout(Stdio::from(log)).stderr(Stdio::from(also)).current_dir(&folders.cluster);
    command.env("LANG", "C").env("PATH", "/usr/bin:/bin");
    installation.run_as(&mut command);
    Ok(launcher.spawn("PostgreSQL", command, Signal::QUIT)?.0)
}

async fn wait_until_ready(process: &Process, folder: &Path, port: u16) -> Result<Client> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match connect(folder, port).await {
            // The socket exists before the port is bound; a login means that both are.
            Ok(client) => return Ok(client),
            Err(error) if tokio::time::Instant::now() > deadline => return Err(error),
            Err(_) => process.still_runs()?,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The superuser's session, through the socket.
async fn connect(folder: &Path, port: u16) -> Result<Client> {
    let mut config = tokio_postgres::Config::new();
    config.host_path(folder).port(port).user(SUPERUSER).dbname("postgres");
    let (client, connection) =
        config.connect(NoTls).await.context(|| "no superuser session with PostgreSQL".into())?;
    tokio::spawn(connection);
    Ok(client)
}

/// The newest server programs: Debian keeps them out of PATH.
fn programs() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by(|left, right| right.cmp(left));
    let debian = versions.into_iter().map(|(_, folder)| folder);
    let asked = std::process::Command::new("pg_config").arg("--bindir").output().ok();
    let asked = asked.and_then(|output| String::from_utf8(output.stdout).ok());
    let others = asked.map(|folder| PathBuf::from(folder.trim()));
    debian
        .chain(others)
        .find(|folder| is_executable(&folder.join("initdb")) && is_executable(&folder.join("postgres")))
}

/// Debian's package makes the user `postgres`; `nobody` exists everywhere.
fn unprivileged_user() -> Result<Identity> {
    let users = std::fs::read_to_string("/etc/passwd").context(|| "cannot read /etc/passwd".into())?;
    let found = ["postgres", "nobody"].iter().find_map(|name| identity_of(&users, name));
    found
        .context(|| "PostgreSQL does not run as root, and there is neither a user postgres nor nobody".into())
}

fn identity_of(users: &str, name: &str) -> Option<Identity> {
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut ids = line.split(':').skip(2).map(str::parse);
    Some(Identity { uid: ids.next()?.ok()?, gid: ids.next()?.ok()? })
}

/// The address that clients are told.
pub(crate) fn authority(port: u16) -> String {
    format!("localhost:{port}")
}

/// The URL that every copy holds: the runbook's, for this cluster.
pub(crate) fn url(port: u16, password: &str) -> String {
    // What a password that the sandbox made can have beside letters and digits.
    let password = password.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
    format!("postgresql+asyncpg://{USER}:{password}@{}/{DATABASE}?sslmode=require", authority(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_ids_are_read_from_the_password_file() {
        let users = "root:x:0:0:root:/root:/bin/sh\npostgres:x:107:114:,,,:/var/lib/postgresql:/bin/sh\n";
        assert_eq!(identity_of(users, "postgres"), Some(Identity { uid: 107, gid: 114 }));
        assert_eq!(identity_of(users, "post"), None);
    }
}
