"""Exploration with language models: the loss against the tabular one, the search against the exact minimum, draws, guards."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs [lm]")

from mdpsim.align.cccp import fit_softmax, xpo_objective  # noqa: E402
from mdpsim.align.softmax_class import ResponseBox  # noqa: E402
from mdpsim.lm import losses  # noqa: E402
from mdpsim.lm.device import reproducible  # noqa: E402
from mdpsim.lm.ensemble import Ensemble  # noqa: E402
from mdpsim.lm.explore import LMExploration, Search, explore, explore_many  # noqa: E402
from mdpsim.lm.model import Config, Transformer  # noqa: E402
from mdpsim.lm.table import Residual, TokenTable, table_of  # noqa: E402
from mdpsim.lm.train import Space, TrainingError  # noqa: E402

V, L, BETA, BOUND = 2, 2, 0.05, 0.5
SHAPE = Config(vocabulary=V, context=L + 1, prompts=1, layers=1, width=16, heads=2)
LOG_REF = torch.log(torch.tensor([[0.6, 0.25, 0.1, 0.05]], dtype=torch.float64))
R = np.array([[0.0, 0.1, 0.05, 0.5]])
FEW = Search(steps=4)


def space() -> Space:
    return Space(prompts=torch.tensor([[V]]), length=L)


def table(log_ref: Any = LOG_REF, dtype: str = "float64") -> TokenTable:
    return TokenTable(V, L, table_of(log_ref.numpy(), V, L), dtype=dtype)


def student(seed: int = 0, dtype: str = "float64") -> Residual:
    return Residual(table(dtype=dtype), Transformer(SHAPE, seed, dtype=dtype), bound=BOUND / BETA)


def play(seed: int = 3, **change: Any) -> LMExploration:
    how: dict[str, Any] = {"rounds": 6, "alpha": 0.1 * BETA, "beta": BETA, "rng": seed, "optimiser": FEW} | change
    with reproducible():
        return explore(student(), space(), R, LOG_REF, **how)


def same(one: LMExploration, other: LMExploration) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def test_the_loss_of_counts_is_the_loss_of_the_pairs() -> None:
    """One by one through losses.xpo, and align.cccp's objective: alpha sum log pi_ref apart."""
    rng, n = np.random.default_rng(0), 40
    won, lost, other = rng.integers(4, size=(3, n))
    model = ResponseBox(LOG_REF.exp().numpy(), beta=BETA, r_max=1.0)
    theta = rng.uniform(0.0, 1.0, model.size)
    log_pi = torch.from_numpy(np.array(model.log_pi(theta)))
    wins, second = np.zeros((1, 4, 4)), np.zeros((1, 4))
    np.add.at(wins[0], (won, lost), 1.0)
    np.add.at(second[0], other, 1.0)
    alpha = 0.3 * BETA
    counted = losses.history_loss(log_pi, LOG_REF, torch.from_numpy(wins), torch.from_numpy(second), alpha=alpha, beta=BETA)
    p, ref = log_pi[0], LOG_REF[0]
    paired = n * losses.xpo(p[won], p[lost], ref[won], ref[lost], p[other], alpha=alpha, beta=BETA)
    exact = xpo_objective(model, theta, won, lost, other, alpha=alpha) + alpha * LOG_REF[0].numpy()[other].sum()
    assert float(counted) == pytest.approx(float(paired), rel=1e-13)
    assert float(counted) == pytest.approx(float(exact), rel=1e-12)


