"""XPO over finite classes: the kernel against plain Python, laws known exactly, classes, ties, guards."""

from __future__ import annotations

import math
import re

import mpmath
import numpy as np
import pytest

from mdpsim import evaluate
from mdpsim.align import rounds as rounds_module
from mdpsim.align.classes import FiniteClass, RewardBox, gaps, kl_rows, tilt_rows
from mdpsim.align.dpo import ComparatorDPO, IterativeDPO, OfflineDPO, OnlineDPO
from mdpsim.align.rounds import Exploration, PreferenceModel
from mdpsim.align.xpo import XPO, theorem_alpha
from mdpsim.mdp.token import TokenMDP
from mdpsim.rng import words
from reference import preferences as plain
from tolerances import EPS, KERNEL

X, Y, N, T = 2, 3, 7, 25


def instance(seed, beta=0.3):
    """Random rewards and implicit rewards, one of them the truth; a reference with a response that is never written."""
    rng = np.random.default_rng(seed)
    r, ref = rng.random((X, Y)), rng.dirichlet(np.ones(Y), size=X)
    ref[1] = [0.6, 0.4, 0.0]
    rho = np.concatenate([rng.random((N - 1, X, Y)), r[None]])
    with np.errstate(divide="ignore"):
        policies = FiniteClass.from_rewards(rho, np.log(ref))
    return TokenMDP(r, vocabulary=Y, length=1, mu0=[0.3, 0.7]), policies, ref, beta


def bandit(r):
    return TokenMDP(np.array([r]), vocabulary=len(r), length=1)


LEARNERS = {
    "xpo": (lambda b: XPO(alpha=0.1 * b, beta=b), {"alpha": 0.1}),
    "xpo, history": (lambda b: XPO(alpha=0.1 * b, beta=b, comparator="history"), {"alpha": 0.1, "second": "history"}),
    "xpo, on-policy": (lambda b: XPO(alpha=0.1 * b, beta=b, comparator="policy"), {"alpha": 0.1, "second": "policy"}),
    "pessimism": (lambda b: XPO(alpha=-0.1 * b, beta=b, pessimism=True), {"alpha": -0.1}),
    "given": (lambda b: XPO(alpha=0.1 * b, beta=b, comparator=[[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]]),
              {"alpha": 0.1, "second": "given", "given": [[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]]}),
    "comparator": (lambda b: ComparatorDPO(beta=b), {}),
    "online": (lambda b: OnlineDPO(beta=b), {"second": "policy"}),
    "offline": (lambda b: OfflineDPO(beta=b), {"first": "reference"}),
    "iterative": (lambda b: IterativeDPO(beta=b, batch=4), {"second": "policy", "every": 4}),
    "smoothing": (lambda b: XPO(alpha=0.1 * b, beta=b, smoothing=0.2), {"alpha": 0.1, "smoothing": 0.2}),
    "ipo": (lambda b: XPO(alpha=0.1 * b, beta=b, loss="ipo"), {"alpha": 0.1, "kind": "ipo"}),
}


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("start", [None, 3])
def test_every_round_is_that_of_plain_python(name, start):
    """Pairs, choices and final scores; the average, best and counts follow from them."""
    make, options = LEARNERS[name]
    for seed in range(4):
        mdp, policies, ref, beta = instance(seed)
        found = make(beta).run(mdp, policies, T, [seed], start=start, checkpoints=np.arange(1, T + 1), keep=True)
        settings = {"alpha": 0.0, "first": "policy", "second": "reference"} | options
        settings["alpha"] *= beta
        pairs, chosen, scores = plain.play(
            policies.values.tolist(), ref.tolist(), mdp.mu0.tolist(), mdp.r.tolist(), beta=beta, rounds=T, key=words(seed),
            start=start, **settings,
        )
        assert found.pairs[0].tolist() == [list(p) for p in pairs]
        assert [*found.chosen[0], found.final[0]] == chosen
        if name != "iterative":  # which saw a 25th pair after its last update
            assert np.allclose(found.scores[0], scores, rtol=KERNEL, atol=KERNEL)
        all_gaps = np.append(policies.gaps(mdp, beta), gaps(mdp, policies.log_ref[None], policies.log_ref, beta))
        played = all_gaps[chosen[:-1]]
        assert np.allclose(found.gap[0], played, rtol=KERNEL, atol=KERNEL)
        assert np.allclose(found.average[0], np.cumsum(played) / np.arange(1, T + 1), rtol=KERNEL, atol=0)
        assert np.array_equal(found.best[0], np.minimum.accumulate(found.gap[0]))
        mixed = [y != z for _, y, z, _ in pairs]
        against = [y != z and (mdp.r[x, y] < mdp.r[x, z]) == bool(label) for x, y, z, label in pairs]
        assert np.array_equal(found.mixed[0], np.cumsum(mixed))
        assert np.array_equal(found.wrong[0], np.cumsum(against))
        assert found.final_gap[0] == pytest.approx(all_gaps[chosen[-1]], rel=KERNEL, abs=KERNEL)


