//! The same by hand, with `curl`.

use pgrotate_core::by_hand::{Instruction, Part};

use super::HttpCheck;
use crate::by_hand::word;

impl HttpCheck {
    /// So many good answers in a row, in bounded time.
    pub(super) fn instructions(&self) -> Vec<Instruction> {
        let headers: Vec<String> = self
            .headers
            .iter()
            .map(|(name, value)| {
                format!(
                    "--header {} ",
                    word(&format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
                )
            })
            .collect();
        let (expected, successes, url) = (self.expected.as_u16(), self.successes, word(self.url.as_str()));
        let instruction = Instruction::new(
            Part::Validation,
            format!("{}: {} answers {expected}", self.id, self.shown),
            format!("{}: {} отвечает {expected}", self.id, self.shown),
        )
        .say(
            "Good answers in a row after the restart. It may be green all the same on sessions that logged in before, so \
             it counts only together with the restart and the logins above.",
            "Нужны хорошие ответы подряд после перезапуска. Проверка может быть зелёной и на сессиях, открытых раньше, \
             поэтому засчитывается только вместе с перезапуском и входами выше.",
        )
        .run(format!(
            "good=0 deadline=$((SECONDS + {}))\n\
             until ((good == {successes})); do\n    \
             answer=$(curl --silent --output /dev/null --max-time 10 {}--write-out '%{{http_code}}' {url}) || true\n    \
             if [[ $answer == {expected} ]]; then\n        good=$((good + 1))\n    \
             elif ((SECONDS < deadline)); then\n        good=0\n        sleep 1\n    \
             else\n        stop {}\" $answer\"\n    fi\ndone",
            self.timeout.as_secs().max(1),
            headers.concat(),
            word(&self.shown)
        ))
        .needs(&["curl"]);
        vec![instruction]
    }
}
