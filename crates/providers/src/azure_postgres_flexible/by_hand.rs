//! The same by hand, with the Azure CLI.

use pgrotate_core::by_hand::{Instruction, Part};

use super::{Options, Server};
use crate::by_hand::{word, words};

impl Server {
    /// The runbook's command; `@-` is how every option of `az` takes its value from stdin.
    pub(super) fn instructions(&self) -> Vec<Instruction> {
        let Options { subscription, resource_group, server } = &self.options;
        let options =
            words(["--subscription", subscription, "--resource-group", resource_group, "--name", server]);
        let instruction = Instruction::new(
            Part::Server,
            format!("Azure: the administrator's password of the server {server}"),
            format!("Azure: пароль администратора сервера {server}"),
        )
        .say(
            "This is the point of no return: from here on the old password may be refused, and the only way is \
             forward. The server has to be Ready and to take passwords; where it does not, Azure reports success and \
             changes nothing, so the login that follows is the proof, not the status.",
            "Это точка невозврата: дальше старый пароль может быть отвергнут, и двигаться можно только вперёд. Сервер \
             должен быть в состоянии Ready и принимать пароли; если вход по паролю выключен, Azure сообщает об успехе и \
             ничего не меняет, поэтому доказательство – вход после смены, а не статус.",
        )
        .say(
            "With `@-` az reads the password from its stdin, so it is in no argument. az waits for `Succeeded` itself. It \
             sends storage, backup and network settings back as it has read them: nobody else may change the server \
             meanwhile.",
            "С `@-` az читает пароль из stdin, поэтому в аргументах его нет. Статуса `Succeeded` az дожидается сам. При \
             этом он отправляет обратно прочитанные настройки хранилища, резервного копирования и сети: никто другой не \
             должен в это время менять сервер.",
        )
        .say(
            "If it fails with the server busy: wait until its state is Ready and repeat the step. If the answer was lost: \
             repeat the step, the end is the same.",
            "Если сервер занят: дождитесь состояния Ready и повторите шаг. Если ответ потерялся: повторите шаг, \
             результат тот же.",
        )
        .run(format!("server=({options})"))
        .run("text=$(az postgres flexible-server show \"${server[@]}\" --output json)")
        .run(
            "printf '%s' \"$text\" | jq -e '.state == \"Ready\" and .authConfig.passwordAuth != \"Disabled\"' >/dev/null ||",
        )
        .run(format!("    stop {}", word(&format!("{server}: state, authConfig.passwordAuth"))))
        .run("printf '%s' \"$new_password\" |")
        .run("    az postgres flexible-server update \"${server[@]}\" --admin-password @- --output none")
        .needs(&["az", "jq"]);
        vec![instruction]
    }
}
