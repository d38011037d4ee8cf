"""What the small-LM claims on posteriors, collapse and best-of-n rest on: targets, credit, sampling error, optimiser."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs [lm]")

from torch import Tensor  # noqa: E402

from mdpsim.claims.claim import Point  # noqa: E402
from mdpsim.lm import losses  # noqa: E402
from mdpsim.lm.device import reproducible  # noqa: E402
from mdpsim.lm.model import Config, Transformer  # noqa: E402
from mdpsim.lm.quasi_newton import LBFGS, climb  # noqa: E402
from mdpsim.lm.table import TokenTable  # noqa: E402
from mdpsim.lm.train import Adam, Space, TrainingError, maximise  # noqa: E402
from mdpsim.papers.balashankar2024 import small_lm as best_of_n  # noqa: E402
from mdpsim.papers.korbak2022 import small_lm as posterior  # noqa: E402
from mdpsim.rng import generator  # noqa: E402

POSTERIOR = posterior.small_lm_posterior.grid["smoke"][0]
BEST_OF_N = best_of_n.small_lm_best_of_n.grid["smoke"][1]


def draw(point: Point, key: int) -> posterior._Instance:
    with reproducible():
        return posterior._instance(point, generator(key))


def table(seed: int, V: int = 3, L: int = 2) -> tuple[TokenTable, Space, Tensor, Tensor]:
    """A random table, its space, its log-probabilities and random rewards of two prompts."""
    rng = np.random.default_rng(seed)
    model = TokenTable(V, L, rng.standard_normal((2, V + V**2)))
    space = Space(prompts=torch.tensor([[V], [V + 1]]), length=L)
    return model, space, space.log_probs(model).detach(), torch.from_numpy(rng.standard_normal((2, V**L)))


# --- the posterior ---------------------------------------------------------------------------------------------------


def test_the_posterior_is_the_moved_transformer() -> None:
    """pi_0 e^{r / beta} / Z, summed here in numpy, is the law of the reference moved by the same noise; Z = e^{c / beta}."""
    beta = POSTERIOR["beta"]
    x = draw(POSTERIOR, 5)
    rng = generator(5)
    config = Config(vocabulary=4, prompts=4, context=4, layers=1, width=32, gain=2.0)
    moved = Transformer(config, rng).perturbed(0.2, rng)
    constant = rng.standard_normal(4)
    weights = np.exp(x.log_ref.numpy() + x.r.numpy() / beta - constant[:, None] / beta)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(x.log_posterior.numpy(), np.log(weights), atol=1e-11)
    np.testing.assert_allclose(x.space.log_probs(moved).detach().numpy(), np.log(weights), atol=1e-11)
    np.testing.assert_allclose(x.evidence.numpy(), constant, atol=1e-12)
    assert x.inside < 1e-12


def test_columns_of_the_posterior_claim() -> None:
    """kl is the worst prompt's, the false targets are far; plain RL ends far from the posterior."""
    columns, plain = (measure(POSTERIOR, [3]) for measure in (posterior.measure_posterior, posterior.measure_plain))
    assert columns["kl"] < 5e-3 < 0.1 < columns["start"]
    assert columns["beta_dropped"] > 0.05
    assert columns["prior_dropped"] > 0.5
    assert plain["kl"] > 0.5
    assert columns["evidence"] <= POSTERIOR["beta"] * columns["kl"] + 1e-12  # J = evidence - beta mean KL
    assert plain["evidence"] > 0.02


def test_the_worst_prompt_counts() -> None:
    _, _, log_ref, _ = table(3)
    even = torch.full_like(log_ref, -np.log(9.0))
    each = (log_ref.exp() * (log_ref - even)).sum(dim=1)
    assert posterior._worst(log_ref, even) == pytest.approx(float(each.max()), abs=1e-14)
    assert float(each.max() - each.min()) > 1e-3


