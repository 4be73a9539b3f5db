//! What a copy holds: the bare password, the database URL, or a text around one of them.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::database_url::{self, DatabaseUrl, Target};
use crate::error::{Error, Kind, Result};
use crate::ids::{CopyId, RunId, VersionId};
use crate::secret::{Secret, hex};

/// The form of the URL where no present one can be read, with `{user}`, `{password}`, `{host}`,
/// `{port}` and `{name}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlTemplate(Vec<Piece>);

/// What one copy holds, with `{password}` or `{database_url}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(String),
}

/// A template that can't be read, with the place in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// Where in the text it stands.
    pub at: std::ops::Range<usize>,
    /// What is wrong.
    pub message: String,
    /// A name that may have been meant.
    pub suggestion: Option<String>,
}

/// Splits a text into literal pieces and `{variables}`; `{{` and `}}` stand for the braces.
///
/// # Errors
/// Points at a brace without partner or a variable that is not among the known ones.
fn pieces(text: &str, known: &[&str]) -> std::result::Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text.char_indices().peekable();
    while let Some((start, character)) = rest.next() {
        let doubled = rest.peek().is_some_and(|(_, next)| *next == character);
        match character {
            '{' | '}' if doubled => {
                rest.next();
                literal.push(character);
            }
            '{' => {
                let end =
                    text[start..].find('}').map(|length| start + length).ok_or_else(|| TemplateError {
                        at: start..text.len(),
                        message: "this brace is never closed; write `{{` for a brace itself".into(),
                        suggestion: None,
                    })?;
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
                pieces.push(Piece::Variable(variable(&text[start + 1..end], start..end + 1, known)?));
                while rest.peek().is_some_and(|(at, _)| *at <= end) {
                    rest.next();
                }
            }
            _ => literal.push(character),
        }
    }
    pieces.push(Piece::Text(literal));
    pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
    Ok(pieces)
}

fn variable(
    name: &str,
    at: std::ops::Range<usize>,
    known: &[&str],
) -> std::result::Result<String, TemplateError> {
    if known.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(TemplateError {
        at,
        message: format!("no template variable {{{name}}} here; there are {}", listed(known)),
        suggestion: closest(name, known),
    })
}

fn listed(known: &[&str]) -> String {
    known.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(", ")
}

/// The known name most like the given one, if it is like enough to be a slip.
pub fn closest(name: &str, known: &[&str]) -> Option<String> {
    // In a short name one slip of the finger is much, and two swapped letters are one slip.
    let likeness = |candidate: &str| match strsim::osa_distance(name, candidate) {
        0 | 1 => 1.0,
        _ => strsim::jaro_winkler(name, candidate),
    };
    known
        .iter()
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| (*candidate).to_owned())
}

/// Replaces the variables of a name (`kv-mindwell-{env}`), leaving those in `later` for a
/// [`Template`] to fill in when the password is known.
///
/// # Errors
/// Points at a variable that nobody defines.
pub fn expand(
    text: &str,
    variables: &BTreeMap<String, String>,
    later: &[&str],
) -> std::result::Result<String, TemplateError> {
    let known: Vec<&str> = variables.keys().map(String::as_str).chain(later.iter().copied()).collect();
    let keep_braces = !later.is_empty();
    let brace = |text: String| if keep_braces { text.replace('{', "{{").replace('}', "}}") } else { text };
    Ok(pieces(text, &known)?
        .into_iter()
        .map(|piece| match piece {
            Piece::Text(text) => brace(text),
            Piece::Variable(name) => match variables.get(&name) {
                Some(value) => brace(value.clone()),
                None => format!("{{{name}}}"),
            },
        })
        .collect())
}

