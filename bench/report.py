# SPDX-License-Identifier: MIT
"""What bench/run has measured: tables, a chart for a terminal, and a picture."""
import math
from xml.sax.saxutils import escape

# class: (title, times TCG's speed that is the least wanted, and the aim; umbra/native that is the aim)
CLASSES = {"integer": ("integer and memory", 3, 4.5, 1.25), "float": ("floating point and SIMD", 15, 28, 1.25),
           "system": ("system", 2, 6, None)}
BOOT = (0.6, 0.25)  # of TCG's time
COLD_INSNS, COLD = 4000 * 8, "coldcode"  # what it executes that is new; bench/guest/coldcode.c
COLD_MOST = 1000  # ns
MEMORY_MOST = 128  # MiB


def geomean(v):
    return math.exp(sum(map(math.log, v)) / len(v)) if v else math.nan


def names_of(result, cls):
    return [n for n, row in result["machines"]["native"].items() if row[0] == cls]


def ms(result, machine, name):
    rows = result["machines"].get(machine, {})
    return rows[name][1] / 1e6 if name in rows else math.nan


def slower(result, machine, name):
    """Times native's."""
    return ms(result, machine, name) / ms(result, "native", name)


def gain(result, name):
    return ms(result, "tcg", name) / ms(result, "umbra", name)


def verdict(value, least, aim):
    better = (lambda a, b: a <= b) if aim < least else (lambda a, b: a >= b)
    return "goal reached" if better(value, aim) else "floor passed" if better(value, least) else "below the floor"


def summary(result):
    """{class: (umbra/native, tcg/native, tcg/umbra, the worst program, its tcg/umbra)}"""
    out = {}
    for cls in CLASSES:
        names = names_of(result, cls)
        if names:
            worst = min(names, key=lambda n: gain(result, n))
            out[cls] = (geomean([slower(result, "umbra", n) for n in names]),
                        geomean([slower(result, "tcg", n) for n in names]),
                        geomean([gain(result, n) for n in names]), worst, gain(result, worst))
    return out


def show(value, width, digits=2, unit=""):
    return " " * (width - 1) + "-" if math.isnan(value) else f"{value:{width - len(unit)}.{digits}f}{unit}"


def table(result):
    print(f"{'program':12s} {'native ms':>10s} {'tcg ms':>10s} {'umbra ms':>10s} {'tcg/native':>11s}"
          f" {'umbra/native':>13s} {'tcg/umbra':>10s}")
    for n in result["machines"]["native"]:
        print(f"{n:12s} {show(ms(result, 'native', n), 10)} {show(ms(result, 'tcg', n), 10)}"
              f" {show(ms(result, 'umbra', n), 10)} {show(slower(result, 'tcg', n), 11, 1, 'x')}"
              f" {show(slower(result, 'umbra', n), 13, 2, 'x')} {show(gain(result, n), 10, 2, 'x')}")
    print()
    print(f"{'geometric mean':26s} {'tcg/native':>11s} {'umbra/native':>13s} {'tcg/umbra':>10s}   wanted: floor, goal")
    for cls, (umbra, tcg, both, worst, worst_gain) in summary(result).items():
        title, least, aim, _ = CLASSES[cls]
        print(f"{title:26s} {show(tcg, 11, 1, 'x')} {show(umbra, 13, 2, 'x')} {show(both, 10, 2, 'x')}   {least}x, {aim}x"
              + (f": {verdict(both, least, aim)}; the worst is {worst}, {worst_gain:.2f}x" if "tcg" in result["machines"] else ""))
    b = result["boot"]
    line = f"boot to init: umbra {b['umbra']:.2f} s"
    if "tcg" in b:
        ratio = b["umbra"] / b["tcg"]
        line += f", tcg {b['tcg']:.2f} s: {ratio:.2f}x the time (wanted: {BOOT[0]}x, {BOOT[1]}x: {verdict(ratio, *BOOT)})"
    print(line)
    cold = {m: result["machines"][m][COLD][1] / COLD_INSNS for m in result["machines"] if COLD in result["machines"][m]}
    if cold:
        print("new code, executed twenty times: ns an instruction of it: "
              + ", ".join(f"{m} {ns:.0f}" for m, ns in cold.items()) + f" (wanted: at most {COLD_MOST})")
    if result["engine"] == "interp":  # translated code doesn't count its instructions
        print(f"integer code with paging on: {result['mips']:.0f} million instructions a second")
    print(f"memory of a {result['vm']} MiB VM: {result['memory'][0]:.0f} MiB touched by the guest, "
          f"{result['memory'][1]:.0f} MiB beyond (wanted: at most {MEMORY_MOST})")
    print("a guest's clock, by the host's: " + ", ".join(f"{m} {c:.3f}" for m, c in result["clock"].items()))


