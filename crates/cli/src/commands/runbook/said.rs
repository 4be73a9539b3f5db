//! What the script itself says, beside what the providers say.

use pgrotate_core::by_hand::{Part, Words};

/// The runbook's headings.
pub(super) fn heading(part: Part) -> Words {
    match part {
        Part::Before => Words::new("Before you start", "Предусловия"),
        Part::Server => Words::new("Update the server's password", "Обновите пароль сервера"),
        Part::KeyVault => Words::new("Synchronise Key Vault", "Синхронизируйте Key Vault"),
        Part::Applications => Words::new("Update App Service", "Обновите App Service"),
        Part::Ci => {
            Words::new("Update the GitHub secrets and the agents", "Обновите GitHub Secrets и агенты")
        }
        Part::Aws => Words::new("AWS Secrets Manager", "AWS Secrets Manager"),
        Part::Validation => Words::new("Validation", "Валидация"),
        Part::Records => Words::new("Audit and documentation", "Аудит и документация"),
    }
}

/// What the script prints, by the name that it has in `head.sh` and `tail.sh`.
pub(super) fn messages() -> [(&'static str, Words); 23] {
    let words = Words::new;
    [
        ("error", words("error:", "ошибка:")),
        ("no_password", words("no password was given", "пароль не введён")),
        (
            "old",
            words(
                "Current password, before the rotation (empty if nobody knows it):",
                "Текущий пароль, до ротации (пусто, если он никому не известен):",
            ),
        ),
        ("new", words("New password:", "Новый пароль:")),
        ("short", words("the new password is too short", "новый пароль слишком короткий")),
        (
            "odd",
            words(
                "the new password has a space or a character that is not ASCII",
                "в новом пароле есть пробел или символ не из ASCII",
            ),
        ),
        ("same", words("both passwords are the same", "оба пароля одинаковы")),
        (
            "other_form",
            words(
                "a copy does not have the configured form",
                "значение не имеет заданной в конфигурации формы",
            ),
        ),
        ("no_url", words("a copy holds no database URL", "значение не является URL базы данных")),
        ("other_user", words("a URL has another user", "в URL другой пользователь")),
        ("other_host", words("a URL points at another server", "URL указывает на другой сервер")),
        (
            "troubles",
            words(
                "^ refused logins: only lines after the restart count",
                "^ отказы во входе: важны только строки после перезапуска",
            ),
        ),
        (
            "no_troubles",
            words(
                "no refused login among the lines of the log that could be seen:",
                "отказов во входе нет среди доступных строк журнала:",
            ),
        ),
        (
            "no_log",
            words(
                "the log showed nothing, so it proves nothing: look at it another way",
                "журнал ничего не показал и ничего не доказывает: посмотрите его другим способом",
            ),
        ),
        (
            "not_expected",
            words("the server does not answer as it should:", "сервер отвечает не так, как должен:"),
        ),
        ("lines", words("lines with this key, instead of one:", "строк с этим ключом вместо одной:")),
        (
            "quoting",
            words(
                "quotes or escapes that a person has to read, in the value of",
                "кавычки или экранирование, которые должен разобрать человек, в значении",
            ),
        ),
        ("step", words("there is no such step:", "такого шага нет:")),
        (
            "message",
            words(
                "The PostgreSQL password has been rotated by hand",
                "Ротация пароля PostgreSQL завершена вручную",
            ),
        ),
        (
            "go_on",
            words(
                "Enter carries it out, Ctrl-C stops here ",
                "Enter – выполнить, Ctrl-C – остановиться здесь ",
            ),
        ),
        ("stopped", words("stopped in step", "остановлено на шаге")),
        (
            "then",
            words(
                "mend the cause and repeat the step, which does nothing twice that counts:",
                "устраните причину и повторите шаг, это безопасно:",
            ),
        ),
        ("no_tool", words("there is no program", "нет программы")),
    ]
}

/// What the script prints at its end.
pub(super) fn end() -> Words {
    Words::new(
        "Done. What pgrotate sees of it: pgrotate status",
        "Готово. Что видит pgrotate, покажет pgrotate status",
    )
}

/// What stands at the top. `length` is that of the configured passwords.
pub(super) fn introduction(target: &str, environment: &str, length: usize) -> Vec<Words> {
    let words = |english: String, russian: String| Words::new(english, russian);
    vec![
        words(
            format!("Postgres admin password rotation, by hand: {environment}, {target}"),
            format!("Postgres Admin Password Rotation, вручную: {environment}, {target}"),
        ),
        words(
            "Written by `pgrotate runbook` from the configuration alone. Read it first. `bash FILE` then asks for both \
             passwords, shows each step and waits for Enter; `bash FILE 3` goes on from step 3. OPERATOR and TICKET say \
             who and why: TICKET=owner/repository#12 bash FILE."
                .into(),
            "Составлено командой `pgrotate runbook` только по конфигурации. Сначала прочитайте. `bash ФАЙЛ` спросит оба \
             пароля, покажет каждый шаг и подождёт Enter; `bash ФАЙЛ 3` продолжит с шага 3. OPERATOR и TICKET – кто и \
             зачем: TICKET=владелец/репозиторий#12 bash ФАЙЛ."
                .into(),
        ),
        words(
            format!(
                "A new password: openssl rand -base64 96 | tr -d '/+=\\n' | cut -c 1-{length}. Letters and digits need \
                 no encoding in any URL, file or shell; others are percent-encoded here. It must not hold a part of the \
                 role's name: Azure refuses that."
            ),
            format!(
                "Новый пароль: openssl rand -base64 96 | tr -d '/+=\\n' | cut -c 1-{length}. Буквы и цифры не нужно \
                 кодировать ни в URL, ни в файлах, ни в оболочке; остальное здесь кодируется процентами. Он не должен \
                 содержать часть имени роли: Azure такой пароль отвергнет."
            ),
        ),
        words(
            format!(
                "Sign in before: az login, gh auth login, aws sso login, op signin, as far as they are used. \
                 `pgrotate check {environment}` finds missing rights without changing anything. Nobody else may rotate \
                 this environment meanwhile."
            ),
            format!(
                "Сначала войдите: az login, gh auth login, aws sso login, op signin – что используется. \
                 `pgrotate check {environment}` найдёт недостающие права, ничего не меняя. Никто другой не должен в это \
                 время менять пароль этой среды."
            ),
        ),
        words(
            "When a step fails. In step 0 nothing has changed on the server: repeat it, or put the old password back into \
             the vault and leave it. From step 1 on go forward: whether the server has the new password shows at the \
             login; mend the cause and repeat from the failed step. Only if that is impossible bring the old password \
             back the same way: all steps again, with the two passwords changed over."
                .into(),
            "Если шаг не удался. На шаге 0 на сервере ещё ничего не изменилось: повторите его или верните старый пароль в \
             хранилище и остановитесь. С шага 1 – только вперёд: какой пароль у сервера, покажет вход; устраните причину и \
             повторите с неудавшегося шага. Только если это невозможно, верните старый пароль тем же путём: все шаги \
             заново, поменяв пароли местами."
                .into(),
        ),
        words(
            "Values that can be read keep everything but their password; GitHub's can't be read and get the configured \
             form. With SQLAlchemy and asyncpg a URL wants ?ssl=require; ?sslmode=require works only where the application \
             translates it."
                .into(),
            "В значениях, которые можно прочитать, меняется только пароль; значения GitHub прочитать нельзя, они \
             записываются в форме из конфигурации. С SQLAlchemy и asyncpg в URL нужно ?ssl=require; ?sslmode=require \
             работает, только если приложение само его преобразует."
                .into(),
        ),
    ]
}

/// What is proven before the server is touched.
pub(super) fn census() -> Words {
    Words::new(
        "The current password logs in, so this is the right server; and these are the sessions that the role has now. One \
         that nobody knows is a consumer that would break.",
        "Текущий пароль принимается, то есть это тот сервер; а это сессии роли на данный момент. Незнакомая сессия – \
         потребитель, который сломается.",
    )
}

/// What is proven right after the server's change.
pub(super) fn proof() -> Words {
    Words::new(
        "The proof: a fresh login with the new password.",
        "Доказательство: новый вход с новым паролем.",
    )
}

/// What is proven at the end.
pub(super) fn logins() -> Words {
    Words::new(
        "The new password logs in, the old one is refused.",
        "Новый пароль принимается, старый отвергается.",
    )
}

/// Who has proven itself by then.
pub(super) fn survivors() -> Words {
    Words::new(
        "The sessions of the role. Those from before step 1 logged in with the old password and live on: whoever holds one \
         has proven nothing yet.",
        "Сессии роли. Открытые до шага 1 вошли со старым паролем и продолжают жить: их владельцы ещё ничего не доказали.",
    )
}

/// What a person without `psql` has to do instead.
pub(super) fn no_psql() -> Words {
    Words::new(
        "How to log in to this server is not known here: prove both passwords another way.",
        "Как войти на этот сервер, здесь неизвестно: проверьте оба пароля другим способом.",
    )
}
