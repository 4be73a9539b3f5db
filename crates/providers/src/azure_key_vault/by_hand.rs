//! The same by hand, with the Azure CLI.

use pgrotate_core::by_hand::{Instruction, Part};
use pgrotate_core::value::Template;

use super::{Copy, RUN_TAG};
use crate::by_hand::{value_like_present, where_it_differs, word};

impl Copy {
    /// `az keyvault secret set` reads the value from its stdin; tags and content type have to be sent again.
    pub(super) fn instructions(&self, template: &Template) -> Vec<Instruction> {
        let (vault, secret) = (&self.place.vault, &self.place.secret);
        let place = format!("--vault-name {} --name {}", word(vault), word(secret));
        let write = format!(
            r#"kept=()
tags=$(printf '%s' "$secret" |
    jq -r '.tags // {{}} | del(."{RUN_TAG}") | to_entries[] | "\(.key)=\(.value)"')
[[ -z $tags ]] || mapfile -t kept < <(printf '%s\n' --tags "$tags")
content_type=$(printf '%s' "$secret" | jq -r '.contentType // empty')
[[ -z $content_type ]] || kept+=(--description "$content_type")
printf '%s' "$value" | az keyvault secret set {place} \
    --file /dev/stdin --encoding utf-8 "${{kept[@]}}" --output none"#
        );
        let instruction = Instruction::new(
            Part::KeyVault,
            format!("Key Vault {vault}: the secret {secret}"),
            format!("Key Vault {vault}: секрет {secret}"),
        )
        .say(
            "A new version inherits nothing from the one before, so its tags and content type are sent again; an expiry \
             date is not: if there was one, add --expires. Every set makes a version, even with the same value, so one \
             that is there already is not set again.",
            "Новая версия ничего не наследует от предыдущей, поэтому теги и content type передаются заново; срок \
             действия – нет: если он был задан, добавьте --expires. Каждый вызов set создаёт новую версию, даже с тем же \
             значением, поэтому уже записанное значение повторно не записывается.",
        )
        .say(
            "If it fails with Forbidden: the vault's role Owner is not enough, it takes Key Vault Secrets Officer, and a \
             new role needs minutes. With a conflict: the name belongs to a deleted secret; recover it first \
             (az keyvault secret recover), wait, and repeat the step.",
            "Если отказано с Forbidden: роли Owner недостаточно, нужна Key Vault Secrets Officer, а новая роль начинает \
             действовать через несколько минут. При Conflict имя занято удалённым секретом: сначала восстановите его \
             (az keyvault secret recover), подождите и повторите шаг.",
        )
        .run(format!("secret=$(az keyvault secret show {place} --output json)"))
        .run(r#"present=$(printf '%s' "$secret" | jq -r .value)"#)
        .run(value_like_present(template))
        .run(where_it_differs(&write))
        .refer(format!("az keyvault secret show {place} --query id --output tsv"))
        .needs(&["az", "jq"]);
        vec![instruction]
    }
}
