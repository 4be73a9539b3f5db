//! Against a real sshd on loopback, and against nobody.

use std::sync::Arc;
use std::time::Instant;

use pgrotate_core::Retry;

use super::testing::Sshd;
use super::*;
use crate::fake;
use crate::shared::Vendors;

const LATER: Retry = Retry::Later { after_ms: None };

fn shared() -> Arc<Shared> {
    fake::shared(Vendors::default(), "")
}

fn at(options: SshOptions) -> Ssh {
    Ssh::new("127.0.0.1", options, &shared()).unwrap()
}

async fn run(ssh: &Ssh, script: &str, input: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    ssh.run(script, input, Effect::Writes, Duration::from_secs(20), "do it").await
}

/// The error with all its words.
async fn refusal(options: SshOptions) -> (Error, String) {
    let error = run(&at(options), "true", b"canary-input").await.unwrap_err();
    let words = format!("{error}; {}", error.hints().join("; "));
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    (error, words)
}

#[tokio::test]
async fn a_script_gets_its_input_and_answers() {
    let sshd = Sshd::start();
    let ssh = at(sshd.options());
    assert_eq!(ssh.place(), format!("127.0.0.1:{}", sshd.port));
    let input = b"\0\xFF $HOME 'it' \"is\"\r\n`date`";
    let said = run(&ssh, "printf 'x%s\\n' \"$LC_ALL\"; cat", input).await.unwrap();
    assert_eq!(&said[..], [b"xC\n".as_slice(), input].concat());
    let said = run(&ssh, &format!("printf %s {}", quoted("it's $x \\ \"y\"")), b"").await.unwrap();
    assert_eq!(&said[..], b"it's $x \\ \"y\"");
}

#[tokio::test]
async fn a_hosts_own_name_for_it_works_too() {
    let sshd = Sshd::start();
    let options = SshOptions {
        config_file: Some(sshd.file("ssh_config").display().to_string()),
        ..SshOptions::default()
    };
    let ssh = Ssh::new("agent-1", options, &shared()).unwrap();
    assert_eq!(&run(&ssh, "echo here", b"").await.unwrap()[..], b"here\n");
}

#[tokio::test]
async fn a_script_that_fails_may_have_done_its_work() {
    let sshd = Sshd::start();
    let ssh = at(sshd.options());
    let error = run(&ssh, "exit 7", b"").await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::BadState, Retry::Unknown));
    assert!(error.to_string().contains("ended with 7"), "{error}");
    let read = ssh.run("exit 7", b"", Effect::Reads, Duration::from_secs(20), "do it").await;
    assert_eq!(read.unwrap_err().retry(), LATER);
    let began = Instant::now();
    let late =
        ssh.run("sleep 60", b"", Effect::Writes, Duration::from_millis(1500), "do it").await.unwrap_err();
    assert_eq!((late.kind(), late.retry()), (Kind::TimedOut, Retry::Unknown));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_host_that_is_not_known_is_not_talked_to() {
    let sshd = Sshd::start();
    std::fs::write(sshd.file("known_hosts"), "").unwrap();
    let (error, words) = refusal(sshd.options()).await;
    assert_eq!((error.kind(), error.retry()), (Kind::Unauthenticated, Retry::Never));
    assert!(words.contains("is not known here") && words.contains("known_hosts; ssh-keyscan"), "{words}");
    assert_eq!(std::fs::read(sshd.file("known_hosts")).unwrap(), b"", "nor is it noted");
}

#[tokio::test]
async fn a_host_key_that_changed_is_refused_with_its_place() {
    let sshd = Sshd::start();
    let stranger = std::fs::read_to_string(sshd.file("stranger_key.pub")).unwrap();
    std::fs::write(sshd.file("known_hosts"), format!("# one\n[127.0.0.1]:{} {stranger}", sshd.port)).unwrap();
    let (error, words) = refusal(sshd.options()).await;
    assert_eq!((error.kind(), error.retry()), (Kind::Unauthenticated, Retry::Never));
    let place = format!("{}:2", sshd.file("known_hosts").display());
    assert!(words.contains("another host key") && words.contains(&place), "{words}");
}

