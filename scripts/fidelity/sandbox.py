"""A sandbox for the length of a `with`, and what its control interface and its configuration say."""

import json
import os
import selectors
import subprocess
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / os.environ.get("PGROTATE_PROFILE", "debug")

# How long it may take until everything answers, on a machine that is busy with something else too.
READY_WITHIN_S = 120


class Failed(Exception):
    """Something that should have worked; the text is safe to print."""


class Sandbox:
    """The running sandbox."""

    def __init__(self, folder, environments, latency="instant"):
        self.folder, self.environments, self.latency = folder, environments, latency

    def __enter__(self):
        self.log = open(self.folder / "sandbox.log", "wb")
        self.process = subprocess.Popen(
            [BIN / "pgrotate-sandbox", "up", "--dir", self.folder / "world", "--env", ",".join(self.environments),
             "--latency", self.latency],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log)
        try:
            ready = self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        self.config, self.control = Path(ready["config"]), ready["control"]
        self.settings = tomllib.loads(self.config.read_text())
        pairs = (self.config.parent / "credentials.env").read_text().splitlines()
        self.credentials = dict(pair.split("=", 1) for pair in pairs)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()

    def _wait_until_ready(self):
        """The one line that it prints when everything in it answers."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(READY_WITHIN_S):
                raise Failed(f"the sandbox was not ready within {READY_WITHIN_S} s")
        line = self.process.stdout.readline()
        if not line:
            said = (self.folder / "sandbox.log").read_text().strip().removeprefix("error: ")
            raise Failed(f"the sandbox did not start: {said or 'it says nothing'}")
        return json.loads(line)

    @property
    def certificate_authority(self):
        return self.config.parent / "ca.pem"

    def env_file(self, environment):
        return self.config.parent / f"agents/{environment}/.config/mindwell/{environment}.env"

    def state(self, environment):
        """What every system of an environment holds, with passwords."""
        return self._ask("state")[environment]

    def requests(self, after=0):
        """Every request so far, or since one of them."""
        return self._ask(f"requests?after={after}")

    def pace(self):
        """How long the vendors let everybody wait, and how long each start of an application took by itself."""
        return self._ask("pace")

    def set(self, system, environment, what, value):
        """Puts a system into another state, as somebody else would."""
        self._ask("set", {"system": system, "environment": environment, "what": what, "value": value})

    def fault(self, **fault):
        """Spoils requests to come."""
        self._ask("faults", fault)

    def no_faults(self):
        """Ends what spoils requests, and lets those go on that are held."""
        self._ask("faults", method="DELETE")

    def _ask(self, what, body=None, method=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.control}/_sandbox/{what}", data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise Failed(f"the sandbox refuses {what}: {error.read().decode()}") from None
        except OSError as error:
            raise Failed(f"the sandbox does not answer {what}: {error}") from None
        return json.loads(text) if text else None
