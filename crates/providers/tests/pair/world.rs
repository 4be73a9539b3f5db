//! One server with an application's role on it, and ways to look at it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use pgrotate_core::provider::{Pair, Preparation, Seat, Severity};
use pgrotate_core::{Result, Secret};
use pgrotate_providers::Shared;
use pgrotate_providers::postgres::PostgresPair;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::common::{Cluster, PASSWORD};

/// The second role's password at first.
pub(crate) const IDLE: &str = "Rt7vKbn3WqL9zXpD";

/// A server with one role, and the names of what will be a pair.
pub(crate) struct World {
    pub(crate) version: u32,
    pub(crate) cluster: Cluster,
    pub(crate) names: [&'static str; 3],
    pub(crate) database: &'static str,
    /// Which of them may close each other, second. They read the system's certificates, so each is made once.
    pairs: [OnceLock<PostgresPair>; 2],
    superuser: OnceCell<Client>,
}

impl World {
    /// Nothing where the version is not there, which is said.
    pub(crate) async fn start(version: u32) -> Option<Self> {
        Self::named(version, ["app", "app_b", "app_owner"], "app_db", None).await
    }

    /// With names that have to be quoted; one is a keyword.
    pub(crate) async fn start_odd(version: u32) -> Option<Self> {
        Self::named(version, ["App \"of\" the 'user'", "user", "Owner of Ünïts"], "App 'db' \"1\"", None)
            .await
    }

    /// Debian's programs alone have translations.
    pub(crate) async fn start_german(version: u32) -> Option<Self> {
        if !Path::new("/usr/share/locale/de/LC_MESSAGES").join(format!("postgres-{version}.mo")).exists() {
            say(&format!(
                "skipped: a server that speaks German, because Debian's PostgreSQL {version} is not installed"
            ));
            return None;
        }
        let world = Self::named(version, ["app", "app_b", "app_owner"], "app_db", Some("de")).await?;
        world.cluster.sql("alter system set lc_messages = 'C.UTF-8'; select pg_reload_conf()").await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let refused = world.superuser().await.batch_execute("select * from nothing").await.unwrap_err();
        let words = refused.as_db_error().unwrap().message().to_owned();
        assert!(words.contains("existiert nicht"), "it should speak German: {words}");
        Some(world)
    }

    async fn named(
        version: u32,
        names: [&'static str; 3],
        database: &'static str,
        language: Option<&'static str>,
    ) -> Option<Self> {
        let Some(programs) = programs_of(version) else {
            say(&format!("skipped: PostgreSQL {version} is not there; `make postgres` fetches it"));
            return None;
        };
        let cluster = Cluster::start_from(programs, "localhost", language).await;
        let world =
            Self { version, cluster, names, database, pairs: Default::default(), superuser: OnceCell::new() };
        if names[0] != "app" {
            let (first, database) = (quoted(names[0]), quoted(database));
            world.cluster.sql(&format!("alter database app_db rename to {database}")).await;
            world.cluster.sql(&format!("alter role app rename to {first}")).await;
        }
        // As Azure makes its administrators.
        world.cluster.sql(&format!("alter role {} createdb createrole", quoted(names[0]))).await;
        Some(world)
    }

    pub(crate) fn shared(&self, seat: Seat, takes_turns: bool) -> Arc<Shared> {
        let mut shared = self.cluster.shared();
        shared.target.user = self.name(seat).to_owned();
        shared.target.database = self.database.to_owned();
        shared.takes_turns = takes_turns;
        Arc::new(shared)
    }

    pub(crate) fn name(&self, seat: Seat) -> &'static str {
        self.names[usize::from(seat == Seat::Second)]
    }

    pub(crate) fn pair(&self, closes: bool) -> &PostgresPair {
        let [first, second] = [Seat::First, Seat::Second].map(|seat| self.shared(seat, true));
        let make = || PostgresPair::new(first, second, self.names[2].to_owned(), closes);
        self.pairs[usize::from(closes)].get_or_init(make)
    }

    /// `{app}`, `{b}`, `{owner}` and `{db}` stand for the names.
    pub(crate) fn text(&self, sql: &str) -> String {
        let [app, b, owner] = self.names.map(quoted);
        let database = quoted(self.database);
        sql.replace("{app}", &app).replace("{b}", &b).replace("{owner}", &owner).replace("{db}", &database)
    }

