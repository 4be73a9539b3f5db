//! The same by hand, with the Azure CLI.

use pgrotate_core::by_hand::{Instruction, Part};
use pgrotate_core::value::Template;

use super::settings::Table;
use super::{App, Log, Setting, Site};
use crate::by_hand::{indented, value_like_present, where_it_differs, word, words};
use crate::log_scan::TROUBLES;

/// The version of the interface with which Microsoft documents the refresh of references.
const REFRESH_API_VERSION: &str = "2022-03-01";

impl Site {
    /// The line that keeps the Azure CLI's options for this site.
    fn options(&self) -> String {
        let Self { subscription, group, app, slot, .. } = self;
        let mut options = vec!["--subscription", subscription, "--resource-group", group, "--name", app];
        if let Some(slot) = slot {
            options.extend(["--slot", slot]);
        }
        format!("site=({})", words(options))
    }

    fn refresh(&self) -> String {
        let Self { subscription, group, app, slot, .. } = self;
        let slot = slot.as_ref().map_or_else(String::new, |slot| format!("/slots/{slot}"));
        let url = format!(
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Web/sites/{app}{slot}\
             /config/configreferences/appsettings/refresh?api-version={REFRESH_API_VERSION}"
        );
        format!("az rest --method post --url {} --output none", word(&url))
    }
}

impl Setting {
    /// `az webapp config … set` reads JSON from its stdin, and sends all other settings back as it has read them.
    pub(super) fn instructions(&self, template: &Template) -> Vec<Instruction> {
        let (app, name) = (self.site.name(), &self.name);
        let instruction = match self.table {
            Table::Settings => Instruction::new(
                Part::Applications,
                format!("App Service {app}: the app setting {name}"),
                format!("App Service {app}: параметр приложения {name}"),
            )
            .say(
                "A value @Microsoft.KeyVault(…) points at a secret and is never overwritten: App Service is told to \
                 fetch the secret again, which it would do by itself only within 24 hours. One that names a version of \
                 the secret stays at that version: correct such a reference by hand.",
                "Значение @Microsoft.KeyVault(…) – ссылка на секрет, и оно не перезаписывается: App Service получает \
                 команду прочитать секрет заново, иначе это произойдёт лишь в течение 24 часов. Ссылка с номером версии \
                 так и останется на этой версии: исправьте её вручную.",
            )
            .run(self.of_settings(template)),
            Table::ConnectionStrings => Instruction::new(
                Part::Applications,
                format!("App Service {app}: the connection string {name}"),
                format!("App Service {app}: строка подключения {name}"),
            )
            .say("It keeps its type.", "Её тип не меняется.")
            .run(self.of_strings(template)),
        };
        let instruction = instruction.say(
            "az reads all settings and sends all of them back: nobody else may change this application's settings \
             meanwhile. The change restarts the application by itself.",
            "az читает все параметры и отправляет их обратно целиком: никто другой не должен в это время менять \
             параметры приложения. Изменение само перезапускает приложение.",
        );
        vec![instruction.needs(&["az", "jq"])]
    }

    fn of_settings(&self, template: &Template) -> String {
        let (options, name) = (self.site.options(), word(&self.name));
        let write = where_it_differs(&format!(
            "printf '%s' \"$value\" | jq -Rs --arg name {name} '{{($name): .}}' |\n    \
             az webapp config appsettings set \"${{site[@]}}\" --settings @- --output none"
        ));
        format!(
            "{options}\n\
             present=$(az webapp config appsettings list \"${{site[@]}}\" --output json |\n    \
             jq -r --arg name {name} '.[] | select(.name == $name).value')\n\
             if [[ $present == '@Microsoft.KeyVault('* ]]; then\n{}\nelse\n{}\n{}\nfi",
            indented(&self.site.refresh()),
            indented(&value_like_present(template)),
            indented(&write)
        )
    }

    fn of_strings(&self, template: &Template) -> String {
        let (options, name) = (self.site.options(), word(&self.name));
        let write = where_it_differs(
            "string=$(printf '%s' \"$string\" |\n    \
             jq --rawfile value <(printf '%s' \"$value\") '[{name, value: $value, type}]')\n\
             printf '%s' \"$string\" |\n    az webapp config connection-string set \"${site[@]}\" --settings @- --output none",
        );
        format!(
            "{options}\n\
             string=$(az webapp config connection-string list \"${{site[@]}}\" --output json |\n    \
             jq --arg name {name} '.[] | select(.name == $name)')\n\
             [[ -n $string ]] || stop {name}\n\
             present=$(printf '%s' \"$string\" | jq -r .value)\n{}\n{write}",
            value_like_present(template)
        )
    }
}

impl App {
    /// The runbook's restart.
    pub(super) fn instructions(&self) -> Vec<Instruction> {
        let (options, app) = (self.site.options(), self.site.name());
        let instruction = Instruction::new(
            Part::Applications,
            format!("App Service {app}: restart"),
            format!("App Service {app}: перезапуск"),
        )
        .say(
            "Until the application has come up with the new URL it cannot open a new connection: do not stop between \
             step 1 and here. The command comes back before the application is up; what proves that it is stands \
             in step 6. Sessions that logged in with the old password live on in a pool until the restart, so a green \
             health check before it proves nothing.",
            "Пока приложение не поднимется с новым URL, оно не может открыть новое соединение: не останавливайтесь между \
             шагом 1 и этим местом. Команда завершается раньше, чем поднимется приложение; чем это проверяется, \
             сказано в шаге 6. Сессии, открытые со старым паролем, живут в пуле до перезапуска, поэтому зелёный \
             healthcheck до него ничего не доказывает.",
        )
        .run(options)
        .run("az webapp restart \"${site[@]}\"")
        .needs(&["az"]);
        vec![instruction]
    }
}

impl Log {
    /// `az webapp log tail` never ends by itself.
    pub(super) fn instructions(&self) -> Vec<Instruction> {
        let (options, app) = (self.site.options(), self.site.name());
        let patterns: Vec<&str> =
            TROUBLES.iter().map(|(text, _)| *text).chain(self.patterns.iter().map(String::as_str)).collect();
        let instruction = Instruction::new(
            Part::Validation,
            format!("App Service {app}: the log"),
            format!("App Service {app}: журнал"),
        )
        .say(
            "Alembic has to have run without a refused login. Nobody prints the words `invalid password`; what \
             PostgreSQL, asyncpg, psycopg and Alembic do print is listed here. Lines from between step 1 and the \
             restart are no trouble: only what comes after the restart counts. If the stream is empty, logging is off: \
             az webapp log config --docker-container-logging filesystem.",
            "Alembic должен примениться без отказов во входе. Слов `invalid password` не печатает никто; то, что на самом \
             деле печатают PostgreSQL, asyncpg, psycopg и Alembic, перечислено здесь. Строки между шагом 1 и перезапуском – \
             не ошибка: важно только то, что после перезапуска. Если поток пуст, журналирование выключено: \
             az webapp log config --docker-container-logging filesystem.",
        )
        .run(options)
        .run(format!(
            "{{ timeout {} az webapp log tail \"${{site[@]}}\" 2>&1 || (($? == 124)); }} |\n    troubles {}",
            self.limit.as_secs().max(1),
            words(patterns)
        ))
        .needs(&["az", "timeout"]);
        vec![instruction]
    }
}
