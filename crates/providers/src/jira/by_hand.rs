//! The same by hand, with `curl`.

use pgrotate_core::by_hand::{Instruction, Part};

use super::Jira;
use crate::by_hand::word;

impl Jira {
    /// A comment with the Secret Ids, if the ticket is an issue of this Jira.
    pub(super) fn instructions(&self) -> Vec<Instruction> {
        let base = self.base.as_str().trim_end_matches('/');
        let instruction = Instruction::new(
            Part::Records,
            format!("{}: the ticket in Jira", self.id),
            format!("{}: тикет в Jira", self.id),
        )
        .say(
            "The Key Vault Secret Ids of the new versions go into the ticket (TICKET=OPS-12); JIRA_EMAIL and JIRA_API_TOKEN \
             say as whom. Carried out again, the step writes a second comment.",
            "В тикете (TICKET=OPS-12) закрепляются Secret Id новых версий из Key Vault; JIRA_EMAIL и JIRA_API_TOKEN задают \
             учётную запись. Повторное выполнение шага добавит второй комментарий.",
        )
        .run(format!("issue=${{ticket#{}}}", word(&format!("{base}/browse/"))))
        .run("[[ -n $ids ]] || ids=$(secret_ids)")
        .run(format!(
            "if [[ $issue =~ ^[A-Z][A-Z0-9_]*-[0-9]+$ ]]; then\n    \
             : \"${{JIRA_EMAIL:?}}\" \"${{JIRA_API_TOKEN:?}}\"\n    \
             {{ message; printf '%s\\n' \"$ids\"; }} | jq -Rs '{{body: .}}' |\n        \
             curl --silent --show-error --fail --output /dev/null --header 'Content-Type: application/json' \\\n            \
             --data-binary @- --config <(printf 'user = \"%s:%s\"\\n' \"$JIRA_EMAIL\" \"$JIRA_API_TOKEN\") \\\n            \
             {}\"/rest/api/2/issue/$issue/comment\"\nfi",
            word(base)
        ))
        .needs(&["curl", "jq"]);
        vec![instruction]
    }
}
