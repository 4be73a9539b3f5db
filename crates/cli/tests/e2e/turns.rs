//! Two roles that take turns: the application can log in at every moment, whatever dies meanwhile.

use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::consumers::Client;
use crate::lab::Lab;

const FIRST: &str = "mindwelladmin";
const SECOND: &str = "mindwelladmin_b";

impl Lab {
    /// The configuration for two roles, with further keys for them.
    pub(crate) fn in_turn(self, roles: &str) -> Self {
        let text = std::fs::read_to_string(self.config()).unwrap();
        let (before, rest) = text.split_once("[authority]\n").unwrap();
        let rest = &rest[rest.find("\n[").unwrap()..];
        let text =
            format!("strategy = \"alternating\"\n{before}[authority]\nkind = \"postgres\"\n{rest}{roles}");
        std::fs::write(self.config(), text).unwrap();
        self
    }

    /// The same, and the roles are prepared.
    fn prepared(self) -> Self {
        let lab = self.in_turn("");
        let _ = lab.pgrotate(&["roles", "prepare", "dev", "--apply"]).exits(0);
        lab
    }

    /// Who the application logs in as, and with what.
    fn login(&self) -> (String, String) {
        let url = self.state()["dev"]["copies"]["azure_app_service:DATABASE_URL"]["value"].clone();
        let url = url.as_str().unwrap();
        let login = url[url.find("://").unwrap() + 3..].split_once('@').unwrap().0;
        let (user, password) = login.split_once(':').unwrap();
        (user.to_owned(), password.to_owned())
    }

    /// Statements as a role that acts as itself.
    fn sql(&self, (user, password): (&str, &str), statements: &str) -> Output {
        let postgres = self.state()["dev"]["postgres"].clone();
        let (port, database) = (&postgres["port"], postgres["database"].as_str().unwrap());
        let target = format!("host=127.0.0.1 port={port} user={user} dbname={database} sslmode=require");
        Command::new("psql")
            .args([&target, "-AtqX", "-v", "ON_ERROR_STOP=1", "-c", statements])
            .env("PGPASSWORD", password)
            .env("PGOPTIONS", "-c role=none")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn does(&self, login: (&str, &str), statements: &str) -> String {
        let output = self.sql(login, statements);
        assert!(output.status.success(), "{statements}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn lets_in(&self, user: &str, password: &str) -> bool {
        self.sql((user, password), "select 1").status.success()
    }

    /// Every copy names this role's password, and the server and the application agree.
    fn all_moved_to(&self, user: &str, before: (&str, &str)) -> (String, String) {
        let (now, password) = self.login();
        assert_eq!(now, user);
        for (id, copy) in self.state()["dev"]["copies"].as_object().unwrap() {
            let value = copy["value"].as_str().unwrap();
            let holds = value == password || value.contains(&format!("{user}:{password}@"));
            assert!(holds, "{id} does not hold {user}'s new password");
        }
        assert!(self.lets_in(user, &password) && !self.lets_in(before.0, before.1));
        assert_eq!(self.health(&self.state()["dev"]), 200);
        (now, password)
    }

    /// Does something while somebody keeps asking the application to log in afresh; gives the failures and the answers.
    fn while_asked<T>(&self, work: impl FnOnce() -> T) -> (T, usize, usize) {
        let url = format!("{}/api/healthz", self.state()["dev"]["app"]["url"].as_str().unwrap());
        let (over, failed, all) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        let result = std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    let client = reqwest::Client::builder().no_proxy().build().unwrap();
                    while !over.load(Ordering::Relaxed) {
                        let answer = runtime.block_on(client.get(&url).send());
                        let good = answer.is_ok_and(|answer| answer.status() == 200);
                        failed.fetch_add(usize::from(!good), Ordering::Relaxed);
                        all.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(20));
                    }
                });
            }
            let result = work();
            over.store(true, Ordering::Relaxed);
            result
        });
        (result, failed.into_inner(), all.into_inner())
    }
}

