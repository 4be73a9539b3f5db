//! Where the file is: the seam between the line that is changed and the machine it is on.

use async_trait::async_trait;
use jiff::Timestamp;
use pgrotate_core::Result;
use zeroize::Zeroizing;

use super::local::Held;

/// A file as it was at one moment.
pub(super) struct Text {
    /// Its content.
    pub(super) bytes: Zeroizing<Vec<u8>>,
    /// Everything else.
    pub(super) facts: Facts,
}

/// What there is to know about a file beside its content.
pub(super) struct Facts {
    /// The file itself, where a link leads to it.
    pub(super) path: String,
    /// The folder that it is in.
    pub(super) folder: String,
    /// When it was last written.
    pub(super) updated_at: Option<Timestamp>,
    /// Who may read and write it.
    pub(super) mode: u32,
    /// How many names it has.
    pub(super) names: u64,
    /// Why its folder can't be written, if it can't.
    pub(super) unwritable: Option<String>,
    /// How many bytes there is room for where it is, if that could be found out.
    pub(super) room: Option<u64>,
    /// Whether its owner or group is one that a new file could not be given.
    pub(super) foreign: bool,
}

/// A file that is about to be changed.
pub(super) struct Draft {
    /// What it is now.
    pub(super) text: Text,
    /// On this machine, what keeps others out meanwhile. Another machine is asked to compare
    /// instead: a lock that waited for our next word would outlast a broken connection.
    pub(super) held: Option<Held>,
}

/// One file somewhere. Errors are in the words of `operation`.
#[async_trait]
pub(super) trait Store: Send + Sync {
    /// The file as messages call it.
    fn shown(&self) -> String;

    /// What a person types to have this command run where the file is.
    fn by_hand(&self, command: &str) -> String;

    /// The commands of a shell that print the file, and that give it the content on their stdin; the second wants that
    /// content's length in bytes in `size`.
    fn commands(&self) -> [String; 2];

    /// Reads it. Changes nothing.
    async fn read(&self, operation: &str) -> Result<Text>;

    /// Reads it to change it: refused while somebody else does, and what a killed try has left
    /// is removed.
    async fn begin(&self, operation: &str) -> Result<Draft>;

    /// Puts new content in the place of what the draft has read, all of it or none, and gives
    /// what stands there then.
    async fn replace(
        &self,
        draft: Draft,
        new: Zeroizing<Vec<u8>>,
        operation: &str,
    ) -> Result<Zeroizing<Vec<u8>>>;
}
