"""The language models' losses are the tabular functions: values and gradients on a bandit and a token tree, in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import mpmath
import numpy as np
import pytest

from mdpsim import Trajectories
from mdpsim.align.calibration import sample_anchors
from mdpsim.align.cccp import xpo_objective
from mdpsim.align.ctrl import CTRL
from mdpsim.align.dpo import Pairs, dpo_gradient, dpo_losses, pairs
from mdpsim.align.gradient import TokenSoftmax, exact_gradient, sampled_gradient
from mdpsim.align.objectives import Distribution, KLReward, Objective, Reward
from mdpsim.align.softmax_class import TokenBox
from mdpsim.align.transforms import IDENTITY, Exponential
from mdpsim.estimate.cloning import fit_bc
from mdpsim.mdp.token import TokenMDP

torch = pytest.importorskip("torch", reason="needs [lm]")

from mdpsim.lm import losses  # noqa: E402
from mdpsim.lm.table import TokenTable, table_of  # noqa: E402
from mdpsim.lm.train import Space, prefix_counts  # noqa: E402

TOL = 1e-10
SHAPES = [(7, 1), (3, 3)]  # a bandit and a token tree


class Setting(NamedTuple):
    """X prompts with tables of their own, as a torch model and as the tabular policies."""

    policy: TokenSoftmax
    theta: np.ndarray  # [X, n]
    model: TokenTable
    space: Space
    log_pi: np.ndarray  # [X, Y]
    pi_ref: np.ndarray  # [X, Y]
    r: np.ndarray  # [X, Y]
    mu0: np.ndarray  # [X]

    def grad(self, value: torch.Tensor) -> np.ndarray:
        """Of a scalar in the logits, [X, n]."""
        (found,) = torch.autograd.grad(value, [self.model.theta])
        return found.numpy()


@pytest.fixture(params=SHAPES, ids=["bandit", "tree"])
def at(request: pytest.FixtureRequest) -> Setting:
    V, L = request.param
    rng = np.random.default_rng(5)
    policy, X = TokenSoftmax(V, L), 3
    theta = rng.normal(size=(X, policy.size))
    model = TokenTable(V, L, theta)
    mu0 = rng.dirichlet(np.ones(X))
    space = Space(prompts=V + torch.arange(X)[:, None], length=L, mu0=torch.from_numpy(mu0))
    log_pi = np.stack([policy.log_pi(t) for t in theta])
    return Setting(policy, theta, model, space, log_pi, rng.dirichlet(np.ones(V**L), size=X), rng.normal(size=(X, V**L)), mu0)


def T(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(x))


def value_of(x: torch.Tensor) -> float:
    return x.item()


def agree(at: Setting, value: torch.Tensor, expected: float, gradient: np.ndarray) -> None:
    assert abs(value.item() - expected) <= TOL
    assert np.abs(at.grad(value) - gradient).max() <= TOL


def objectives(at: Setting, kind: str) -> list[Objective]:
    if kind == "reward":
        return [Reward(r) for r in at.r]
    if kind == "kl":
        return [KLReward(r, p, beta=0.3) for r, p in zip(at.r, at.pi_ref, strict=True)]
    return [Distribution(p) for p in at.pi_ref]


def torch_objective(at: Setting, kind: str, log_pi: torch.Tensor) -> torch.Tensor:
    mu0 = at.space.mu0
    if kind == "reward":
        return losses.reward(log_pi, T(at.r), mu0)
    if kind == "kl":
        return losses.kl_reward(log_pi, T(at.r), T(np.log(at.pi_ref)), 0.3, mu0)
    return losses.distribution(log_pi, T(at.pi_ref), mu0)


@pytest.mark.parametrize("kind", ["reward", "kl", "distribution"])
def test_exact_objectives(at: Setting, kind: str) -> None:
    log_pi = at.space.log_probs(at.model)
    assert np.abs(log_pi.detach().numpy() - at.log_pi).max() <= TOL
    tabular = objectives(at, kind)
    expected = sum(m * o.value(lp) for m, o, lp in zip(at.mu0, tabular, at.log_pi, strict=True))
    gradient = [m * exact_gradient(at.policy, t, o) for m, o, t in zip(at.mu0, tabular, at.theta, strict=True)]
    agree(at, torch_objective(at, kind, log_pi), expected, np.stack(gradient))


def test_the_mean_over_prompts_is_uniform_without_mu0(at: Setting) -> None:
    log_pi = at.space.log_probs(at.model)
    plain = Space(prompts=at.space.prompts, length=at.space.length)
    even = replace(plain, mu0=torch.full((3,), 1 / 3, dtype=torch.float64))
    for kind in ("reward", "kl", "distribution"):
        one, two = (torch_objective(at._replace(space=space), kind, log_pi) for space in (plain, even))
        assert abs((one - two).item()) <= TOL


@pytest.mark.parametrize("kind", ["reward", "kl", "distribution"])
@pytest.mark.parametrize("baseline", [0.0, -1.7, "leave-one-out"])
def test_reinforce_is_the_sampled_gradient_of_the_same_draws(at: Setting, kind: str, baseline: float | str) -> None:
    n, seed = 40, 11
    objective = objectives(at, kind)[0]
    tabular = sampled_gradient(at.policy, at.theta[0], objective, n, np.random.default_rng(seed), baseline=baseline)
    cumulative = np.cumsum(np.exp(at.log_pi[0]))
    drawn = cumulative.searchsorted(np.random.default_rng(seed).random(n) * cumulative[-1], side="right")
    log_pi = at.space.log_probs(at.model)[0, T(drawn)]
    signal = T(objective.signal(at.log_pi[0])[drawn])
    found = at.grad(losses.reinforce(log_pi, signal, baseline))
    assert np.abs(found[0] - tabular).max() <= TOL * max(1.0, np.abs(tabular).max())
    assert not found[1:].any()


def some_pairs(at: Setting, n: int = 60) -> Pairs:
    rng = np.random.default_rng(3)
    x, y = rng.integers(3, size=n), rng.integers(at.r.shape[1], size=(n, 2))
    return pairs(np.stack([x, y[:, 0]], axis=1), np.stack([x, y[:, 1]], axis=1))


def looked_up(at: Setting, data: Pairs) -> tuple[torch.Tensor, ...]:
    """log pi and log pi_ref of the preferred and of the other responses."""
    log_pi, log_ref = at.space.log_probs(at.model), T(np.log(at.pi_ref))
    x, a, b = (T(i) for i in data)
    return log_pi[x, a], log_pi[x, b], log_ref[x, a], log_ref[x, b]


@pytest.mark.parametrize(("smoothing", "loss"), [(0.0, "logistic"), (0.2, "logistic"), (0.5, "logistic"), (0.0, "ipo")])
@pytest.mark.parametrize("beta", [0.05, 3.0])
def test_dpo(at: Setting, smoothing: float, loss: str, beta: float) -> None:
    data, log_ref = some_pairs(at), np.log(at.pi_ref)
    how = {"beta": beta, "smoothing": smoothing, "loss": loss}
    value = losses.dpo(*looked_up(at, data), **how)
    expected = dpo_losses(at.log_pi[None], log_ref, data, **how)[0]
    agree(at, value / max(1.0, expected), expected / max(1.0, expected),
          dpo_gradient(at.policy, at.theta, log_ref, data, **how) / max(1.0, expected))


def test_dpo_is_the_published_definition(at: Setting) -> None:
    """-E log sigma(beta log pi/pi_ref(y_w) - beta log pi/pi_ref(y_l)), in 50 digits (Rafailov et al., 2023, Eq. 7)."""
    data, beta = some_pairs(at, 20), 0.7
    with mpmath.workdps(50):
        total = mpmath.mpf(0)
        for x, w, l in zip(*data, strict=True):
            law = [mpmath.exp(mpmath.mpf(float(v))) for v in at.log_pi[x]]
            ratio = [law[y] / mpmath.mpf(float(at.pi_ref[x, y])) for y in (w, l)]
            margin = beta * mpmath.log(ratio[0]) - beta * mpmath.log(ratio[1])
            total -= mpmath.log(1 / (1 + mpmath.exp(-margin)))
        expected = float(total / len(data.context))
    assert abs(value_of(losses.dpo(*looked_up(at, data), beta=beta)) - expected) <= TOL


def test_a_mean_over_tokens_is_another_loss(at: Setting) -> None:
    """The twin: what DPO is not, where responses have more than one token."""
    data, L = some_pairs(at), at.space.length
    right = value_of(losses.dpo(*looked_up(at, data), beta=0.7))
    mean = value_of(losses.dpo(*(x / L for x in looked_up(at, data)), beta=0.7))
    assert (abs(right - mean) > 1e-3) == (L > 1)


@pytest.mark.parametrize("alpha", [-0.2, 0.0, 0.4])
def test_xpo(at: Setting, alpha: float) -> None:
    data, log_ref, n, beta = some_pairs(at), np.log(at.pi_ref), 60, 0.5
    second = np.random.default_rng(8).integers(at.r.shape[1], size=n)
    log_pi = at.space.log_probs(at.model)
    value = losses.xpo(*looked_up(at, data), log_pi[T(data.context), T(second)], alpha=alpha, beta=beta)
    expected = dpo_losses(at.log_pi[None], log_ref, data, beta=beta)[0] + alpha * at.log_pi[data.context, second].mean()
    counts = np.zeros_like(at.pi_ref)
    np.add.at(counts, (data.context, second), 1.0)
    bonus = np.stack([at.policy.pullback(t, c) for t, c in zip(at.theta, counts, strict=True)]) * alpha / n
    gradient = dpo_gradient(at.policy, at.theta, log_ref, data, beta=beta) + bonus
    agree(at, value, float(expected), gradient)
    wins = np.zeros((*at.pi_ref.shape, at.pi_ref.shape[1]))
    np.add.at(wins, (data.context, data.better, data.worse), 1.0)
    log_pi = at.space.log_probs(at.model)
    whole = losses.history_loss(log_pi, T(log_ref), T(wins), T(counts), alpha=alpha, beta=beta)
    agree(at, whole / n, float(expected), gradient)


def test_the_history_is_the_objective_of_the_softmax_classes() -> None:
    """history_loss less alpha sum log pi_ref(y~) is ``align.cccp``'s objective, on a token tree."""
    V, L, beta, alpha, n = 3, 2, 0.4, 0.3, 25
    rng = np.random.default_rng(2)
    mdp = TokenMDP(rng.random((2, V**L)), vocabulary=V, length=L)
    box = TokenBox(mdp, mdp.uniform_policy(), beta=beta, r_max=1.0)
    theta = rng.random(box.size)
    x, y = rng.integers(2, size=n), rng.integers(V**L, size=(n, 3))
    expected = xpo_objective(box, theta, y[:, 0], y[:, 1], y[:, 2], alpha=alpha, prompts=x)
    log_ref = np.full((2, V**L), -L * np.log(V))
    wins, second = np.zeros((2, V**L, V**L)), np.zeros((2, V**L))
    np.add.at(wins, (x, y[:, 0], y[:, 1]), 1.0)
    np.add.at(second, (x, y[:, 2]), 1.0)
    model = TokenTable(V, L, table_of(box.log_pi(theta), V, L))
    log_pi = Space(prompts=torch.tensor([[V], [V + 1]]), length=L).log_probs(model)
    found = losses.history_loss(log_pi, T(log_ref), T(wins), T(second), alpha=alpha, beta=beta)
    assert abs(found.item() - alpha * (second * log_ref).sum() - expected) <= TOL