    async fn client(&self, user: &str, password: &str, database: &str) -> Client {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.cluster.path("")).port(self.cluster.target().port);
        config.user(user).password(password).dbname(database);
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub(crate) async fn superuser(&self) -> &Client {
        self.superuser.get_or_init(|| self.client("postgres", "", self.database)).await
    }

    /// The superuser in another database.
    pub(crate) async fn elsewhere(&self, database: &str) -> Client {
        self.client("postgres", "", database).await
    }

    /// As the superuser, in the application's database.
    pub(crate) async fn sql(&self, sql: &str) {
        let sql = self.text(sql);
        let superuser = self.superuser().await;
        let done = superuser.batch_execute(&sql).await;
        done.unwrap_or_else(|error| panic!("{sql}: {:?}", error.as_db_error()));
        superuser.batch_execute("reset role").await.unwrap();
    }

    pub(crate) async fn ask(&self, question: &str) -> String {
        self.superuser().await.query_one(&self.text(question), &[]).await.unwrap().get(0)
    }

    /// A session as the application has it: what it acts as is the role's settings.
    pub(crate) async fn application(&self, seat: Seat, password: &str) -> Application<'_> {
        Application { client: self.client(self.name(seat), password, self.database).await, world: self }
    }

    pub(crate) async fn prepare(&self, idle: Option<&str>) -> Preparation {
        let idle = idle.map(Secret::new);
        self.pair(false).prepare(Seat::First, &Secret::new(PASSWORD), idle.as_ref()).await.unwrap()
    }

    pub(crate) async fn apply(&self, preparation: &Preparation) -> Result<()> {
        self.pair(false).apply(Seat::First, &Secret::new(PASSWORD), preparation).await
    }

    /// What stands in the way, as the first role sees it; it blocks, all of it.
    pub(crate) async fn findings(&self) -> Vec<String> {
        self.findings_as(self.pair(false), Seat::First, PASSWORD).await
    }

    pub(crate) async fn findings_as(&self, pair: &PostgresPair, live: Seat, password: &str) -> Vec<String> {
        let findings = pair.check(live, &Secret::new(password)).await.unwrap();
        assert!(findings.iter().all(|found| found.severity == Severity::Blocks), "{findings:?}");
        findings.iter().map(|found| format!("{}: {}", found.subject, found.what)).collect()
    }

    /// Everything that the catalog says about roles and rights, to see that nothing changes.
    pub(crate) async fn catalog(&self) -> String {
        self.ask(
            "select md5(string_agg(line, e'\\n' order by line)) from (
               select 'role' || row(a.*)::text from pg_authid a
               union all select 'member' || row(m.*)::text from pg_auth_members m
               union all select 'setting' || row(s.*)::text from pg_db_role_setting s
               union all select 'database' || datname || datdba || coalesce(datacl::text, '') from pg_database
               union all select 'schema' || nspname || nspowner || coalesce(nspacl::text, '') from pg_namespace
                 where nspname !~ '^pg_(toast_)?temp'
               union all select 'class' || relname || relowner || coalesce(relacl::text, '') from pg_class
               union all select 'function' || oid || proowner || coalesce(proacl::text, '') from pg_proc
               union all select 'type' || oid || typowner || coalesce(typacl::text, '') from pg_type
               union all select 'default' || row(d.*)::text from pg_default_acl d
               union all select 'policy' || row(p.*)::text from pg_policy p) everything(line)",
        )
        .await
    }
}

/// The application's session.
pub(crate) struct Application<'a> {
    client: Client,
    world: &'a World,
}

impl Application<'_> {
    pub(crate) async fn run(&self, sql: &str) {
        let sql = self.world.text(sql);
        let done = self.client.batch_execute(&sql).await;
        done.unwrap_or_else(|error| panic!("{sql}: {:?}", error.as_db_error()));
    }

    pub(crate) async fn ask(&self, question: &str) -> String {
        let question = self.world.text(question);
        let row = self.client.query_one(&question, &[]).await;
        row.unwrap_or_else(|error| panic!("{question}: {:?}", error.as_db_error())).get(0)
    }
}

pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Past the test harness, which swallows what a test prints.
pub(crate) fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// The server programs of one version: Debian's, or what `make postgres` has fetched.
fn programs_of(version: u32) -> Option<PathBuf> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/postgres");
    let places = [Path::new("/usr/lib/postgresql"), &fetched].map(|place| place.join(version.to_string()));
    places.into_iter().map(|place| place.join("bin")).find(|folder| folder.join("initdb").exists())
}