def test_the_loss_has_leading_axes_and_skips_what_the_reference_never_gives() -> None:
    log_ref = torch.log(torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64))
    log_pi = torch.log(torch.tensor([[0.2, 0.8, 0.0]], dtype=torch.float64)).requires_grad_()
    wins, second = torch.zeros(1, 3, 3, dtype=torch.float64), torch.tensor([[0.0, 2.0, 0.0]], dtype=torch.float64)
    wins[0, 0, 1] = 1.0  # rho = beta log 0.4 against beta log 1.6
    one = losses.history_loss(log_pi, log_ref, wins, second, alpha=0.3, beta=0.5)
    assert one.item() == pytest.approx(np.log1p(np.exp(-0.5 * np.log(0.25))) + 0.6 * np.log(0.8), rel=1e-14)
    one.backward()
    assert torch.isfinite(log_pi.grad).all()
    both = losses.history_loss(
        log_pi.expand(2, 1, 3), log_ref.expand(2, 1, 3), wins.expand(2, 1, 3, 3), second.expand(2, 1, 3),
        alpha=torch.tensor([0.3, 0.0], dtype=torch.float64), beta=torch.tensor([0.5, 0.5], dtype=torch.float64),
    )
    assert both.shape == (2,)
    assert both[0].item() == pytest.approx(one.item(), rel=1e-14)
    assert both[1].item() == pytest.approx(one.item() - 0.6 * np.log(0.8), rel=1e-14)


@pytest.mark.parametrize("restart", [True, False])
def test_equal_pairs_and_no_bonus_move_nothing(restart: bool) -> None:
    """A reference that gives one response alone makes equal pairs; with alpha = 0 the gradient is exactly zero."""
    sure = torch.log(torch.tensor([[1.0 - 3e-300, 1e-300, 1e-300, 1e-300]], dtype=torch.float64))
    for second in ("policy", "reference"):
        model = Residual(table(sure), Transformer(SHAPE, 0), bound=BOUND / BETA)
        with reproducible():
            found = explore(model, space(), R, sure, rounds=4, alpha=0.0, beta=BETA, rng=0, second=second,
                            optimiser=Search(steps=4, restart=restart))
        assert (found.pairs[:, 1] == found.pairs[:, 2]).all()
        assert (found.kl == 0.0).all()
        assert (found.slope == 0.0).all()
        np.testing.assert_allclose(found.loss, np.log(2.0), rtol=1e-15)


def test_xpo_leaves_the_comparator_and_the_other_sign_stays() -> None:
    up, none, down = (play(alpha=a * BETA, rounds=1, optimiser=Search()) for a in (0.3, 0.0, -0.3))
    y = up.pairs[0, 2]
    assert same(up._replace(pairs=up.pairs), play(alpha=0.3 * BETA, rounds=1, optimiser=Search()))
    assert up.log_pi[0, y] < none.log_pi[0, y] < down.log_pi[0, y]


@pytest.mark.parametrize("seed", range(3))
def test_a_table_reaches_the_exact_minimum(seed: int) -> None:
    """One token of a vocabulary of 4, tilts within R: the class is a ResponseBox of range 2R, up to the gauge."""
    rng = np.random.default_rng(seed)
    log_ref = torch.log(torch.tensor(rng.dirichlet(np.ones(4))[None]))
    model = Residual(TokenTable(4, 1, table_of(log_ref.numpy(), 4, 1)), TokenTable(4, 1, np.zeros((1, 4))), bound=BOUND / BETA)
    one, alpha = Space(prompts=torch.tensor([[4]]), length=1), 0.1 * BETA
    with reproducible():
        found = explore(model, one, R, log_ref, rounds=11, alpha=alpha, beta=BETA, rng=seed,
                        optimiser=Search(steps=150, rate=0.1, heat=64.0, decay=True, lazy=10.0))  # in rounds 1 and 11
    x, y, other, won = found.pairs.T
    winners, losers = np.where(won, y, other), np.where(won, other, y)
    box = ResponseBox(log_ref.exp().numpy(), beta=BETA, r_max=2.0 * BOUND)
    least = fit_softmax(box, winners, losers, other, alpha=alpha)
    exact = (least.value + alpha * log_ref[0].numpy()[other].sum()) / len(y)
    assert found.loss[-1] >= exact - 1e-9, "nothing in the class lies below the minimum"
    assert found.loss[-1] <= exact + 0.01, "and the search ends near it (tanh reaches its bounds only in the limit)"
    assert (x == 0).all()


