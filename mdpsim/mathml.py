"""Sentences with LaTeX between dollar signs as HTML with MathML, which browsers show without a script.

A formula that does not convert stays as its source: one formula never denies a page to the others.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

from markupsafe import Markup, escape

# Names of functions that LaTeX sets upright with a thin space before them.
_FUNCTIONS = frozenset((
    "log", "exp", "sup", "inf", "max", "min", "arg", "argmax", "argmin", "lim", "ln", "det", "dim", "ker", "tr", "diag",
    "sign", "Pr", "KL", "TV", "Var", "Cov",
))
_CLOSING = (")", "]", "}", "|", "!")

# What the converter sets of itself; anything else comes from a command that has no place on a page.
_ATTRIBUTES = frozenset((
    "accent", "columnalign", "columnlines", "columnspacing", "display", "displaystyle", "fence", "form", "height", "depth",
    "linethickness", "lspace", "mathsize", "mathvariant", "maxsize", "minsize", "movablelimits", "notation", "rowlines",
    "rowspacing", "rspace", "scriptlevel", "separator", "stretchy", "symmetric", "voffset", "width",
))


def typeset(text: str) -> Markup:
    r"""A sentence with LaTeX between dollar signs as HTML with MathML; a formula that does not convert stays as code.

    ``\$`` is a dollar sign. An odd number of the others leaves the whole sentence as it was written.
    """
    pieces = re.split(r"(?<!\\)\$+", text)
    if len(pieces) % 2 == 0:
        return escape(text)
    parts = [_formula(p) if i % 2 else escape(minus(p.replace(r"\$", "$"))) for i, p in enumerate(pieces)]
    return Markup("").join(parts)


def minus(text: str) -> str:
    """A hyphen before a digit, and not inside a word or a number, is a minus."""
    return re.sub(r"(?<![\w).-])-(?=\d)", "−", text)


def _formula(latex: str) -> Markup:
    """MathML of one formula; the source where the converter fails, or leaves something unread."""
    from latex2mathml.converter import convert

    as_code = Markup("<code>{}</code>").format(latex)
    if not latex.strip() or not _balanced(latex):
        return as_code
    try:
        mathml = convert(latex)
        if "\\" in mathml or "<merror" in mathml:
            return as_code
        return Markup(_spaced(mathml.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")))
    except Exception:  # the converter and the parser raise many kinds, none of them our caller's business
        return as_code


def _balanced(latex: str) -> bool:
    """Braces close what they open: the converter guesses where they do not."""
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", latex):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def _spaced(mathml: str) -> str:
    """What browsers leave out: words of upright letters as one word, thin spaces around log and its like."""
    mathml = re.sub(r"<mo>([A-Za-z]{2,})</mo>", r"<mi>\1</mi>", mathml)  # \operatorname
    upright = '<mi mathvariant="normal">[A-Za-z]</mi>'
    mathml = re.sub(rf"(?:{upright}){{2,}}", lambda m: f"<mi>{re.sub('<[^>]*>', '', m[0])}</mi>", mathml)
    root = ElementTree.fromstring(mathml)
    for element in root.iter():  # \\href, \\style and \\class would make a formula a link, or dress it
        element.attrib = {name: value for name, value in element.attrib.items() if name in _ATTRIBUTES}
    for slash in (e for e in root.iter("mo") if e.text == "/"):  # an ordinary symbol to LaTeX, an operator to browsers
        slash.attrib.update(lspace="0", rspace="0")
    for row in root.iter("mrow"):  # only there do children stand side by side
        children = list(row)
        row[:] = []
        for k, child in enumerate(children):
            before, after = children[k - 1] if k else None, children[k + 1] if k + 1 < len(children) else None
            named = _is_function(child)
            if named and before is not None and (before.tag not in ("mo", "mspace") or before.text in _CLOSING):
                row.append(ElementTree.Element("mspace", width="0.1667em"))
            row.append(child)
            if named and after is not None and after.tag not in ("mo", "mspace") and not _is_function(after):
                row.append(ElementTree.Element("mspace", width="0.1667em"))
    return ElementTree.tostring(root, encoding="unicode")


def _is_function(element: ElementTree.Element) -> bool:
    """log, or log with an index."""
    base = element[0] if element.tag in ("msub", "msup", "msubsup") and len(element) else element
    return base.tag == "mi" and base.text in _FUNCTIONS
