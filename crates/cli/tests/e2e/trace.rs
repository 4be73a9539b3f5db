//! What the program asks of the kernel, told by strace: no process is too short-lived and no file too temporary.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a program and all its children did.
#[derive(Default)]
pub(crate) struct Trace {
    /// Every program that was started: its arguments, and its environment.
    pub(crate) started: Vec<[Vec<u8>; 2]>,
    /// Every write to what is no network connection: where to, and the line that tells of it.
    pub(crate) written: Vec<(String, Vec<u8>)>,
}

/// Runs a command to its end under strace.
pub(crate) fn run(command: &Command, log: &Path) -> (Output, Trace) {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-v", "-xx", "-yy", "-s", "1048576"]);
    traced.args([
        "-e",
        "trace=execve,execveat,write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range",
    ]);
    traced.arg("-o").arg(log).arg(command.get_program()).args(command.get_args()).env_clear();
    traced.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    traced.current_dir(command.get_current_dir().unwrap_or(Path::new(".")));
    let output = traced.output().expect("`make setup` installs strace");
    (output, Trace::read(&std::fs::read(log).unwrap()))
}

impl Trace {
    fn read(log: &[u8]) -> Self {
        let mut trace = Self::default();
        for line in log.split(|byte| *byte == b'\n') {
            // Behind the number of the process: `write(3<PATH>, "\x41…", 1) = 1`.
            let call =
                line.iter().position(|byte| *byte == b' ').map_or(line, |at| line[at..].trim_ascii_start());
            let Some(open) = call.iter().position(|byte| *byte == b'(') else { continue };
            let (name, rest) = (&call[..open], &call[open + 1..]);
            if name.starts_with(b"exec") {
                let split = rest.windows(4).position(|part| part == b"], [").unwrap_or(rest.len());
                trace.started.push([plain(&rest[..split]), plain(&rest[split..])]);
            } else if name.starts_with(b"write") || name.starts_with(b"pwrite") {
                let end = rest.windows(2).position(|part| part == b", ").unwrap_or(rest.len());
                let target = String::from_utf8_lossy(&plain(&rest[..end])).into_owned();
                if !target.contains("<TCP") {
                    trace.written.push((target, plain(&rest[end..])));
                }
            } else if name.starts_with(b"sendfile") || name.starts_with(b"copy_file_range") {
                panic!("a file is copied by the kernel, which this trace can't look into");
            }
        }
        trace
    }

    /// The programs that were started, with their arguments.
    pub(crate) fn command_lines(&self) -> Vec<String> {
        self.started.iter().map(|[line, _]| String::from_utf8_lossy(line).into_owned()).collect()
    }

    /// The files that were written to.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let path = |target: &String| Some(PathBuf::from(target.split_once('<')?.1.strip_suffix('>')?));
        self.written.iter().filter_map(|(target, _)| path(target)).filter(|path| path.is_absolute()).collect()
    }
}

/// The bytes that strace shows as `\x41`; everything else stays.
fn plain(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4);
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(1..3).filter(|_| *first == b'\\' && tail[0] == b'x');
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that lives for a moment, a file that is gone before anybody looks, and a variable.
    #[test]
    fn nothing_is_too_short_to_be_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gone");
        let script = format!(
            "echo 'hidden word' >{0}; rm {0}; A='secret \\value' /bin/true 'an argument'",
            file.display()
        );
        let mut command = Command::new("/bin/sh");
        let (_, trace) = run(command.args(["-c", &script]), &folder.path().join("log"));
        let [line, environment] =
            &trace.started.iter().find(|[line, _]| line.starts_with(b"\"/bin/true\"")).unwrap();
        assert!(line.ends_with(b"[\"/bin/true\", \"an argument\""), "{}", String::from_utf8_lossy(line));
        assert!(String::from_utf8_lossy(environment).contains("\"A=secret \\value\""));
        assert!(trace.files().contains(&file));
        assert!(trace.written.iter().any(|(_, text)| text.windows(11).any(|part| part == b"hidden word")));
    }
}
