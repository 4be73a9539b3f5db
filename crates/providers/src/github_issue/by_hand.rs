//! The same by hand, with GitHub's CLI.

use pgrotate_core::by_hand::{Instruction, Part};

use super::GithubIssue;
use crate::by_hand::word;

impl GithubIssue {
    /// A comment with the Secret Ids, if the ticket is an issue of this GitHub.
    pub(super) fn instructions(&self) -> Vec<Instruction> {
        let place = format!("https://{}/", self.api.web_host());
        let instruction = Instruction::new(
            Part::Records,
            format!("{}: the ticket on GitHub", self.id),
            format!("{}: тикет в GitHub", self.id),
        )
        .say(
            "The Key Vault Secret Ids of the new versions go into the ticket (TICKET=owner/repository#number). Carried out \
             again, the step writes a second comment.",
            "В тикете (TICKET=владелец/репозиторий#номер) закрепляются Secret Id новых версий из Key Vault. Повторное \
             выполнение шага добавит второй комментарий.",
        )
        .run(format!("issue=${{ticket#{}}}", word(&place)))
        .run("[[ -n $ids ]] || ids=$(secret_ids)")
        .run(format!(
            "if [[ $issue =~ ^([A-Za-z0-9._-]+/[A-Za-z0-9._-]+)(#|/issues/|/pull/)([0-9]+)$ ]]; then\n    \
             {{ message; printf '%s\\n' \"$ids\"; }} | {} api \"repos/${{BASH_REMATCH[1]}}/issues/${{BASH_REMATCH[3]}}/comments\" \\\n        \
             --field body=@- --silent\nfi",
            self.api.by_hand()
        ))
        .needs(&["gh"]);
        vec![instruction]
    }
}
