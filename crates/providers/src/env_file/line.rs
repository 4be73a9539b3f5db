//! The one value that is changed, whatever machine the file is on.

use pgrotate_core::provider::{Finding, Severity};
use pgrotate_core::{Error, Kind, Result, Secret};
use zeroize::Zeroizing;

use super::dialect::{Dialect, Flaw, Place, quoted};

/// A key in a file, and how its value is written there.
pub(crate) struct Line {
    pub(crate) key: String,
    pub(crate) dialect: Dialect,
    /// The file as messages call it.
    pub(crate) file: String,
}

impl Line {
    /// What is done to it, as errors say it.
    pub(crate) fn operation(&self) -> String {
        format!("edit {} in {}", self.key, self.file)
    }

    /// That it can't be done, and why.
    pub(crate) fn refuse(&self, kind: Kind, why: impl Into<String>) -> Error {
        Error::new(kind, self.operation()).because(why)
    }

    /// The one place where the key gets its value.
    ///
    /// # Errors
    /// When there is more than one, or the file can't be edited with certainty.
    pub(crate) fn place(&self, text: &[u8]) -> Result<Option<Place>> {
        let Self { key, dialect, .. } = self;
        let mut places = dialect.find(text, key).map_err(|Flaw { line, what }| {
            self.refuse(Kind::Config, format!("line {line}: {what}"))
                .hint(format!("keep {key} in a file of its own that only assigns"))
        })?;
        if let [first, second, ..] = &places[..] {
            let why = format!("{key} stands in it twice, in lines {} and {}", first.line, second.line);
            return Err(self.refuse(Kind::Ambiguous, why).hint("remove the line that does not count"));
        }
        Ok(places.pop())
    }

    /// The present value; none where there is nothing, or nothing yet, behind the `=`.
    ///
    /// # Errors
    /// When only the file's reader knows it.
    pub(crate) fn value(&self, place: Option<&Place>) -> Result<Option<Secret>> {
        let Some(place) = place else { return Ok(None) };
        if place.computed {
            let why = format!("line {}: its value is computed by the shell", place.line);
            return Err(self.refuse(Kind::Config, why).hint("write the value itself there"));
        }
        match std::str::from_utf8(&place.value) {
            Ok("") => Ok(None),
            Ok(value) => Ok(Some(Secret::new(value))),
            Err(_) => Err(self.refuse(Kind::Corrupt, format!("line {}: its value is not UTF-8", place.line))),
        }
    }

    /// What there is to say about the line.
    ///
    /// # Errors
    /// As of [`Line::place`].
    pub(crate) fn findings(&self, subject: &str, text: &[u8]) -> Result<Vec<Finding>> {
        let found = |severity, what: &str, mend: &str| vec![Finding::new(severity, subject, what).mend(mend)];
        let (key, file) = (&self.key, &self.file);
        Ok(match self.place(text)? {
            None => {
                let what = format!("{file} has no line for {key}");
                found(Severity::Blocks, &what, &format!("add the line `{key}=`"))
            }
            Some(place) if place.value.is_empty() => {
                found(Severity::Note, "it has no value yet", "the run writes the configured form")
            }
            Some(place) if self.dialect == Dialect::Verbatim && quoted(&place.value) => {
                let what = "its value stands in quotes, which this dialect takes for a part of it";
                found(Severity::Warning, what, "remove them, or name the dialect of whoever reads the file")
            }
            Some(_) => Vec::new(),
        })
    }

    /// The file's content with the value in its place, and nothing else changed.
    ///
    /// # Errors
    /// When there is no place for it, or the dialect can't hold it.
    pub(crate) fn change(
        &self,
        old: &[u8],
        place: Option<&Place>,
        value: &str,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let place = place.ok_or_else(|| {
            self.refuse(Kind::NotFound, "there is no line for it")
                .hint(format!("add the line `{}=`", self.key))
        })?;
        let written = self.dialect.write(value, place.style).map_err(|why| {
            let why = format!("the new value can't be written in this dialect: {why}");
            self.refuse(Kind::Rejected, why).hint(
                "let [password] make passwords of letters and digits, or name the dialect of whoever reads the file",
            )
        })?;
        let mut new = Zeroizing::new(Vec::with_capacity(old.len() + written.len()));
        new.extend_from_slice(&old[..place.span.start]);
        new.extend_from_slice(written.as_bytes());
        new.extend_from_slice(&old[place.span.end..]);
        // Before it takes the old one's place: the reader must find exactly the new value there.
        match self.place(&new)? {
            Some(again) if *again.value == value.as_bytes() && !again.computed => Ok(new),
            _ => Err(Error::internal("a value would not be read as it was written")),
        }
    }
}
