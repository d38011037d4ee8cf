"""The transformer: causal, seeded, one law however it is read; checkpoints; what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs [lm]")

from mdpsim.lm import device as devices  # noqa: E402
from mdpsim.lm.model import MAX_NODES, Config, Transformer  # noqa: E402
from mdpsim.lm.sample import as_tokens, enumerate_log_probs, sequence_log_probs  # noqa: E402
from mdpsim.lm.table import Residual, TokenTable, table_of  # noqa: E402

TOL = 1e-10
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def small(seed: int = 0, **more: object) -> Transformer:
    shape = {"vocabulary": 3, "prompts": 2, "context": 7, "width": 16, "heads": 2, "gain": 3.0} | more
    return Transformer(Config(**shape), seed)  # type: ignore[arg-type]


def tokens(model: Transformer, N: int, length: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(model.readable, size=(N, length)))


def by_hand(model: Transformer, ids: list[int]) -> np.ndarray:
    """log p(. | <s>, ids) by the formulas, one sequence, plain numpy loops over heads and places."""
    w = {name: p.detach().numpy() for name, p in model.named_parameters()}
    c = model.config
    d = c.width // c.heads

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean()
        return centred / np.sqrt(centred @ centred / len(x) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    def gelu(x: np.ndarray) -> np.ndarray:
        from scipy.special import erf

        return 0.5 * x * (1.0 + erf(x / np.sqrt(2.0)))

    rows = [w["embed.weight"][i] + w["place.weight"][t] for t, i in enumerate([model.readable, *ids])]
    for b in range(c.layers):
        qkv = [linear(norm(x, f"blocks.{b}.norm_attention"), f"blocks.{b}.qkv").reshape(3, c.heads, d) for x in rows]
        new = []
        for t, x in enumerate(rows):
            heads = []
            for h in range(c.heads):
                scores = np.array([qkv[t][0, h] @ qkv[s][1, h] / np.sqrt(d) for s in range(t + 1)])
                weights = np.exp(scores - scores.max())
                heads.append(sum(a * qkv[s][2, h] for s, a in enumerate(weights / weights.sum())))
            x = x + linear(np.concatenate(heads), f"blocks.{b}.out")
            up = gelu(linear(norm(x, f"blocks.{b}.norm_mlp"), f"blocks.{b}.up"))
            new.append(x + linear(up, f"blocks.{b}.down"))
        rows = new
    logits = linear(norm(rows[-1], "norm"), "head")
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


def test_it_is_the_transformer_of_the_formulas() -> None:
    model, ids = small(), [3, 0, 2, 1]
    with torch.no_grad():
        found = model.log_probs(torch.tensor([ids]))[0].numpy()
    for t in range(len(ids) + 1):
        assert np.abs(found[t] - by_hand(model, ids[:t])).max() <= TOL


def test_laws_sum_to_one_and_do_not_see_the_future() -> None:
    model = small()
    x = tokens(model, 6, 5)
    rows = model.log_probs(x)
    assert rows.shape == (6, 6, 3)
    assert (rows.exp().sum(-1) - 1).abs().max() <= TOL
    changed = x.clone()
    changed[:, 3] = (changed[:, 3] + 1) % model.readable
    other = model.log_probs(changed)
    assert (rows[:, :4] - other[:, :4]).abs().max() <= TOL
    assert (rows[:, 4:] - other[:, 4:]).abs().amax(dim=(1, 2)).min() > 1e-6
    assert (model.log_probs(x, start=2) - rows[:, 2:]).abs().max() <= TOL


@pytest.mark.parametrize("first", [1, 3])
def test_the_cache_gives_the_same_law(first: int) -> None:
    """Token by token, and several at once after a past."""
    model = small()
    x = tokens(model, 5, 6)
    with torch.no_grad():
        rows = model.log_probs(x)
        law, past = model.next_log_probs(x[:, :first])
        assert (law - rows[:, first]).abs().max() <= TOL
        for t in range(first, 5):
            law, past = model.next_log_probs(x[:, t : t + 1], past)
            assert (law - rows[:, t + 1]).abs().max() <= TOL
        law, past = model.next_log_probs(x[:, :0])  # nothing but the start symbol
        law, past = model.next_log_probs(x[:, :2], past)
        law, past = model.next_log_probs(x[:, 2:6], past)
        assert (law - rows[:, 6]).abs().max() <= TOL


@pytest.mark.parametrize("P", [0, 1, 2])
@pytest.mark.parametrize("length", [1, 2, 4])
def test_three_ways_to_enumerate_agree(P: int, length: int) -> None:
    model = small()
    prompts = tokens(model, 2, P) if P else torch.zeros(2, 0, dtype=torch.int64)
    tree = enumerate_log_probs(model, prompts, length, method="tree")
    trick = enumerate_log_probs(model, prompts, length, method="prefixes")
    responses = torch.cartesian_prod(*[torch.arange(3)] * length).view(-1, length)
    naive = torch.stack([sequence_log_probs(model, p.expand(len(responses), -1), responses) for p in prompts])
    assert (tree - naive).abs().max() <= TOL
    assert (trick - naive).abs().max() <= TOL
    assert (naive.exp().sum(dim=1) - 1).abs().max() <= TOL
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=tuple(tree.shape)))
    slopes = [torch.autograd.grad((weights * x).sum(), list(model.parameters()), allow_unused=True) for x in (tree, naive)]
    for one, two in zip(*slopes, strict=True):
        assert (one is None) == (two is None)
        assert one is None or (one - two).abs().max() <= TOL * max(1.0, float(two.abs().max()))


def test_trees_too_large_for_one_sequence_go_by_prefixes() -> None:
    model = small(vocabulary=26, context=8, width=8, layers=1)
    assert MAX_NODES < 1 + 26 + 26**2 + 26**3
    prompts = torch.tensor([[26]])
    with torch.no_grad():
        found = enumerate_log_probs(model, prompts, 4)
    assert found.shape == (1, 26**4)
    assert abs(found.exp().sum().item() - 1) <= TOL
    with pytest.raises(ValueError, match="method must be one this model has"):
        enumerate_log_probs(model, prompts, 4, method="tree")


def test_the_end_token_ends() -> None:
    model, prompts, end = small(), torch.tensor([[3], [4]]), 1
    found = enumerate_log_probs(model, prompts, 3, end=end)
    assert (found.exp().sum(dim=1) - 1).abs().max() <= TOL
    responses = torch.cartesian_prod(*[torch.arange(3)] * 3)
    for row, p in zip(found, prompts, strict=True):
        for y, log_p in zip(responses.tolist(), row.tolist(), strict=True):
            cut = y.index(end) + 1 if end in y else 3
            if any(a != end for a in y[cut:]):
                assert log_p == -np.inf
            else:
                alone = sequence_log_probs(model, p[None], torch.tensor([y[:cut]])).item()
                assert abs(log_p - alone) <= TOL
                assert abs(sequence_log_probs(model, p[None], torch.tensor([y]), end).item() - alone) <= TOL


def test_seeds_and_number_types() -> None:
    one, two, other = small(3), small(3), small(4)
    for p, q, r in zip(one.parameters(), two.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
        assert p.std() == 0 or p.ndim == 1 or not torch.equal(p, r)
    x = tokens(one, 4, 5)
    again = small(4).restart(3)
    assert torch.equal(again.log_probs(x), one.log_probs(x))
    assert torch.equal(one.perturbed(0.0, 0).log_probs(x), one.log_probs(x))
    assert not torch.equal(one.perturbed(0.1, 0).log_probs(x), one.log_probs(x))
    narrow = Transformer(one.config, 3, dtype="float32")
    assert narrow.dtype == torch.float32
    assert (narrow.log_probs(x) - one.log_probs(x)).abs().max() <= 1e-4
    even = small(gain=0.0).log_probs(x)
    assert (even + np.log(3)).abs().max() <= 1e-14


def test_checkpoints(tmp_path: Path) -> None:
    model, path = small(3), tmp_path / "model.pt"
    model.save(path)
    again = Transformer.load(path, vocabulary=3)
    x = tokens(model, 4, 5)
    assert torch.equal(model.log_probs(x), again.log_probs(x))
    with pytest.raises(ValueError, match=r"path must hold a model of this vocabulary of 5 tokens; got 3"):
        Transformer.load(path, vocabulary=5)
    (tmp_path / "text").write_text("no checkpoint")
    for name in ("text", "missing"):
        with pytest.raises(ValueError, match="be a checkpoint that Transformer.save wrote"):
            Transformer.load(tmp_path / name)
    torch.save({"config": {"vocabulary": 9, "context": 7}, "weights": model.state_dict()}, path)
    with pytest.raises(ValueError, match="be a checkpoint that Transformer.save wrote"):
        Transformer.load(path)


def test_what_is_refused() -> None:
    model = small()
    for call, message in (
        (lambda: model.log_probs(torch.zeros(2, 8, dtype=torch.int64)), r"fit the context of 7 tokens, .*; got 8"),
        (lambda: model.log_probs(torch.tensor([[5]])), r"ids of the vocabulary, 0 .. 4; got 5"),
        (lambda: model.log_probs(torch.tensor([[-1]])), r"ids of the vocabulary, 0 .. 4; got -1"),
        (lambda: model.log_probs(torch.zeros(2, 2)), r"int64 tensor \[N, T\]; got torch.float32"),
        (lambda: enumerate_log_probs(model, torch.tensor([[3, 3]]), 7), "fit the context of 7 tokens"),
        (lambda: enumerate_log_probs(model, torch.tensor([[3]]), 2, method="prefix"), r"method must be one of .*prefixes"),
        (lambda: enumerate_log_probs(model, torch.tensor([[3]]), 16), "fit the context|at most 16777216 responses"),
        (lambda: as_tokens("f", "prompts", [[0, 9]], model), r"f: prompts must be ids of the vocabulary, 0 .. 4; got 9"),
        (lambda: as_tokens("f", "prompts", [[0] * 8], model), "fit the context of 7 tokens; got 8 tokens"),
        (lambda: as_tokens("f", "prompts", [[0.5]], model), "hold integers; got dtype float64"),
        (lambda: as_tokens("f", "prompts", [0, 1], model), r"have shape \[N, T\]"),
        (lambda: Config(vocabulary=3, context=4, width=10, heads=4), "heads must divide the width 10; got 4"),
        (lambda: Config(vocabulary=0, context=4), "vocabulary must be an integer >= 1"),
        (lambda: Transformer(Config(vocabulary=3, context=4), 0, dtype="float16"), "resolve_dtype: dtype must be one of"),
        (lambda: Residual(model, small(vocabulary=4), bound=1.0), "have the reference's vocabulary"),
        (lambda: devices.resolve_device("gpu"), "resolve_device: device must be one of the known names"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    past = model.next_log_probs(torch.zeros(1, 7, dtype=torch.int64))[1]
    with pytest.raises(ValueError, match="fit the context of 7 tokens; got 8"):
        model.next_log_probs(torch.tensor([[0]]), past)


def test_tables_read_as_language_models_do() -> None:
    model = TokenTable(3, 3, np.random.default_rng(0).normal(size=(2, 39)))
    prompts = torch.tensor([[4], [3]])
    tree = enumerate_log_probs(model, prompts, 3)
    assert (enumerate_log_probs(model, prompts, 3, method="prefixes") - tree).abs().max() <= TOL
    again = TokenTable(3, 3, table_of(tree.detach().numpy(), 3, 3))
    assert (enumerate_log_probs(again, torch.tensor([[3], [4]]), 3) - tree).abs().max() <= TOL
    with pytest.raises(ValueError, match="start must be at least 1"):
        model.log_probs(prompts)
    with pytest.raises(ValueError, match="prompts must be one id each"):
        model.tree_log_probs(torch.tensor([[3, 3]]), 2)


def test_a_residual_starts_at_its_reference_and_stays_near_it() -> None:
    reference, bound = small(1), 0.7
    model = Residual(reference, small(2, gain=0.0), bound=bound)
    prompts = torch.tensor([[3], [4]])
    base = enumerate_log_probs(reference, prompts, 3)
    assert (enumerate_log_probs(model, prompts, 3) - base).abs().max() <= TOL
    with torch.no_grad():
        for p in model.correction.parameters():
            p.mul_(1e3).add_(1e3 * torch.from_numpy(np.random.default_rng(0).normal(size=tuple(p.shape))))
    far = enumerate_log_probs(model, prompts, 3)
    assert 0.1 < (far - base).abs().max() <= 2 * bound * 3 + TOL
    assert (enumerate_log_probs(model, prompts, 3, method="prefixes") - far).abs().max() <= TOL
    far.sum().backward()
    assert all(p.grad is None for p in reference.parameters())


def test_reproducible_puts_back_what_was_set() -> None:
    torch.set_num_threads(2)
    before = 2, torch.are_deterministic_algorithms_enabled()
    with devices.reproducible():
        assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (1, True)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_named_with_what_is() -> None:
    assert devices.resolve_device("auto") == "cpu"
    with pytest.raises(ValueError, match=r"device must be one that is here: cpu \(torch .*sees no GPU\); got cuda"):
        devices.resolve_device("cuda")


@needs_cuda
def test_cuda_gives_the_law_of_the_cpu() -> None:
    assert devices.resolve_device("auto") == "cuda"
    one, two = small(), small().to("cuda")
    with devices.reproducible():
        found = enumerate_log_probs(two, torch.tensor([[3], [4]], device="cuda"), 4)
    assert (found.cpu() - enumerate_log_probs(one, torch.tensor([[3], [4]]), 4)).abs().max() <= TOL
