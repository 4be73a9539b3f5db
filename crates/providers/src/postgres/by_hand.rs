//! The same by hand, with `psql`.

use pgrotate_core::by_hand::{Instruction, Part};

use super::{Postgres, PostgresLogin};
use crate::by_hand::{path, word};
use crate::shared::{Shared, TlsMode};

/// What `psql` takes as its `--dbname`: everything but the password, as words of a shell that are one word together.
fn connection(shared: &Shared) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let target = &shared.target;
    let place = format!(
        "host={} port={} dbname={} user={} connect_timeout=10 sslmode=",
        quoted(&target.host),
        target.port,
        quoted(&target.database),
        quoted(&target.user)
    );
    match (shared.database_tls.mode, &shared.database_tls.ca_file) {
        (TlsMode::Disable, _) => word(&format!("{place}disable")),
        (TlsMode::VerifyFull, Some(file)) => {
            let file = shared.path(&file.to_string_lossy());
            word(&format!("{place}verify-full sslrootcert={}", quoted(&file.to_string_lossy())))
        }
        (TlsMode::VerifyFull, None) => format!(
            "{}\"${{PGSSLROOTCERT:-{}}}\"",
            word(&format!("{place}verify-full sslrootcert=")),
            path(std::path::Path::new("/etc/ssl/certs/ca-certificates.crt"))
        ),
    }
}

impl PostgresLogin {
    /// Where the role logs in.
    pub(super) fn connection(&self) -> String {
        connection(&self.0.shared)
    }
}

impl Postgres {
    /// `\password` sends a SCRAM verifier, so the password can't reach the server's log; `ALTER ROLE` would.
    pub(super) fn instructions(&self) -> Vec<Instruction> {
        let target = &self.connector.shared.target;
        let instruction = Instruction::new(
            Part::Server,
            format!("PostgreSQL: the password of {target}"),
            format!("PostgreSQL: пароль {target}"),
        )
        .say(
            "This is the point of no return: from here on the old password may be refused, and the only way is forward.",
            "Это точка невозврата: дальше старый пароль может быть отвергнут, и двигаться можно только вперёд.",
        )
        .say(
            "psql computes the SCRAM verifier itself, so the password does not reach the server's log, as it would with \
             ALTER ROLE. At a terminal psql asks for the new password there, twice: paste it. Name the server's own port, \
             not a pooler's.",
            "psql сам вычисляет верификатор SCRAM, поэтому пароль не попадает в журнал сервера, как было бы с ALTER ROLE. В \
             терминале psql спросит новый пароль сам, дважды: вставьте его. Порт нужен самого сервера, а не пулера.",
        )
        .run(format!(
            "[[ -n $old_password ]] || stop old_password\n\
             [[ $(answer_to \"$new_password\") == accepted ]] ||\n    \
             printf '%s\\n' \"$new_password\" \"$new_password\" | PGPASSWORD=$old_password psql --no-psqlrc \\\n        \
             --dbname={} --command='\\password'",
            connection(&self.connector.shared)
        ))
        .needs(&["psql"]);
        vec![instruction]
    }
}