impl UrlTemplate {
    /// The variables of a URL.
    pub const VARIABLES: &'static [&'static str] = &["user", "password", "host", "port", "name"];

    /// Reads a template and makes sure that what comes out of it is a database URL that points
    /// at the target.
    ///
    /// # Errors
    /// Points at what can't be read.
    pub fn parse(text: &str, target: &Target) -> std::result::Result<Self, TemplateError> {
        let refuse = |message: String| TemplateError { at: 0..text.len(), message, suggestion: None };
        let template = Self(pieces(text, Self::VARIABLES)?);
        let sample = template.render(target, &Secret::new("sample"));
        let url = DatabaseUrl::parse(&sample).map_err(|error| refuse(error.to_string()))?;
        if url.password() != Secret::new("sample") {
            return Err(refuse("{password} must be the URL's password".into()));
        }
        match url.disagreements(target).first() {
            Some(found) => Err(refuse(format!("as a URL, {found}"))),
            None => Ok(template),
        }
    }

    /// The URL of a password, encoded where it has to be.
    pub fn render(&self, target: &Target, password: &Secret) -> Secret {
        let mut text = Zeroizing::new(String::new());
        for piece in &self.0 {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                Piece::Variable(name) => match name.as_str() {
                    "user" => text.push_str(&database_url::encode(&target.user)),
                    "password" => text.push_str(&database_url::encode(password.expose())),
                    "host" => text.push_str(&target.host),
                    "port" => text.push_str(&target.port.to_string()),
                    _ => text.push_str(&database_url::encode(&target.database)),
                },
            }
        }
        Secret::new(text.as_str())
    }
}

/// What a copy was seen to hold.
#[derive(Debug, PartialEq, Eq)]
pub enum Reading {
    /// The password in it.
    Password(Secret),
    /// Something without the form that the template gives it; the reason.
    Foreign(String),
}

impl Template {
    /// The variables of a copy's value.
    pub const VARIABLES: &'static [&'static str] = &["password", "database_url"];

    /// Reads a template.
    ///
    /// # Errors
    /// Points at what can't be read, and refuses a value that holds no password at all.
    pub fn parse(text: &str) -> std::result::Result<Self, TemplateError> {
        let pieces = pieces(text, Self::VARIABLES)?;
        match pieces.iter().filter(|piece| matches!(piece, Piece::Variable(_))).count() {
            1 => Ok(Self(pieces)),
            count => Err(TemplateError {
                at: 0..text.len(),
                message: format!("a value holds {{password}} or {{database_url}} once, not {count} times"),
                suggestion: None,
            }),
        }
    }

    /// Whether the copy holds a database URL.
    pub fn holds_url(&self) -> bool {
        self.0.contains(&Piece::Variable("database_url".into()))
    }

    /// The texts before and after the variable.
    pub fn around(&self) -> (String, String) {
        let place = self.0.iter().position(|piece| matches!(piece, Piece::Variable(_))).unwrap_or_default();
        let literal = |pieces: &[Piece]| -> String {
            let text =
                |piece: &Piece| if let Piece::Text(text) = piece { text.clone() } else { String::new() };
            pieces.iter().map(text).collect()
        };
        (literal(&self.0[..place]), literal(&self.0[place..]))
    }

    /// The value with the given inner text.
    fn wrap(&self, inner: &Secret) -> Secret {
        let mut text = Zeroizing::new(String::new());
        for piece in &self.0 {
            match piece {
                Piece::Text(literal) => text.push_str(literal),
                Piece::Variable(_) => text.push_str(inner.expose()),
            }
        }
        Secret::new(text.as_str())
    }

    /// The value that this password and this URL give.
    pub fn fill(&self, password: &Secret, url: &Secret) -> Secret {
        self.wrap(if self.holds_url() { url } else { password })
    }

    /// What stands in the variable's place, if the value has the template's form.
    fn unwrap(&self, value: &Secret) -> Option<Secret> {
        let (before, after) = self.around();
        let rest = value.expose().strip_prefix(&before)?;
        Some(Secret::new(rest.strip_suffix(&after)?))
    }

    /// Reads the password out of a present value, and the URL around it.
    pub fn read(&self, value: &Secret) -> (Reading, Option<DatabaseUrl>) {
        let Some(inner) = self.unwrap(value) else {
            return (Reading::Foreign("it does not have the form of the configured value".into()), None);
        };
        if !self.holds_url() {
            return (Reading::Password(inner), None);
        }
        match DatabaseUrl::parse(&inner) {
            Ok(url) => (Reading::Password(url.password()), Some(url)),
            Err(error) => (Reading::Foreign(error.causes().join(": ")), None),
        }
    }
}

