"""Samples of a language model follow its law; the best and the worst of N follow theirs; draws are the Generator's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mdpsim.align.procedures import BestOfN, WorstOfN
from mdpsim.align.spaces import Responses

torch = pytest.importorskip("torch", reason="needs [lm]")

from mdpsim.lm.model import Config, Transformer  # noqa: E402
from mdpsim.lm.sample import (  # noqa: E402
    best_of_n,
    draw,
    enumerate_log_probs,
    response_index,
    sample_responses,
    sequence_log_probs,
    token_log_probs,
)

N, LEVEL = 5_000, 1e-4  # responses of a test, and how often it may fail for a right sampler


@pytest.fixture(scope="module")
def model() -> Transformer:
    return Transformer(Config(vocabulary=3, prompts=2, context=5, width=16, heads=2, gain=3.0), 0)


def expect(counts: np.ndarray, law: np.ndarray) -> None:
    """Chi-square at LEVEL; cells that expect fewer than 5 are put together."""
    assert counts[law == 0.0].sum() == 0
    rare = law * counts.sum() < 5.0
    seen = np.append(counts[~rare], counts[rare].sum())
    wanted = np.append(law[~rare], law[rare].sum()) * counts.sum()
    seen, wanted = seen[wanted > 0.0], wanted[wanted > 0.0]
    assert stats.chi2.sf(((seen - wanted) ** 2 / wanted).sum(), len(wanted) - 1) > LEVEL


@pytest.mark.parametrize("end", [None, 1])
def test_samples_follow_the_enumerated_law(model: Transformer, end: int | None) -> None:
    prompts = torch.tensor([[3], [4]])
    laws = enumerate_log_probs(model, prompts, 4, end=end).exp().detach().numpy()
    many = prompts.repeat_interleave(N, dim=0)
    found = sample_responses(model, many, 4, 1, end=end)
    assert (found.log_prob - sequence_log_probs(model, many, found.responses, end)).abs().max() <= 1e-10
    for x, y in enumerate(response_index(found.responses, 3).view(2, N).numpy()):
        expect(np.bincount(y, minlength=81), laws[x])
    wrong = np.roll(laws[0], 1)  # the test sees a law that is shifted by one response
    with pytest.raises(AssertionError):
        expect(np.bincount(response_index(found.responses, 3)[:N].numpy(), minlength=81), wrong)


@pytest.mark.parametrize(("n", "worst"), [(1, False), (2, False), (4, False), (4, True)])
def test_best_and_worst_of_n_follow_their_laws(model: Transformer, n: int, worst: bool) -> None:
    prompts = torch.tensor([[4]])
    r = np.random.default_rng(0).integers(4, size=9) * 1.0  # ties: within one, a law in proportion to pi_ref
    law = np.exp(enumerate_log_probs(model, prompts, 2).detach().numpy()[0])
    space = Responses(r, law / law.sum())
    tabular = (WorstOfN if worst else BestOfN)(n).law(space, space.pi_ref)
    many = prompts.expand(N, -1)
    found = best_of_n(model, many, 2, torch.from_numpy(r).expand(N, -1), n, 2, worst=worst)
    expect(np.bincount(response_index(found.responses, 3).numpy(), minlength=9), np.asarray(tabular))
    by_function = best_of_n(
        model, many, 2, lambda p, y: torch.from_numpy(r)[response_index(y, 3)], n, 2, worst=worst
    )
    assert torch.equal(found.responses, by_function.responses)


def test_draws_are_the_generators(model: Transformer) -> None:
    """The same seed gives the same responses in float32 and float64, for a batch and for its first part alone of one token."""
    prompts = torch.tensor([[3], [4]]).repeat(50, 1)
    one = sample_responses(model, prompts, 4, 7)
    assert torch.equal(one.responses, sample_responses(model, prompts, 4, np.random.default_rng(7)).responses)
    narrow = Transformer(model.config, 0, dtype="float32")
    assert (one.responses == sample_responses(narrow, prompts, 4, 7).responses).float().mean() > 0.99
    assert not torch.equal(one.responses, sample_responses(model, prompts, 4, 8).responses)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        before = torch.get_rng_state()
        sample_responses(model, prompts, 4, 7)
        assert torch.equal(torch.get_rng_state(), before)  # torch's global stream is not touched


@pytest.mark.parametrize("V", [2, 256, 1000, 50_000])
def test_inverting_the_cumulative_law(V: int) -> None:
    rng = np.random.default_rng(V)
    p = rng.dirichlet(np.full(V, 0.1), size=5)
    p[:, rng.integers(V, size=V // 4)] = 0.0
    p[:, -1] = 0.0  # the last token is impossible
    p /= p.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        logs = torch.from_numpy(np.log(p))
    for u in (0.0, 0.3, 0.999, 1.0 - 2.0**-53):
        found = draw(logs, torch.full((5,), u, dtype=torch.float64)).numpy()
        cumulative = np.cumsum(p, axis=1)
        assert (p[np.arange(5), found] > 0.0).all()
        slack = 4 * V * np.finfo(float).eps
        assert (cumulative[np.arange(5), found] >= u - slack).all()
        assert (cumulative[np.arange(5), found] - p[np.arange(5), found] <= u + slack).all()


def test_tokens_after_the_end_count_nothing(model: Transformer) -> None:
    prompt, y = torch.tensor([[3]]), torch.tensor([[0, 1, 1, 1]])
    rows = token_log_probs(model, prompt, y, end=1)
    assert torch.equal(rows[:, :2], token_log_probs(model, prompt, y)[:, :2])
    assert not rows[:, 2:].any()


def test_what_is_refused(model: Transformer) -> None:
    prompts = torch.tensor([[3]])
    for call, message in (
        (lambda: sample_responses(model, prompts, 6, 0), "fit the context of 5 tokens, .*; got 1 and 5 to come"),
        (lambda: sample_responses(model, prompts, 0, 0), "length must be an integer >= 1"),
        (lambda: sample_responses(model, prompts, 2, -1), "rng must be a numpy.random.Generator or an integer seed"),
        (lambda: best_of_n(model, prompts, 2, torch.zeros(1, 8), 2, 0), r"reward must have shape \[N, V\^L\] = \(1, 9\); got"),
        (lambda: best_of_n(model, prompts, 2, torch.zeros(1, 9), 0, 0), "n must be an integer >= 1"),
        (lambda: token_log_probs(model, prompts, torch.zeros(1, 0, dtype=torch.int64)), "have at least one token"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
