"""What an argument's own meaning makes right although its kind would not: (functions, arguments, labels), regular expressions."""

from __future__ import annotations

ALLOWED: list[tuple[str, str, str]] = []