def test_labels_follow_the_law_of_bradley_and_terry() -> None:
    """Wins of the better of two fixed responses: a binomial share within 4 standard errors of sigma(r - r')."""
    K, T = 60, 30
    even = torch.log(torch.tensor([[0.5, 0.5, 1e-300, 1e-300]], dtype=torch.float64))
    r = np.array([[0.0, 1.5, 0.0, 0.0]])
    models = [Residual(table(even), TokenTable(V, L, np.zeros((1, 6))), bound=1e-3) for _ in range(K)]
    with reproducible():
        found = explore_many(models, space(), np.stack([r] * K), torch.stack([even] * K), rounds=T, alpha=np.zeros(K),
                             beta=np.ones(K), rngs=list(range(K)), second=["reference"] * K,
                             optimiser=Search(steps=1, lazy=1e6))
    first, second, won = (found.pairs[..., i].ravel() for i in (1, 2, 3))
    mixed = first != second
    good = np.where(first == 1, won, 1 - won)[mixed]
    for share, p, n in ((good.mean(), 1 / (1 + np.exp(-1.5)), good.size), (won[~mixed].mean(), 0.5, (~mixed).sum()),
                        (second.mean(), 0.5, second.size), (first.mean(), 0.5, first.size)):
        assert abs(share - p) <= 4 * np.sqrt(p * (1 - p) / n), (share, p)


def test_online_draws_both_from_the_policy() -> None:
    """From a policy far from the reference."""
    far = torch.log(torch.tensor([[0.05, 0.1, 0.25, 0.6]], dtype=torch.float64))
    n = 200
    models = [Residual(table(far), TokenTable(V, L, np.zeros((1, 6))), bound=1e-3) for _ in range(2 * n)]
    second = ["policy"] * n + ["reference"] * n
    with reproducible():
        found = explore_many(models, space(), np.stack([R] * 400), torch.stack([LOG_REF] * 400), rounds=1, alpha=np.zeros(400),
                             beta=np.ones(400), rngs=list(range(400)), second=second, optimiser=Search(steps=1))
    y, other = found.pairs[:, 0, 1], found.pairs[:, 0, 2]
    assert abs((y == 3).mean() - 0.6) < 0.1
    assert abs((other[:n] == 3).mean() - 0.6) < 0.12
    assert abs((other[n:] == 3).mean() - 0.05) < 0.06


def test_gap_mass_and_divergence_are_exact() -> None:
    found = play()
    pi, ref = np.exp(found.log_pi[0]), np.exp(LOG_REF[0].numpy())
    best = ref * np.exp(R[0] / BETA)
    top = BETA * np.log(best.sum())
    kl = (pi * (found.log_pi[0] - LOG_REF[0].numpy())).sum()
    assert found.gap[-1] == pytest.approx(top - pi @ R[0] + BETA * kl, abs=1e-12)
    assert found.mass[-1] == pytest.approx(pi[3], rel=1e-12)
    assert found.kl[-1] == pytest.approx(kl, rel=1e-10)
    assert found.kl[0] == pytest.approx(0.0, abs=1e-15)


def test_the_same_seed_gives_the_same_run_alone_or_beside_others() -> None:
    alone = [play(seed) for seed in (3, 4, 5)]
    assert same(alone[0], play(3))
    assert not same(alone[0], alone[1])
    with reproducible():
        many = explore_many([student() for _ in range(3)], space(), np.stack([R] * 3), torch.stack([LOG_REF] * 3), rounds=6,
                            alpha=[0.1 * BETA] * 3, beta=[BETA] * 3, rngs=[3, 4, 5], second=["reference"] * 3, optimiser=FEW)
    for k, one in enumerate(alone):
        assert same(one, LMExploration(*(c[k] for c in many)))


@pytest.mark.parametrize(("vocabulary", "length", "width", "heads"), [(3, 3, 32, 4), (8, 2, 8, 1), (5, 2, 24, 2)])
def test_a_member_computes_what_it_does_in_every_ensemble(vocabulary: int, length: int, width: int, heads: int) -> None:
    """Values and gradients, bit for bit, and those of the model by itself to rounding."""
    shape = Config(vocabulary=vocabulary, context=length + 1, prompts=1, layers=2, width=width, heads=heads, gain=1.0)
    models, where = [Transformer(shape, seed) for seed in range(9)], Space(prompts=torch.tensor([[vocabulary]]), length=length)

    def of(some: list[Transformer]) -> tuple[Any, Any]:
        ensemble = Ensemble(some)
        log_pi = ensemble.read(where.log_probs)
        log_pi[:, 0, 1].sum().backward()
        return log_pi.detach(), ensemble.flat.grad

    with reproducible():
        whole = of(models)
        for cut in (1, 4):
            for all_, one, two in zip(whole, of(models[:cut]), of(models[cut:]), strict=True):
                assert torch.equal(all_, torch.cat([one, two]))
        where.log_probs(models[2])[0, 1].backward()
        torch.testing.assert_close(whole[0][2], where.log_probs(models[2]).detach(), rtol=0, atol=1e-12)
        own = torch.cat([p.grad.flatten() for p in models[2].parameters()])
        torch.testing.assert_close(whole[1][2], own, rtol=0, atol=1e-12)


