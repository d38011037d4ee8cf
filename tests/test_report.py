"""The page: complete, self-contained, escaped, the same bytes on repeat; the sentence one cites."""

from __future__ import annotations

import csv
import hashlib
import html
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

import report_samples as samples
from mdpsim import atomic, plots
from mdpsim.mathml import typeset
from mdpsim.report import FigureWarning, citation, verdict_rows, write_report

CONTEXT = {
    "versions": samples.VERSIONS, "commit": "abc123", "preset": "quick", "seed": 7, "store": "<store>.db",
    "device": "cpu",
}
VOID = {"meta", "img", "br", "link", "input", "hr"}
CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)


class Page(HTMLParser):
    """Checks that tags close what they open, and collects ids, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else at {self.getpos()}"

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    assert write_report(samples.entries(), out, context=CONTEXT) == out / "index.html"
    return out


@pytest.fixture(scope="module")
def source(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(source):
    return Page(source)


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_a_repeat_writes_the_same_bytes_in_every_file(folder, tmp_path):
    write_report(samples.entries(), tmp_path, context=CONTEXT)
    assert _digests(tmp_path) == _digests(folder)
    assert {Path(p).suffix for p in _digests(folder)} == {".html", ".pdf", ".png", ".json", ".csv", ".tex"}


def test_the_page_is_well_formed_and_its_links_and_ids_are_sound(page):
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    inside = {a["href"][1:] for t, a in page.tags if t == "a" and a["href"].startswith("#")}
    assert inside <= set(ids)
    headings = [int(t[1]) for t, _ in page.tags if re.fullmatch(r"h[1-6]", t)]
    assert headings[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(headings))


def test_the_page_fetches_nothing(page, source, folder):
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object"}
        if "src" in attributes:
            assert attributes["src"].startswith("data:image/png;base64,")
        href = attributes.get("href") or ""
        if tag == "a" and not href.startswith(("#", "https://arxiv.org/abs/")):
            assert (folder / href).is_file()
    css = source[source.index("<style>") : source.index("</style>")]
    assert "url(" not in css
    assert "@import" not in css


def test_every_claim_and_what_belongs_to_it_is_there(page, source):
    text = html.unescape(" ".join(page.text))
    for claim, _, verdict in samples.entries():
        for wanted in (claim.id, verdict.status, str(verdict.n_trials), *(t.name for t in claim.twins), *verdict.notes):
            assert wanted in text
        assert f"mdpsim verify {claim.id} --preset quick --seed 7" in text
        assert f'id="{claim.id.replace("/", "--")}"' in source
    for claim, _, _ in samples.entries():
        assert {p.bibtex() in text for p in claim.cites} == {True}
    alts = [a["alt"] for t, a in page.tags if t == "img"]
    assert len(alts) == 5
    assert all(c.id in alt for (c, _, _), alt in zip(sorted_as_on_page(), alts, strict=True))


def sorted_as_on_page():
    """Entries in the order of the page: by paper, papers by first claim."""
    papers = list(dict.fromkeys(c.paper for c, _, _ in samples.entries()))
    return sorted(samples.entries(), key=lambda e: papers.index(e[0].paper))


def test_summary_counts_and_error_rates(page):
    text = " ".join(" ".join(page.text).split())
    for part in ("3 supported", "1 refuted", "1 inconclusive", "0.05 false refutations", "1 of the 5"):
        assert part in text
    assert "proved" not in text.lower()


def test_text_is_escaped(source):
    assert "nothing &lt;else&gt;" in source
    assert "Notes &amp; &lt;remarks&gt;" in source
    assert "&lt;store&gt;.db" in source
    assert "x86_64 &lt;test&gt;" in source
    assert not re.search(r"<(else|remarks|store|test)>", source)


def test_infinities_and_signs_are_typeset(source):
    assert "∞" in source
    assert "−1.00 [−1.04, −0.93]" in source
    assert "10<sup>−12</sup>" in source
    visible = re.sub(r"<(style|pre)>.*?</\1>|<[^>]*>", " ", source, flags=re.S)
    assert not re.search(r"\b(nan|inf)\b", visible, flags=re.I)


def test_only_what_the_context_gives_is_on_the_page(tmp_path):
    text = write_report([samples.inequality()], tmp_path, context={}).read_text(encoding="utf-8")
    assert "<dt>judged</dt>" not in text
    assert "<dt>commit</dt>" not in text
    assert "Verdicts on 1 claim<" in text
    dated = write_report([samples.inequality()], tmp_path, context={"judged": "2026-02-01"}).read_text(encoding="utf-8")
    assert "<dt>judged</dt><dd>2026-02-01</dd>" in dated


def test_a_report_of_no_claims_is_a_page(tmp_path):
    Page(write_report([], tmp_path, context=CONTEXT).read_text(encoding="utf-8"))
    assert (tmp_path / "tables" / "verdicts.tex").exists()


def test_sidecars_say_where_the_numbers_came_from(folder):
    side = json.loads((folder / "figures" / "tiapkin2023--cloning-rate.json").read_text())
    assert side == {
        "claim": "tiapkin2023/cloning-rate", "rev": 1, "preset": "quick", "seed": 7, "status": "supported",
        "versions": samples.VERSIONS, "commit": "abc123", "device": "cpu", "store": "<store>.db",
    }


def test_csv_holds_every_digit(folder):
    with (folder / "tables" / "verdicts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["claim"] for r in rows] == [c.id for c, _, _ in samples.entries()]
    for row, (_, _, verdict) in zip(rows, samples.entries(), strict=True):
        assert float(row["estimate"]) == verdict.estimate
        assert (float(row["low"]), float(row["high"])) == verdict.interval
    assert float(rows[1]["p_holm"]) == pytest.approx(5 * 4e-5)


def test_latex_table_is_booktabs_and_escaped(tmp_path):
    claim, records, verdict = samples.rate(slug="a_b/rate")
    write_report([(claim, records, verdict)], tmp_path, context={})
    tex = (tmp_path / "tables" / "verdicts.tex").read_text()
    assert r"a\_b/rate" in tex
    assert r"\toprule" in tex
    assert "$-1.00$ [$-1.04$, $-0.93$]" in tex
    assert tex.count(r"\\") == 2


def test_the_sentence_names_numbers_sample_origin_and_versions():
    claim, _, verdict = samples.rate()
    sentence = citation(claim, verdict)
    for part in (
        "Tiapkin et al. (2024), Theorem 2", claim.id, "rev 1", "supported", "slope -1.00 [-1.04, -0.93]",
        "reference slope -1", f"{verdict.n_trials} trials", "preset quick", "seed 7", "both falsified twins",
        "not checked against its text", "mdpsim 0.1.0", "level 0.01",
    ):
        assert part in sentence
    assert sentence.isascii()
    assert "proved" not in sentence


def test_refuted_transcriptions_send_the_reader_to_the_text():
    claim, _, verdict = samples.mean_along_axis()
    assert "refuted as transcribed: check the text" in citation(claim, verdict)
    checked = replace(verdict, origin="paper")
    assert "as transcribed: check" not in citation(replace(claim, origin="paper"), checked)


def test_a_sentence_with_twins_kept_names_them():
    claim, _, verdict = samples.inequality()
    assert "inconclusive" in citation(claim, verdict)
    assert "rejected 0 of 1 falsified twins (not half-bound)" in citation(claim, verdict)


def test_rows_for_the_command_line():
    rows = verdict_rows(samples.entries())
    assert list(rows[0]) == ["claim", "origin", "estimate", "bound", "slack", "twins", "verdict", "trials", "seconds"]
    assert [r["verdict"] for r in rows] == [v.status for _, _, v in samples.entries()]
    assert rows[0]["estimate"] == "-1.00 [-1.04, -0.93]"
    assert rows[2]["slack"] == "inf"
    assert rows[4]["twins"] == "0 of 1 rejected"
    claim, records, verdict = samples.rate()
    empty = replace(verdict, estimate=math.nan, interval=(-math.inf, math.inf), seconds=None, slack=None)
    row = verdict_rows([(claim, records, empty)])[0]
    assert (row["estimate"], row["seconds"], row["slack"]) == ("-", "-", "-")


def test_statements_are_typeset_without_a_network():
    out = typeset(r"For $\beta\log_2 \sum_a \pi(a)$ and $x/y$: 3 < 4")
    assert out.count("<math") == 2
    assert "http" not in out
    assert "3 &lt; 4" in out
    assert '<mspace width="0.1667em" /><msub><mi>log</mi><mn>2</mn></msub>' in out
    assert 'lspace="0"' in out


@pytest.mark.parametrize("broken", [r"\frac{1", r"}{", r"\nosuchcommand x", "  "])
def test_formulas_that_do_not_convert_stay_as_code(broken):
    out = typeset(f"a ${broken}$ b <c>")
    assert "<code>" in out
    assert "<math" not in out
    assert "&lt;c&gt;" in out


def test_dollars_that_are_money():
    assert typeset(r"costs 5\$ or 6\$") == "costs 5$ or 6$"
    assert typeset("costs 5$ <b>") == "costs 5$ &lt;b&gt;"
    assert typeset("slope -0.5, bc-1") == "slope −0.5, bc-1"


def test_words_in_formulas_are_upright_and_fractions_keep_two_children():
    out = typeset(r"$\mathrm{KL}(p\|q) \le \frac{\log N}{\log}$, $\operatorname{TV}$")
    assert "<mi>KL</mi>" in out
    assert "<mi>TV</mi>" in out
    assert re.search(r"<mfrac><mrow>.*</mrow><mrow><mi>log</mi></mrow></mfrac>", out)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_the_page_renders_in_a_browser(folder, tmp_path):
    shot = tmp_path / "page.png"
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={shot}", "--window-size=800,900", "--enable-logging=stderr", (folder / "index.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert shot.exists(), done.stderr[-2000:]
    width, height = (int.from_bytes(shot.read_bytes()[i : i + 4], "big") for i in (16, 20))
    assert (width, height) == (800, 900)
    assert shot.stat().st_size > 20_000  # not a blank page
    assert "CONSOLE" not in done.stderr


def test_a_figure_that_cannot_be_drawn_costs_only_itself(tmp_path, monkeypatch):
    entries = samples.entries()
    broken = entries[0][0].id
    draw = plots.claim_figure

    def fail_once(claim, records, verdict):
        if claim.id == broken:
            raise RuntimeError("no <b>such</b> axis")
        return draw(claim, records, verdict)

    monkeypatch.setattr(plots, "claim_figure", fail_once)
    with pytest.warns(FigureWarning, match=f"the figure of {broken} could not be drawn"):
        write_report(entries, tmp_path, context=CONTEXT)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "The figure could not be drawn: RuntimeError: no &lt;b&gt;such&lt;/b&gt; axis." in text
    assert text.count("<img") == len(entries) - 1
    assert all(claim.id in text for claim, _, _ in entries)


@pytest.mark.parametrize("source", [r"a & b", r"\text{p & q}", r"\text{<b}", "\x00", "\ud800", r"\text{\x01}"])
def test_no_formula_denies_a_page_to_the_others(source, tmp_path):
    out = typeset(f"a ${source}$ b")
    assert out.startswith("a ")
    assert out.endswith(" b")
    atomic.write_text(tmp_path / "page.html", str(out))
    assert (tmp_path / "page.html").stat().st_size > 4


@pytest.mark.parametrize("source", [r"\href{javascript:alert(1)}{x}", r"\style{color:red}{x}", r"\class{big}{x}"])
def test_a_formula_is_no_link_and_wears_no_style(source):
    assert not re.search(r"(href|style|class|id)=", typeset(f"${source}$"))


def test_a_link_in_the_place_of_the_page_is_replaced_not_followed(tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    (tmp_path / "index.html").symlink_to(victim)
    write_report([], tmp_path, context={})
    assert victim.read_text() == "mine"
    assert not (tmp_path / "index.html").is_symlink()
    assert not list(tmp_path.glob(".index*"))