#[test]
fn the_application_can_log_in_at_every_moment() {
    let lab = Lab::new("dev").in_turn("");
    let old = lab.login();
    let blocked = lab.pgrotate(&["rotate", "dev", "--yes"]);
    assert!(blocked.text().contains("pgrotate roles prepare dev"), "{}", blocked.text());
    let _ = blocked.exits(1);
    let shown = lab.pgrotate(&["roles", "prepare", "dev"]).exits(0);
    assert!(shown.contains("CREATE ROLE mindwelladmin_b LOGIN PASSWORD 'SCRAM-SHA-256 verifier"), "{shown}");
    assert!(shown.contains("nothing was changed"), "{shown}");
    assert_eq!(lab.pgrotate(&["roles", "prepare", "dev"]).exits(0), shown, "it has changed something");
    let _ = lab.pgrotate(&["roles", "prepare", "dev", "--apply"]).exits(0);
    let again = lab.pgrotate(&["roles", "prepare", "dev", "--apply"]).exits(0);
    assert_eq!(
        again,
        "dev: mindwelladmin_b and mindwelladmin@localhost:".to_owned()
            + again.split_once("localhost:").unwrap().1
    );
    assert!(again.contains("are a pair"), "{again}");

    let ((), failed, all) = lab.while_asked(|| {
        let run = lab.pgrotate(&["rotate", "dev", "--yes"]);
        assert!(run.text().contains("could log in at every moment"), "{}", run.text());
        let _ = run.exits(0);
        let second = lab.all_moved_to(SECOND, (FIRST, &old.1));
        let _ = lab.pgrotate(&["rotate", "dev", "--yes"]).exits(0);
        lab.all_moved_to(FIRST, (SECOND, &second.1));
    });
    assert!(all > 50, "only {all} requests");
    assert_eq!(failed, 0, "of {all} logins of the application");
    let status = lab.pgrotate(&["status", "dev"]).exits(0);
    assert!(status.contains("everything that can be seen agrees"), "{status}");
    let made =
        lab.does((FIRST, &lab.login().1), "select tableowner from pg_tables where schemaname = 'public'");
    assert!(made.lines().count() > 0 && made.lines().all(|owner| owner == "mindwelladmin_owner"), "{made}");
}

#[test]
fn two_that_can_not_take_turns_are_found_before_anything_changes() {
    let lab = Lab::new("dev").without_alembic().prepared();
    let (first, password) = lab.login();
    let admin = (first.as_str(), password.as_str());
    let cases = [
        (
            "alter role mindwelladmin_b nocreatedb",
            "alter role mindwelladmin_b createdb",
            "mindwelladmin_b: it is not CREATEDB",
        ),
        (
            "alter role mindwelladmin_b set search_path = 'other'",
            "alter role mindwelladmin_b reset search_path",
            "mindwelladmin: it has not the setting SET search_path TO other",
        ),
        ("create table own (id int)", "drop table own", "mindwelladmin: it alone owns table own"),
        (
            "revoke azure_pg_admin from mindwelladmin_b",
            "grant azure_pg_admin to mindwelladmin_b with admin option",
            "mindwelladmin_b: it is no member of azure_pg_admin",
        ),
        (
            "alter role mindwelladmin reset role",
            "alter role mindwelladmin set role = 'mindwelladmin_owner'",
            "mindwelladmin: what it creates is its own and not mindwelladmin_owner's",
        ),
    ];
    let before = lab.versions("dev");
    for (harm, cure, named) in cases {
        lab.does(admin, harm);
        let run = lab.pgrotate(&["rotate", "dev", "--yes"]);
        assert!(run.text().contains(named), "{harm}: {}", run.text());
        let _ = run.exits(1);
        lab.does(admin, cure);
    }
    assert_eq!((lab.versions("dev"), lab.login()), (before, (first.clone(), password.clone())));

    // A client that came in before its password was changed.
    lab.does(admin, "alter role mindwelladmin_b password 'known to somebody'");
    let stranger = Client::log_in_as(&lab, (SECOND, "known to somebody"), "report", || {
        let seen = "select count(*) from pg_stat_activity where usename = 'mindwelladmin_b'";
        lab.does(admin, seen).trim() != "0"
    });
    let refused = lab.pgrotate(&["rotate", "dev", "--yes"]);
    assert!(
        refused.text().contains("the server refuses the password that onepassword:"),
        "{}",
        refused.text()
    );
    let _ = refused.exits(1);
    let _ = lab.pgrotate(&["roles", "prepare", "dev", "--apply"]).exits(0);
    let busy = lab.pgrotate(&["rotate", "dev", "--yes"]);
    let named = "report@127.0.0.1: a session is logged in as mindwelladmin_b";
    assert!(busy.text().contains(named) && busy.text().contains("should be idle"), "{}", busy.text());
    let _ = busy.exits(1);
    drop(stranger);
    let _ = lab.pgrotate(&["rotate", "dev", "--yes"]).exits(0);
    lab.all_moved_to(SECOND, (FIRST, &password));
}

