"""Failed requests over time, one band for each way of rotating, as an SVG that needs no library and no font of its own.

Each round is a line over the same seconds, counted from the tool's beginning. Text and lines take the colours of the
page where it says whether it is light or dark, and are readable on both where it says nothing.
"""

WIDTH, BAND, LEFT, RIGHT, TOP, BOTTOM = 860, 96, 70, 20, 46, 40
# What a band shows at one moment: failed requests in half a second.
STEP_S = 0.5

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #57606a; }
  .title { font-size: 15px; font-weight: 600; }
  .axis { stroke: #8c959f; stroke-width: 1; }
  .grid { stroke: #8c959f; stroke-width: 1; opacity: .25; }
  .round { fill: #cf222e; fill-opacity: .3; stroke: #cf222e; stroke-width: 1.2; }
  .run { stroke: #0969da; stroke-width: 3; opacity: .55; }
  @media (prefers-color-scheme: dark) {
    text { fill: #b1bac4; } .round { fill: #ff7b72; stroke: #ff7b72; } .run { stroke: #79c0ff; }
  }
"""


def chart(rounds, title):
    """An SVG of these rounds, in the order of their ways."""
    ways = list(dict.fromkeys(one.way.name for one in rounds))
    failures = {id(one): per_step(one) for one in rounds}
    longest = max(one.load["seconds"] - one.offset for one in rounds)
    most = max([1, *(count for counts in failures.values() for count in counts.values())])
    across = lambda seconds: LEFT + (seconds + 1) / (longest + 1) * (WIDTH - LEFT - RIGHT)
    height = TOP + len(ways) * BAND + BOTTOM
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">',
             f"<style>{STYLE}</style>", f'<text class="title" x="{LEFT}" y="20">{title}</text>']
    for number, way in enumerate(ways):
        own = [one for one in rounds if one.way.name == way]
        parts += band(own, failures, most, across, TOP + number * BAND)
    parts += seconds_axis(longest, across, TOP + len(ways) * BAND)
    return "\n".join([*parts, "</svg>", ""])


def band(own, failures, most, across, top):
    """One way: its name, how many failed, a filled line per round, and how long its tool worked."""
    ground = top + BAND - 22
    high = lambda count: ground - count / most * (BAND - 46)
    total = sum(one.load["failed"] for one in own)
    sent = sum(one.load["sent"] for one in own)
    over = "one round" if len(own) == 1 else f"{len(own)} rounds"
    yield f'<text x="{LEFT}" y="{top + 14}">{own[0].way.name}: {total:,} of {sent:,} requests failed in {over}</text>'
    yield f'<line class="axis" x1="{LEFT}" y1="{ground}" x2="{WIDTH - RIGHT}" y2="{ground}"/>'
    top_line = f"{high(most):.1f}"
    yield f'<line class="grid" x1="{LEFT}" y1="{top_line}" x2="{WIDTH - RIGHT}" y2="{top_line}"/>'
    yield f'<text x="{LEFT - 8}" y="{high(most) + 4:.1f}" text-anchor="end">{most / STEP_S:.0f}/s</text>'
    for one in own:
        points = [(second, count) for second, count in sorted(failures[id(one)].items())]
        yield outline(points, across, high, ground)
        yield f'<line class="run" x1="{across(0):.1f}" y1="{ground + 4}" x2="{across(one.wall):.1f}" y2="{ground + 4}"/>'


def outline(points, across, high, ground):
    if not points:
        return ""
    line = [f"{across(second):.1f},{high(count):.1f}" for second, count in points]
    begin, end = (f"{across(second):.1f},{ground}" for second in (points[0][0], points[-1][0]))
    return f'<polygon class="round" points="{begin} {" ".join(line)} {end}"/>'


def per_step(one):
    """Failed requests by the step, in seconds from the tool's beginning, with the zeros beside each."""
    counts = {}
    for tenth, count in enumerate(one.load["failed_per_100ms"]):
        step = round((tenth / 10 - one.offset) // STEP_S * STEP_S, 1)
        counts[step] = counts.get(step, 0) + count
    near = {step for step, count in counts.items() if count}
    beside = near | {step + STEP_S for step in near} | {step - STEP_S for step in near}
    return {step: counts.get(step, 0) for step in beside}


def seconds_axis(longest, across, top):
    every = 10 if longest > 30 else 2
    for second in range(0, int(longest) + 1, every):
        yield f'<text x="{across(second):.1f}" y="{top + 14}" text-anchor="middle">{second} s</text>'
    yield (f'<text x="{WIDTH - RIGHT}" y="{top + 32}" text-anchor="end">'
           "seconds from the beginning; the blue line is how long the tool worked</text>")
