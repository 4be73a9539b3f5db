use std::os::unix::fs::{PermissionsExt, symlink};

use pgrotate_core::Retry;

use super::*;
use crate::fake;
use crate::shared::Vendors;

const PASSPHRASE: &str = "correct horse battery";
const NOW: &str = "Zq8xPTkn5VbR2mWc";
const NEXT: &str = "NewPw7Kd93hXbQ4r";

/// A folder with a vault in it, and what opens it.
struct Place {
    folder: tempfile::TempDir,
    identity_file: Option<String>,
    passphrase: &'static str,
}

impl Place {
    fn path(&self) -> PathBuf {
        self.folder.path().join("dev.age")
    }

    fn with_passphrase() -> Self {
        let place =
            Self { folder: tempfile::tempdir().unwrap(), identity_file: None, passphrase: PASSPHRASE };
        let protection = Protection::Passphrase(Secret::new(PASSPHRASE));
        create(&place.path(), protection, &Secret::new(NOW), Timestamp::UNIX_EPOCH).unwrap();
        place
    }

    /// Locked for its own identity and one more person, whose identity is given too.
    fn with_identities() -> (Self, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (folder.path().join("ours.txt"), folder.path().join("theirs.txt"));
        let listed = vec![create_identity(&ours).unwrap(), create_identity(&theirs).unwrap()];
        let place = Self { folder, identity_file: Some(ours.to_str().unwrap().to_owned()), passphrase: "" };
        create(&place.path(), Protection::Recipients(listed), &Secret::new(NOW), Timestamp::UNIX_EPOCH)
            .unwrap();
        (place, theirs)
    }

    fn vault(&self) -> LocalVault {
        let options = Options {
            path: self.path().to_str().unwrap().to_owned(),
            identity_file: self.identity_file.clone(),
            passphrase_variable: "PGROTATE_TEST_PASSPHRASE".into(),
        };
        let credentials = format!("PGROTATE_TEST_PASSPHRASE={}", self.passphrase);
        LocalVault::new(None, options, fake::shared(Vendors::default(), &credentials)).unwrap()
    }

    async fn refusal(&self) -> String {
        let error = self.vault().read().await.unwrap_err();
        assert_eq!(error.retry(), Retry::Never);
        assert_eq!(self.vault().check().await.unwrap_err(), error);
        format!("{error} ({})", error.hints().join("; "))
    }
}

fn other_run() -> RunId {
    fake::OTHER_RUN.parse().unwrap()
}

/// Current, pending and previous password.
async fn held(vault: &LocalVault) -> [Option<String>; 3] {
    let state = vault.read().await.unwrap();
    [state.current, state.pending.into_iter().next(), state.previous]
        .map(|entry| entry.map(|entry| entry.secret.expose().to_owned()))
}

fn texts(texts: [&str; 3]) -> [Option<String>; 3] {
    texts.map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()))
}

#[tokio::test]
async fn a_password_is_staged_and_promoted_once() {
    let (identities, _theirs) = Place::with_identities();
    for place in [Place::with_passphrase(), identities] {
        let (vault, run, next) = (place.vault(), fake::run(), Secret::new(NEXT));
        assert_eq!(vault.id().as_str(), "local_vault:dev.age");
        assert_eq!(vault.check().await.unwrap().findings, []);
        assert_eq!(held(&vault).await, texts([NOW, "", ""]));
        vault.stage(run, &next).await.unwrap();
        let staged = std::fs::read(place.path()).unwrap();
        vault.stage(run, &next).await.unwrap();
        assert_eq!(std::fs::read(place.path()).unwrap(), staged, "nothing is written a second time");
        assert_eq!(held(&place.vault()).await, texts([NOW, NEXT, ""]), "another process sees it");
        assert_eq!(vault.promote(run, &next, None).await.unwrap(), Some(VersionId::from("3")));
        assert_eq!(vault.promote(run, &next, None).await.unwrap(), Some(VersionId::from("3")));
        assert_eq!(held(&place.vault()).await, texts([NEXT, "", NOW]));
        let state = place.vault().read().await.unwrap();
        assert_eq!(state.current.unwrap().run, Some(run));
        assert_eq!(std::fs::metadata(place.path()).unwrap().mode() & 0o777, 0o600);
    }
}