/// Behind its effect, whose answer nobody hears; core's enumeration has every other place.
#[test]
fn the_run_may_die_at_every_write_of_the_vault_of_record() {
    let lab = Lab::new("dev").without_alembic().prepared();
    // The first one is the check's, which changes nothing.
    for nth in 2.. {
        let (user, password) = lab.login();
        let died = dies_at(&lab, nth);
        assert_eq!(lab.health(&lab.state()["dev"]), 200, "write {nth}: the application is locked out");
        if died {
            let ((), failed, _) = lab.while_asked(|| drop(lab.pgrotate(&["resume"]).exits(0)));
            assert_eq!(failed, 0, "write {nth}: the application was locked out");
        }
        lab.all_moved_to(if user == FIRST { SECOND } else { FIRST }, (&user, &password));
        if !died {
            assert!(nth > 5, "it was to die at four writes, and died at {}", nth - 2);
            return;
        }
    }
}

/// Begins a rotation and kills it at this write, if it has so many; tells whether it died.
fn dies_at(lab: &Lab, nth: usize) -> bool {
    let before = lab.last_request();
    lab.fault(&json!({"method": "PATCH", "path_contains": "/v1/vaults", "nth": nth, "when": "after", "kind": "hold"}));
    let mut child = lab.command(&["rotate", "dev", "--yes"]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let held = || lab.requests_after(before).iter().any(|request| request["held"] == json!(true));
    let deadline = Instant::now() + Duration::from_secs(60);
    let died = loop {
        if held() {
            break true;
        }
        if child.try_wait().unwrap().is_some() {
            break false;
        }
        assert!(Instant::now() < deadline, "neither held nor done");
        std::thread::sleep(Duration::from_millis(50));
    };
    let _ = child.kill();
    let _ = child.wait();
    lab.clear_faults();
    died
}

#[test]
fn what_is_called_off_leaves_the_idle_role_as_it_was() {
    let lab = Lab::new("dev").without_alembic().prepared();
    let before = lab.login();
    // The check has one that changes nothing, the second one stages, the third promotes; the idle role has the new password by then.
    lab.fault(&json!({"method": "PATCH", "path_contains": "/v1/vaults", "nth": 3, "when": "before", "kind": "status", "status": 403}));
    let run = lab.pgrotate(&["rotate", "dev", "--yes"]);
    let text = run.text();
    assert!(text.contains("promote") && text.contains("nothing is changed"), "{text}");
    let _ = run.exits(1);
    lab.clear_faults();
    assert_eq!(lab.login(), before);
    let _ = lab.pgrotate(&["check", "dev"]).exits(0);
    let _ = lab.pgrotate(&["rotate", "dev", "--yes"]).exits(0);
    lab.all_moved_to(SECOND, (FIRST, &before.1));
}

#[test]
fn a_role_that_may_not_log_in_until_its_turn_comes() {
    let lab = Lab::new("dev").without_alembic().in_turn("\n[roles]\nretire = \"nologin\"\n");
    let first = lab.login();
    let shown = lab.pgrotate(&["roles", "prepare", "dev", "--apply"]).exits(0);
    assert!(shown.contains("CREATE ROLE mindwelladmin_b NOLOGIN"), "{shown}");
    let can = |role: &str| {
        let login = lab.login();
        let asked = format!("select rolcanlogin from pg_roles where rolname = '{role}'");
        lab.does((&login.0, &login.1), &asked).trim() == "t"
    };
    let ((), failed, _) = lab.while_asked(|| {
        let _ = lab.pgrotate(&["rotate", "dev", "--yes"]).exits(0);
        let second = lab.all_moved_to(SECOND, (FIRST, &first.1));
        assert!(can(SECOND) && !can(FIRST));
        let _ = lab.pgrotate(&["rotate", "dev", "--yes"]).exits(0);
        lab.all_moved_to(FIRST, (SECOND, &second.1));
        assert!(can(FIRST) && !can(SECOND));
    });
    assert_eq!(failed, 0);
}

#[test]
fn a_configuration_that_can_not_mean_two_roles_is_refused() {
    let refused = |change: &dyn Fn(String) -> String, why: &str| {
        let lab = Lab::new("dev");
        let text = std::fs::read_to_string(lab.config()).unwrap();
        std::fs::write(lab.config(), change(text)).unwrap();
        let run = lab.pgrotate(&["check", "dev"]);
        assert!(run.text().contains(why), "{}", run.text());
        let _ = run.exits(2);
    };
    refused(
        &|text| format!("strategy = \"alternating\"\n{text}"),
        "two roles that take turns change their passwords by SQL",
    );
    refused(&|text| format!("strategy = \"alternatin\"\n{text}"), "\"alternatin\"");
    refused(
        &|text| format!("{text}\n[roles]\ntwin = \"b\"\n"),
        "a second role is for the strategy \"alternating\"",
    );
}