def test_the_trained_weights_come_back() -> None:
    model, found = student(), None
    with reproducible():
        found = explore(model, space(), R, LOG_REF, rounds=3, alpha=0.1 * BETA, beta=BETA, rng=0, optimiser=FEW)
    np.testing.assert_allclose(space().log_probs(model).detach().numpy(), found.log_pi, atol=1e-12)


def test_draws_do_not_depend_on_the_dtype() -> None:
    """The first round's pair is that of the reference and the uniforms alone."""
    with reproducible():
        low = explore(student(dtype="float32"), space(), R, LOG_REF.float(), rounds=6, alpha=0.0, beta=BETA, rng=3,
                      optimiser=FEW)
    high = play(alpha=0.0)
    np.testing.assert_array_equal(low.pairs[:, [0, 2]], high.pairs[:, [0, 2]])
    np.testing.assert_array_equal(low.pairs[0], high.pairs[0])


def test_lazy_searches_keep_the_policy_between() -> None:
    found = play(rounds=30, optimiser=Search(steps=2, lazy=0.5))
    changed = np.flatnonzero(np.diff(found.kl) != 0.0) + 1
    assert changed.tolist() == [1, 2, 3, 5, 8, 12, 18, 27]


def test_a_search_cools_down_to_the_objective_itself() -> None:
    how = Search(steps=10, heat=32.0)
    heats = [how.heat_at(s) for s in range(10)]
    assert heats[0] == 32.0
    assert heats[-1] == 1.0
    assert all(a > b for a, b in itertools.pairwise(heats))
    assert Search(heat=1.0).heat_at(3) == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "explore: rounds must"), ({"alpha": float("nan")}, "explore: alpha must"),
        ({"beta": 0.0}, "explore: beta must be in"), ({"beta": 1e9}, "explore: beta must be in"),
        ({"second": "both"}, "explore: second must"), ({"rng": -1}, "explore: rng must"),
    ],
)
def test_guards(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        play(**change)


def test_guards_of_arrays_and_settings() -> None:
    with pytest.raises(ValueError, match="explore: r must have shape"):
        explore(student(), space(), R[:, :3], LOG_REF, rounds=1, alpha=0.0, beta=1.0, rng=0)
    with pytest.raises(ValueError, match="explore: log_ref must have shape"):
        explore_many([student()] * 2, space(), R[None], LOG_REF[None], rounds=1, alpha=[0.0], beta=[1.0], rngs=[0],
                     second=["policy"])
    with pytest.raises(ValueError, match="Ensemble: models must be one or more, of the same shape"):
        Ensemble([student(), Transformer(SHAPE, 0)])
    with pytest.raises(ValueError, match="Ensemble: models must have weights to train"):
        Ensemble([table().requires_grad_(False)])
    for name, value in (("heat", 0.5), ("lazy", -1.0), ("steps", 0), ("rate", 0.0)):
        with pytest.raises(ValueError, match=f"{name} must"):
            Search(**{name: value})


def test_a_loss_that_is_no_number_stops_with_the_last_good_weights() -> None:
    model = student()
    before = [p.detach().clone() for p in model.parameters()]
    with reproducible(), pytest.raises(TrainingError, match="the loss is (nan|-?inf) at step 0"):
        explore(model, space(), R, LOG_REF, rounds=2, alpha=-1e308, beta=BETA, rng=0, optimiser=Search(steps=1, rate=1e3))
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
