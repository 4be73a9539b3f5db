//! The same by hand.

use pgrotate_core::by_hand::{Instruction, Part};

use super::Program;
use super::check::{CommandCheck, Value};
use super::restart::{CommandConsumer, Place};
use crate::by_hand::{path, plain_word, value, word, words};

impl Program {
    fn texts(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.arguments.iter().map(String::as_str))
    }
}

/// Whether a shell can give a program a variable of this name without an argument.
fn is_variable(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl CommandCheck {
    /// The program gets the password in its environment, and what it prints is masked.
    pub(super) fn instructions(&self) -> Vec<Instruction> {
        let (mut lines, mut given) = (Vec::new(), String::new());
        for (at, (name, own)) in self.environment.iter().filter(|(name, _)| is_variable(name)).enumerate() {
            let text = match own {
                Value::Plain(text) => word(text),
                Value::Secret(template) => {
                    lines.push(value(template, None).replacen("value=", &format!("value_{at}="), 1));
                    format!("\"$value_{at}\"")
                }
            };
            given.push_str(&format!("{name}={text} "));
        }
        let command = format!("{given}{}", words(self.program.texts()));
        lines.push(format!("(cd -- {} && {command}) |& mask", path(&self.directory)));
        let shown = self.program.texts().collect::<Vec<_>>().join(" ");
        let mut instruction = Instruction::new(
            Part::Validation,
            format!("{}: {shown}", self.id),
            format!("{}: {shown}", self.id),
        )
        .say(
            "It has to end without an error. The password is in the environment of this one process; what it prints is \
             shown without it, because a failing Alembic prints the whole URL. `alembic upgrade head` would migrate: to \
             prove a login `alembic current` is enough.",
            "Команда должна завершиться без ошибки. Пароль есть только в окружении этого процесса; вывод показывается без \
             него, потому что Alembic при ошибке печатает URL целиком. `alembic upgrade head` выполнил бы миграции: для \
             проверки входа достаточно `alembic current`.",
        );
        for (name, _) in self.environment.iter().filter(|(name, _)| !is_variable(name)) {
            instruction = instruction.say(
                format!("No shell can set its variable {name}: set it another way."),
                format!("Переменную {name} оболочка задать не может: задайте её другим способом."),
            );
        }
        vec![instruction.run(lines.join("\n"))]
    }
}

impl CommandConsumer {
    /// The command as it is configured.
    pub(super) fn instructions(&self) -> Vec<Instruction> {
        let command = match &self.place {
            Place::Here(directory) => {
                format!("(cd -- {} && {})", path(directory), words(self.program.texts()))
            }
            Place::There(ssh, directory) => {
                let program: Vec<String> = self.program.texts().map(plain_word).collect();
                let folder = directory.as_ref().map(|directory| match directory.strip_prefix("~/") {
                    Some(rest) => format!("cd -- \"$HOME\"/{} && ", plain_word(rest)),
                    None => format!("cd -- {} && ", plain_word(directory)),
                });
                let remote = format!("{}{}", folder.unwrap_or_default(), program.join(" "));
                format!("{} {}", ssh.by_hand(), word(&remote))
            }
        };
        let shown = self.program.texts().collect::<Vec<_>>().join(" ");
        let instruction =
            Instruction::new(Part::Ci, format!("{}: {shown}", self.id), format!("{}: {shown}", self.id))
                .say(
                    "It takes up the new copies. It gets no password and may be run twice.",
                    "Подхватывает новые значения. Пароля не получает, запускать можно повторно.",
                )
                .run(command);
        vec![instruction]
    }
}
