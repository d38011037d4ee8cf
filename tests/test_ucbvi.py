"""UCBVI-Ent+ and demonstration-regularised RL: planning against plain Python, the certificate against exact gaps, the edges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mdpsim import MDP, evaluate, sample_counts, solve_hard, solve_soft
from mdpsim.estimate.experts import optimal_expert
from mdpsim.kernels import bellman, ucbvi
from mdpsim.learn.demonstration import DemonstrationRL
from mdpsim.learn.trace import log_spaced
from mdpsim.learn.ucbvi_ent import UCBVIEnt
from mdpsim.mdp import families
from mdpsim.rng import generator

H, S, A = 3, 4, 2
UNIFORM = families.uniform_policy(H, S, A)


def plain_plan(visits, nexts, totals, r, ref, beta, delta, c, bernstein, unknown):
    """The formulas of the kernel's docstring, one number at a time; beta = 0 is the hard planning."""
    hard, size = beta == 0.0, S * A * H
    R = [0.0] * (H + 1)
    for h in reversed(range(H)):
        w = H - h if unknown else H - h - 1
        R[h] = H - h if hard else R[h + 1] + min(w, w**2 / (8 * beta))
    up, low, gap = (np.zeros((H + 1, S)) for _ in range(3))
    q_up, q_low, pi = (np.zeros((H, S, A)) for _ in range(3))
    for h in reversed(range(H)):
        span = H - h - 1
        for s in range(S):
            ahead = np.zeros(A)
            for a in range(A):
                n = visits[h, s, a]
                logs = np.log((3 if unknown else 2) * size * np.sqrt(n + 1) / delta)
                radius = np.sqrt((1 + 1 / n) * logs / (2 * n)) if n else 0
                if not unknown:
                    high = least = r[h, s, a]
                elif n == 0:
                    high, least = 1.0, 0.0
                else:
                    mean = totals[h, s, a] / n
                    high, least = min(mean + c * radius, 1), max(mean - c * radius, 0)
                if h == H - 1:
                    q_up[h, s, a], q_low[h, s, a] = high, least
                elif n == 0:
                    q_up[h, s, a], q_low[h, s, a], ahead[a] = high + span, least, span if hard else R[h + 1]
                else:
                    p = nexts[h, s, a] / n
                    bonus, y = c * span * radius, p @ gap[h + 1]
                    K = np.log(3 * size / delta) + (S - 1) * np.log(np.e * (1 + n / (S - 1)))
                    rest = span if hard else R[h + 1]
                    forward = y + np.sqrt(2 * rest * c**2 * K / n * y) + 2 * rest * c**2 * K / n
                    if bernstein:
                        C = np.log(3 * size / delta) + np.log(4 * np.e * n * (2 * n + 1))
                        spread = np.sqrt((p @ up[h + 1] ** 2 - (p @ up[h + 1]) ** 2) * C / n)
                        bonus = c * (3 * spread + (14 if hard else 9) * H**2 * K / n) + p @ (up[h + 1] - low[h + 1]) / H
                        if hard:
                            forward = c * (6 * spread + 36 * H**2 * K / n) + (1 + 3 / H) * y
                    elif hard:
                        forward += 2 * bonus
                    q_up[h, s, a] = high + min(p @ up[h + 1] + bonus, span)
                    q_low[h, s, a] = least + max(p @ low[h + 1] - bonus, 0)
                    ahead[a] = min(rest, forward)
                ahead[a] += high - least if hard else 0.0
            allowed = ref[h, s] > 0
            if hard:
                best = allowed & (q_up[h, s] == q_up[h, s][allowed].max())
                pi[h, s] = np.where(best, ref[h, s], 0) / ref[h, s][best].sum()
                up[h, s], low[h, s] = q_up[h, s][allowed].max(), q_low[h, s][allowed].max()
                gap[h, s] = pi[h, s] @ ahead
                continue
            weight = ref[h, s] * np.exp((q_up[h, s] - q_up[h, s].max()) / beta)
            pi[h, s] = weight / weight.sum()
            up[h, s] = beta * np.log(weight.sum()) + q_up[h, s].max()
            low[h, s] = beta * np.log(ref[h, s] @ np.exp((q_low[h, s] - q_low[h, s].max()) / beta)) + q_low[h, s].max()
            m = (q_up[h, s] - q_low[h, s])[allowed].max()
            gap[h, s] = min(m, m**2 / (8 * beta)) + pi[h, s] @ ahead
    return q_up, q_low, pi, up, low, gap


