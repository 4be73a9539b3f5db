//! The same by hand, with the AWS CLI.

use pgrotate_core::by_hand::{Instruction, Part};
use pgrotate_core::value::Template;

use super::AwsSecretsManager;
use crate::by_hand::{value_like_present, where_it_differs, word, words};

impl AwsSecretsManager {
    /// `aws` reads the value from its stdin by `file:///dev/stdin`.
    pub(super) fn instructions(&self, template: &Template) -> Vec<Instruction> {
        let secret = &self.options.secret;
        let settings = &self.shared.vendors.aws;
        let mut options = vec!["--secret-id", secret];
        let others = [
            ("--region", &settings.region),
            ("--profile", &settings.profile),
            ("--endpoint-url", &settings.endpoint),
        ];
        for (option, setting) in others {
            options.extend(setting.iter().flat_map(|setting| [option, setting]));
        }
        let options = words(options);
        let put = String::from(
            "aws secretsmanager put-secret-value \"${place[@]}\" --secret-string file:///dev/stdin --output json >/dev/null",
        );
        let instruction = Instruction::new(
            Part::Aws,
            format!("AWS Secrets Manager: {secret}"),
            format!("AWS Secrets Manager: {secret}"),
        )
        .say(
            "A repeated write would move AWSPREVIOUS off the old password, so a value that is there already is not \
             written again. With AWS's own rotation switched on, AWS would replace the value: stop that first.",
            "Повторная запись сдвинула бы AWSPREVIOUS со старого пароля, поэтому уже записанное значение не записывается \
             повторно. Если включена собственная ротация AWS, она заменит значение: сначала отключите её.",
        )
        .run(format!("place=({options})"))
        .run(format!(
            "rotation=$(aws secretsmanager describe-secret \"${{place[@]}}\" --query RotationEnabled --output text)\n\
             [[ $rotation != True ]] || stop {}",
            word(&format!("{secret}: RotationEnabled"))
        ))
        .run("stored=$(aws secretsmanager get-secret-value \"${place[@]}\" --query SecretString --output text)");
        let instruction = match &self.options.json_key {
            None => instruction
                .run("[[ $stored != '{'* ]] || stop 'JSON'")
                .run("present=$stored")
                .run(value_like_present(template))
                .run(where_it_differs(&format!("printf '%s' \"$value\" | {put}"))),
            Some(key) => {
                let key = word(key);
                instruction
                    .say(
                        "Only this key of the JSON is changed; jq may write spaces and very large numbers otherwise.",
                        "Меняется только этот ключ JSON; пробелы и очень большие числа jq может записать иначе.",
                    )
                    .run(format!(
                        "present=$(printf '%s' \"$stored\" | jq -er --arg key {key} '.[$key] | strings')"
                    ))
                    .run(value_like_present(template))
                    .run(where_it_differs(&format!(
                        "stored=$(printf '%s' \"$stored\" |\n    jq --arg key {key} --rawfile value \
                         <(printf '%s' \"$value\") '.[$key] = $value')\nprintf '%s' \"$stored\" | {put}"
                    )))
                    .needs(&["jq"])
            }
        };
        vec![instruction.needs(&["aws"])]
    }
}
