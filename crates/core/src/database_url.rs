//! A database URL: read, compared component by component, and changed in its password alone.
//!
//! Only the bytes of the password are replaced; everything else of the text stays as somebody
//! wrote it (driver, order of the query, odd spellings). The URL's own parser is asked before
//! and after, and must see the same in every other component.
//!
//! People paste passwords as they are, and `openssl rand -base64` makes `/`. SQLAlchemy takes such a URL, so it is
//! read as SQLAlchemy reads it; it is never written like that.

use std::fmt;

use url::Url;
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// What a URL has to point at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host name of the server.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Name of the database.
    pub database: String,
    /// The role whose password is rotated.
    pub user: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

/// A component in which a URL disagrees with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// `user`, `host`, `port` or `database`.
    pub component: &'static str,
    /// What the configuration says.
    pub expected: String,
    /// What the URL says.
    pub found: String,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "its {} is {:?} where the configuration says {:?}",
            self.component, self.found, self.expected
        )
    }
}

/// A parsed URL; it holds the whole text, so it is as secret as the password in it.
pub struct DatabaseUrl {
    text: Secret,
    /// Where the password stands in the text, in bytes.
    password: std::ops::Range<usize>,
    target: Target,
    scheme: String,
    query: Vec<(String, String)>,
    /// Whether the password stands there without the encoding that it needs.
    raw: bool,
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({}://{})", self.scheme, self.target)
    }
}

impl DatabaseUrl {
    /// Reads a URL, be it one whose password should have been percent-encoded and was not.
    ///
    /// # Errors
    /// Says what is missing, without repeating any of the text.
    pub fn parse(text: &Secret) -> Result<Self> {
        Self::parse_strictly(text).or_else(|error| Self::parse_raw(text).ok_or(error))
    }

    /// Reads a URL as SQLAlchemy does: the password ends at the first `@`, whatever stands in it. What is around it
    /// has to make sense.
    fn parse_raw(text: &Secret) -> Option<Self> {
        let password = raw_password_range(text.expose())?;
        let (before, raw, after) = (
            &text.expose()[..password.start],
            &text.expose()[password.clone()],
            &text.expose()[password.end..],
        );
        let decoded = Zeroizing::new(decode(raw));
        let corrected = Secret::new([before, &*encode(&decoded), after].concat());
        let strict = Self::parse_strictly(&corrected).ok()?;
        (strict.password().expose() == *decoded).then(|| Self {
            text: text.clone(),
            password,
            raw: true,
            ..strict
        })
    }

    fn parse_strictly(text: &Secret) -> Result<Self> {
        let refuse = |why: &str| Error::new(Kind::Corrupt, "read the database URL").because(why.to_owned());
        // The parser drops tabs and line ends; what it does not see must not be there.
        if text.expose().contains(|c: char| c.is_ascii_control() || c == ' ') {
            return Err(refuse("it has spaces or control characters in it"));
        }
        let parsed = Url::parse(text.expose()).map_err(|_| refuse("it is no URL"))?;
        let password =
            password_range(text.expose()).ok_or_else(|| refuse("it has no `user:password@` part"))?;
        let database = parsed.path().strip_prefix('/').filter(|name| !name.is_empty() && !name.contains('/'));
        let target = Target {
            user: decode(parsed.username()),
            host: parsed
                .host_str()
                .filter(|host| !host.is_empty())
                .ok_or_else(|| refuse("it has no host"))?
                .to_owned(),
            port: parsed.port().unwrap_or(5432),
            database: decode(database.ok_or_else(|| refuse("its path is no database name"))?),
        };
        let query =
            parsed.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        // The two readings must agree on where the password stands, or replacing it would
        // damage something else.
        let raw = &text.expose()[password.clone()];
        if decode(parsed.password().unwrap_or_default()) != decode(raw) {
            return Err(refuse("its password has characters that should have been percent-encoded"));
        }
        let scheme = parsed.scheme().to_owned();
        Ok(Self { text: text.clone(), password, target, scheme, query, raw: false })
    }

    /// What the URL points at.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The password, decoded.
    pub fn password(&self) -> Secret {
        Secret::new(decode(&self.text.expose()[self.password.clone()]))
    }

    /// The same URL with another password, percent-encoded where it has to be.
    ///
    /// # Errors
    /// Fails if anything but the password would read differently afterwards.
    pub fn with_password(&self, password: &Secret) -> Result<Secret> {
        self.with(self.password.clone(), &encode(password.expose()), &self.target, password)
    }

    /// The same URL for another role, with its password. What is this role's already keeps its spelling.
    ///
    /// # Errors
    /// Fails if anything but these two would read differently afterwards.
    pub fn with_login(&self, user: &str, password: &Secret) -> Result<Secret> {
        if self.target.user == user {
            return self.with_password(password);
        }
        let start = self.text.expose().find("://").map_or(0, |at| at + 3);
        let login = Zeroizing::new([encode(user).as_str(), ":", encode(password.expose()).as_str()].concat());
        let target = Target { user: user.to_owned(), ..self.target.clone() };
        self.with(start..self.password.end, &login, &target, password)
    }