def test_mass_is_that_of_the_best_response_written():
    mdp, policies, ref, beta = instance(1)
    found = XPO(alpha=0.1, beta=beta).run(mdp, policies, 40, 3, checkpoints=[1, 40])
    laws = [*np.exp(policies.log_pi(beta)), ref]
    best = [int(mdp.r[0].argmax()), int(mdp.r[1, :2].argmax())]  # the third response to context 1 is never written
    for k, mass in zip(found.chosen[0], found.mass[0], strict=True):
        assert mass == pytest.approx(sum(mdp.mu0[x] * laws[k][x][best[x]] for x in range(X)), rel=1e-14)
    assert set(found.chosen[0]) != {N}


def fields(found: Exploration, where=slice(None)):
    one_a_run = {"gap", "average", "best", "mass", "mixed", "wrong", "chosen", "left", "reached", "final", "final_gap", "pairs",
                 "scores"}
    return {name: getattr(found, name)[where].tobytes() for name in one_a_run}


@pytest.mark.parametrize("comparator", ["reference", "history", "policy"])
def test_a_run_depends_on_its_seed_alone(comparator):
    mdp, policies, _, beta = instance(5)
    learner = XPO(alpha=0.1, beta=beta, comparator=comparator)
    seeds = [7, 2**100 + 1, 0, 12, 5]
    whole = learner.run(mdp, policies, 60, seeds, keep=True)
    for i, seed in enumerate(seeds):
        assert fields(whole, slice(i, i + 1)) == fields(learner.run(mdp, policies, 60, seed, keep=True))
    assert len({fields(whole, slice(i, i + 1))["pairs"] for i in range(5)}) == 5
    first = learner.run(mdp, policies, 30, seeds, keep=True)
    assert np.array_equal(first.pairs, whole.pairs[:, :30]), "the first 30 of 60 rounds are those of 30"


def test_the_words_of_a_seed():
    """Two 64-bit words of its SHA-256: other seeds, other streams."""
    import hashlib

    hashed = hashlib.sha256((2**100 + 1).to_bytes(16, "little")).digest()
    assert words(2**100 + 1) == tuple(int.from_bytes(hashed[i : i + 8], "little") for i in (0, 8))
    assert len({w for seed in range(1000) for w in words(seed)}) == 2000


@pytest.mark.parametrize("comparator", ["reference", "history"])
def test_alpha_zero_is_dpo_bit_for_bit(comparator):
    for seed in range(5):
        mdp, policies, _, beta = instance(seed)
        one = XPO(alpha=0.0, beta=beta, comparator=comparator).run(mdp, policies, 80, range(6), keep=True)
        two = ComparatorDPO(beta=beta, comparator=comparator).run(mdp, policies, 80, range(6), keep=True)
        assert fields(one) == fields(two)
    pushed = XPO(alpha=0.05, beta=beta, comparator=comparator).run(mdp, policies, 80, range(6), keep=True)
    assert fields(pushed)["chosen"] != fields(one)["chosen"]
    online = OnlineDPO(beta=beta).run(mdp, policies, 80, range(6), keep=True)
    on_policy = XPO(alpha=0.0, beta=beta, comparator="policy").run(mdp, policies, 80, range(6), keep=True)
    assert fields(online) == fields(on_policy)
    assert fields(online) == fields(IterativeDPO(beta=beta, batch=1).run(mdp, policies, 80, range(6), keep=True))


