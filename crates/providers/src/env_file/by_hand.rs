//! The same by hand, with bash alone; on another machine by `ssh`.

use std::path::Path;

use pgrotate_core::by_hand::{Instruction, Part};
use pgrotate_core::value::Template;

use super::{Dialect, EnvFile};
use crate::by_hand::{indented, path, plain_word, value_like_present, where_it_differs, word};

/// Gives the content on stdin the place of a file: written beside, owner and mode kept, then renamed, if `size` bytes
/// of it have arrived. `file` is set before. Any POSIX shell reads it.
const REPLACE: &str = "file=$(readlink -f -- \"$file\") && new=$(mktemp \"$file.XXXXXX\") || exit 1\n\
    if cp -p -- \"$file\" \"$new\" && cat >\"$new\" && [ \"$(wc -c <\"$new\")\" -eq \"$size\" ]; then\n    \
    mv -f -- \"$new\" \"$file\"\nelse\n    rm -f -- \"$new\"\n    exit 1\nfi";

impl Dialect {
    fn name(self) -> &'static str {
        match self {
            Self::Verbatim => "verbatim",
            Self::Shell => "shell",
            Self::Docker => "docker",
            Self::Systemd => "systemd",
        }
    }
}

/// A file on this machine: the command that prints it, and the one that takes its new content.
pub(super) fn here(file: &Path) -> [String; 2] {
    let file = path(file);
    [format!("cat -- {file}"), format!("(\n    file={file}\n{}\n)", indented(REPLACE))]
}

/// The same of a file on another machine.
pub(super) fn there(ssh: &str, file: &str) -> [String; 2] {
    let file = match file.strip_prefix("~/") {
        Some(rest) => format!("\"$HOME\"/{}", plain_word(rest)),
        None => plain_word(file),
    };
    let replace = plain_word(
        &format!("file={file}\n{REPLACE}")
            .replace('\n', "; ")
            .replace("then; ", "then ")
            .replace("else; ", "else "),
    );
    [format!("{ssh} {}", word(&format!("cat -- {file}"))), format!("{ssh} \"size=$size; \"{replace}")]
}

impl EnvFile {
    /// One line of the file changes, quoted as its reader wants it.
    pub(super) fn instructions(&self, template: &Template) -> Vec<Instruction> {
        let [read, replace] = self.store.commands();
        let (shown, key, dialect) = (self.store.shown(), word(&self.line.key), self.line.dialect.name());
        let write = format!(
            "text=$(printf '%s' \"$text\" | with_env_value {key} {dialect} \"$value\" && printf x)\n\
             text=${{text%x}}\nsize=$(printf '%s' \"$text\" | wc -c)\nprintf '%s' \"$text\" | {replace}"
        );
        let instruction = Instruction::new(
            Part::Ci,
            format!("The env file {shown}: {}", self.line.key),
            format!("Файл окружения {shown}: {}", self.line.key),
        )
        .say(
            "Everything but this one value stays as it is, owner and mode included; the new file takes the old one's \
             place in one step. GitHub's runner takes quotes for a part of the value; it reads its file only when it \
             starts.",
            "Всё, кроме этого значения, остаётся как было, включая владельца и права; новый файл встаёт на место старого \
             одним действием. Runner GitHub считает кавычки частью значения; свой файл он читает только при запуске.",
        )
        .run(format!("text=$({read} && printf x)"))
        .run("text=${text%x}")
        .run(format!("present=$(printf '%s' \"$text\" | env_value {key} {dialect})"))
        .run(value_like_present(template))
        .run(where_it_differs(&write));
        vec![instruction]
    }
}