    /// The text with something else in one place, read again to see that it is what was meant.
    fn with(
        &self,
        place: std::ops::Range<usize>,
        new: &str,
        target: &Target,
        password: &Secret,
    ) -> Result<Secret> {
        let text = self.text.expose();
        let changed = Secret::new([&text[..place.start], new, &text[place.end..]].concat());
        let again = Self::parse(&changed)?;
        let same = again.target == *target && again.scheme == self.scheme && again.query == self.query;
        if same && again.password() == *password {
            Ok(changed)
        } else {
            Err(Error::internal("changing the password of a URL changed something else of it"))
        }
    }

    /// The components in which the URL disagrees with the configuration; user first.
    pub fn disagreements(&self, expected: &Target) -> Vec<Disagreement> {
        let port = (self.target.port.to_string(), expected.port.to_string());
        [
            ("user", &self.target.user, &expected.user),
            ("host", &self.target.host, &expected.host),
            ("port", &port.0, &port.1),
            ("database", &self.target.database, &expected.database),
        ]
        .into_iter()
        .filter(|(component, found, expected)| match *component {
            "host" => !found.eq_ignore_ascii_case(expected),
            _ => found != expected,
        })
        .map(|(component, found, expected)| Disagreement {
            component,
            expected: expected.clone(),
            found: found.clone(),
        })
        .collect()
    }

    /// What is wrong with how the password is written, though it can be read.
    pub fn encoding_warning(&self) -> Option<String> {
        self.raw.then(|| {
            "the password in its URL is not percent-encoded, which only some drivers forgive; the rotation writes it \
             right"
                .to_owned()
        })
    }

    /// A TLS parameter that the URL's driver does not understand. Some applications translate it
    /// themselves, so this is worth a word and never a change.
    pub fn driver_warning(&self) -> Option<String> {
        let has = |name: &str| self.query.iter().any(|(key, _)| key == name);
        match self.scheme.rsplit_once('+').map_or("libpq", |(_, driver)| driver) {
            "asyncpg" if has("sslmode") => Some(
                "SQLAlchemy with asyncpg refuses `sslmode=` (TypeError: unexpected keyword argument 'sslmode'); it wants \
                 `ssl=`, unless the application translates it"
                    .to_owned(),
            ),
            driver @ ("libpq" | "psycopg" | "psycopg2") if has("ssl") && !has("sslmode") => {
                Some(format!("{driver} wants `sslmode=`; `ssl=` is asyncpg's and JDBC's"))
            }
            _ => None,
        }
    }
}

/// Percent-encodes everything outside of RFC 3986's unreserved characters.
pub fn encode(text: &str) -> Zeroizing<String> {
    use fmt::Write as _;
    let mut encoded = Zeroizing::new(String::with_capacity(text.len() * 3));
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => write!(encoded, "%{byte:02X}").expect("writing to a String can't fail"),
        }
    }
    encoded
}

