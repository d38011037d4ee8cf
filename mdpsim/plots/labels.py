r"""What figures and reports write: nice names of axes and columns, and numbers with the digits they deserve.

Pure text: nothing here imports matplotlib, so the command line and the report may use it at no cost. Numbers come in
three scripts: ``text`` (a terminal, a citation: ASCII), ``html`` (U+2212, superscripts) and ``latex`` (also mathtext).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from mdpsim.arrays import unknown
from mdpsim.claims.claim import DEVICE_AXES, Point

SCRIPTS = ("text", "html", "latex")
MISSING = {"text": "-", "html": "–", "latex": "--"}
_INFINITY = {"text": "inf", "html": "∞", "latex": r"$\infty$"}

# name -> (words, symbol); the symbols are those of the papers, fixed in the design's table of names
_NAMES = {
    "n_demos": ("demonstrations", "N"),
    "n_pairs": ("preference pairs", "n"),
    "n_episodes": ("episodes", "T"),
    "n_samples": ("samples", "n"),
    "n_steps": ("steps", "t"),
    "H": ("horizon", "H"),
    "S": ("states", "S"),
    "A": ("actions", "A"),
    "d": ("dimension", "d"),
    "X": ("prompts", "X"),
    "Y": ("responses", "Y"),
    "beta": ("KL weight", r"\beta"),
    "alpha": ("optimism", r"\alpha"),
    "gamma": ("discount", r"\gamma"),
    "delta": ("confidence", r"\delta"),
    "eps": ("accuracy", r"\varepsilon"),
    "kappa": ("ridge", r"\kappa"),
}
_OWNERS = {"paper": "paper’s", "author": "author’s", "authors": "authors’"}
_COLUMNS = {"kl": "KL divergence", "value": "measured value", "win_rate": "win rate", "J": "return $J$"}


def axis_label(name: str) -> str:
    """Label of an axis: ``n_demos`` -> "demonstrations $N$"; unknown names with blanks for underscores."""
    if name in _NAMES:
        words, symbol = _NAMES[name]
        return f"{words} ${symbol}$"
    return _plain_words(name.removeprefix("n_"))


def column_label(name: str) -> str:
    """Label of a measured column: ``paper_bound`` -> "paper’s bound"."""
    if name in _COLUMNS:
        return _COLUMNS[name]
    owner, _, rest = name.partition("_")
    if owner in _OWNERS and rest:
        return f"{_OWNERS[owner]} {_plain_words(rest)}"
    return _plain_words(name)


def point_label(point: Point, names: Iterable[str] | None = None) -> str:
    r"""A point in a figure: ``garnet, uniform expert, $H$ = 5``; a family stands alone, numbers get their symbol."""
    parts = []
    for name in point if names is None else names:
        if name not in point:
            continue
        value = point[name]
        if isinstance(value, str):
            parts.append(_plain_words(value if name in ("family", "instance") else f"{value} {name}"))
        else:
            symbol = f"${_NAMES[name][1]}$" if name in _NAMES else _plain_words(name)
            parts.append(f"{symbol} = {format_number(value, script='latex')}")
    return ", ".join(parts)


def varying(points: Sequence[Point]) -> list[str]:
    """Names of the axes on which the points differ, family and words before numbers: what a label must say."""
    names = list(dict.fromkeys(name for p in points for name in p))
    differ = [n for n in names if len({str(p.get(n)) for p in points}) > 1]
    return sorted(differ, key=lambda n: (n != "family", not any(isinstance(p.get(n), str) for p in points)))


def telling(points: Sequence[Point]) -> list[str]:
    """Names of the axes that labels say: those on which the points differ; of a lone point all but device and precision."""
    return varying(points) or [name for p in points[:1] for name in p if name not in DEVICE_AXES]


def format_number(x: float | None, digits: int = 3, *, script: str = "text") -> str:
    """A number at 3 significant digits: 0.0123, 412, 3.1e-16; integers below a million in full.

    Args:
        x: None and NaN are written as a dash, infinities as a sign.
        digits: significant digits.
        script: "text", "html" or "latex" (numbers between dollar signs).
    """
    _check(script)
    if x is None or math.isnan(x):
        return MISSING[script]
    if math.isinf(x):
        return _signed(_INFINITY[script], x < 0, script)
    if x == 0:
        return _signed("0", False, script)
    if float(x).is_integer() and abs(x) < 1e6:
        return _signed(str(abs(int(x))), x < 0, script)
    if 1e-3 <= abs(x) < 1e5 and float(f"{x:.{digits - 1}g}") == x:  # a round number, as a margin of 0.05: no zeros
        return _signed(f"{abs(x):.{digits - 1}g}", x < 0, script)
    magnitude = math.floor(math.log10(abs(float(f"{x:.{digits - 1}e}"))))
    if -3 <= magnitude < 5:
        return _signed(f"{abs(x):.{max(digits - 1 - magnitude, 0)}f}", x < 0, script)
    shown = 1 if float(f"{x:.1e}") == x else digits - 1
    mantissa, exponent = f"{abs(x):.{shown}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if shown == 1 else mantissa
    return _signed(_power(mantissa, int(exponent), script), x < 0, script)


def format_interval(interval: tuple[float, float], digits: int = 3, *, script: str = "text") -> str:
    """An interval: "[0.958, 1.004]" with equal decimals; a side left open reads "at least" or "at most"."""
    low, high = interval
    _check(script)
    if math.isnan(low) or math.isnan(high):
        return MISSING[script]
    if math.isinf(low) and low < 0:
        return "unbounded" if math.isinf(high) and high > 0 else f"at most {format_number(high, digits, script=script)}"
    if math.isinf(high) and high > 0:
        return f"at least {format_number(low, digits, script=script)}"
    return f"[{', '.join(_aligned((low, high), digits, script))}]"


def format_estimate(estimate: float, interval: tuple[float, float], *, script: str = "text") -> str:
    """An estimate and its interval with equal decimals; an exact number (interval of no width) stands alone."""
    low, high = interval
    if low == high == estimate or math.isnan(estimate):
        return format_number(estimate, script=script)
    if all(map(math.isfinite, (estimate, low, high))):
        value, low_text, high_text = _aligned((estimate, low, high), 3, script)
        return f"{value} [{low_text}, {high_text}]"
    return f"{format_number(estimate, script=script)} ({format_interval(interval, script=script)})"


def _aligned(values: Sequence[float], digits: int, script: str) -> list[str]:
    """Numbers at a common number of decimals, enough for two digits of their spread; else each on its own."""
    top, spread = max(map(abs, values)), max(values) - min(values)
    fixed = top == 0 or 1e-3 <= top < 1e5
    if not fixed or spread == 0 or spread < top * 1e-6 or not math.isfinite(top):
        return [format_number(v, digits, script=script) for v in values]
    decimals = max(digits - 1 - math.floor(math.log10(top)), 1 - math.floor(math.log10(spread)), 0)
    return [_signed(f"{abs(v):.{decimals}f}", round(v, decimals) < 0, script) for v in values]


def _signed(text: str, negative: bool, script: str) -> str:
    """The number with its minus in the script's own sign."""
    if script == "latex":
        return f"$-{text.strip('$')}$" if negative else (text if text.startswith("$") else f"${text}$")
    return ({"text": "-", "html": "−"}[script] if negative else "") + text


def _power(mantissa: str, exponent: int, script: str) -> str:
    """m times ten to the exponent."""
    if script == "text":
        return f"{mantissa}e{exponent:+03d}"
    if script == "latex":
        return rf"10^{{{exponent}}}" if mantissa == "1" else rf"{mantissa} \times 10^{{{exponent}}}"
    times = "" if mantissa == "1" else f"{mantissa} × "
    return f"{times}10<sup>{'−' if exponent < 0 else ''}{abs(exponent)}</sup>"


def _plain_words(name: str) -> str:
    """Blanks for underscores, and no dollar that mathtext would read."""
    return name.replace("_", " ").replace("$", r"\$")


def _check(script: str) -> None:
    if script not in SCRIPTS:
        unknown("format_number", "script", script, SCRIPTS)