@pytest.mark.parametrize("beta", [0.0, 0.05, 1.0, 30.0])
@pytest.mark.parametrize("scale", [1.0, 0.03, 0.001])
@pytest.mark.parametrize("bernstein", [False, True])
@pytest.mark.parametrize("unknown", [False, True])
def test_planning_is_the_formulas(beta, scale, bernstein, unknown):
    rng = generator(0)
    ref = rng.dirichlet(np.ones(A), (H, S))
    ref[0, 1] = [1.0, 0.0]
    r = rng.random((H, S, A))
    visits = rng.integers(0, 300, (H, S, A)) * rng.integers(0, 2, (H, S, A))
    nexts = np.array([[[rng.multinomial(n, np.full(S, 1 / S)) for n in row] for row in stage] for stage in visits], float)
    totals = rng.binomial(visits, r).astype(float)
    q_up, q_low, pi = (np.empty((H, S, A)) for _ in range(3))
    up, low, gap, widest = np.zeros((H + 1, S)), np.zeros((H + 1, S)), np.zeros((H + 1, S)), np.zeros((H, S), np.int64)
    ucbvi.plan(visits.astype(float), nexts, totals, r, ref, beta, 0.1, scale, bernstein, unknown,
               ucbvi.gap_ranges(H, beta, unknown), q_up, q_low, pi, widest, up, low, gap, *bellman.soft_workspace(S, A),
               np.zeros((H, 4, S, A)))
    plain = plain_plan(visits, nexts, totals, r, ref, beta, 0.1, scale, bernstein, unknown)
    for found, expected in zip((q_up, q_low, pi, up, low, gap), plain, strict=True):
        assert found == pytest.approx(expected, abs=1e-12)
    assert widest[0, 1] == 0  # the other action has no mass under the reference
    width = np.where(ref > 0, q_up - q_low, -1)
    chosen = np.take_along_axis(width, widest[..., None], -1)[..., 0]
    assert chosen == pytest.approx(width.max(axis=-1), abs=1e-12), "equal widths up to rounding: either is the widest"


@pytest.mark.parametrize("seed", range(3))
def test_the_run_is_valid_and_what_it_says(seed):
    """Bounds hold, the certificate is above the exact gap at every checkpoint, the last plan is a re-plan of the counts."""
    mdp = families.random_mdp(S=S, A=A, H=H, rng=seed)
    trace = UCBVIEnt(beta=0.3, eps=0.02, budget=10**6).run(mdp, UNIFORM, seed)
    best = solve_soft(mdp, UNIFORM, 0.3)
    assert trace.status == "stopped"
    assert trace.certificate <= 0.02
    assert trace.violation <= 1e-12
    assert (trace.gaps <= trace.certificates).all()
    assert (trace.gaps >= -1e-13).all()
    assert (np.diff(trace.episodes) > 0).all()
    assert trace.episodes[-1] == trace.n_episodes == trace.visits[0].sum()
    assert (trace.visits.sum(axis=(1, 2)) == trace.n_episodes).all()
    value = evaluate(mdp, trace.pi, pi_ref=UNIFORM, beta=0.3)
    assert trace.gap == pytest.approx(float(mdp.mu0 @ best.V[0]) - value.J, abs=1e-13)
    assert trace.kls[-1] == pytest.approx(value.kl)
    assert ((trace.lower <= best.Q + 1e-12) & (trace.upper + 1e-12 >= best.Q)).all()


def test_visits_follow_the_mdp():
    """Frequencies of next states where nothing is to be explored are those of P: chi-square at the 1e-4 level."""
    from scipy import stats

    mdp = families.random_mdp(S=S, A=A, H=H, rng=0)
    run = UCBVIEnt(beta=1e8, eps=1e-12, explore=False, budget=50_000).run(mdp, UNIFORM, 7)
    expected = 50_000 * np.einsum("s,a->sa", mdp.mu0 @ mdp.P[0].mean(axis=1), np.full(A, 1 / A))
    assert stats.chisquare(run.visits[1].ravel(), expected.ravel()).pvalue > 1e-4
    assert abs(run.visits[0, 0] - 25_000).max() < 5 * np.sqrt(50_000 / 4)


