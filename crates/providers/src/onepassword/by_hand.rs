//! The same by hand: through Connect with `curl`, or with the CLI `op`.

use pgrotate_core::by_hand::{Instruction, Part};

use super::{Onepassword, Options, transport};
use crate::by_hand::{word, words};
use crate::shared::OnepasswordVia;

/// What both ways have in common: the password field, and a refusal where a run is not over.
const FIND: &str = r#"def is_password: if $field == "" then .purpose == "PASSWORD" else .id == $field or .label == $field end;
def labelled($name): .fields[] | select(.label == $name);
if any(.fields[]; .label // "" | startswith("pgrotate pending")) then error("pgrotate pending") else . end
| [.fields[] | select(is_password)] as $passwords
| (if ($passwords | length) != 1 then error("password field") else $passwords[0] end) as $password
| [labelled("pgrotate run").value] as $runs"#;

/// One patch: the old password is kept before it is overwritten. Connect addresses fields by id.
const PATCH: &str = r#"| if $password.value == $new then [] else [
    (labelled("pgrotate previous"), labelled("pgrotate previous run"), labelled("pgrotate run")
        | {op: "remove", path: "/fields/\(.id)"}),
    {op: "add", path: "/fields",
        value: {"label": "pgrotate previous", type: "CONCEALED", value: $password.value}},
    ($runs[] | {op: "add", path: "/fields", value: {"label": "pgrotate previous run", type: "STRING", value: .}}),
    {op: "replace", path: "/fields/\($password.id)/value", value: $new}
] end"#;

/// The whole item, as `op item edit` wants it on its stdin.
const EDIT: &str = r#"| if $password.value == $new then . else .fields |= (
    map(select(.label | IN("pgrotate previous", "pgrotate previous run", "pgrotate run") | not)
        | if is_password then .value = $new else . end)
    + [{"label": "pgrotate previous", type: "CONCEALED", value: $password.value}]
    + [$runs[] | {"label": "pgrotate previous run", type: "STRING", value: .}]
) end"#;

impl Onepassword {
    /// The new password into the item's own field, and the present one kept beside it.
    pub(super) fn instructions(&self) -> Vec<Instruction> {
        let Options { vault, item, .. } = &self.options;
        let instruction = Instruction::new(
            Part::Before,
            format!("1Password: save the new password in the item {item}"),
            format!("1Password: сохранить новый пароль в записи {item}"),
        )
        .say(
            "Before anything else: a password that only the server knows locks everybody out. The present one, which still \
             works, goes into the item's hidden field `pgrotate previous`. If an item has `pgrotate pending`, a run of \
             pgrotate is not over: finish that first.",
            "До всего остального: пароль, который знает только сервер, запирает всех снаружи. Текущий, пока ещё рабочий \
             пароль сохраняется в скрытом поле `pgrotate previous` этой же записи. Если в записи есть поле \
             `pgrotate pending`, запуск pgrotate не завершён: сначала завершите его.",
        );
        vec![match transport::way(&self.shared) {
            Some(OnepasswordVia::Connect) => self.by_connect(instruction, vault, item),
            _ => self.by_cli(instruction, vault, item),
        }]
    }

    fn arguments(&self) -> String {
        let field = word(self.options.field.as_deref().unwrap_or_default());
        format!("--arg field {field} --rawfile new <(printf '%s' \"$new_password\")")
    }

    fn by_connect(&self, instruction: Instruction, vault: &str, item: &str) -> Instruction {
        let connect = match &self.shared.vendors.onepassword.connect {
            Some(host) => word(&format!("{}/v1/vaults", host.trim_end_matches('/'))),
            None => "\"${OP_CONNECT_HOST:?}/v1/vaults\"".to_owned(),
        };
        let found = |name: &str, what: &str, list: &str| match transport::is_id(name) {
            true => word(name),
            false => {
                let filter =
                    format!("filter={what} eq \"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
                format!(
                    "$(connect --get {list} --data-urlencode {} |\n    jq -er 'if length == 1 then .[0].id else error(\"{what}\") end')",
                    word(&filter)
                )
            }
        };
        instruction
            .say(
                "OP_CONNECT_TOKEN has to hold Connect's token; curl gets it in a configuration, not among its arguments.",
                "Токен Connect должен быть в OP_CONNECT_TOKEN; curl получает его через конфигурацию, а не в аргументах.",
            )
            .run(": \"${OP_CONNECT_TOKEN:?}\"")
            .run(
                "connect() {\n    curl --silent --show-error --fail \"$@\" \\\n        \
                 --config <(printf 'header = \"Authorization: Bearer %s\"\\n' \"$OP_CONNECT_TOKEN\")\n}",
            )
            .run(format!("vaults={connect}"))
            .run(format!("vault=$vaults/{}", found(vault, "name", "\"$vaults\"")))
            .run(format!("item=$vault/items/{}", found(item, "title", "\"$vault/items\"")))
            .run(format!(
                "text=$(connect \"$item\" | jq {} '\n{FIND}\n{PATCH}')\n\
                 printf '%s' \"$text\" | connect --request PATCH \"$item\" --header 'Content-Type: application/json' \\\n    \
                 --data-binary @- --output /dev/null",
                self.arguments()
            ))
            .needs(&["curl", "jq"])
    }

    fn by_cli(&self, instruction: Instruction, vault: &str, item: &str) -> Instruction {
        let item = words([item, "--vault", vault]);
        instruction
            .say(
                "op takes the item as JSON on its stdin. That rewrites the whole item and destroys a passkey on it: where \
                 there is one, edit the item in the application instead.",
                "op читает запись как JSON из stdin. При этом запись перезаписывается целиком, и passkey в ней пропадёт: если \
                 он есть, измените запись в приложении.",
            )
            .run(format!(
                "text=$(OP_CACHE=false op item get {item} --format json | jq {} '\n{FIND}\n{EDIT}')\n\
                 printf '%s' \"$text\" | op item edit {item} >/dev/null",
                self.arguments()
            ))
            .needs(&["op", "jq"])
    }
}
