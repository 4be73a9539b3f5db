"""The tables of the comparison, as text and as Markdown, and whether each target is met."""

import statistics

from limit import limit_of
from rounds import ENVIRONMENT, moment

# A rotation's own cost of time and CPU against the hand's at instant latency, and its time at typical latency.
LESS_AT_INSTANT = 20
FASTER_AT_TYPICAL = 3
NEAR_LIMIT = 1.05
NEAR_WINDOW = 1.10


def median(values):
    return statistics.median(values)


def start_of(round_):
    """How long the application's process took to take requests, after the vendor's wait."""
    starts = round_.pace["starts"][ENVIRONMENT]
    own = [start for start in starts if start["ready"] and moment(start["began"]) >= round_.began]
    return min((moment(start["ready"]) - moment(start["began"]) for start in own), default=0.0)


def limit(round_):
    return limit_of(round_.requests, round_.pace, start_of(round_))


def unavoidable_window(round_):
    """The settings' write and the application's start: what a password in one role costs at least."""
    return (round_.pace["request_ms"] + round_.pace["app_start_ms"]) / 1000 + start_of(round_)


def started_by_itself(round_):
    """Seconds that the application's own starts took while the tool worked."""
    starts = [(moment(start["began"]), moment(start["over"])) for start in round_.pace["starts"][ENVIRONMENT]]
    ended = round_.began + round_.wall
    return sum(min(over, ended) - began for began, over in starts if round_.began <= began < ended)


def own_pause(round_):
    """The longest time between two questions about the server's operation: az's own pause of half a minute."""
    asked = [moment(one["time"]) for one in round_.requests
             if "azureasyncoperation" in one["path"].lower()
             or (one["method"] == "PATCH" and "/flexibleservers/" in one["path"].lower())]
    return max((after - before for before, after in zip(asked, asked[1:])), default=0.0)


ROWS = [
    ("wall time", "s", lambda one: one.wall, 2),
    ("of it the application's own start", "s", started_by_itself, 2),
    ("CPU time, with what it starts", "s", lambda one: one.cpu, 2),
    ("CPU time of the program alone", "s", lambda one: one.own_cpu, 2),
    ("peak memory", "MB", lambda one: one.memory, 0),
    ("without a login", "s", lambda one: one.window, 2),
    ("failed requests", "", lambda one: one.load["failed"], 0),
    ("of requests to the application", "", lambda one: one.load["sent"], 0),
    ("requests to the vendors", "", lambda one: len(one.requests), 0),
]


def table(rounds, programs):
    """A row for each figure: its median in each way, and how many times as much the hand needs."""
    ways = list(dict.fromkeys(one.way.name for one in rounds))
    lines = [["", *ways]]
    for name, unit, value, digits in ROWS:
        medians = {way: median([value(one) for one in rounds if one.way.name == way]) for way in ways}
        lines.append([name, *(shown(medians[way], unit, digits, medians[ways[0]] if way != ways[0] else None)
                              for way in ways)])
    if programs:
        counts = [programs.get(way, 0) for way in ways]
        lines.append(["programs started", *(shown(count, "", 0, counts[0] if index else None)
                                            for index, count in enumerate(counts))])
    return lines


def shown(value, unit, digits, hand):
    # Of a shell there is nothing to tell: it is what it starts.
    text = f"{value:.{digits}f} {unit}".strip() if value or not digits else ""
    if hand is None or not value or not hand:
        return text
    ratio = hand / value
    return f"{text} ({ratio:.1f} ×)" if ratio < 10 else f"{text} ({ratio:.0f} ×)"


def markdown(lines):
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([rows[0], "| --- |" + " ---: |" * (len(lines[0]) - 1), *rows[1:]])


def text(lines):
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.rjust(width) if column else cell.ljust(width)
                               for column, (cell, width) in enumerate(zip(line, widths))) for line in lines)


def spread(values):
    return f"{min(values):.2f} to {max(values):.2f}"


