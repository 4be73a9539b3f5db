"""Many environments in one process (crates/sim/benches/fleet.rs): what they cost us over providers that answer at once,
and how long the vendors' documented limits make them take, in virtual time.
"""

import json
import math
import os
import statistics
import subprocess
import time

from measured import Broken

from sandbox import ROOT
from single import row


def measure(sizes=(1, 10, 100, 1_000, 10_000), at_once=64):
    """The figures, each process of its own."""
    built = subprocess.run(
        ["cargo", "bench", "-q", "--workspace", "--locked", "--bench", "fleet", "--no-run", "--message-format=json"],
        cwd=ROOT, stdout=subprocess.PIPE, check=True)
    artifacts = [json.loads(line) for line in built.stdout.splitlines()]
    program = next(own["executable"] for own in artifacts if own.get("executable") and own["target"]["name"] == "fleet")

    def one(*arguments):
        """What a process of its own says, and what the kernel counted for it."""
        said, says = os.pipe()
        began = time.monotonic()
        pid = os.posix_spawn(program, ["fleet", *map(str, arguments)], {"PATH": os.environ["PATH"]},
                             file_actions=[(os.POSIX_SPAWN_DUP2, says, 1)])
        os.close(says)
        with open(said, encoding="utf-8") as answer:
            text = answer.read()
        _, status, usage = os.wait4(pid, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            raise Broken(f"fleet {arguments} failed")
        return json.loads(text) | {"wall": time.monotonic() - began, "cpu": usage.ru_utime + usage.ru_stime}

    def duration(seconds):
        return f"{seconds:.1f} s" if seconds < 600 else f"{seconds / 3600:.2f} h"

    print(f"\na fleet over providers that answer at once, {at_once} at once (load average {os.getloadavg()[0]:.1f})\n")
    print(f"{'environments':>12} {'wall':>9} {'CPU':>9} {'wall each':>10} {'CPU each':>10} {'memory':>10} {'requests':>9} {'violations':>10}")
    own = [one("own", size, at_once) for size in sizes]
    for run in own:
        number = run["environments"]
        print(f"{number:>12} {run['wall']:>7.2f} s {run['cpu']:>7.2f} s {run['wall'] / number * 1000:>7.2f} ms "
              f"{run['cpu'] / number * 1000:>7.2f} ms {run['peak_kb'] / 1024:>7.1f} MB {run['requests']:>9} {run['violations']:>10}")
    fitted = [(math.log(run["environments"]), math.log(run["cpu"])) for run in own if run["environments"] >= 10]
    middle_n, middle_cpu = (statistics.mean(side) for side in zip(*fitted))
    exponent = (sum((n - middle_n) * (cpu - middle_cpu) for n, cpu in fitted)
                / sum((n - middle_n) ** 2 for n, _ in fitted))
    print()
    row(f"exponent of CPU over environments, 10 to {sizes[-1]:,}", f"{exponent:.3f}", "at most 1.05")
    row(f"peak memory of {sizes[-1]:,} environments", f"{own[-1]['peak_kb'] / 1024:.1f} MB", "under 200 MB")

    limited = []
    for shape, words in (("own", "a subscription each"), ("one", "one subscription for all")):
        print(f"\na fleet under the vendors' limits, in virtual time, {at_once} at once: {words}\n")
        print(f"{'environments':>12} {'took':>10} {'possible in':>12} {'times':>7} {'N x requests / rate':>20} {'longest run':>12}  the limit that counts")
        for size in sizes:
            run = one("limits", size, at_once, shape)
            limited.append(run)
            # Within what comes at once anyway, a fleet takes as long as its members do.
            times = f"{run['took_s'] / run['shortest_s']:.3f}" if run["shortest_s"] else "-"
            print(f"{size:>12} {duration(run['took_s']):>10} {duration(run['shortest_s']):>12} {times:>7} "
                  f"{duration(run['quotient_s']):>20} {duration(run['longest_run_s']):>12}  {run['limit']}")
    print()
    row("requests that were more than a vendor documents", sum(run["violations"] for run in own + limited), "none")