fn decode(text: &str) -> String {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Finds the password by the rules of RFC 3986: the authority ends at the first of `/?#`, its
/// user-info at the last `@`, and the password begins after the first `:`.
fn password_range(text: &str) -> Option<std::ops::Range<usize>> {
    let authority = text.find("://")? + 3;
    let end = text[authority..].find(['/', '?', '#']).map_or(text.len(), |length| authority + length);
    let at = authority + text[authority..end].rfind('@')?;
    let colon = authority + text[authority..at].find(':')?;
    Some(colon + 1..at)
}

/// Finds the password by SQLAlchemy's rule: from the first `:` after a user without `:` and `/` to the first `@`.
fn raw_password_range(text: &str) -> Option<std::ops::Range<usize>> {
    let user = text.find("://")? + 3;
    let colon = user + text[user..].find([':', '/']).filter(|at| text.as_bytes()[user + at] == b':')?;
    let at = colon + text[colon..].find('@')?;
    Some(colon + 1..at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RUNBOOK: &str = "postgresql+asyncpg://mindwelladmin:old@pgflex-mindwell-dev.postgres.database.azure.com:5432/mindwell_app?sslmode=require";

    fn url(text: &str) -> DatabaseUrl {
        DatabaseUrl::parse(&Secret::new(text)).unwrap()
    }

    fn expected() -> Target {
        Target {
            host: "pgflex-mindwell-dev.postgres.database.azure.com".into(),
            port: 5432,
            database: "mindwell_app".into(),
            user: "mindwelladmin".into(),
        }
    }

    #[test]
    fn only_the_password_changes() {
        let changed = url(RUNBOOK).with_password(&Secret::new("new")).unwrap();
        assert_eq!(changed.expose(), RUNBOOK.replace(":old@", ":new@"));
    }

    #[test]
    fn another_role_comes_with_its_password_and_the_rest_stays() {
        let changed = url(RUNBOOK).with_login("mindwell@b", &Secret::new("n/w")).unwrap();
        assert_eq!(changed.expose(), RUNBOOK.replace("mindwelladmin:old@", "mindwell%40b:n%2Fw@"));
        let same = url(RUNBOOK).with_login("mindwelladmin", &Secret::new("new")).unwrap();
        assert_eq!(same.expose(), RUNBOOK.replace(":old@", ":new@"));
    }

    proptest! {
        #[test]
        fn any_login_can_be_put_in_and_taken_back(user in "[^/:\\PC][^/:\\PC]{0,20}", password in "\\PC{0,40}") {
            let changed = url(RUNBOOK).with_login(&user, &Secret::new(password.as_str())).unwrap();
            let again = DatabaseUrl::parse(&changed).unwrap();
            prop_assert_eq!(&again.target().user, &user);
            let back = again.with_login("mindwelladmin", &Secret::new("old")).unwrap();
            prop_assert_eq!(back.expose(), RUNBOOK);
        }

        #[test]
        fn any_password_survives_and_the_rest_stays(password in "\\PC{0,40}") {
            let password = Secret::new(password);
            let changed = url(RUNBOOK).with_password(&password).unwrap();
            let again = DatabaseUrl::parse(&changed).unwrap();
            prop_assert_eq!(again.password(), password);
            prop_assert_eq!(again.disagreements(&expected()), []);
            let back = again.with_password(&Secret::new("old")).unwrap();
            prop_assert_eq!(back.expose(), RUNBOOK);
        }
    }

    #[test]
    fn disagreements_are_named() {
        let other =
            url("postgresql://admin:x@pgflex-mindwell-prod.postgres.database.azure.com:6432/mindwell_app");
        let named: Vec<_> = other.disagreements(&expected()).iter().map(|found| found.component).collect();
        assert_eq!(named, ["user", "host", "port"]);
        assert_eq!(
            other.disagreements(&expected())[0].to_string(),
            "its user is \"admin\" where the configuration says \"mindwelladmin\""
        );
        let missing_port =
            url("postgresql://mindwelladmin:x@PGFLEX-mindwell-dev.postgres.database.azure.com/mindwell_app");
        assert_eq!(missing_port.disagreements(&expected()), []);
    }

    #[test]
    fn what_is_no_database_url_is_refused_without_being_repeated() {
        for text in [
            "hunter2",
            "postgresql://host/db",
            "postgresql://u:p@host",
            "postgresql://u:p@host/a/b",
            "postgres://u:hun/ter2",
            "postgres://u:hun/ter2@h/a/b",
            "postgres://u:hun/t@r2@h/d",
            "postgres://u/x:hunter2@h/d",
            "postgres://u:hunter2@h/d d",
            "postgres://u:hunter2@h/d\t",
            "postgres://u:hunter2@/d",
            "postgres://u:hunter2@h/",
        ] {
            let error = DatabaseUrl::parse(&Secret::new(text)).unwrap_err().to_string();
            assert!(!error.contains("hunter2") && !error.contains("ter2"), "{error}");
        }
    }

    #[test]
    fn a_password_that_was_pasted_raw_is_read_as_sqlalchemy_reads_it() {
        // What SQLAlchemy's make_url says of each.
        for (raw, read) in [
            ("a/b+c=", "a/b+c="),
            ("12/34", "12/34"),
            ("a?b", "a?b"),
            ("a#b", "a#b"),
            ("/a:b/", "/a:b/"),
            ("a%2Fb/c", "a/b/c"),
            ("a%zz/", "a%zz/"),
        ] {
            let text = RUNBOOK.replace(":old@", &format!(":{raw}@"));
            let pasted = url(&text);
            assert_eq!(pasted.password(), Secret::new(read), "{raw}");
            assert!(pasted.encoding_warning().is_some(), "{raw}");
            assert_eq!(pasted.disagreements(&expected()), [], "{raw}");
            let changed = pasted.with_password(&Secret::new("new")).unwrap();
            assert_eq!(changed.expose(), RUNBOOK.replace(":old@", ":new@"), "{raw}");
            let same = pasted.with_password(&pasted.password()).unwrap();
            assert_eq!(url(same.expose()).encoding_warning(), None, "written right: {raw}");
        }
        assert_eq!(url(RUNBOOK).encoding_warning(), None);
    }

    #[test]
    fn tls_parameters_of_the_wrong_driver_are_noticed() {
        assert!(url(RUNBOOK).driver_warning().unwrap().contains("sslmode"));
        assert_eq!(url("postgresql+asyncpg://u:p@h/d?ssl=require").driver_warning(), None);
        assert_eq!(url("postgresql+psycopg://u:p@h/d?sslmode=require").driver_warning(), None);
        assert!(url("postgresql://u:p@h/d?ssl=require").driver_warning().unwrap().contains("sslmode"));
    }

    #[test]
    fn debug_hides_the_password() {
        assert_eq!(
            format!("{:?}", url("postgresql+asyncpg://me:old@db/app")),
            "DatabaseUrl(postgresql+asyncpg://me@db:5432/app)"
        );
    }
}
