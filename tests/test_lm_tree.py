"""The tree of responses: both ways of attending give what the plain causal pass over whole prefixes gives."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs [lm]")

from mdpsim.lm import model as lm_model  # noqa: E402
from mdpsim.lm.model import Config, Transformer  # noqa: E402
from mdpsim.lm.sample import enumerate_log_probs  # noqa: E402


def transformer(V: int, L: int, P: int) -> Transformer:
    return Transformer(Config(vocabulary=V, context=L + P, prompts=2, layers=2, width=16, heads=2, gain=3.0), 5)


@pytest.mark.parametrize("square", [0, 10**9])
@pytest.mark.parametrize(("V", "L", "P"), [(2, 1, 1), (3, 4, 0), (3, 3, 1), (2, 5, 3)])
def test_the_tree_is_the_prefixes(monkeypatch: pytest.MonkeyPatch, square: int, V: int, L: int, P: int) -> None:
    """Values and gradients, by levels (square 0) and by one mask."""
    monkeypatch.setattr(lm_model, "MAX_SQUARE", square)
    lm_model._tree.cache_clear()
    model = transformer(V, L, P)
    prompts = torch.arange(2 * P).reshape(2, P) % (V + 2)
    weights = torch.linspace(-1.0, 1.0, 2 * V**L, dtype=torch.float64).view(2, -1)
    found = {}
    for method in ("tree", "prefixes"):
        model.zero_grad()
        log_pi = enumerate_log_probs(model, prompts, L, method=method)
        (weights * log_pi).sum().backward()
        found[method] = log_pi.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    lm_model._tree.cache_clear()
    for ours, theirs in zip(found["tree"], found["prefixes"], strict=True):
        assert float(theirs.abs().max()) > 0.1
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-12 * float(theirs.abs().max()))


def test_a_large_tree_goes_by_levels() -> None:
    """Beyond MAX_SQUARE rows no mask is built, and beyond MAX_NODES nodes there is no tree."""
    model = transformer(6, 4, 1)
    assert lm_model._tree(6, 4, 1, model.device).attend.func is lm_model._by_levels
    prompts = torch.tensor([[6], [7]])
    tree, prefixes = (enumerate_log_probs(model, prompts, 4, method=method) for method in ("tree", "prefixes"))
    torch.testing.assert_close(tree, prefixes, rtol=0.0, atol=1e-12)
    assert model.tree_log_probs(prompts, 7) is None
