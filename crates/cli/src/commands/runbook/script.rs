//! The instructions as one bash script.

use std::fmt::Write as _;

use pgrotate_core::Secret;
use pgrotate_core::by_hand::{Instruction, Part, Words};
use pgrotate_core::database_url::{self, Target};
use pgrotate_providers::by_hand::{indented, word};

use super::{Sheet, said};

const HEAD: &str = include_str!("head.sh");
const TAIL: &str = include_str!("tail.sh");
/// Stands for the password while its place in the URL is looked for.
const PLACE: &str = "PgrotatePutsThePasswordHere";
/// How long a comment's line gets.
const COLUMNS: usize = 110;

impl Sheet<'_> {
    /// Everything, to be read and to be carried out.
    pub(super) fn as_script(&self) -> String {
        let mut script = String::from("#!/usr/bin/env bash\n# shellcheck disable=SC2016\n#\n");
        let rotation = self.rotation;
        let length = rotation.policy.length();
        let target = rotation.target.to_string();
        let environment = rotation.environment.as_str();
        let top = said::introduction(&target, environment, length);
        script.push_str(&self.comments(&top, "#\n"));
        script.push('\n');
        script.push_str(&self.filled(HEAD));
        script.push_str(&self.secret_ids());
        for part in self.parts() {
            script.push_str(&self.step(part));
        }
        let numbers: Vec<String> = self.parts().map(|part| part.number().to_string()).collect();
        let mut tools: Vec<&str> = self
            .instructions
            .iter()
            .flat_map(|own| own.tools.iter().copied())
            .chain(["jq", "psql"])
            .collect();
        tools.sort_unstable();
        tools.dedup();
        write!(script, "\nfirst=${{1:-0}}\nsteps=({})\ntools=({})\n", numbers.join(" "), tools.join(" "))
            .expect("writing to a String can't fail");
        script.push_str(&self.filled(TAIL));
        script
    }

    /// The texts as comments, with this between two of them.
    fn comments<'w>(&self, texts: impl IntoIterator<Item = &'w Words>, between: &str) -> String {
        texts.into_iter().map(|words| comment(words.of(self.language))).collect::<Vec<_>>().join(between)
    }

    fn filled(&self, text: &str) -> String {
        let rotation = self.rotation;
        let Target { host, user, .. } = &rotation.target;
        let connection = rotation.verifier.by_hand().unwrap_or_else(|| "''".to_owned());
        let mut values = vec![
            ("environment", word(rotation.environment.as_str())),
            ("database_url", self.database_url()),
            ("user", word(&database_url::encode(user))),
            ("host", word(&host.to_ascii_lowercase())),
            ("connection", connection),
            ("done", word(said::end().of(self.language))),
        ];
        let said = said::messages().map(|(name, words)| (name, word(words.of(self.language))));
        values.extend(said);
        // Piece by piece, so that nothing is looked for in what was filled in.
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("'@") {
            let (name, after) = after.split_once("@'").unwrap_or_default();
            let value = values.iter().find(|(own, _)| *own == name).map_or("''", |(_, value)| value);
            filled.push_str(before);
            filled.push_str(value);
            rest = after;
        }
        filled.push_str(rest);
        filled
    }

    /// The configured URL as a word, with a variable in the password's place.
    fn database_url(&self) -> String {
        let rotation = self.rotation;
        let url = rotation.url.render(&rotation.target, &Secret::new(PLACE));
        let parts =
            url.expose().split(PLACE).map(|part| if part.is_empty() { String::new() } else { word(part) });
        parts.collect::<Vec<_>>().join("\"$encoded_password\"")
    }

    /// The function that prints what the ticket names.
    fn secret_ids(&self) -> String {
        let references: Vec<&str> =
            self.instructions.iter().filter_map(|own| own.reference.as_deref()).collect();
        let body = if references.is_empty() { ":".to_owned() } else { references.join("\n") };
        format!("\n# shellcheck disable=SC2317\nsecret_ids() {{\n{}\n}}\n", indented(&body))
    }

    fn step(&self, part: Part) -> String {
        let heading = format!("{}. {}", part.number(), said::heading(part).of(self.language));
        let rule = "-".repeat(COLUMNS.saturating_sub(heading.chars().count() + 3));
        let mut blocks = vec![format!("begin {}", word(&heading))];
        blocks.extend((part == Part::Before).then(|| self.census()));
        blocks.extend((part == Part::Validation).then(|| self.logins()));
        let mut known: Vec<&Words> = Vec::new();
        for own in self.of(part) {
            blocks.push(self.block(own, &known));
            known.extend(&own.prose);
        }
        blocks.extend((part == Part::Server).then(|| self.proof()));
        blocks.extend((part == Part::Validation).then(|| self.survivors()));
        format!("\n# {heading} {rule}\nstep_{}() {{\n{}\n}}\n", part.number(), indented(&blocks.join("\n\n")))
    }

    /// One instruction, without the paragraphs that the step has said before.
    fn block(&self, own: &Instruction, known: &[&Words]) -> String {
        let title = own.title.of(self.language);
        let texts =
            std::iter::once(&own.title).chain(own.prose.iter().filter(|words| !known.contains(words)));
        let mut block = self.comments(texts, "#\n");
        write!(block, "printf '%s\\n' {} >&2", word(title)).expect("writing to a String can't fail");
        if !own.commands.is_empty() {
            block.push('\n');
            block.push_str(&own.commands);
        }
        block
    }

    /// Only where a login is possible.
    fn with_logins(&self, words: &Words, commands: &str) -> String {
        match self.rotation.verifier.by_hand() {
            Some(_) => format!("{}{commands}", comment(words.of(self.language))),
            None => comment(said::no_psql().of(self.language)).trim_end().to_owned(),
        }
    }

    fn census(&self) -> String {
        let commands = "if [[ -n $old_password && $(answer_to \"$new_password\") != accepted ]]; then\n    \
                        expect accepted \"$old_password\" 10\n    sessions \"$old_password\"\nfi";
        self.with_logins(&said::census(), commands)
    }

    fn proof(&self) -> String {
        self.with_logins(&said::proof(), "expect accepted \"$new_password\" 300")
    }

    fn survivors(&self) -> String {
        self.with_logins(&said::survivors(), "sessions \"$new_password\"")
    }

    fn logins(&self) -> String {
        let commands = "expect accepted \"$new_password\" 30\n\
                        [[ -z $old_password ]] || expect refused \"$old_password\" 30";
        self.with_logins(&said::logins(), commands)
    }
}

/// A text as lines of comment; it can't get out of them.
fn comment(text: &str) -> String {
    let mut lines = Vec::new();
    let mut line = String::from("#");
    let text = text.replace(char::is_control, " ");
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if line.chars().count() + 1 + word.chars().count() > COLUMNS && line.len() > 1 {
            lines.push(std::mem::replace(&mut line, String::from("#")));
        }
        line.push(' ');
        line.push_str(word);
    }
    lines.push(line);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::comment;

    #[test]
    fn a_text_stays_in_its_comment() {
        let text = format!("{} a\nrm -rf /\r\u{2028}x", "word ".repeat(40));
        let comment = comment(&text);
        assert!(comment.lines().all(|line| line.starts_with("# ")), "{comment}");
        assert!(comment.lines().count() == 2, "{comment}");
    }
}