def test_the_same_seed_gives_the_same_run_and_the_budget_its_prefix():
    mdp = families.random_mdp(S=S, A=A, H=H, rng=0)
    one, two = (UCBVIEnt(beta=1.0, eps=1e-9, budget=500).run(mdp, UNIFORM, 3) for _ in range(2))
    for x, y in zip(one, two, strict=True):
        np.testing.assert_array_equal(x, y)
    longer = UCBVIEnt(beta=1.0, eps=1e-9, budget=2000).run(mdp, UNIFORM, 3)
    early = dict(zip(longer.episodes.tolist(), longer.certificates.tolist(), strict=True))
    shared = set(early) & set(one.episodes.tolist())
    assert len(shared) > 10
    assert all(early[t] == c for t, c in zip(one.episodes.tolist(), one.certificates.tolist(), strict=True) if t in shared)
    assert one.status == "budget"
    assert one.n_episodes == 500
    assert one.certificate > 1e-9


def test_the_rule_without_strong_convexity_waits_for_the_width():
    mdp = families.random_mdp(S=S, A=A, H=H, rng=0)
    learners = (UCBVIEnt(beta=1.0, eps=0.2, bonus_scale=0.3, stop=rule) for rule in ("certificate", "width"))
    fast, slow = (learner.run(mdp, UNIFORM, 0) for learner in learners)
    assert fast.certificates[-1] <= 0.2 < fast.widths[-1]
    assert slow.widths[-1] <= 0.2 < slow.widths[-2]
    assert slow.n_episodes > fast.n_episodes


def test_zeros_of_the_reference_are_never_played():
    mdp = families.random_mdp(S=S, A=A, H=H, rng=0)
    ref = UNIFORM.copy()
    ref[1, :, 0], ref[1, :, 1] = 0.0, 1.0
    trace = UCBVIEnt(beta=0.5, eps=0.05).run(mdp, ref, 0)
    assert trace.status == "stopped"
    assert trace.visits[1, :, 0].sum() == 0
    assert (trace.pi[ref == 0] == 0).all()


def test_a_bandit_is_known_at_once_and_stationary_mdps_are_not_copied():
    trace = UCBVIEnt(beta=0.5, eps=0.05).run(families.bandit([0.2, 0.9]), np.full((1, 1, 2), 0.5), 0)
    assert (trace.n_episodes, trace.status, trace.gap) == (0, "stopped", pytest.approx(0.0, abs=1e-15))
    mdp = families.garnet(S=S, A=A, H=H, branching=2, rng=0)
    staged = MDP(np.repeat(mdp.P, H, axis=0), np.repeat(mdp.r, H, axis=0), mdp.mu0)
    one, two = (UCBVIEnt(beta=0.5, eps=0.1).run(m, UNIFORM, 0) for m in (mdp, staged))
    assert one.n_episodes == two.n_episodes
    np.testing.assert_array_equal(one.pi, two.pi)


EXTREMES = [
    {"budget": 1}, {"replan": 0.0}, {"bonus_scale": 0.0}, {"bonus_scale": 1e6}, {"eps": 1e12}, {"eps": 1e-12}, {"delta": 1e-12},
    {"stop": "width", "replan": 1e3},
]


@pytest.mark.parametrize("beta", [1e-8, 1e-3, 1.0, 1e8])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 3, 5), (4, 1, 3), (7, 2, 1), (30, 5, 6)])
def test_extreme_settings_give_numbers_and_valid_bounds(sizes, beta):
    """Every entry finite; with the full bonus the sandwich holds and the certificate is above the exact gap, always."""
    n_states, n_actions, horizon = sizes
    mdp = families.random_mdp(S=n_states, A=n_actions, H=horizon, rng=1)
    ref = families.random_policy(S=n_states, A=n_actions, H=horizon, rng=2).copy()
    if n_actions > 1:
        ref[..., 0] = 0.0
        ref /= ref.sum(axis=-1, keepdims=True)
    for change in EXTREMES:
        trace = UCBVIEnt(**({"beta": beta, "eps": 0.1, "budget": 300} | change)).run(mdp, ref, 0)
        assert all(np.isfinite(np.asarray(x, float)).all() for x in trace if not isinstance(x, str)), change
        if change.get("bonus_scale", 1.0) >= 1.0:
            assert trace.violation <= 1e-10, change
            assert (trace.gaps <= trace.certificates + 1e-9 * horizon).all(), change


