"""The report: one self-contained page, figures, tables; and the sentence by which one claim is cited.

Everything is made from (claim, records, verdict) and a context given by the caller. No clock and no network is read, so
the same entries and context give the same bytes. The page needs no script: mathematics is MathML, figures are embedded.
"""

from __future__ import annotations

import base64
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from mdpsim.arrays import as_path
from mdpsim.atomic import replacing, write_text
from mdpsim.claims.claim import Claim, Paper
from mdpsim.claims.device import depends_on_device, devices_of
from mdpsim.claims.rules import LEVEL, HighProb, Identity, Inequality, Limit, Mean, Order, Rate
from mdpsim.mathml import minus, typeset
from mdpsim.plots.labels import axis_label, column_label, format_estimate, format_interval, format_number
from mdpsim.verdict.records import INCONCLUSIVE, REFUTED, REJECTED, SUPPORTED, Records, Verdict
from mdpsim.verdict.stats import holm

__all__ = ["citation", "format_interval", "format_number", "sidecar", "verdict_rows", "write_report"]

Entry = tuple[Claim, Records, Verdict]
STATUSES = (SUPPORTED, REFUTED, INCONCLUSIVE)

ORIGINS = {
    "paper": "the paper’s statement, checked against its text",
    "as-transcribed": "the paper’s statement as transcribed, not checked against its text",
    "derived": "derived by the authors of the claim; the derivation stands in the docstring of its module",
    "observed": "observed: a measured fact about the instances named, without a derivation",
    "folklore": "folklore: known in the field, without a single source",
}
_NOUNS = {
    "identity": "largest gap", "inequality": "closest value", "mean": "mean", "rate": "slope", "high_prob": "quantile",
    "order": "mean difference", "limit": "mean", "law": "Kolmogorov distance",
}
_BOUNDS = {
    "identity": "tolerance", "inequality": "bound", "mean": "bound", "rate": "reference slope", "high_prob": "bound",
    "order": "margin", "limit": "limit", "law": "margin",
}


# --- the sentence to quote -------------------------------------------------------------------------------------------


def citation(claim: Claim, verdict: Verdict) -> str:
    """The sentence to quote: what was found, with numbers, sample, origin and version; plain text."""
    noun, bound = _NOUNS[claim.rule.name], _BOUNDS[claim.rule.name]
    estimate = format_estimate(verdict.estimate, verdict.interval)
    found = f"{noun} {estimate} against {bound} {format_number(verdict.bound)}"
    if (n := len(verdict.points)) > 1:
        found = f"worst of {n} {'lines' if isinstance(claim.rule, Rate) else 'points'}: {found}"
    where = "; ".join(map(str, claim.cites))
    return (
        f"{where} [{claim.id}, rev {verdict.rev}]: {status_words(verdict)}. In simulation at level {LEVEL:g}, "
        f"preset {verdict.preset}, seed {verdict.seed}, {verdict.n_trials} trials{_computed_on(claim, verdict)}: {found}; "
        f"{_twin_sentence(verdict)}. Origin: {ORIGINS[claim.origin]}. "
        f"mdpsim {verdict.versions.get('mdpsim', 'of unknown version')}."
    ).replace("’", "'")


def status_words(verdict: Verdict) -> str:
    """The status; a refuted statement that nobody checked against the paper sends the reader to the paper first."""
    if verdict.status == REFUTED and verdict.origin == "as-transcribed":
        return "refuted as transcribed: check the text"
    return verdict.status


def _computed_on(claim: Claim, verdict: Verdict) -> str:
    """The device, and the torch, of a claim that depends on it."""
    if not depends_on_device(claim):
        return ""
    torch = verdict.versions.get("torch")
    return f" on {', '.join(devices_of(claim))}" + (f" (torch {torch})" if torch else "")


def _twin_sentence(verdict: Verdict) -> str:
    """How the same test did on what is false."""
    kept = [t.name for t in verdict.twins if t.status != REJECTED]
    n = len(verdict.twins)
    if kept:
        return f"the same test rejected {n - len(kept)} of {n} falsified twins (not {', '.join(kept)})"
    which = "its falsified twin" if n == 1 else "both falsified twins" if n == 2 else f"all {n} falsified twins"
    return f"the same test rejected {which}"


class FigureWarning(UserWarning):
    """A figure could not be drawn; the report has its claim without it."""


# --- rows and tables -------------------------------------------------------------------------------------------------


def verdict_rows(entries: Iterable[Entry]) -> list[dict[str, str]]:
    """The table that the command line prints: one row of short texts a claim."""
    return [_row(claim, verdict, "text") for claim, _, verdict in entries]