def levels(at: Setting) -> list[torch.Tensor]:
    found = at.model.tree_log_probs(at.space.prompts, at.space.length)
    assert found is not None
    return found


@pytest.mark.parametrize("kappa", [0.0, 1.0, 0.25])
def test_cloning(at: Setting, kappa: float) -> None:
    n, L, V = 50, at.space.length, at.policy.V
    rng = np.random.default_rng(4)
    x, y = rng.integers(3, size=n), rng.integers(V, size=(n, L))
    counts = prefix_counts(T(y), T(x), 3, V)
    value = losses.cloning(levels(at), counts, kappa)
    place = y @ V ** np.arange(L)[::-1]
    seen = np.zeros_like(at.r)
    np.add.at(seen, (x, place), 1.0)
    rows = [[np.log(np.exp(t) / np.exp(t).sum(1, keepdims=True)) for t in at.policy.tables(theta)] for theta in at.theta]
    expected = -((seen * at.log_pi).sum() + kappa * sum(t.sum() for tables in rows for t in tables)) / n
    pulled = np.stack([at.policy.pullback(t, c) for t, c in zip(at.theta, seen, strict=True)])
    pseudo = np.stack([np.concatenate([(1.0 - V * np.exp(t)).reshape(-1) for t in tables]) for tables in rows])
    agree(at, value, expected, -(pulled + kappa * pseudo) / n)


