"""A sandbox for the length of a `with`, and what its control interface and its configuration say."""

import json
import os
import subprocess
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"

# How long it may take until everything answers, on a machine that is busy with something else too.
READY_WITHIN_S = 120


class Sandbox:
    """The running sandbox."""

    def __init__(self, folder, environments):
        self.folder, self.environments = folder, environments

    def __enter__(self):
        self.log = open(self.folder / "sandbox.log", "wb")
        self.process = subprocess.Popen(
            [BIN / "pgrotate-sandbox", "up", "--dir", self.folder / "world", "--env", ",".join(self.environments)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log)
        line = self.process.stdout.readline()
        if not line:
            self.__exit__()
            raise SystemExit(f"error: the sandbox did not start\n{(self.folder / 'sandbox.log').read_text()}")
        ready = json.loads(line)
        self.config, self.control = Path(ready["config"]), ready["control"]
        self.settings = tomllib.loads(self.config.read_text())
        pairs = (self.config.parent / "credentials.env").read_text().splitlines()
        self.credentials = dict(pair.split("=", 1) for pair in pairs)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()

    @property
    def certificate_authority(self):
        return self.config.parent / "ca.pem"

    def env_file(self, environment):
        return self.config.parent / f"agents/{environment}/.config/mindwell/{environment}.env"

    def state(self, environment):
        """What every system of an environment holds, with passwords."""
        return self._ask("state")[environment]

    def requests(self):
        """Every request so far."""
        return self._ask("requests")

    def set(self, system, environment, what, value):
        """Puts a system into another state, as somebody else would."""
        self._ask("set", {"system": system, "environment": environment, "what": what, "value": value})

    def fault(self, **fault):
        """Spoils requests to come."""
        self._ask("faults", fault)

    def _ask(self, what, body=None):
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(f"{self.control}/_sandbox/{what}", data, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise SystemExit(f"error: the sandbox can't {what}: {error.read().decode()}") from None
        return json.loads(text) if text else None
