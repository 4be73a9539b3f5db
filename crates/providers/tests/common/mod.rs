//! A real PostgreSQL cluster for one test: made with `initdb`, reached over TLS on the loopback
//! and, by its superuser, over a socket in its own folder; gone when the test is.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use pgrotate_core::Environment;
use pgrotate_core::database_url::Target;
use pgrotate_core::env::Clock;
use pgrotate_providers::Shared;
use pgrotate_providers::credentials::Credentials;
use pgrotate_providers::http;
use pgrotate_providers::shared::{DatabaseTls, TlsMode, Vendors};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio_postgres::{Client, NoTls};

/// The role whose password the tests change.
pub(crate) const USER: &str = "app";
/// Its password at first.
pub(crate) const PASSWORD: &str = "Zq8xPTkn5VbR2mWc";
/// The database it logs in to.
pub(crate) const DATABASE: &str = "app_db";

/// A cluster that runs until it is dropped.
pub(crate) struct Cluster {
    port: u16,
    programs: PathBuf,
    owner: Option<(u32, u32)>,
    /// What the server speaks, if not English.
    language: Option<&'static str>,
    server: Option<Child>,
    ca: String,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Makes a cluster with the role [`USER`] and its database, for a server called `localhost`.
    pub(crate) async fn start() -> Self {
        Self::start_as("localhost").await
    }

    /// The same, with a certificate for another host name.
    pub(crate) async fn start_as(host: &str) -> Self {
        Self::start_from(programs(), host, None).await
    }

    /// The same, of other programs than the newest that the system has, and in another language.
    pub(crate) async fn start_from(programs: PathBuf, host: &str, language: Option<&'static str>) -> Self {
        let owner = rustix::process::geteuid().is_root().then(postgres_user);
        let folder = tempfile::Builder::new().prefix("pgrotate-test-").tempdir().unwrap();
        let mut cluster =
            Self { port: 0, programs, owner, language, server: None, ca: String::new(), folder };
        cluster.hand_over(cluster.folder.path());
        cluster.initialize();
        cluster.ca = cluster.write_certificate(host);
        cluster.run().await;
        cluster.prepare().await;
        cluster
    }

    /// The cluster's own folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the server has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// Where the role logs in.
    pub(crate) fn target(&self) -> Target {
        Target { host: "localhost".into(), port: self.port, database: DATABASE.into(), user: USER.into() }
    }

    /// What providers of this cluster share; its CA is trusted.
    pub(crate) fn shared(&self) -> Shared {
        shared(self.target(), TlsMode::VerifyFull, Some(self.ca.clone().into_bytes()))
    }

    /// The certificate of the cluster's CA.
    pub(crate) fn ca(&self) -> &str {
        &self.ca
    }