/// One change of one copy, as a sink is asked for it.
///
/// The sink reads what is there, asks for the [`value`](Update::value) that belongs in its
/// place, and writes only if the two differ.
#[derive(Debug)]
pub struct Update<'a> {
    /// The run that changes it.
    pub run: RunId,
    /// The copy that is changed.
    pub copy: &'a CopyId,
    /// What the copy holds.
    pub template: &'a Template,
    /// The form of a URL that can't be read.
    pub url: &'a UrlTemplate,
    /// What a URL must point at afterwards.
    pub target: &'a Target,
    /// The role that a URL may name instead, until it is changed: the one that takes turns with the target's.
    pub twin: Option<&'a str>,
    /// Whether a URL that points elsewhere is written anew, instead of being refused.
    pub anew: bool,
    /// The new password.
    pub password: &'a Secret,
    /// The versions that the run has written so far.
    pub versions: &'a BTreeMap<CopyId, VersionId>,
}

impl Update<'_> {
    /// The new value: the present one with its password replaced, or, where there is none to
    /// be read (`None`), the configured form.
    ///
    /// # Errors
    /// A present value whose host, user or database is not the configured one is not touched.
    pub fn value(&self, present: Option<&Secret>) -> Result<Secret> {
        let inner = match (self.template.holds_url(), present) {
            (false, _) => self.password.clone(),
            (true, None) => self.url.render(self.target, self.password),
            (true, Some(present)) => self.url_like(present)?,
        };
        Ok(self.template.wrap(&inner))
    }

    fn url_like(&self, present: &Secret) -> Result<Secret> {
        let refuse = |why: String| {
            Error::new(Kind::Conflict, format!("change the URL in {}", self.copy))
                .because(why)
                .hint("somebody changed it since the check; put it right by hand, or correct [database] in the configuration")
        };
        match self.template.read(present) {
            (_, Some(url)) => match url.disagreements(&self.present_target(&url)).first() {
                Some(_) if self.anew => Ok(self.url.render(self.target, self.password)),
                Some(found) => Err(refuse(found.to_string())),
                None => url.with_login(&self.target.user, self.password),
            },
            (Reading::Foreign(_), None) if self.anew => Ok(self.url.render(self.target, self.password)),
            (Reading::Foreign(why), None) => Err(refuse(why)),
            (Reading::Password(_), None) => Err(Error::internal("a URL template was read without its URL")),
        }
    }

    /// What a present URL must point at.
    fn present_target(&self, url: &DatabaseUrl) -> Target {
        match self.twin {
            Some(twin) if url.target().user == twin => {
                Target { user: twin.to_owned(), ..self.target.clone() }
            }
            _ => self.target.clone(),
        }
    }

    /// A token of 64 hexadecimal digits that is the same whenever this run writes this copy, for
    /// systems that recognise a repeated request by it.
    pub fn request_token(&self) -> String {
        use sha2::{Digest, Sha256};
        hex(&Sha256::digest(format!("pgrotate request 1\0{}\0{}", self.run, self.copy)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target { host: "db".into(), port: 5432, database: "app".into(), user: "admin".into() }
    }

    const URL: &str = "postgresql+asyncpg://{user}:{password}@{host}:{port}/{name}?ssl=require";

    fn update<'a>(
        template: &'a Template,
        url: &'a UrlTemplate,
        target: &'a Target,
        password: &'a Secret,
        copy: &'a CopyId,
        versions: &'a BTreeMap<CopyId, VersionId>,
    ) -> Update<'a> {
        let run = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        Update { run, copy, template, url, target, twin: None, anew: false, password, versions }
    }

    #[test]
    fn a_present_url_keeps_everything_but_its_password() {
        let (template, target, copy) =
            (Template::parse("{database_url}").unwrap(), target(), CopyId::from("a:b"));
        let (url, password, none) =
            (UrlTemplate::parse(URL, &target).unwrap(), Secret::new("n/w"), BTreeMap::new());
        let update = update(&template, &url, &target, &password, &copy, &none);
        let present = Secret::new("postgresql://admin:old@DB/app?options=x&ssl=off");
        assert_eq!(
            update.value(Some(&present)).unwrap().expose(),
            "postgresql://admin:n%2Fw@DB/app?options=x&ssl=off"
        );
        assert_eq!(
            update.value(None).unwrap().expose(),
            "postgresql+asyncpg://admin:n%2Fw@db:5432/app?ssl=require"
        );
        let other = Secret::new("postgresql://admin:old@prod/app");
        assert_eq!(update.value(Some(&other)).unwrap_err().kind(), Kind::Conflict);
    }

    /// `pgrotate repair` is told to; a rotation meets what somebody has changed since its check.
    #[test]
    fn what_is_no_url_of_this_database_is_written_anew_only_where_that_is_wanted() {
        let (template, target, copy) =
            (Template::parse("{database_url}").unwrap(), target(), CopyId::from("a:b"));
        let (url, password, none) =
            (UrlTemplate::parse(URL, &target).unwrap(), Secret::new("new"), BTreeMap::new());
        let update = update(&template, &url, &target, &password, &copy, &none);
        let anew = Update { anew: true, ..update };
        for present in ["postgresql://admin:old@prod/app", "see the vault"].map(Secret::new) {
            assert_eq!(update.value(Some(&present)).unwrap_err().kind(), Kind::Conflict);
            assert_eq!(
                anew.value(Some(&present)).unwrap().expose(),
                "postgresql+asyncpg://admin:new@db:5432/app?ssl=require"
            );
        }
    }

    #[test]
    fn a_text_around_the_value_stays() {
        let template = Template::parse("export DATABASE_URL={database_url}; # {{kept}}").unwrap();
        let value = Secret::new("export DATABASE_URL=postgresql://admin:old@db/app; # {kept}");
        let (reading, url) = template.read(&value);
        assert_eq!(reading, Reading::Password(Secret::new("old")));
        assert_eq!(template.fill(&Secret::new("x"), &Secret::new("postgresql://admin:old@db/app")), value);
        assert_eq!(url.unwrap().target(), &target());
    }

    #[test]
    fn slips_in_templates_are_pointed_at() {
        let error = Template::parse("{databse_url}").unwrap_err();
        assert_eq!(error.suggestion.as_deref(), Some("database_url"));
        assert_eq!(error.at, 0..13);
        assert!(error.message.ends_with("there are {password}, {database_url}"), "{}", error.message);
        assert!(Template::parse("constant").is_err());
        assert!(Template::parse("{password} and {password}").is_err());
        assert!(Template::parse("{password").unwrap_err().message.contains("never closed"));
        let wrong_host = UrlTemplate::parse("postgresql://{user}:{password}@elsewhere/{name}", &target());
        assert!(wrong_host.unwrap_err().message.contains("host"));
        assert!(UrlTemplate::parse("postgresql://{user}:x@{host}/{name}?p={password}", &target()).is_err());
    }

    #[test]
    fn slips_in_short_names_are_recognised() {
        assert_eq!(closest("dve", &["dev", "staging"]).as_deref(), Some("dev"));
        assert_eq!(closest("stagging", &["dev", "staging"]).as_deref(), Some("staging"));
        assert_eq!(closest("qa", &["dev", "staging"]), None);
        assert_eq!(closest("xostgrey", &["postgres"]).as_deref(), Some("postgres"));
        assert_eq!(closest("xbcdefyz", &["abcdefgh"]), None, "three letters of eight are more than a slip");
    }

    #[test]
    fn names_expand_and_values_wait() {
        let variables = BTreeMap::from([("env".to_owned(), "dev".to_owned())]);
        assert_eq!(expand("kv-{env}", &variables, &[]).unwrap(), "kv-dev");
        assert_eq!(expand("{env}:{password}", &variables, &["password"]).unwrap(), "dev:{password}");
        assert_eq!(expand("{{{env}}}", &variables, &[]).unwrap(), "{dev}");
        assert_eq!(expand("{enw}", &variables, &[]).unwrap_err().suggestion.as_deref(), Some("env"));
    }

    #[test]
    fn the_request_token_belongs_to_run_and_copy() {
        let (template, target, copy) =
            (Template::parse("{password}").unwrap(), target(), CopyId::from("a:b"));
        let (url, password, none) =
            (UrlTemplate::parse(URL, &target).unwrap(), Secret::new("x"), BTreeMap::new());
        let token = update(&template, &url, &target, &password, &copy, &none).request_token();
        let other = CopyId::from("a:c");
        assert_eq!(token.len(), 64);
        assert_eq!(token, update(&template, &url, &target, &password, &copy, &none).request_token());
        assert_ne!(token, update(&template, &url, &target, &password, &other, &none).request_token());
    }
}