def test_few_kept_losses_give_the_same_run(monkeypatch):
    mdp, policies, _, beta = instance(2)
    usual = XPO(alpha=0.05, beta=beta).run(mdp, policies, 200, range(5), keep=True)
    monkeypatch.setattr(rounds_module, "KEPT", 3 * N)
    assert fields(XPO(alpha=0.05, beta=beta).run(mdp, policies, 200, range(5), keep=True)) == fields(usual)


def two_arms(beta=0.02, size=41):
    """Proposition 2.1: r = (1, 1/2), pi_ref(a) = e^{-1/(8 beta)}."""
    u = np.linspace(-1.0, 1.0, size)
    rho = np.stack([np.maximum(u, 0.0), np.maximum(-u, 0.0)], axis=1)[:, None]
    x = 1.0 / (8.0 * beta)
    return bandit([1.0, 0.5]), FiniteClass.from_rewards(rho, np.array([[-x, np.log1p(-np.exp(-x))]])), math.exp(-x)


def test_the_chance_of_no_mixed_pair_is_exact():
    """(1 - 2 eps (1 - eps))^T, and until then the policy is pi_ref; a wrong label, of probability sigma(-1/2), is for good."""
    mdp, policies, eps = two_arms()
    rounds, n = int(1 / (2 * eps)), 20_000
    found = OnlineDPO(beta=0.02).run(mdp, policies, rounds, range(n), target=1 / 8)
    q = (1 - 2 * eps * (1 - eps)) ** (rounds - 1)
    stays = found.left > rounds
    assert abs(stays.mean() - q) < 4 * math.sqrt(q * (1 - q) / n)
    assert np.array_equal(found.mixed[:, -1] > 0, found.final != policies.n // 2), "it leaves after a mixed pair only"
    fails = q + (1 - q) / (1 + math.exp(0.5))
    assert abs((found.reached > rounds).mean() - fails) < 4 * math.sqrt(fails * (1 - fails) / n)
    none = OfflineDPO(beta=0.02).run(mdp, policies, rounds, range(n))
    assert abs((none.left > rounds).mean() - q) < 4 * math.sqrt(q * (1 - q) / n)


def test_labels_follow_the_preference_model():
    mdp, policies = bandit([1.0, 0.2]), FiniteClass.from_rewards(np.zeros((1, 1, 2)), np.log([[0.5, 0.5]]))
    n, learner = 20_000, OfflineDPO(beta=1.0)

    def wrong(preference):
        found = learner.run(mdp, policies, n, 0, preference=preference)
        return found.wrong[0, -1] / found.mixed[0, -1]

    sigma = 1 / (1 + math.exp(0.8))
    for preference, p in (
        (PreferenceModel(), sigma), (PreferenceModel(noise=0.5), 0.5), (PreferenceModel(noise=0.2), 0.2 + 0.6 * sigma),
        (PreferenceModel(link=lambda d: np.clip(0.5 + d / 4, 0.0, 1.0)), 0.3),
    ):
        assert abs(wrong(preference) - p) < 4 * math.sqrt(p * (1 - p) / (n / 2))
    assert wrong(PreferenceModel(link=lambda d: np.where(d == 0.0, 0.5, (d > 0.0).astype(float)))) == 0.0


def test_ties_go_to_the_reference_or_to_anyone():
    """With comparisons of b with itself only, every policy has the same loss."""
    log_ref = np.log([[1e-300, 1.0]])
    rho = np.array([[[1.0, 0.0]], [[0.2, 0.0]], [[0.0, 0.3]], [[0.0, 1.0]]])  # pi_ref itself is not among them
    policies, mdp = FiniteClass.from_rewards(rho, log_ref), bandit([1.0, 0.5])
    nearest = int(kl_rows(policies.log_pi(0.5), log_ref[None])[:, 0].argmin())
    found = OfflineDPO(beta=0.5).run(mdp, policies, 20, range(50))
    assert (found.final == nearest).all()
    assert (found.chosen[:, 0] == 4).all(), "pi^1 is pi_ref even where the class does not hold it"
    anyone = OfflineDPO(beta=0.5, ties="random").run(mdp, policies, 20, range(4000))
    counts = np.bincount(anyone.final, minlength=4)
    assert ((counts - 1000) ** 2 / 1000).sum() < 21.1  # chi-square, 3 degrees, 1e-4


def test_a_small_alpha_is_not_zero():
    """It breaks the ties that alpha = 0 leaves, towards the arm that was never seen."""
    mdp, policies, _ = two_arms()
    still = XPO(alpha=0.0, beta=0.02).run(mdp, policies, 1, range(20))
    moved = XPO(alpha=1e-6 * 0.02, beta=0.02).run(mdp, policies, 1, range(20))
    assert (still.final == policies.n // 2).all()
    assert (moved.final == policies.n - 1).all()


# --- classes ---------------------------------------------------------------------------------------------------------


def test_gaps_are_those_of_evaluation():
    """beta KL(pi || pi*) = J(pi*) - J(pi), J by backward induction over tokens."""
    rng = np.random.default_rng(0)
    mdp = TokenMDP(rng.random((2, 8)), vocabulary=2, length=3, mu0=[0.25, 0.75])
    ref = rng.dirichlet(np.ones(2), size=(3, mdp.S))
    log_ref = mdp.responses(ref).log_prob
    policies = FiniteClass.from_rewards(np.concatenate([rng.random((5, 2, 8)), mdp.r[None]]), log_ref)
    J = [evaluate(mdp, mdp.token_policy(log), pi_ref=ref, beta=0.3).J for log in policies.log_pi(0.3)]
    assert np.allclose(policies.gaps(mdp, 0.3), J[-1] - np.array(J), rtol=0, atol=1e-13)
    again = FiniteClass.from_policies(policies.log_pi(0.3), log_ref)
    assert np.allclose(again.gaps(mdp, 0.3), policies.gaps(mdp, 0.3), rtol=1e-10, atol=1e-15)
    assert np.allclose(again.implicit(0.3)[0], policies.values - policies.implicit(0.3)[1][..., None], rtol=0, atol=1e-13)
    assert np.allclose(mdp.r, policies.values[-1]), "the truth is its own implicit reward"


@pytest.mark.parametrize("beta", [1e-8, 1e-3, 0.3, 1.0, 1e3, 1e8])
def test_values_and_gaps_against_many_digits(beta):
    rng = np.random.default_rng(3)
    rho, r = rng.random((3, 1, 4)), rng.random((1, 4))
    log_ref = np.array([[math.log(1e-300), -50.0, math.log(0.3), 0.0]])
    log_ref[0, 3] = math.log1p(-0.3 - math.exp(-50.0))
    policies = FiniteClass.from_rewards(rho, log_ref)
    with mpmath.workdps(200):
        ref = [mpmath.exp(mpmath.mpf(x)) for x in log_ref[0]]

        def value(row):
            return beta * mpmath.log(mpmath.fsum(p * mpmath.exp(mpmath.mpf(x) / beta) for p, x in zip(ref, row, strict=True)))

        V = [value(row[0]) for row in rho]
        best, V_star = r[0], value(r[0])
        for k, row in enumerate(rho):
            assert abs(float(tilt_rows(row, log_ref, beta)[1][0] - V[k])) <= 8 * EPS * (1.0 + beta * abs(float(log_ref[0, 3])))
            pi = [p * mpmath.exp((x - V[k]) / beta) for p, x in zip(ref, row[0], strict=True)]
            exact = mpmath.fsum(p * ((x - V[k]) - (y - V_star)) for p, x, y in zip(pi, row[0], best, strict=True))
            found = float(policies.gaps(bandit(r[0]), beta)[k])
            assert found == pytest.approx(float(exact), rel=1e-12 if beta <= 10 else 1e-7, abs=1e-300)
            law = policies.log_pi(beta)[k, 0]
            assert abs(np.exp(law).sum() - 1.0) <= 8 * EPS
            for found_log, p in zip(law, pi, strict=True):
                assert abs(float(found_log - mpmath.log(p))) <= 8 * EPS * (1.0 + abs(float(mpmath.log(p))))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("beta", [1e-8, 1e-3, 1e4, 1e8])
@pytest.mark.parametrize("ref", [[0.25] * 4, [1e-300, 1e-20, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.0, 1.0]])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_runs_at_the_extremes(beta, ref, scale):
    """Finite gaps, masses that are probabilities, a class that holds the optimum; no warning on the way."""
    rho = scale * np.concatenate([np.random.default_rng(0).random((10, 1, 4)), np.zeros((1, 1, 4))])
    with np.errstate(divide="ignore"):
        policies = FiniteClass.from_rewards(rho, np.log([ref]))
    mdp = bandit(rho[3, 0])
    for learner in (
        XPO(alpha=0.1 * beta, beta=beta), OfflineDPO(beta=beta),
        XPO(alpha=0.1 * beta, beta=beta, comparator="history", loss="ipo"),
    ):
        found = learner.run(mdp, policies, 50, range(3))
        for name in ("gap", "average", "best", "mass"):
            assert np.isfinite(getattr(found, name)).all(), name
        assert found.gap.min() >= 0.0
        assert found.mass.max() <= 1.0 + 8 * EPS
        assert found.distance == 0.0


def test_misspecified_classes_are_reported_with_their_distance():
    mdp, policies, ref, beta = instance(0)
    assert policies.misfit(mdp, beta).index == N - 1
    assert policies.misfit(mdp, beta).distance < 1e-28
    without = FiniteClass.from_rewards(policies.values[:-1], policies.log_ref)
    by_hand = []
    for rho in without.values:
        total = 0.0
        for x in range(X):
            total += mdp.mu0[x] * plain.kl(plain.policy(rho[x], ref[x], beta), plain.policy(mdp.r[x], ref[x], beta))
        by_hand.append(beta * total)
    misfit = without.misfit(mdp, beta)
    assert (misfit.index, misfit.distance) == (int(np.argmin(by_hand)), pytest.approx(min(by_hand), rel=1e-12))
    found = XPO(alpha=0.01, beta=beta).run(mdp, without, 50, range(3))
    assert found.distance == misfit.distance > 1e-4
    assert (found.gap[found.chosen < N - 1] >= misfit.distance).all()


def test_the_grid_of_a_box():
    log_ref = np.log([[0.98, 0.01, 0.01]])
    grid = RewardBox(r_max=1.0).grid(log_ref, 5)
    assert grid.n == 5**3 - 4**3 == 61
    assert not grid.values[0].any()
    assert (grid.values.min(axis=2) == 0.0).all()
    assert len(np.unique(grid.values.reshape(61, 3), axis=0)) == 61
    assert grid.misfit(bandit([0.5, 0.25, 1.0]), 0.02).distance < 1e-25
    assert (np.abs(0.02 * (grid.log_pi(0.02) - log_ref)) <= 1.0 + 1e-14).all()
    two = RewardBox(r_max=2.0).grid(np.log([[0.5, 0.5], [0.1, 0.9]]), 3)
    assert two.n == (3**2 - 2**2) ** 2 == 25
    assert two.values.max() == 2.0


def test_the_theorems_alpha():
    """By hand, and as tabulated (alpha / beta at T = 256, 1024, 4096, 16384 for |Pi| = 61, C = 3, R = V = 1)."""
    for rounds, value in ((256, 0.0205), (1024, 0.0120), (4096, 0.0069), (16384, 0.0039)):
        found = theorem_alpha(beta=0.1, rounds=rounds, n_policies=61, coverability=3.0) / 0.1
        assert found == pytest.approx(value, abs=6e-5)
        by_hand = math.sqrt(math.log(61 * rounds / 0.05) * math.log(rounds) / (3 * rounds)) / (2 * math.e**2)
        assert found == pytest.approx(by_hand, rel=1e-14)
    grid = RewardBox().grid(np.log([[0.98, 0.01, 0.01]]), 5)
    mdp = bandit([0.0, 0.5, 1.0])
    v_max = float(np.abs(0.02 * (grid.log_pi(0.02) - grid.log_ref)).max())
    coverability = float(np.exp(grid.log_pi(0.02)).max(axis=0).sum())
    found = XPO(alpha="theorem", beta=0.02).run(mdp, grid, 256, 0)
    assert found.alpha == pytest.approx(
        theorem_alpha(beta=0.02, rounds=256, n_policies=61, coverability=coverability, v_max=v_max), rel=1e-12)


# --- bad input -------------------------------------------------------------------------------------------------------

MDP, POLICIES, _, BETA = instance(0)
LOG_REF = np.log([[0.5, 0.5]])
BAD = {
    "negative alpha": (lambda: XPO(alpha=-0.1, beta=1.0),
                       "alpha must be >= 0 (pessimism=True asks for a negative one); got -0.1"),
    "pessimism, positive": (lambda: XPO(alpha=0.1, beta=1.0, pessimism=True), "alpha must be < 0 with pessimism=True"),
    "alpha nan": (lambda: XPO(alpha=math.nan, beta=1.0), "alpha must be a number"),
    "alpha word": (lambda: XPO(alpha="best", beta=1.0), "alpha must be a number or 'theorem'"),
    "beta zero": (lambda: XPO(alpha=0.1, beta=0.0), "beta must be a number in [1e-08, 1e+08]"),
    "comparator": (lambda: XPO(alpha=0.1, beta=1.0, comparator="referense"), "nearest: reference"),
    "comparator law": (lambda: XPO(alpha=0.1, beta=1.0, comparator=[[0.5, 0.6]]).run(MDP, POLICIES, 3, 0), "comparator must"),
    "loss": (lambda: OnlineDPO(beta=1.0, loss="hinge"), "loss must be one of"),
    "ties": (lambda: OnlineDPO(beta=1.0, ties="coin"), "ties must be one of"),
    "smoothing": (lambda: OnlineDPO(beta=1.0, smoothing=0.6), "smoothing must be a number in [0, 0.5]"),
    "smoothed ipo": (lambda: OnlineDPO(beta=1.0, smoothing=0.1, loss="ipo"), "smoothing must be 0 for the loss 'ipo'"),
    "batch": (lambda: IterativeDPO(beta=1.0, batch=0), "batch must be an integer >= 1"),
    "dpo comparator": (lambda: ComparatorDPO(beta=1.0, comparator="policy"), "comparator must be one of"),
    "rounds": (lambda: OnlineDPO(beta=1.0).run(MDP, POLICIES, 0, 0), "rounds must be an integer >= 1"),
    "too much to keep": (lambda: OnlineDPO(beta=1.0).run(MDP, POLICIES, 2**26 + 1, 0, keep=True), "rounds must keep pairs"),
    "too long a history": (lambda: XPO(alpha=0.0, beta=1.0, comparator="history").run(MDP, POLICIES, 2**26 + 1, 0),
                           "rounds must keep pairs, or a history"),
    "no seeds": (lambda: OnlineDPO(beta=1.0).run(MDP, POLICIES, 3, []), "seeds must be a seed or a sequence of seeds"),
    "seed": (lambda: OnlineDPO(beta=1.0).run(MDP, POLICIES, 3, [0, -1]), "seeds must be an integer >= 0"),
    "mdp": (lambda: OnlineDPO(beta=1.0).run(np.ones((2, 3)), POLICIES, 3, 0), "mdp must be a TokenMDP"),
    "policies": (lambda: OnlineDPO(beta=1.0).run(MDP, None, 3, 0), "policies must be a FiniteClass"),
    "sizes": (lambda: OnlineDPO(beta=1.0).run(bandit([1.0, 0.0]), POLICIES, 3, 0), "policies must be of X, Y = (1, 2)"),
    "start": (lambda: OnlineDPO(beta=1.0).run(MDP, POLICIES, 3, 0, start=N), "start must be an integer >= 0 and <= 6"),
    "checkpoints": (lambda: OnlineDPO(beta=1.0).run(MDP, POLICIES, 3, 0, checkpoints=[0, 2]), "checkpoints must be increasing"),
    "late checkpoint": (lambda: OnlineDPO(beta=1.0).run(MDP, POLICIES, 3, 0, checkpoints=[4]),
                        "checkpoints must have entries"),
    "preference": (lambda: OnlineDPO(beta=1.0).run(MDP, POLICIES, 3, 0, preference="bt"),
                   "preference must be a PreferenceModel"),
    "noise": (lambda: PreferenceModel(noise=0.6), "noise must be a number in [0, 0.5]"),
    "link": (lambda: PreferenceModel(link=3), "link must be a function"),
    "link values": (lambda: OnlineDPO(beta=1.0).run(MDP, POLICIES, 3, 0, preference=PreferenceModel(link=lambda d: d + 9.0)),
                    "link(differences) must lie in [0, 1]"),
    "no responses": (lambda: FiniteClass.from_rewards(np.zeros((1, 2, 2)), np.array([[0.0, -np.inf], [-np.inf, -np.inf]])),
                     "log_ref must give every context a response; got none in context 1"),
    "no law": (lambda: FiniteClass.from_rewards(np.zeros((1, 1, 2)), np.log([[0.5, 0.6]])), "exp(log_ref) must have rows"),
    "probabilities": (lambda: FiniteClass.from_rewards(np.zeros((1, 1, 2)), [[0.5, 0.5]]), "exp(log_ref) must have rows"),
    "nan": (lambda: FiniteClass.from_rewards(np.full((1, 1, 2), np.nan), LOG_REF), "rewards must be finite"),
    "shape": (lambda: FiniteClass.from_rewards(np.zeros((1, 2)), LOG_REF), "rewards must have shape [n, X, Y]"),
    "written by neither": (
        lambda: FiniteClass.from_policies(np.log([[[0.5, 0.5]]]), np.array([[0.0, -np.inf]])),
        "log_pi must write exactly the responses that pi_ref writes; got 0.5 and 0 at (0, 0, 1)",
    ),
    "never writes": (
        lambda: FiniteClass.from_policies(np.array([[[0.0, -np.inf]]]), LOG_REF), "log_pi must write exactly the responses",
    ),
    "direct": (lambda: FiniteClass(1), "policies must be made by FiniteClass.from_rewards"),
    "box": (lambda: RewardBox(r_max=0.0), "r_max must be a number"),
    "grid": (lambda: RewardBox().grid(np.log(np.full((3, 4), 0.25)), 9), "points must give at most 1048576 policies"),
    "grid points": (lambda: RewardBox().grid(LOG_REF, 1), "points must be an integer >= 2"),
    "theorem": (lambda: theorem_alpha(beta=1.0, rounds=1, n_policies=3, coverability=2.0), "rounds must be an integer >= 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=r"\A[\w.]+: .+ must .+; got .+") as error:
        call()
    assert re.search(re.escape(message), str(error.value)), str(error.value)


def test_responses_that_the_reference_never_writes_are_never_seen():
    found = XPO(alpha=0.05, beta=BETA).run(MDP, POLICIES, 500, range(4), keep=True)
    context, first, second, _ = found.pairs.reshape(-1, 4).T
    assert not ((context == 1) & ((first == 2) | (second == 2))).any()
