"""What a claim cites."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mdpsim.arrays import as_count, as_text, fail


@dataclass(frozen=True)
class Paper:
    """What a claim cites: a paper, and where in it."""

    key: str
    authors: str
    title: str
    venue: str
    year: int
    arxiv: str = ""
    where: str = ""

    def __post_init__(self) -> None:
        for name in ("key", "authors", "title", "venue"):
            as_text("Paper", name, getattr(self, name))
        for name in ("arxiv", "where"):
            if not isinstance(found := getattr(self, name), str):
                fail("Paper", name, "be a text", repr(found))
        as_count("Paper", "year", self.year, high=9999)

    def at(self, where: str) -> Paper:
        """This paper, at a theorem or equation."""
        return replace(self, where=where)

    def __str__(self) -> str:
        first = self.authors.split(" and ")[0].split(",")[0]
        others = " et al." if " and " in self.authors else ""
        return f"{first}{others} ({self.year})" + (f", {self.where}" if self.where else "")

    def bibtex(self) -> str:
        """A BibTeX entry."""
        rows = {"author": self.authors, "title": "{" + self.title + "}", "booktitle": self.venue, "year": str(self.year)}
        if self.arxiv:
            rows |= {"eprint": self.arxiv, "archiveprefix": "arXiv"}
        body = ",\n".join(f"  {name} = {{{value}}}" for name, value in rows.items())
        return f"@inproceedings{{{self.key},\n{body}\n}}"