def test_cloning_is_least_at_the_tabular_clone(at: Setting) -> None:
    n, L, V = 30, at.space.length, at.policy.V
    rng = np.random.default_rng(4)
    x, y = np.sort(rng.integers(3, size=n)), rng.integers(V, size=(n, L))
    mdp = TokenMDP(at.r, vocabulary=V, length=L)
    states = np.zeros((n, L + 1), dtype=int)
    states[:, 0] = x
    for h in range(L - 1):
        states[:, h + 1] = states[:, h] * V + y[:, h]
    demos = Trajectories(states, y, np.zeros((n, L)), S=mdp.S, A=V)
    clone = mdp.responses(fit_bc(demos, smoothing=1.0)).log_prob
    model = TokenTable(V, L, table_of(clone, V, L))
    best = losses.cloning(model.tree_log_probs(at.space.prompts, L), prefix_counts(T(y), T(x), 3, V), 1.0)  # type: ignore[arg-type]
    (slope,) = torch.autograd.grad(best, [model.theta])
    assert slope.abs().max() <= TOL
    worse = losses.cloning(levels(at), prefix_counts(T(y), T(x), 3, V), 1.0)
    assert worse.item() > best.item()


@pytest.mark.parametrize("transform", [IDENTITY, Exponential(3.0)], ids=["identity", "exponential"])
def test_ctrl_trains_on_the_scores_of_the_tabular_one(at: Setting, transform: object) -> None:
    exact = losses.transformed_rewards(at.r, transform, pi_ref=at.pi_ref)  # type: ignore[arg-type]
    assert np.abs(exact - CTRL(transform=transform, beta=1.0).run(at.r, at.pi_ref).scores).max() <= TOL  # type: ignore[arg-type]
    anchors = sample_anchors(at.r, at.pi_ref, 9, np.random.default_rng(0), shared=True)
    drawn = losses.transformed_rewards(at.r, transform, anchors=anchors)  # type: ignore[arg-type]
    tabular = CTRL(transform=transform, K=9, beta=1.0).run(at.r, at.pi_ref, np.random.default_rng(0))  # type: ignore[arg-type]
    assert np.abs(drawn - tabular.scores).max() <= TOL