def test_log_spaced():
    grid = log_spaced(1000)
    assert (grid[0], grid[1], grid[-1]) == (0, 1, 1000)
    assert (np.diff(grid) > 0).all()
    assert log_spaced(1).tolist() == [0, 1]


GOOD = UCBVIEnt(beta=1.0, eps=0.1)
BAD = [
    ({"beta": 0.0}, r"beta must be > 0 \(the baseline without the KL term is UCBVI\); got 0.0"),
    ({"beta": -1.0}, "beta must be > 0"),
    ({"beta": 1e-9}, r"beta must be a number in \[1e-08, 1e\+08\]; got 1e-09"), ({"bonus": "chernoff"}, "bonus must be one of"),
    ({"reward": "shaped"}, "reward must be one of"),
    ({"beta": np.nan}, "beta must"), ({"eps": 0.0}, "eps must"), ({"eps": -0.1}, "eps must"), ({"delta": 0.0}, "delta must"),
    ({"delta": 1.0}, "delta must"), ({"bonus_scale": -1.0}, "bonus_scale must"), ({"replan": -0.1}, "replan must"),
    ({"budget": 0}, "budget must"), ({"budget": 2.5}, "budget must"), ({"stop": "never"}, "stop must be one of"),
    ({"explore": 1}, "explore must be True or False"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=f"UCBVIEnt: {message}"):
        replace(GOOD, **change)


def test_bad_runs_are_refused():
    mdp = families.random_mdp(S=S, A=A, H=H, rng=0)
    with pytest.raises(ValueError, match=r"UCBVIEnt.run: pi_ref must have shape \[H, S, A\] = \(3, 4, 2\)"):
        GOOD.run(mdp, UNIFORM[:2], 0)
    with pytest.raises(ValueError, match=r"UCBVIEnt.run: mdp must have rewards in \[0, 1\]; got \[0, 2\]"):
        GOOD.run(families.bandit([0.0, 2.0]), np.full((1, 1, 2), 0.5), 0)
    with pytest.raises(ValueError, match="UCBVIEnt.run: mdp must be an MDP with dense P; got int"):
        GOOD.run(3, UNIFORM, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="UCBVIEnt.run: rng must be"):
        GOOD.run(mdp, UNIFORM, "seed")  # type: ignore[arg-type]


# --- with demonstrations ---------------------------------------------------------------------------------------------


def test_demonstrations_set_the_weight_and_the_loss_meets_the_bound():
    mdp = families.random_mdp(S=S, A=A, H=H, rng=1)
    expert = optimal_expert(mdp)
    best = float(mdp.mu0 @ solve_hard(mdp).V[0])
    for n in (8, 200):
        run = DemonstrationRL(eps=0.05, bonus_scale=0.3).run(mdp, sample_counts(mdp, expert, n, 0), 0)
        assert run.beta == pytest.approx(0.05 * (n + 1) / ((A - 1) * (1 + (H - 1) * S)))
        assert run.loss == pytest.approx(best - evaluate(mdp, run.pi).J, abs=1e-13)
        assert run.cloning_loss == pytest.approx(best - evaluate(mdp, run.clone).J, abs=1e-13)
        assert run.loss <= 0.1
        assert run.trace.status == "stopped"
    assert DemonstrationRL(eps=0.05, beta=0.7).run(mdp, sample_counts(mdp, expert, 8, 0), 0).beta == 0.7


def test_bad_demonstrations_are_refused():
    mdp = families.random_mdp(S=S, A=A, H=H, rng=1)
    other = families.random_mdp(S=S + 1, A=A, H=H, rng=1)
    demos = sample_counts(other, families.uniform_policy(H, S + 1, A), 5, 0)
    with pytest.raises(ValueError, match=r"DemonstrationRL.run: demos must be of H, S, A = \(3, 4, 2\); got \(3, 5, 2\)"):
        DemonstrationRL(eps=0.1).run(mdp, demos, 0)
    for change in ({"eps": 0.0}, {"beta": 0.0}, {"delta": 2.0}):
        with pytest.raises(ValueError, match=f"{next(iter(change))} must be"):
            DemonstrationRL(**({"eps": 0.1} | change))
