"""What an argument's own meaning makes right although its kind would not: regular expressions of function, argument, label."""

from __future__ import annotations

ALLOWED: list[tuple[str, str, str]] = [
    ("Identity|Inequality|Mean|HighProb|Limit", "tol|bound|value|margin",
        r"^(str|str_|int|float) |-1$|1\.5$|inf|^builtin_function"),
    ("Claim", "measure", "function|type|class"),  # anything callable; what it gives is checked when it runs
    ("per_seed", "function", "type"),
    ("Twin", "measure|rule", "type <class"),
    ("product", "n", ""),  # an axis is a sequence of texts or numbers, of any kind; Point guards each
    ("Point", "values", r"^str $|^dict \{\}$"),  # no axes
    ("geometric", "low|high", r"1\.5"),  # the ends may be fractions
    ("save|load", "path", "^str "),
    ("theorem_alpha", "n_policies", "10|digits"),  # whose logarithm is all that is read
    ("RLHF.run", "demos", ""),  # not read where a clone is given
    ("Custom", "function", ""),  # called, and what it gives checked, where the procedure is used
]