def _row(claim: Claim, v: Verdict, script: str) -> dict[str, str]:
    rejected = sum(t.status == REJECTED for t in v.twins)
    return {
        "claim": claim.id,
        "origin": claim.origin,
        "estimate": format_estimate(v.estimate, v.interval, script=script),
        "bound": format_number(v.bound, script=script),
        "slack": format_number(v.slack, script=script),
        "twins": "rejected" if rejected == len(v.twins) else f"{rejected} of {len(v.twins)} rejected",
        "verdict": v.status,
        "trials": str(v.n_trials),
        "seconds": format_number(v.seconds, script=script),
    }


def adjusted(entries: Sequence[Entry]) -> list[float]:
    """Holm-adjusted p-values of the refutations; a p-value that is not a number counts as 1."""
    p = [1.0 if math.isnan(v.p_value) else v.p_value for _, _, v in entries]
    return [float(x) for x in holm(np.array(p))] if p else []


def _write_tables(entries: Sequence[Entry], folder: Path) -> None:
    """verdicts.csv with every digit, verdicts.tex (booktabs) with those one prints."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    held = adjusted(entries)
    rows = [
        {
            "claim": v.claim, "rev": v.rev, "origin": v.origin, "preset": v.preset, "seed": v.seed, "status": v.status,
            "estimate": v.estimate, "low": v.interval[0], "high": v.interval[1], "bound": v.bound,
            "slack": v.slack, "twin_status": v.twin_status, "p_value": v.p_value, "p_holm": p, "n_trials": v.n_trials,
            "seconds": v.seconds,
        }
        for (_, _, v), p in zip(entries, held, strict=True)
    ]
    with replacing(folder / "verdicts.csv") as name:
        pd.DataFrame(rows).to_csv(name, index=False, lineterminator="\n")
    shown = [_row(c, v, "latex") | {"Holm $p$": format_number(p, script="latex")} for (c, _, v), p in
             zip(entries, held, strict=True)]
    frame = pd.DataFrame(shown, columns=list(shown[0]) if shown else None)
    words = [c for c in ("claim", "origin", "twins", "verdict") if c in frame]
    styler: Any = frame.style.hide(axis="index")
    layout = "".join("l" if name in words else "r" for name in frame.columns)
    text = styler.format(escape="latex", subset=words).to_latex(hrules=True, column_format=layout)
    write_text(folder / "verdicts.tex", text)


# --- the page --------------------------------------------------------------------------------------------------------


def write_report(entries: Iterable[Entry], out: str | Path, *, context: Mapping[str, Any]) -> Path:
    """Write ``out``/index.html, figures/ (PDF, PNG, JSON) and tables/ (CSV, LaTeX).

    Args:
        entries: (claim, records, verdict), in the order of the page.
        out: a folder, made where it is missing; files of the same name are replaced.
        context: what the page says of itself: versions, commit, preset, seed, store, device, judged (when; left out of
            the page unless given). Missing ones are left out.
    Returns:
        The path of index.html.
    """
    items, folder = [(claim, records, v) for claim, records, v in entries], as_path("write_report", "out", out)
    folder.mkdir(parents=True, exist_ok=True)
    _write_tables(items, folder / "tables")
    held = adjusted(items)
    views = [_view(*entry, p, folder / "figures", context) for entry, p in zip(items, held, strict=True)]
    page = _environment().get_template("report.html.j2").render(
        views=views,
        papers=_by_paper(views),
        counts={s: sum(v.status == s for _, _, v in items) for s in STATUSES},
        level=format_number(LEVEL),
        expected=format_number(LEVEL * len(items), script="html"),
        surviving=sum(p <= LEVEL for p in held),
        context=context,
        versions=sorted((context.get("versions") or {}).items()),
    )
    path = folder / "index.html"
    write_text(path, page)
    return path


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    env = Environment(
        loader=PackageLoader("mdpsim", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["number"] = lambda x: Markup(format_number(x, script="html"))
    env.filters["estimate"] = lambda p: Markup(format_estimate(p.estimate, p.interval, script="html"))
    env.filters["typeset"] = typeset
    return env


def _view(claim: Claim, records: Records, v: Verdict, p_holm: float, folder: Path, context: Mapping[str, Any]) -> Any:
    """What the page shows of one claim."""
    row = _row(claim, v, "html")
    numbers = ("estimate", "bound", "slack", "seconds")
    device = ", ".join(devices_of(claim))
    where = f" --device {device}" if depends_on_device(claim) else ""
    return {
        "claim": claim,
        "verdict": v,
        "anchor": claim.id.replace("/", "--"),
        "row": row | {name: Markup(row[name]) for name in numbers},
        "holm": p_holm,
        "words": status_words(v),
        "origin": ORIGINS[claim.origin],
        "rule": _rule_words(claim),
        "interval": isinstance(claim.rule, Mean | Rate | HighProb | Order | Limit),
        "noun": _NOUNS[claim.rule.name],
        "bound_noun": _BOUNDS[claim.rule.name],
        "figure": _figure(claim, records, v, folder, {**context, "device": device}),
        "command": f"mdpsim verify {claim.id} --preset {v.preset} --seed {v.seed}{where}",
        "sentence": minus(citation(claim, v)),
        "bibtex": "\n\n".join(dict.fromkeys(p.bibtex() for p in claim.cites)),
    }


def _rule_words(claim: Claim) -> str:
    """The test in words."""
    rule = claim.rule
    if isinstance(rule, Identity):
        return "in every trial each gap between two exact numbers is at most its tolerance"
    if isinstance(rule, Inequality):
        return f"in every trial the {column_label(rule.of)} is at most its bound"
    if isinstance(rule, Mean):
        ratio = f"{column_label(rule.of)} / bound"
        return f"the mean of {ratio} is at most {format_number(1 + rule.margin, 4)} at every point"
    if isinstance(rule, HighProb):
        share = format_number(rule.delta)
        return f"the probability that {column_label(rule.of)} exceeds its bound is at most {share} at every point"
    if isinstance(rule, Order):
        lead = f" by more than {format_number(rule.margin)}" if rule.margin else ""
        pair = f"{column_label(rule.larger)} is above {column_label(rule.smaller)}"
        return f"in the mean over paired trials {pair}{lead} at every point"
    if isinstance(rule, Limit):
        return _limit_words(rule)
    side = "at most the reference plus" if rule.side == "at_most" else "the reference ±"
    return (
        f"the slope of log mean {column_label(rule.of)} against log {axis_label(rule.axis)} is {side} "
        f"{format_number(rule.margin)} on every line"
    )


def _limit_words(rule: Limit) -> str:
    """The two tests of Limit in words."""
    margin = "its margin" if callable(rule.margin) else format_number(rule.margin)
    if rule.law is None:
        return f"the mean of {column_label(rule.of)} is its stated value ± {margin} at every point"
    law = f"the {rule.law[0]} law" if isinstance(rule.law, tuple) else "its stated law"
    return f"the law of {column_label(rule.of)} is within Kolmogorov distance {margin} of {law} at every point"


def _figure(claim: Claim, records: Records, v: Verdict, folder: Path, context: Mapping[str, Any]) -> dict[str, Any]:
    """Draw and save the figure of a claim; what the page needs to embed it, or to say why there is none."""
    from mdpsim.plots import claim_figure
    from mdpsim.plots.style import SINGLE, save

    name = claim.id.replace("/", "--")
    try:
        figure = claim_figure(claim, records, v)
        _, png, _ = save(figure, folder / name, sidecar(v, context))
    except Exception as error:  # one odd record must not cost the others their page
        reason = f"{type(error).__name__}: {error}"
        warnings.warn(f"the figure of {claim.id} could not be drawn ({reason})", FigureWarning, stacklevel=2)
        return {"failed": reason}
    width, height = figure.get_size_inches()
    kind = "Rate plot" if figure.axes and figure.axes[0].get_yscale() == "log" else "Margins of the trials"
    kind = "Empirical law" if claim.rule.name == "law" else kind
    return {
        "name": name,
        "data": base64.b64encode(png.read_bytes()).decode("ascii"),
        "width": round(width * 96),
        "height": round(height * 96),
        "wide": bool(width > SINGLE),
        "alt": f"{kind} of {claim.id}: {v.status}, {_NOUNS[claim.rule.name]} "
        f"{format_estimate(v.estimate, v.interval)}, {_BOUNDS[claim.rule.name]} {format_number(v.bound)}. "
        "The numbers are in the table of points below.",
    }


def sidecar(verdict: Verdict, context: Mapping[str, Any]) -> dict[str, Any]:
    """What stands beside a figure: the records it shows, and what produced them."""
    return {
        "claim": verdict.claim, "rev": verdict.rev, "preset": verdict.preset, "seed": verdict.seed,
        "status": verdict.status, "versions": dict(verdict.versions) or dict(context.get("versions") or {}),
        "commit": context.get("commit"), "device": context.get("device"), "store": context.get("store"),
    }


def _by_paper(views: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The claims under the paper that their id names, papers in the order of their first claim."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for view in views:
        groups.setdefault(view["claim"].paper, []).append(view)
    return [
        {"key": key, "paper": paper, "views": group, "authors": "; ".join(paper.authors.split(" and ")).rstrip(".")}
        for key, group, paper in ((k, g, _paper_of(k, g)) for k, g in groups.items())
    ]


def _paper_of(key: str, views: Sequence[Mapping[str, Any]]) -> Paper:
    """The cited paper of that key, else the first one cited."""
    cited = [paper for view in views for paper in view["claim"].cites]
    return next((p for p in cited if p.key == key), cited[0])
