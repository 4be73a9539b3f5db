"""The tools, each kept away from whatever the developer of this machine is signed in to.

Nothing of the caller's environment but PATH reaches a tool: home, configuration and sign-ins are in a temporary
folder. What a tool prints is kept in memory, and no password that is known here gets out of it.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import zipfile
from pathlib import Path

from sandbox import BIN, ROOT, Failed

RUNBOOK = ROOT / "scripts/fidelity/runbook.sh"
BACKEND = ROOT / "examples/mindwell/services/backend"
TOOLS = ROOT / "target/venv/tools/bin"
CLOUD = "MindWellSandbox"
PROFILE = "mindwell"
REPOSITORY = "mindwell/backend"

# No single command takes this long; the server's change is the longest, with az asking once in half a minute.
COMMAND_WITHIN_S = 240
LOG_WITHIN_S = 60

# What has to be there, and the target that makes it.
NEEDED = {
    "az": (TOOLS / "az", "tools"),
    "aws": (TOOLS / "aws", "tools"),
    "gh": ("gh", "tools"),
    "curl": ("curl", "tools"),
    "openssl": ("openssl", "tools"),
    "alembic": (BACKEND / ".venv/bin/alembic", "venvs"),
    "pgrotate": (BIN / "pgrotate", "build"),
    "pgrotate-sandbox": (BIN / "pgrotate-sandbox", "build"),
}

# Reentrant, because a signal's handler ends the commands while their starter may hold it.
_secrets, _running, _lock = set(), set(), threading.RLock()
_leaving = threading.Event()


def keep_secret(*values):
    """From now on these are masked in whatever is printed."""
    _secrets.update(value for value in values if len(value) > 5)


def masked(text):
    """The text without any known secret."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def end_all():
    """Ends every command that still runs, with its children, and lets no other begin: for the way out."""
    _leaving.set()
    with _lock:
        for process in _running:
            _end(process)


def _end(process):
    try:
        os.killpg(process.pid, signal.SIGTERM)
    except ProcessLookupError:
        pass


class Finished:
    """A command that has ended."""

    def __init__(self, name, code, out, err):
        self.name, self.code, self.out, self.err = name, code, out, err

    def checked(self):
        if self.code != 0:
            tail = "\n".join(masked(self.err).strip().splitlines()[-8:])
            raise Failed(f"{self.name} ended with {self.code}: {tail}")
        return self


def run(name, arguments, environment, stdin="", enough=None, within=COMMAND_WITHIN_S):
    """Runs a command to its end; one that never ends until `enough` of its output is there."""
    if _leaving.is_set():
        raise Failed("the judge was told to leave")
    # Should this program be killed, no command outlives its time by much.
    arguments = ["timeout", str(within + 30), *arguments]
    with subprocess.Popen(arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, start_new_session=True) as process:
        with _lock:
            _running.add(process)
        _give(process.stdin, stdin)
        out, err = bytearray(), bytearray()
        readers = [threading.Thread(target=_drain, args=pair, daemon=True)
                   for pair in [(process.stdout, out), (process.stderr, err)]]
        for reader in readers:
            reader.start()
        deadline = time.monotonic() + within
        while process.poll() is None:
            seen = enough is not None and enough((out + err).decode(errors="replace"))
            if seen or time.monotonic() > deadline:
                _end(process)
            time.sleep(0.05)
        for reader in readers:
            reader.join(10)
        with _lock:
            _running.discard(process)
    late = time.monotonic() > deadline
    text = err.decode(errors="replace") + (f"\nit took longer than {within} s" if late else "")
    return Finished(name, process.returncode, out.decode(errors="replace"), text)


def _give(pipe, text):
    """What a pipe takes at once; a command may end without having read it."""
    try:
        with pipe:
            pipe.write(text.encode())
    except BrokenPipeError:
        pass


def _drain(pipe, into):
    for chunk in iter(lambda: pipe.read1(65536), b""):
        into.extend(chunk)


def check_set_up(hosts):
    """Everything is installed, and the system knows the names that az asks it for."""
    for name, (program, target) in NEEDED.items():
        if not shutil.which(program):
            raise Failed(f"there is no {name}; `make {target}` makes it")
    for host in hosts:
        try:
            socket.getaddrinfo(host, None)
        except OSError:
            raise Failed(f"this machine knows no {host}; `make tools` adds it to /etc/hosts") from None


