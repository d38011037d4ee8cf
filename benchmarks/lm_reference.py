r"""The reference transformer of the shipped text against n-grams: perplexity on held-out sentences, in words and in letters.

    python benchmarks/lm_reference.py

Both models are fitted on nine tenths of the sentences of "Alice" and judged on the others (``mdpsim.lm.reference``); the
n-grams' pseudo-count is chosen in hindsight. About two minutes of one core.
"""

from __future__ import annotations

import platform
import time
from typing import Any

import torch

from mdpsim.lm.device import reproducible
from mdpsim.lm.reference import perplexity, train_reference
from mdpsim.lm.sample import sample_responses
from mdpsim.lm.train import Adam

SEED = 0
LETTERS: dict[str, Any] = {
    "unit": "letters", "context": 128, "batch": 16, "decay": 1e-4, "optimiser": Adam(steps=1500, rate=3e-3),
}


def main() -> None:
    """Train, print a row, and show what it writes."""
    print(f"torch {torch.__version__}, {platform.machine()}, one thread, float32, seed {SEED}")
    for name, options in (("100 words", {}), ("letters", LETTERS)):
        begun = time.process_time()
        found = train_reference(rng=SEED, **options)
        values = dict(zip(("unigram", "bigram", "trigram"), found.ngrams, strict=True)) | {"transformer": found.perplexity}
        held, size = sum(map(len, found.held_out)), sum(p.numel() for p in found.model.parameters())
        print(f"\n{name}: {len(found.train)} sentences and {len(found.held_out)} held out ({held} tokens)")
        shown = ", ".join(f"{kind} {value:.2f}" for kind, value in values.items())
        print(f"  perplexity: uniform {found.uniform:.0f}, {shown}")
        print(f"  on the transformer's training sentences: {perplexity(found.model, found.train):.2f}")
        print(f"  transformer of {size} parameters; {time.process_time() - begun:.0f} s of one core in all; it writes:")
        nothing = torch.zeros(5, 0, dtype=torch.int64)
        for ids in sample_responses(found.model, nothing, min(found.model.context, 80), SEED, end=0).responses.tolist():
            print(f"    {found.text(ids)}")


if __name__ == "__main__":
    with reproducible():
        main()
