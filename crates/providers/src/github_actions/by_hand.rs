//! The same by hand, with GitHub's CLI.

use pgrotate_core::by_hand::{Instruction, Part};
use pgrotate_core::value::Template;

use super::{GithubActions, Scope};
use crate::by_hand::{value, word};

impl GithubActions {
    /// `gh secret set` seals what it reads from its stdin.
    pub(super) fn instructions(&self, template: &Template) -> Vec<Instruction> {
        let (gh, secret) = (self.api.by_hand(), word(&self.secret));
        let (whose, options) = match &self.scope {
            Scope::Repository { owner, name } => {
                (format!("{owner}/{name}"), format!("--repo {}", word(&format!("{owner}/{name}"))))
            }
            Scope::Environment { owner, name, environment } => (
                format!("{owner}/{name}, {environment}"),
                format!("--repo {} --env {}", word(&format!("{owner}/{name}")), word(environment)),
            ),
            Scope::Organization { organization } => {
                (organization.clone(), format!("--org {} \"${{audience[@]}}\"", word(organization)))
            }
        };
        let mut instruction = Instruction::new(
            Part::Ci,
            format!("GitHub {whose}: the secret {}", self.secret),
            format!("GitHub {whose}: секрет {}", self.secret),
        )
        .say(
            "gh reads the value from its stdin when there is no --body. GitHub never shows a value again: what can be \
             seen is the time of the write. Runs that are queued already keep the old value; look at \
             `gh run list --status queued` and `--status in_progress`, and run again what fails.",
            "Без --body gh читает значение из stdin. GitHub никогда не показывает значение снова: видно только время \
             записи. Запуски, уже стоящие в очереди, используют старое значение; посмотрите `gh run list --status queued` \
             и `--status in_progress` и перезапустите то, что упало.",
        );
        if let Scope::Organization { organization } = &self.scope {
            let url = word(&format!("orgs/{organization}/actions/secrets/{}", self.secret));
            let repositories =
                word(&format!("orgs/{organization}/actions/secrets/{}/repositories", self.secret));
            instruction = instruction
                .say(
                    "Which repositories may read it is sent with every write, so it is looked up first.",
                    "Доступ репозиториев передаётся с каждой записью, поэтому сначала он читается.",
                )
                .run(format!(
                    "visibility=$({gh} api {url} --jq .visibility)\n\
                     audience=(--visibility \"$visibility\")\n\
                     if [[ $visibility == selected ]]; then\n    \
                     repositories=$({gh} api --paginate {repositories} --jq '.repositories[].name' | paste -sd, -)\n    \
                     audience=(--repos \"$repositories\")\n    \
                     [[ -n $repositories ]] || audience=(--no-repos-selected)\nfi"
                ));
        }
        let instruction = instruction
            .run(value(template, None))
            .run(format!("printf '%s' \"$value\" | {gh} secret set {secret} {options}"))
            .needs(&["gh"]);
        vec![instruction]
    }
}