class Bench:
    """All tools for one environment."""

    def __init__(self, sandbox, environment, folder):
        self.sandbox, self.name = sandbox, environment
        self.home = folder / environment
        self.home.mkdir()
        settings, credentials = sandbox.settings, sandbox.credentials
        here = settings["environments"][environment]
        self.subscription = here["subscription"]
        self.postgres_host = f"localhost:{here['pg_port']}"
        self.environment = {
            "PATH": f"{TOOLS}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            # az
            "AZURE_CONFIG_DIR": str(self.home / "azure"),
            "AZURE_CORE_COLLECT_TELEMETRY": "false",
            "AZURE_CORE_INSTANCE_DISCOVERY": "false",
            "AZURE_CORE_NO_COLOR": "true",
            "AZURE_EXTENSION_USE_DYNAMIC_INSTALL": "no",
            "REQUESTS_CA_BUNDLE": str(sandbox.certificate_authority),
            # aws
            "AWS_CONFIG_FILE": str(self.home / "aws/config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.home / "aws/credentials"),
            "AWS_PROFILE": PROFILE,
            "AWS_EC2_METADATA_DISABLED": "true",
            # gh; a host with a port it takes from here alone
            "GH_CONFIG_DIR": str(self.home / "gh"),
            "GH_HOST": settings["github"]["api"].removeprefix("https://"),
            "GH_NO_UPDATE_NOTIFIER": "true",
            "SSL_CERT_FILE": str(sandbox.certificate_authority),
            # the runbook's places
            "APP_URL": here["app_url"],
            "BACKEND": str(BACKEND),
            "ENV_FILE": str(sandbox.env_file(environment)),
            "OP_CONNECT_HOST": settings["onepassword"]["connect"],
            "OP_CONNECT_TOKEN": credentials["OP_CONNECT_TOKEN"],
            "POSTGRES_HOST": self.postgres_host,
            "REPOSITORY": REPOSITORY,
        }

    def sign_in(self):
        """Signs in to az, gh and aws, each in its own files; what az prints of the sandbox's cloud is the answer."""
        credentials, settings = self.sandbox.credentials, self.sandbox.settings
        manager = settings["azure"]["resource_manager"]
        self.az("cloud", "register", "--name", CLOUD, "--endpoint-resource-manager", manager)
        self.az("cloud", "set", "--name", CLOUD)
        self.az("login", "--service-principal", "--username", credentials["AZURE_CLIENT_ID"], "--password",
                credentials["AZURE_CLIENT_SECRET"], "--tenant", credentials["AZURE_TENANT_ID"])
        self.gh("auth", "login", "--with-token", stdin=credentials["GH_TOKEN"])
        (self.home / "aws").mkdir()
        Path(self.environment["AWS_CONFIG_FILE"]).write_text(
            f"[profile {PROFILE}]\nregion = {settings['aws']['region']}\n"
            f"endpoint_url = {settings['aws']['endpoint']}\n")
        Path(self.environment["AWS_SHARED_CREDENTIALS_FILE"]).write_text(
            f"[{PROFILE}]\naws_access_key_id = {credentials['AWS_ACCESS_KEY_ID']}\n"
            f"aws_secret_access_key = {credentials['AWS_SECRET_ACCESS_KEY']}\n")
        return json.loads(self.az("cloud", "show", "--name", CLOUD))

    def take_over_sign_in(self, other):
        """Shares the sign-ins of another environment; az's settings are this one's own."""
        if other is not self:
            for tool in ("azure", "gh", "aws"):
                shutil.copytree(other.home / tool, self.home / tool)
        self.az("account", "set", "--subscription", self.subscription)

    def step(self, step, password, **more):
        """A step of the runbook."""
        environment = self.environment | {"PASSWORD": password}
        return run(f"{step} of the runbook", [RUNBOOK, self.name, step], environment, **more)

    def az(self, *arguments):
        return run(f"az {' '.join(arguments[:3])}", ["az", *arguments], self.environment).checked().out

    def aws(self, *arguments):
        finished = run(f"aws {arguments[1]}", ["aws", *arguments, "--output", "json"], self.environment)
        return json.loads(finished.checked().out)

    def gh(self, *arguments, **more):
        return run(f"gh {' '.join(arguments[:2])}", ["gh", *arguments], self.environment, **more).checked().out

    def log(self, starts):
        """What `az webapp log tail` shows until the application's latest start is among it."""
        def enough(text):
            # Refused, az says so and stays.
            return text.count("Application startup complete.") >= starts or "Failed to connect to" in text
        tail = self.step("step_6_log", "", enough=enough, within=LOG_WITHIN_S)
        lines = tail.err.splitlines()
        return [line.removeprefix("WARNING: ") for line in lines]

    def downloaded_log(self):
        """The text of every log file in the archive that `az webapp log download` gets."""
        path = self.home / "logs.zip"
        self.az("webapp", "log", "download", "--name", f"mindwell-{self.name}-api", "--resource-group",
                f"rg-mindwell-{self.name}", "--log-file", str(path))
        with zipfile.ZipFile(path) as archive:
            return "\n".join(archive.read(name).decode() for name in archive.namelist())

    def pgrotate(self, *arguments):
        """pgrotate with the sandbox's configuration, and with nothing of what the tools were given."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8"}
        return self._pgrotate(arguments, environment, self.sandbox.config)

    def pgrotate_by_logins(self, *arguments, **other_variables):
        """pgrotate with the tools' own logins, and without the variables that would do instead of them."""
        return self._pgrotate(arguments, self.environment | other_variables, self._config_without_variables())

    def _pgrotate(self, arguments, environment, config):
        environment |= {"PGROTATE_STATE_DIR": str(self.home.parent / "state"), "PGROTATE_CONFIG": str(config)}
        return run(f"pgrotate {arguments[0]}", [BIN / "pgrotate", *arguments], environment)

    def _config_without_variables(self):
        """The sandbox's configuration with a credentials file that has nothing for Azure, GitHub and AWS."""
        given = self.sandbox.credentials.items()
        kept = [f"{name}={value}\n" for name, value in given if not name.startswith(("AZURE_", "GH_", "AWS_"))]
        credentials, config = self.home / "credentials.env", self.home / "pgrotate.toml"
        credentials.touch(0o600)
        credentials.write_text("".join(kept))
        text = self.sandbox.config.read_text()
        config.write_text(text.replace(self.sandbox.settings["credentials_file"], str(credentials)))
        return config