#[tokio::test]
async fn a_key_that_is_not_accepted_is_named() {
    let sshd = Sshd::start();
    let with = |name: &str| SshOptions {
        identity_file: Some(sshd.file(name).display().to_string()),
        ..sshd.options()
    };
    let (error, words) = refusal(with("stranger_key")).await;
    assert_eq!((error.kind(), error.retry()), (Kind::Unauthenticated, Retry::Never));
    assert!(words.contains("stranger_key in its authorized_keys"), "{words}");
    let (_, words) = refusal(with("no_such_key")).await;
    assert!(words.contains("there is no file") && words.contains("no_such_key"), "{words}");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(sshd.file("client_key"), open).unwrap();
    let (error, words) = refusal(sshd.options()).await;
    assert_eq!(error.kind(), Kind::Config);
    assert!(words.contains("chmod 600") && words.contains("client_key"), "{words}");
}

#[tokio::test]
async fn nobody_at_home_is_tried_again_later() {
    let sshd = Sshd::start();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (error, words) = refusal(SshOptions { port: Some(port), ..sshd.options() }).await;
    assert_eq!((error.kind(), error.retry()), (Kind::Unreachable, LATER));
    assert!(words.contains("nobody takes ssh connections at 127.0.0.1"), "{words}");
    let lost = Ssh::new("no-such-host.invalid", sshd.options(), &shared()).unwrap();
    let error = run(&lost, "true", b"").await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Unreachable, LATER));
    assert!(error.to_string().contains("nobody knows where"), "{error}");
}

#[tokio::test]
async fn a_configuration_that_is_not_there_is_said() {
    let sshd = Sshd::start();
    let (error, words) = refusal(SshOptions { config_file: Some("/no/such".into()), ..sshd.options() }).await;
    assert_eq!((error.kind(), error.retry()), (Kind::Config, Retry::Never));
    assert!(words.contains("ssh -G -F /no/such"), "{words}");
}

#[tokio::test]
async fn a_connection_that_closes_before_it_began_is_unknown_to_a_writer() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let sshd = Sshd::start();
    let (error, _) = refusal(SshOptions { port: Some(port), ..sshd.options() }).await;
    assert_eq!((error.kind(), error.retry()), (Kind::Unreachable, Retry::Unknown));
}

/// Shells that a login may have, as far as this machine has them.
#[tokio::test]
async fn every_login_shell_hands_the_script_on() {
    let text = "#pgrotate\nprintf '%s' 'it'\"'\"'s'; cat\n#end";
    let remote = format!(
        "exec sh -c 's=$(dd bs=1 count={} 2>/dev/null); case $s in \"#pgrotate\"*\"#end\") eval \"$s\";; *) exit {DAMAGED};; esac'",
        text.len()
    );
    for shell in ["sh", "dash", "bash", "zsh", "fish", "csh", "tcsh"] {
        let Some(program) = child::find(shell) else { continue };
        let call = async |input: &[u8]| {
            child::ask(child::command(&program).args(["-c", &remote]), input, 100, Duration::from_secs(10))
                .await
                .unwrap()
        };
        let answer = call(&[text.as_bytes(), b" input"].concat()).await;
        assert_eq!((answer.code(), &answer.stdout[..]), (Some(0), b"it's input".as_slice()), "{shell}");
        let torn = call(&[&text.as_bytes()[3..], b"; echo canary".as_slice()].concat()).await;
        assert_eq!((torn.code(), &torn.stdout[..]), (Some(DAMAGED), b"".as_slice()), "{shell}");
    }
}

#[test]
fn what_ssh_would_take_for_something_else_is_refused() {
    for host in ["", "-oProxyCommand=sh", "a b", "a\nb", "user@", "user@-x"] {
        assert!(Ssh::new(host, SshOptions::default(), &shared()).is_err(), "{host:?}");
    }
    for path in ["/a%h", "/a\"b", "/$HOME/x", "a\nb"] {
        let options = SshOptions { identity_file: Some(path.into()), ..SshOptions::default() };
        assert!(Ssh::new("host", options, &shared()).is_err(), "{path:?}");
    }
    let options = Some(SshOptions { port: Some(22), ..SshOptions::default() });
    let error = Ssh::configured(None, options, &shared()).unwrap_err();
    assert!(error.hints()[0].contains("host = "), "{error}");
    let plain = Ssh::new("me@agent-1", SshOptions::default(), &shared()).unwrap();
    assert_eq!(plain.place(), "me@agent-1");
    for insisted in ["BatchMode=yes", "StrictHostKeyChecking=yes", "ForwardAgent=no", "ControlPath=none"] {
        assert!(plain.arguments().contains(&insisted.to_owned()), "{insisted}");
    }
}
