//! The same by hand.

use pgrotate_core::by_hand::{Instruction, Part};

use super::{Changelog, HEADING, RULER, TITLE};
use crate::by_hand::{path, word};

impl Changelog {
    /// A row like a run's, with `by hand` in the place of the run.
    pub(super) fn instructions(&self) -> Vec<Instruction> {
        let file = path(&self.path);
        let instruction = Instruction::new(
            Part::Records,
            format!("The security changelog {}", self.path.display()),
            format!("Security changelog {}", self.path.display()),
        )
        .say(
            "A row with the date, the ticket and the operator. Carried out again, the step would write a second one.",
            "Строка с датой, тикетом и оператором. Повторное выполнение шага добавит вторую строку.",
        )
        .run(format!("[[ -s {file} ]] || printf '%s\\n' {} >{file}", word(TITLE)))
        .run(format!(
            "grep -qxF {} {file} || printf '\\n%s\\n%s\\n' {} {} >>{file}",
            word(HEADING),
            word(HEADING),
            word(RULER)
        ))
        .run("ids=$(secret_ids | paste -sd' ' -)")
        .run(format!(
            "printf '| %s | %s | %s | %s | by hand | %s |\\n' \"$(date -u +%Y-%m-%dT%H:%M:%SZ)\" \\\n    \
             \"$environment\" \"$operator\" \"${{ticket:-–}}\" \"${{ids:-–}}\" >>{file}"
        ));
        vec![instruction]
    }
}