#[tokio::test]
async fn the_pending_password_of_another_run_is_left_alone() {
    let place = Place::with_passphrase();
    let vault = place.vault();
    vault.stage(other_run(), &Secret::new("theirs")).await.unwrap();
    let error = vault.stage(fake::run(), &Secret::new(NEXT)).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Conflict, Retry::Never));
    assert!(error.hints()[0].contains(fake::OTHER_RUN));
    assert_eq!(vault.stage(other_run(), &Secret::new("x")).await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(
        vault.promote(fake::run(), &Secret::new(NEXT), None).await.unwrap_err().kind(),
        Kind::Conflict
    );
    vault.discard(fake::run()).await.unwrap();
    assert_eq!(held(&vault).await, texts([NOW, "theirs", ""]));
    vault.discard(other_run()).await.unwrap();
    vault.discard(other_run()).await.unwrap();
    assert_eq!(held(&place.vault()).await, texts([NOW, "", ""]));
}

#[tokio::test]
async fn nothing_plain_is_ever_on_the_disk() {
    let place = Place::with_passphrase();
    let vault = place.vault();
    vault.stage(fake::run(), &Secret::new(NEXT)).await.unwrap();
    vault.promote(fake::run(), &Secret::new(NEXT), None).await.unwrap();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(place.folder.path()).unwrap() {
        let entry = entry.unwrap();
        let bytes = std::fs::read(entry.path()).unwrap();
        for secret in [NOW, NEXT, PASSPHRASE, "current"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
        }
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, [".dev.age.lock", "dev.age"]);
}

#[tokio::test]
async fn everybody_who_could_open_it_still_can() {
    let (mut place, theirs) = Place::with_identities();
    place.vault().stage(fake::run(), &Secret::new(NEXT)).await.unwrap();
    place.identity_file = Some(theirs.to_str().unwrap().to_owned());
    assert_eq!(held(&place.vault()).await, texts([NOW, NEXT, ""]));

    // A file made by hand for two, without the list of them.
    let ours = std::fs::read_to_string(place.folder.path().join("ours.txt")).unwrap();
    let both: Vec<age::x25519::Recipient> = [ours, std::fs::read_to_string(&theirs).unwrap()]
        .iter()
        .map(|text| text.lines().next_back().unwrap().parse::<age::x25519::Identity>().unwrap().to_public())
        .collect();
    let content = Content {
        user: None,
        version: FORMAT,
        revision: 0,
        recipients: Vec::new(),
        current: Some(Slot { password: Secret::new(NOW), run: None, at: None }),
        pending: None,
        previous: None,
    };
    let bytes = sealed::seal_for(&content, &both, "make it").unwrap();
    std::fs::write(place.path(), &bytes).unwrap();
    let findings = place.vault().check().await.unwrap().findings;
    assert!(
        findings[0].severity == Severity::Blocks && findings[0].what.contains("others can open it too"),
        "{findings:?}"
    );
    assert!(place.vault().stage(fake::run(), &Secret::new(NEXT)).await.is_err());
    assert_eq!(std::fs::read(place.path()).unwrap(), bytes);
}

#[tokio::test]
async fn the_wrong_key_is_told_from_a_damaged_file() {
    let mut place = Place::with_passphrase();
    place.passphrase = "wrong";
    assert!(place.refusal().await.contains("the passphrase does not open it"));
    place.passphrase = "";
    assert!(place.refusal().await.contains("PGROTATE_TEST_PASSPHRASE is not set"));
    let stranger = place.folder.path().join("stranger.txt");
    create_identity(&stranger).unwrap();
    place.identity_file = Some(stranger.to_str().unwrap().to_owned());
    assert!(place.refusal().await.contains("it is locked with a passphrase"));

    let (mut place, _theirs) = Place::with_identities();
    let own = place.identity_file.replace(stranger.to_str().unwrap().to_owned());
    assert!(place.refusal().await.contains("none of the identities opens it"));
    (place.identity_file, place.passphrase) = (None, PASSPHRASE);
    assert!(place.refusal().await.contains("it is locked for identities"));
    place.identity_file = Some(place.path().to_str().unwrap().to_owned());
    assert!(place.refusal().await.contains("line 1 is no AGE-SECRET-KEY"));
    place.identity_file = own;
    assert_eq!(held(&place.vault()).await, texts([NOW, "", ""]));
}

#[tokio::test]
async fn a_damaged_file_is_refused_wherever_the_damage_is() {
    let (place, _theirs) = Place::with_identities();
    let whole = std::fs::read(place.path()).unwrap();
    let written = |bytes: &[u8]| std::fs::write(place.path(), bytes).unwrap();
    for bytes in [&b""[..], b"hello", &whole[..whole.len() / 2], &whole[..60]] {
        written(bytes);
        assert!(place.refusal().await.contains("damaged"), "{} bytes", bytes.len());
    }
    for at in (40..whole.len() - 40).step_by(97) {
        let mut bytes = whole.clone();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        written(&bytes);
        place.refusal().await;
    }
    written(&whole);
    assert_eq!(held(&place.vault()).await, texts([NOW, "", ""]));
}

