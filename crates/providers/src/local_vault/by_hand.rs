//! The same by hand, with `age`.

use pgrotate_core::by_hand::{Instruction, Part};

use super::LocalVault;
use crate::by_hand::path;

/// The new password becomes current and the present one previous, as a run would leave it.
const EDIT: &str = r#"if .pending then error("pending") else . end
| if .current.password == $new then . else .previous = .current | .current = {password: $new} | .revision += 1 end"#;

impl LocalVault {
    /// Opened, changed and locked again without a plain text on the disk.
    pub(super) fn instructions(&self) -> Vec<Instruction> {
        let file = path(&self.path);
        let shown = self.path.file_name().unwrap_or_default().to_string_lossy();
        let instruction = Instruction::new(
            Part::Before,
            format!("The vault {shown}: save the new password"),
            format!("Хранилище {shown}: сохранить новый пароль"),
        )
        .say(
            "Before anything else: a password that only the server knows locks everybody out. The present one, which still \
             works, is kept as the previous one. The plain text is never on the disk.",
            "До всего остального: пароль, который знает только сервер, запирает всех снаружи. Текущий, пока ещё рабочий \
             пароль остаётся в хранилище как предыдущий. Открытого текста на диске не бывает.",
        );
        let (open, lock) = match &self.identity_file {
            Some(identity) => {
                let identity = path(identity);
                let own = format!("age-keygen -y {identity}");
                let all = "printf '%s' \"$vault\" | jq -r '.recipients // [] | .[]'";
                (
                    format!("age --decrypt --identity {identity} {file}"),
                    format!("age --encrypt --armor --recipients-file <({own}; {all})"),
                )
            }
            None => (format!("age --decrypt {file}"), "age --encrypt --armor --passphrase".to_owned()),
        };
        let instruction = match &self.identity_file {
            Some(_) => instruction.needs(&["age-keygen"]),
            None => instruction.say(
                "age asks for the passphrase at the terminal: once to open, twice to lock. Give the same one.",
                "age спросит парольную фразу в терминале: один раз, чтобы открыть, и дважды, чтобы закрыть. Вводите одну и ту же.",
            ),
        };
        let instruction = instruction
            .run(format!("vault=$({open})"))
            .run(format!(
                "vault=$(printf '%s' \"$vault\" | jq --rawfile new <(printf '%s' \"$new_password\") '\n{EDIT}')"
            ))
            .run(format!("printf '%s' \"$vault\" | {lock} --output {file}.new"))
            .run(format!("mv -f -- {file}.new {file}"))
            .needs(&["age", "jq"]);
        vec![instruction]
    }
}
