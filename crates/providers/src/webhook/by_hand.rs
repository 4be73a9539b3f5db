//! The same by hand, with `curl`.

use pgrotate_core::by_hand::{Instruction, Part};

use super::{Format, Webhook};

impl Webhook {
    /// The URL is a credential, so it goes to `curl` in a configuration and not among its arguments.
    pub(super) fn instructions(&self) -> Vec<Instruction> {
        let form = match self.format {
            Format::Slack => "{text: .}",
            Format::Teams => {
                r#"{type: "message", attachments: [{contentType: "application/vnd.microsoft.card.adaptive", content: {type: "AdaptiveCard", version: "1.4", body: [{type: "TextBlock", text: ., wrap: true}]}}]}"#
            }
            Format::Json => "{message: .}",
        };
        let variable = &self.variable;
        let instruction = Instruction::new(
            Part::Records,
            format!("{}: tell the on-call channel", self.id),
            format!("{}: сообщить on-call каналу", self.id),
        )
        .say(
            format!("The webhook's URL is a credential; {variable} has to hold it. Carried out again, the step posts a second message."),
            format!("URL вебхука – секрет; он должен быть в переменной {variable}. Повторное выполнение шага отправит второе сообщение."),
        )
        .run(format!(": \"${{{variable}:?}}\""))
        .run(format!(
            "message | jq -Rs '{form}' |\n    \
             curl --silent --show-error --fail --output /dev/null --header 'Content-Type: application/json' \\\n        \
             --data-binary @- --config <(printf 'url = \"%s\"\\n' \"${variable}\")"
        ))
        .needs(&["curl", "jq"]);
        vec![instruction]
    }
}