def judge(name, value, target, met):
    print(f"{'met' if met else 'not met':<8} {name}: {value}, target {target}")


def judge_targets(rounds):
    """Each target of the comparison, by medians."""
    for latency, own in rounds.items():
        by_way = {}
        for one in own:
            by_way.setdefault(one.way.name, []).append(one)
        (_, hand), *others = by_way.items()
        wall, cpu = (median([getattr(one, what) for one in hand]) for what in ("wall", "cpu"))
        for way, ours in others:
            judge_way(latency, way, ours, wall, cpu)
            if ours[0].way.lossless_of and latency == "typical":
                judge_loss(f"{way}, {latency}", ours)


def judge_loss(subject, ours):
    """No request may fail, of so many, with a login of its own for one in ten at least."""
    failed, sent, fresh = (sum(one.load[what] for one in ours) for what in ("failed", "sent", "fresh"))
    least = ours[0].way.lossless_of
    judge(f"{subject}: requests that failed", f"{failed} of {sent}, {fresh} of them with a fresh login",
          f"0 of at least {least}", failed == 0 and sent >= least and fresh * 10 >= sent)


def judge_way(latency, way, ours, wall, cpu):
    subject = f"{way}, {latency}"
    faster = wall / median([one.wall for one in ours])
    if latency == "instant":
        less = cpu / median([one.cpu for one in ours])
        judge(f"{subject}: less wall time than by hand", f"{faster:.1f} ×", f"{LESS_AT_INSTANT} ×", faster >= LESS_AT_INSTANT)
        judge(f"{subject}: less CPU than by hand", f"{less:.1f} ×", f"{LESS_AT_INSTANT} ×", less >= LESS_AT_INSTANT)
        return
    near = median([one.wall / limit(one).seconds for one in ours])
    judge(f"{subject}: faster than by hand", f"{faster:.1f} ×", f"{FASTER_AT_TYPICAL} ×", faster >= FASTER_AT_TYPICAL)
    judge(f"{subject}: wall time to the limit", f"{near:.2f} ×", f"at most {NEAR_LIMIT} ×", near <= NEAR_LIMIT)
    if ours[0].way.lossless_of:
        return
    window = median([one.window / unavoidable_window(one) for one in ours])
    judge(f"{subject}: window to settings write + application start", f"{window:.2f} ×", f"at most {NEAR_WINDOW:.2f} ×",
          window <= NEAR_WINDOW)


def show_limits(rounds):
    """The limit of each of our ways, with the chain that makes it."""
    for way in dict.fromkeys(one.way.name for one in rounds if not one.way.by_hand):
        own = [one for one in rounds if one.way.name == way]
        limits = [limit(one) for one in own]
        times = [one.wall / bound.seconds for one, bound in zip(own, limits)]
        print(f"\nlimit of {way}: {median([bound.injected for bound in limits]):.2f} s by the vendors' waits, "
              f"{median([bound.seconds for bound in limits]):.2f} s with the application's own start; "
              f"we take {median(times):.2f} × as long ({spread(times)})")
        print(f"  {' → '.join(limits[0].chain)}")


def show_parts(rounds):
    """Where the time of a round goes, by the tool's own words: the round in the middle of each way."""
    for way in dict.fromkeys(one.way.name for one in rounds):
        own = sorted((one for one in rounds if one.way.name == way), key=lambda one: one.wall)
        middle = own[len(own) // 2]
        print(f"\n{way}: {middle.wall:.2f} s (of all: {spread([one.wall for one in own])})")
        for name, began, ended in middle.steps:
            if ended - began >= 0.02 * middle.wall:
                print(f"  {began:7.2f} to {ended:7.2f}  {ended - began:6.2f} s  {name}")
        if middle.way.by_hand:
            pauses = [own_pause(one) for one in own]
            print(f"  az's pause between two questions about the server's operation: {spread(pauses)} s; without it "
                  f"{median([one.wall - pause for one, pause in zip(own, pauses)]):.2f} s")