def test_zeros_cost_nothing_and_infinities_say_so() -> None:
    log_pi = torch.tensor([[0.0, -torch.inf]], dtype=torch.float64)
    even = torch.log(torch.tensor([[0.5, 0.5]], dtype=torch.float64))
    assert value_of(losses.entropy(log_pi)) == 0.0
    assert value_of(losses.divergence(log_pi, even)) == pytest.approx(np.log(2), abs=1e-15)
    assert value_of(losses.divergence(even, log_pi)) == np.inf
    point = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert value_of(losses.distribution(even, point)) == pytest.approx(-np.log(2), abs=1e-15)


@pytest.mark.parametrize(("call", "message"), [
    (lambda x: losses.kl_reward(x, x, x, 0.0), r"kl_reward: beta must be a number in \[1e-08, 1e\+08\]; got 0.0"),
    (lambda x: losses.dpo(x[0], x[0], x[0], x[0], beta=1.0, loss="hinge"), "dpo: loss must be one of the known names"),
    (lambda x: losses.dpo(x[0], x[0], x[0], x[0], beta=1.0, smoothing=0.6), "dpo: smoothing must be a number in"),
    (lambda x: losses.dpo(x[0], x[0], x[0], x[0], beta=1.0, smoothing=0.1, loss="ipo"), "smoothing must be 0 for the loss"),
    (lambda x: losses.reinforce(x[0, :1], x[0, :1]), "hold at least 2 responses"),
    (lambda x: losses.reinforce(x[0], x[0], "mean"), "baseline must be a number or 'leave-one-out'"),
    (lambda x: losses.xpo(x[0], x[0], x[0], x[0], x[0], alpha=np.nan, beta=1.0), "xpo: alpha must be a number"),
    (lambda x: losses.transformed_rewards(x.numpy(), IDENTITY), "exactly one of the two; got neither"),
])
def test_bad_arguments(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.log(torch.full((2, 3), 1 / 3, dtype=torch.float64)))  # type: ignore[operator]