    /// Runs statements as the superuser.
    pub(crate) async fn sql(&self, statements: &str) {
        let superuser = self.superuser().await.unwrap();
        for statement in statements.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            superuser.batch_execute(statement).await.unwrap();
        }
    }

    /// One text, asked for by the superuser.
    pub(crate) async fn ask(&self, question: &str) -> String {
        self.superuser().await.unwrap().query_one(question, &[]).await.unwrap().get(0)
    }

    /// Stops the server and starts it as a replica of nobody: in recovery for ever.
    pub(crate) async fn demote(&mut self) {
        self.stop("-INT");
        self.write("data/standby.signal", "");
        self.run().await;
    }

    async fn superuser(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.folder.path()).port(self.port).user("postgres").dbname("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    fn initialize(&self) {
        let mut initdb = self.command("initdb");
        initdb.arg("--pgdata").arg(self.path("data"));
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]);
        initdb.args(["--no-sync", "--no-instructions"]);
        let output = initdb.output().unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let folder = self.folder.path().display();
        self.write(
            "data/postgresql.auto.conf",
            &format!(
                "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{folder}'\n\
                 ssl = on\nssl_cert_file = '{folder}/server.crt'\nssl_key_file = '{folder}/server.key'\n\
                 password_encryption = 'scram-sha-256'\nlog_statement = 'all'\n\
                 fsync = off\nfull_page_writes = off\nautovacuum = off\nmax_connections = 20\nshared_buffers = '8MB'\n"
            ),
        );
        std::fs::remove_file(self.path("data/pg_hba.conf")).unwrap();
        self.write(
            "data/pg_hba.conf",
            "local   all postgres               trust\n\
             local   all all                    scram-sha-256\n\
             hostssl all nobody   127.0.0.1/32  reject\n\
             hostssl all all      127.0.0.1/32  scram-sha-256\n",
        );
    }

    async fn prepare(&self) {
        // A verifier, because a test looks for the password in the log.
        let verifier = postgres_protocol::password::scram_sha_256(PASSWORD.as_bytes());
        let role = format!("create role {USER} login password '{verifier}'");
        self.sql(&format!("{role}; create database {DATABASE} owner {USER}")).await;
    }

    /// Writes a certificate for the host and gives back that of the CA which signed it.
    fn write_certificate(&self, host: &str) -> String {
        let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
        ca.distinguished_name.push(DnType::CommonName, "a test's authority");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(ca, ca_key);
        let leaf = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        self.write("server.crt", &leaf.pem());
        self.write("server.key", &key.serialize_pem());
        pem
    }

    async fn run(&mut self) {
        self.port = free_port();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let mut postgres = self.command("postgres");
        postgres.arg("-D").arg(self.path("data")).args(["-p", &self.port.to_string()]);
        postgres.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.server = Some(postgres.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.superuser().await.is_err() {
            assert!(Instant::now() < deadline, "PostgreSQL does not start: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A program of PostgreSQL's, as the user who owns the cluster. The kernel ends it with the
    /// test, however the test ends.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        if let Some((uid, gid)) = self.owner {
            command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--clear-groups"]);
        }
        command.args(["--pdeathsig", "QUIT", "--"]).arg(self.programs.join(program));
        command.current_dir(self.folder.path()).env_clear().env("PATH", "/usr/bin:/bin").env("LANG", "C");
        if let Some(language) = self.language {
            // Any locale but C lets gettext look at this.
            command.env("LANGUAGE", language);
        }
        command
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        let mut options = std::fs::OpenOptions::new();
        let file = options.create(true).append(true).mode(0o600).open(&path);
        std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
        self.hand_over(&path);
    }

    fn hand_over(&self, path: &Path) {
        if let Some((uid, gid)) = self.owner {
            chown(path, Some(uid), Some(gid)).unwrap();
        }
    }

    fn stop(&mut self, signal: &str) {
        if let Some(mut server) = self.server.take() {
            let _ = Command::new("kill").args([signal, &server.id().to_string()]).status();
            let _ = server.wait();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop("-QUIT");
    }
}

/// What providers share, for a target of a test's choosing.
pub(crate) fn shared(target: Target, mode: TlsMode, ca: Option<Vec<u8>>) -> Shared {
    Shared {
        environment: Environment::from("dev"),
        target,
        takes_turns: false,
        azure: Default::default(),
        budgets: Default::default(),
        looks: Default::default(),
        clocks: Default::default(),
        database_tls: DatabaseTls { mode, ca_file: None },
        credentials: Credentials::default(),
        http: http::client(http::tls_config(None).unwrap()).unwrap(),
        ca,
        vendors: Vendors::default(),
        base: PathBuf::from("/nowhere"),
        clock: Arc::new(WallClock),
    }
}

struct WallClock;

#[async_trait]
impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn uptime(&self) -> Duration {
        self.now().duration_since(Timestamp::UNIX_EPOCH).unsigned_abs()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A port that nobody has just now.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The newest server programs. Debian keeps them out of PATH, a folder for each version.
fn programs() -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = installed
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort();
    let asked = Command::new("pg_config").arg("--bindir").output().ok();
    let asked = asked.and_then(|output| String::from_utf8(output.stdout).ok());
    let places = versions.into_iter().rev().map(|(_, folder)| folder);
    let runs = |program: PathBuf| program.metadata().is_ok_and(|file| file.permissions().mode() & 0o111 != 0);
    places
        .chain(asked.map(|folder| PathBuf::from(folder.trim())))
        .find(|folder| runs(folder.join("initdb")) && runs(folder.join("postgres")))
        .expect("PostgreSQL's server programs are not installed: run `make setup` once")
}

/// PostgreSQL refuses to run as root; Debian's package makes a user for it.
fn postgres_user() -> (u32, u32) {
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let of = |name: &str| {
        let fields: Vec<&str> =
            users.lines().find(|line| line.split(':').next() == Some(name))?.split(':').collect();
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    of("postgres").or_else(|| of("nobody")).expect("no user to run PostgreSQL as: run `make setup` once")
}
