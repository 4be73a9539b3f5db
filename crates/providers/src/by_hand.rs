//! What the providers' instructions have in common: quoting, and how a copy's new value is made.
//!
//! Everything that comes from the configuration goes through [`word`] or [`path`] on its way into a command.

use std::path::Path;

use pgrotate_core::value::Template;

/// A text as one word of bash. It stays on one line, so that commands can be indented.
pub fn word(text: &str) -> String {
    // No program could be given a NUL.
    let text = text.replace('\0', "");
    if text.contains(char::is_control) {
        let escaped = |character: char| match character {
            '\\' | '\'' => format!("\\{character}"),
            control if control.is_control() => {
                let mut bytes = [0; 4];
                control.encode_utf8(&mut bytes).bytes().map(|byte| format!("\\x{byte:02x}")).collect()
            }
            other => other.to_string(),
        };
        return format!("$'{}'", text.chars().map(escaped).collect::<String>());
    }
    plain_word(&text)
}

/// A text as one word of any POSIX shell: for commands on another machine.
pub(crate) fn plain_word(text: &str) -> String {
    shlex::try_quote(text).map_or_else(|_| String::from("''"), std::borrow::Cow::into_owned)
}

/// Several words.
pub(crate) fn words<'w>(texts: impl IntoIterator<Item = &'w str>) -> String {
    texts.into_iter().map(word).collect::<Vec<_>>().join(" ")
}

/// A path on this machine as a word; what is below the home folder is written so.
pub(crate) fn path(path: &Path) -> String {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty() && home != "/");
    match home.and_then(|home| path.strip_prefix(home).ok().map(Path::to_owned)) {
        Some(rest) if !rest.as_os_str().is_empty() => format!("~/{}", word(&rest.to_string_lossy())),
        _ => word(&path.to_string_lossy()),
    }
}

/// The line that sets `value` to what a copy shall hold. `present` is the command that prints what it holds, where
/// that can be read: then of a URL only the password differs.
pub(crate) fn value(template: &Template, present: Option<&str>) -> String {
    let (before, after) = template.around();
    let part = |text: &str| if text.is_empty() { String::new() } else { word(text) };
    match (template.holds_url(), present) {
        (true, Some(present)) => {
            format!("value=$({present} | with_new_password {} {})", word(&before), word(&after))
        }
        (holds_url, _) => {
            let variable = if holds_url { "$database_url" } else { "$new_password" };
            match before.is_empty() && after.is_empty() {
                true => format!("value={variable}"),
                false => format!("value={}\"{variable}\"{}", part(&before), part(&after)),
            }
        }
    }
}

/// The same where the variable `present` has it.
pub(crate) fn value_like_present(template: &Template) -> String {
    value(template, Some("printf '%s' \"$present\""))
}

/// Commands within the branch for a copy that does not hold its new value yet: a repeated step writes nothing twice.
pub(crate) fn where_it_differs(commands: &str) -> String {
    format!("if [[ $value != \"$present\" ]]; then\n{}\nfi", indented(commands))
}

/// Lines four columns further in.
pub fn indented(commands: &str) -> String {
    let line = |line: &str| if line.is_empty() { String::new() } else { format!("    {line}") };
    commands.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What bash makes of a word.
    fn read_by_bash(word: &str) -> String {
        let script = format!("printf '%s' {word}");
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{word}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn bash_reads_every_word_as_it_was() {
        let texts = [
            "",
            "plain",
            "a b",
            "it's",
            "$(touch x)",
            "`x`",
            "a\nb",
            "'\n\\'",
            "!x",
            "~/x",
            "-x",
            "{a,b}",
            "*",
            "ключ",
            "\"$x\"",
            "a\u{85}b",
            "\u{1b}[2J",
            "#x",
            "x=y",
            "\\",
        ];
        for text in texts {
            let word = word(text);
            assert_eq!(read_by_bash(&word), text);
            assert!(!word.contains('\n'), "{word}");
        }
        assert_eq!(word("a\0b"), "ab");
    }

    #[test]
    fn a_value_is_the_password_or_the_url_with_what_stands_around_it() {
        let line = |template: &str, present| value(&Template::parse(template).unwrap(), present);
        assert_eq!(line("{password}", Some("cat x")), "value=$new_password");
        assert_eq!(line("{database_url}", None), "value=$database_url");
        assert_eq!(line("a b{password}", None), "value='a b'\"$new_password\"");
        assert_eq!(line("{database_url};", Some("cat x")), "value=$(cat x | with_new_password '' ';')");
    }
}
