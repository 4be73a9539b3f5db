//! Digests, so that a row that was damaged is told from one that was written.
//!
//! They protect against disks, not against people: whoever can write the file can compute them.

use pgrotate_core::secret::hex;
use pgrotate_core::{Environment, RunId};
use sha2::{Digest as _, Sha256};

/// What SHA-256 makes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn to_text(self) -> String {
        hex(&self.0)
    }
}

/// The digest of fields, each with its length before it: no two rows are the same bytes.
pub(super) struct Seal(Sha256);

impl Seal {
    /// Begins with what kind of row it is.
    pub(super) fn of(kind: &str) -> Self {
        Self(Sha256::new()).text("pgrotate journal 2").text(kind)
    }

    pub(super) fn text(self, text: &str) -> Self {
        self.raw(text.as_bytes())
    }

    pub(super) fn number(self, number: i64) -> Self {
        self.raw(&number.to_be_bytes())
    }

    pub(super) fn digest(self, digest: Digest) -> Self {
        self.raw(&digest.0)
    }

    pub(super) fn done(self) -> Digest {
        Digest(self.0.finalize().into())
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }
}

/// What the first entry of a run follows.
pub(super) fn beginning(run: RunId, environment: &Environment) -> Digest {
    Seal::of("run").text(&run.to_string()).text(environment.as_str()).done()
}

/// An entry follows the one before it: none can be taken out, put in or moved.
pub(super) fn entry(
    before: Digest,
    seq: i64,
    environment: &Environment,
    generation: i64,
    record: &str,
) -> Digest {
    Seal::of("entry")
        .digest(before)
        .number(seq)
        .text(environment.as_str())
        .number(generation)
        .text(record)
        .done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_fields_are_part_of_the_digest() {
        let of = |first: &str, second: &str| Seal::of("x").text(first).text(second).done();
        assert_ne!(of("ab", "c"), of("a", "bc"));
        assert_ne!(Seal::of("x").number(1).done(), Seal::of("x").number(256).done());
    }

    #[test]
    fn everything_that_stands_in_an_entry_changes_its_digest() {
        let (dev, prod) = (Environment::from("dev"), Environment::from("prod"));
        let before = Seal::of("x").done();
        let whole = entry(before, 1, &dev, 1, "{}");
        let others = [
            entry(whole, 1, &dev, 1, "{}"),
            entry(before, 2, &dev, 1, "{}"),
            entry(before, 1, &prod, 1, "{}"),
            entry(before, 1, &dev, 2, "{}"),
            entry(before, 1, &dev, 1, "{ }"),
        ];
        assert!(others.iter().all(|other| *other != whole));
    }
}
