//! The same by hand.

use pgrotate_core::by_hand::{Instruction, Part};

use super::{Changelog, HEADING, RULER, TITLE};
use crate::by_hand::{path, word};

impl Changelog {
    /// A row like a run's, with `by hand` in the place of the run.
    pub(super) fn instructions(&self) -> Vec<Instruction> {
        let file = path(&self.path);
        let shown = self.path.file_name().unwrap_or_default().to_string_lossy();
        let instruction = Instruction::new(
            Part::Records,
            format!("The security changelog {shown}"),
            format!("Security changelog {shown}"),
        )
        .say(
            "A row with the date, the ticket and the operator. Carried out again, the step would write a second one.",
            "Строка с датой, тикетом и оператором. Повторное выполнение шага добавит вторую строку.",
        )
        .run(format!("file={file}"))
        .run(format!("[[ -s $file ]] || printf '%s\\n' {} >\"$file\"", word(TITLE)))
        .run(format!("heading={}", word(HEADING)))
        .run(format!(
            "grep -qxF \"$heading\" \"$file\" || printf '\\n%s\\n%s\\n' \"$heading\" {} >>\"$file\"",
            word(RULER)
        ))
        .run("[[ -n $ids ]] || ids=$(secret_ids)")
        .run(
            "printf '| %s | %s | %s | %s | by hand | %s |\\n' \"$(date -u +%Y-%m-%dT%H:%M:%SZ)\" \"$environment\" \\\n    \
             \"$operator\" \"${ticket:-–}\" \"${ids//$'\\n'/<br>}\" >>\"$file\"",
        );
        vec![instruction]
    }
}