def groups(result):
    """(title, [(name, tcg/native, umbra/native)], the mean's row) for each class."""
    for cls, (umbra, tcg, _, _, _) in summary(result).items():
        rows = [(n, slower(result, "tcg", n), slower(result, "umbra", n)) for n in names_of(result, cls)]
        yield CLASSES[cls][0], rows, ("geometric mean", tcg, umbra)


def chart(result, width=60):
    """Bars on a terminal: how many times slower than native, on a logarithmic scale."""
    rows = [r for _, rows, mean in groups(result) for r in rows + [mean]]
    top = max(v for r in rows for v in r[1:] if not math.isnan(v))

    def bar(value, color):
        if math.isnan(value):
            return ""
        length = max(1, round(width * math.log(max(value, 1.02)) / math.log(top)))
        return f"\033[{color}m" + "━" * length + f"\033[0m {value:.1f}"

    print("\ntimes native's time (logarithmic): \033[36m━ umbra\033[0m  \033[90m━ QEMU TCG\033[0m")
    for title, rows, mean in groups(result):
        print(f"\033[1m{title}\033[0m")
        for name, tcg, umbra in rows + [mean]:
            print(f"{name:>15s} {bar(umbra, '36')}")
            if not math.isnan(tcg):
                print(f"{'':15s} {bar(tcg, '90')}")


# The picture's measures, in pixels.
LEFT, RIGHT, PLOT, ROW, HEAD = 190, 70, 560, 19, 74
STYLE = """text{font:12px system-ui,Helvetica,Arial,sans-serif;fill:#333}
.t{font-size:16px;font-weight:600;fill:#111}.h{font-weight:600;fill:#111}.s{fill:#666}.r{text-anchor:end}
.m{text-anchor:middle}.w{fill:#b00020}.b{font-weight:600}"""
UMBRA, TCG = "#0b6fa4", "#c8641f"


def picture(result, path):
    """A row a program: where umbra and TCG are on a logarithmic axis of native's time; at the right, the gain."""
    parts, y = [], HEAD
    values = [v for _, rows, mean in groups(result) for r in rows for v in r[1:] if not math.isnan(v)]
    low = min([0.9] + [v * 0.95 for v in values])
    high = max(values) * 1.15

    def x(value):
        return LEFT + PLOT * math.log(value / low) / math.log(high / low)

    def text(at, down, words, style=""):
        parts.append(f'<text x="{at:.1f}" y="{down:.1f}" class="{style}">{escape(words)}</text>')

    def dot(value, down, color, big):
        if not math.isnan(value):
            parts.append(f'<circle cx="{x(value):.1f}" cy="{down:.1f}" r="{6 if big else 4.5}" fill="{color}"/>')

    text(LEFT, 24, "Time against native: umbra and QEMU TCG", "t")
    parts.append(f'<circle cx="{LEFT + 6}" cy="41" r="4.5" fill="{UMBRA}"/>'
                 f'<circle cx="{LEFT + 86}" cy="41" r="4.5" fill="{TCG}"/>')
    text(LEFT + 16, 45, "umbra")
    text(LEFT + 96, 45, "TCG (-cpu max); left is better, the axis is logarithmic; at the right, TCG's time by umbra's")
    for title, rows, mean in groups(result):
        text(LEFT - 10, y + 12, title, "h r")
        y += ROW
        for name, tcg, umbra in rows + [mean]:
            big = name == mean[0]
            middle = y + ROW / 2
            text(LEFT - 10, middle + 4, name, "r b" if big else "r")
            if not math.isnan(tcg):
                parts.append(f'<line x1="{x(umbra):.1f}" x2="{x(tcg):.1f}" y1="{middle}" y2="{middle}" '
                             f'stroke="#bbb" stroke-width="{4 if big else 2}"/>')
                text(LEFT + PLOT + 14, middle + 4, f"{tcg / umbra:.1f}x", ("b " if big else "") + ("w" if umbra > tcg else ""))
            dot(tcg, middle, TCG, big)
            dot(umbra, middle, UMBRA, big)
            y += ROW
        y += 10
    grid = []
    for tick in (1, 2, 5, 10, 20, 50, 100, 200):
        if low <= tick <= high:
            grid.append(f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{HEAD - 6}" y2="{y}" '
                        f'stroke="{"#888" if tick == 1 else "#e4e4e4"}"/>')
            text(x(tick), y + 16, "native" if tick == 1 else f"{tick}x", "m s")
    b = result["boot"]
    if "tcg" in b:
        text(LEFT, y + 38, f"Debian's cloud kernel to init: umbra {b['umbra']:.1f} s, TCG {b['tcg']:.1f} s")
    width, height = LEFT + PLOT + RIGHT, y + 52
    with open(path, "w", encoding="utf-8") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0f}" '
                f'viewBox="0 0 {width} {height:.0f}">\n<style>{STYLE}</style>\n'
                f'<rect width="{width}" height="{height:.0f}" fill="#fff"/>\n' + "\n".join(grid + parts) + "\n</svg>\n")