#[tokio::test]
async fn what_is_locked_in_it_must_be_a_vault() {
    let (place, _theirs) = Place::with_identities();
    let identity = std::fs::read_to_string(place.folder.path().join("ours.txt")).unwrap();
    let identity: age::x25519::Identity = identity.lines().next_back().unwrap().parse().unwrap();
    for (text, why) in [
        ("hunter2", "not a vault's JSON"),
        (r#"{"version":2,"current":{"password":"hunter2"}}"#, "version 2"),
        (r#"{"version":1,"curent":{"password":"hunter2"}}"#, "not known"),
        (r#"{"version":1,"current":"hunter2"}"#, "can't be read"),
    ] {
        std::fs::write(place.path(), age::encrypt(&identity.to_public(), text.as_bytes()).unwrap()).unwrap();
        let said = place.refusal().await;
        assert!(said.contains(why) && !said.contains("hunter2"), "{said}");
    }
    let by_hand = br#"{"version":1,"current":{"password":"by hand"}}"#;
    std::fs::write(place.path(), age::encrypt(&identity.to_public(), by_hand).unwrap()).unwrap();
    let vault = place.vault();
    assert_eq!(held(&vault).await, texts(["by hand", "", ""]));
    vault.stage(fake::run(), &Secret::new(NEXT)).await.unwrap();
    assert!(
        std::fs::read(place.path()).unwrap().starts_with(b"age-encryption.org/v1"),
        "binary stays binary"
    );
}

#[tokio::test]
async fn others_must_not_read_it_and_links_are_not_followed() {
    let (place, _theirs) = Place::with_identities();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    mode(&place.path(), 0o640);
    assert!(place.refusal().await.contains("chmod 600"));
    mode(&place.path(), 0o600);
    let identity = place.folder.path().join("ours.txt");
    mode(&identity, 0o644);
    assert!(place.refusal().await.contains("chmod 600"));
    mode(&identity, 0o600);
    std::fs::rename(place.path(), place.folder.path().join("elsewhere.age")).unwrap();
    assert!(place.refusal().await.contains("no such file"));
    symlink("elsewhere.age", place.path()).unwrap();
    assert!(place.refusal().await.contains("symbolic link"));
}

#[tokio::test]
async fn two_writers_wait_for_each_other() {
    let place = Place::with_passphrase();
    let held_by_another = lock(&place.path(), "hold it").unwrap();
    let error = place.vault().stage(fake::run(), &Secret::new(NEXT)).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (Kind::Busy, Retry::Later { after_ms: None }));
    drop(held_by_another);
    assert!(place.vault().stage(fake::run(), &Secret::new(NEXT)).await.is_ok());
}

#[test]
fn a_new_vault_never_takes_the_place_of_an_old_one() {
    let place = Place::with_passphrase();
    let make = |protection| create(&place.path(), protection, &Secret::new("x"), Timestamp::UNIX_EPOCH);
    let before = std::fs::read(place.path()).unwrap();
    assert_eq!(make(Protection::Passphrase(Secret::new(PASSPHRASE))).unwrap_err().kind(), Kind::Conflict);
    assert_eq!(std::fs::read(place.path()).unwrap(), before);
    std::fs::remove_file(place.path()).unwrap();
    assert_eq!(make(Protection::Passphrase(Secret::new("too short"))).unwrap_err().kind(), Kind::Config);
    assert_eq!(make(Protection::Recipients(vec!["age1nobody".into()])).unwrap_err().kind(), Kind::Config);
    assert_eq!(make(Protection::Recipients(Vec::new())).unwrap_err().kind(), Kind::Config);
    assert!(!place.path().exists());
}

/// A hostile file must not take the machine's memory.
#[test]
fn excessive_work_is_refused() {
    let mut recipient = age::scrypt::Recipient::new(age::secrecy::SecretString::from(PASSPHRASE.to_owned()));
    recipient.set_work_factor(10);
    let sealed = age::encrypt(&recipient, b"{}").unwrap();
    let text = String::from_utf8_lossy(&sealed[..80]).into_owned();
    let place = text.find(" 10\n").unwrap();
    let mut raised = sealed.clone();
    raised[place + 1..place + 3].copy_from_slice(b"30");
    let error = sealed::open(&raised, &Key::Passphrase(Secret::new(PASSPHRASE)), "open it").err().unwrap();
    assert!(error.to_string().contains("2^30"), "{error}");
}