def test_moved_weights() -> None:
    """Noise has the scale of the start, times sd; biases and norms stay; the model itself does not change."""
    config = Config(vocabulary=40, context=3, width=32, gain=0.5)
    model = Transformer(config, 0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    other = model.perturbed(0.3, 7)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    for name, p in other.named_parameters():
        change = (p - before[name]).detach()
        if name.endswith("bias") or "norm" in name:
            assert not change.any()
        elif change.numel() >= 1000:
            assert abs(change.std() / (0.3 * before[name].std()) - 1.0) < 0.1, name
    assert all(torch.equal(before[k], v) for k, v in model.perturbed(0.0, 1).state_dict().items())
    with pytest.raises(ValueError, match="perturbed: sd must"):
        model.perturbed(-0.1, 0)


# --- the optimiser ---------------------------------------------------------------------------------------------------


def test_climb_finds_the_optimum_of_tables() -> None:
    model, space, log_ref, r = table(0)
    exact = torch.log_softmax(log_ref + r / 0.5, dim=1)
    tight = LBFGS(evaluations=200, tolerance=1e-9)
    trace = climb(model, space, lambda p: losses.kl_reward(p, r, log_ref, 0.5), optimiser=tight)
    assert float(losses.divergence(space.log_probs(model).detach(), exact).max()) < 1e-12
    assert trace.loss[-1] == pytest.approx(-0.5 * float(torch.logsumexp(log_ref + r / 0.5, dim=1).mean()), abs=1e-12)


def test_climb_and_adam_end_in_one_place() -> None:
    """The optimisers of the posterior claim agree: each within its KL of one law."""
    x = draw(Point(POSTERIOR, prompts=1), 11)
    ends = []
    with reproducible():
        for fit in (climb, lambda *a: maximise(*a, optimiser=Adam(steps=400, rate=1e-3), every=400)):
            model = x.reference.perturbed(0.0, 0)
            fit(model, x.space, lambda p: losses.kl_reward(p, x.r, x.log_ref, 0.1))
            ends.append(x.space.log_probs(model).detach())
    assert all(float(losses.divergence(p, x.log_posterior).max()) < 2e-3 for p in ends)


def test_climb_stops_on_a_plateau() -> None:
    model, space, _, r = table(1)

    def objective(log_pi: Tensor) -> Tensor:
        return losses.reward(log_pi, r)

    objective(space.log_probs(model)).backward()
    steepest = float(model.theta.grad.abs().max())
    trace = climb(model, space, objective, optimiser=LBFGS(evaluations=1000, tolerance=1e-3))
    model.theta.grad = None
    objective(space.log_probs(model)).backward()
    assert len(trace.loss) < 200
    assert float(model.theta.grad.abs().max()) <= 1e-3 * steepest
    assert float(losses.entropy(space.log_probs(model).detach()).max()) < 0.05


def test_climb_counts_evaluations_and_keeps_good_weights() -> None:
    model, space, log_ref, r = table(2)
    trace = climb(model, space, lambda p: losses.kl_reward(p, r, log_ref, 0.5), optimiser=LBFGS(evaluations=5, tolerance=0.0))
    assert 5 <= len(trace.loss) <= 30
    assert np.array_equal(trace.steps, np.arange(len(trace.loss)))
    values: list[float] = []

    def breaks(log_pi: Tensor) -> Tensor:
        value = losses.kl_reward(log_pi, -r, log_ref, 0.5)
        values.append(float(value.detach()))
        return value * float("nan") if len(values) == 4 else value - 100.0 * (len(values) == 3)

    with pytest.raises(TrainingError, match="loss is nan at step 3") as caught:
        climb(model, space, breaks)
    reached = float(losses.kl_reward(space.log_probs(model).detach(), -r, log_ref, 0.5))
    assert caught.value.kept == 0  # the start, looked at twice; the third was said to be worse
    assert reached == values[0] == values[1] != values[2]
    with pytest.raises(ValueError, match="climb: model must have parameters to train"):
        climb(model.requires_grad_(False), space, breaks)
    with pytest.raises(ValueError, match="LBFGS: evaluations must"):
        LBFGS(evaluations=1)


# --- the best of n ---------------------------------------------------------------------------------------------------


def win_rate(pi: np.ndarray, p: np.ndarray, r: np.ndarray, n: int) -> float:
    """Best-of-n against the reference's best-of-n, from the laws of the maximum, response by response."""
    total = 0.0
    for mine, ref, row in zip(pi, p, r, strict=True):
        order = np.argsort(row)
        laws = [np.diff(np.concatenate([[0.0], np.cumsum(law[order])]) ** n) for law in (mine, ref)]
        below = np.cumsum(laws[1]) - laws[1]
        total += float(laws[0] @ (below + 0.5 * laws[1]))
    return total / len(p)


def tilted(x: best_of_n._Instance, kl: float) -> np.ndarray:
    """The identity's exact policy at an average KL, by bisection."""
    C = np.array([[(p[row < v].sum() + 0.5 * p[row == v].sum()) for v in row] for p, row in zip(x.p, x.r, strict=True)])
    low, high = 0.0, 1e3
    for _ in range(200):
        rate = 0.5 * (low + high)
        pi = x.p * np.exp(rate * (C - 1.0))
        pi = pi / pi.sum(axis=1, keepdims=True)
        spent = float((pi * np.log(pi / x.p)).sum(axis=1).mean())
        low, high = (rate, high) if spent < kl else (low, rate)
    return pi


def test_the_identity_is_credited_with_the_kl_it_was_denied() -> None:
    x = best_of_n._instance(BEST_OF_N, np.random.default_rng(3))
    W = {kl: win_rate(tilted(x, kl), x.p, x.r, 4) for kl in (0.45, 0.5, 0.6)}
    assert W[0.45] < W[0.5] < W[0.6]
    rival, credit = best_of_n.strongest_rival(x, ctrl=0.6, identity=0.5, win=0.8)
    assert credit == pytest.approx(W[0.6] - W[0.5], abs=1e-8)
    assert rival == pytest.approx(max(0.8 + credit, W[0.6]), abs=1e-8)
    assert credit > 0.01
    rival, credit = best_of_n.strongest_rival(x, ctrl=0.5, identity=0.6, win=0.9)
    assert credit == 0.0
    assert rival == 0.9
    rival, credit = best_of_n.strongest_rival(x, ctrl=0.5, identity=0.45, win=0.1)
    assert rival == pytest.approx(W[0.5], abs=1e-8)  # a badly trained identity does not help CTRL


def test_two_sample_win_rate() -> None:
    """Its value by a double loop, its standard error by repetition."""
    rng = np.random.default_rng(0)
    mine, other = rng.integers(0, 5, (2, 7)).astype(float), rng.integers(0, 5, (2, 9)).astype(float)
    pairs = [(a > b) + 0.5 * (a == b) for x in range(2) for a in mine[x] for b in other[x]]
    assert best_of_n.two_sample(mine, other)[0] == pytest.approx(np.mean(pairs), abs=1e-15)
    runs = [best_of_n.two_sample(rng.normal(0.8, 1.0, (2, 40)), rng.normal(0.0, 1.0, (2, 60))) for _ in range(2000)]
    values, errors = np.array(runs).T
    assert values.std() / np.sqrt((errors**2).mean()) == pytest.approx(1.0, abs=0.08)  # 4 standard errors of an sd of 2000


def test_what_training_leaves_is_a_divergence() -> None:
    """KL(pi || pi*) from the objective's shortfall is that of the laws; no beta here is 1."""
    x = best_of_n._instance(BEST_OF_N, np.random.default_rng(8))
    stated = best_of_n.CTRL(kl=0.5).run(x.r, x.p)
    with reproducible():
        arm = best_of_n._train(x, stated)
        pi = x.space.log_probs(arm.model).detach().exp().numpy()
    assert arm.left == pytest.approx(float((pi * np.log(pi / stated.pi)).sum(axis=1).mean()), rel=1e-6)
    assert arm.kl == pytest.approx(float((pi * np.log(pi / x.p)).sum(axis=1).mean()), rel=1e-9)
    assert stated.beta < 0.5
    assert arm.win == pytest.approx(win_rate(pi, x.p, x.r, 4), abs=1e-12)
    assert arm.win_of_one == pytest.approx(win_rate(pi, x.p, x.r, 1), abs=1e-12)


def test_columns_of_the_best_of_n_claim() -> None:
    """Both arms reach their KL and the exact win rates are those of the exact policies, up to what training left."""
    columns = {k: float(v[0]) for k, v in best_of_n.measure_best_of_n(BEST_OF_N, [4]).items()}
    x = best_of_n._instance(BEST_OF_N, generator(4))
    exact = win_rate(tilted(x, 0.5), x.p, x.r, 4)
    assert 0.0 <= columns["left_ctrl"] < 0.05
    assert 0.0 <= columns["left_identity"] < 0.05
    assert abs(columns["kl_ctrl"] - 0.5) < 0.05
    assert abs(columns["kl_identity"] - 0.5) < 0.05
    assert columns["win_identity"] == pytest.approx(exact, abs=0.02)
    assert columns["behind"] == columns["behind_sampled"] == 0.0
    assert columns["apart"] < 6.0
    assert columns["win_ctrl"] - columns["rival"] > 0.03
    assert min(columns[twin] for twin in ("ahead", "behind_far", "behind_of_one", "behind_worst")) > 0.02
