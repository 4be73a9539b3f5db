"""One finished call of a program, as the kernel counted it: neither the sandbox nor this script is in it.

Time and memory are of the program with everything that it started and waited for (wait4). The memory is that of the
largest process; of the program itself the kernel is asked while it runs.
"""

import os
import sys
import threading
import time
from pathlib import Path

# The judge's modules: the sandbox and the vendors' tools are the same, but what is measured is the release build.
os.environ.setdefault("PGROTATE_PROFILE", "release")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "fidelity"))

# How often a program is asked for its own memory. Reading one small file costs it nothing.
LOOK_S = 0.05


class Measured:
    """A call that has ended well; any other ends the benchmark."""

    def __init__(self, arguments, environment, output):
        arguments = [str(argument) for argument in arguments]
        self.began_at, began = time.time(), time.monotonic()
        with open(output, "wb") as out, open(os.devnull, "rb") as nothing:
            copies = [(os.POSIX_SPAWN_DUP2, source.fileno(), target)
                      for source, target in [(nothing, 0), (out, 1), (out, 2)]]
            pid = os.posix_spawnp(arguments[0], arguments, environment, file_actions=copies)
            ended, look = threading.Event(), threading.Thread(target=self._look, args=[pid], daemon=True)
            self.own_memory, self.own_cpu, self._ended = 0.0, 0.0, ended
            look.start()
            _, status, usage = os.wait4(pid, 0)
        self.wall = time.monotonic() - began
        ended.set()
        look.join()
        self.cpu = usage.ru_utime + usage.ru_stime
        self.memory = usage.ru_maxrss / 1024
        self.output = Path(output).read_text(errors="replace")
        if os.waitstatus_to_exitcode(status) != 0:
            raise Broken(f"{Path(arguments[0]).name} {' '.join(arguments[1:3])} failed:\n{self.output[-3000:]}")

    def _look(self, pid):
        """The most memory that the program itself had, and its CPU time up to the last look, without its children."""
        while not self._ended.wait(LOOK_S):
            try:
                status, stat = (Path(f"/proc/{pid}/{name}").read_text() for name in ("status", "stat"))
            except OSError:
                return
            peak = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
            self.own_memory = max([self.own_memory, *(int(kilobytes) / 1024 for kilobytes in peak)])
            user, system = stat.rpartition(") ")[2].split()[11:13]
            self.own_cpu = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class Broken(Exception):
    """A call that had to end well and has not."""
