"""LSVI-UCB-Ent: planning against ridge regression in numpy, its algebra, its bounds against exact gaps, the edges."""

from __future__ import annotations

import resource
from dataclasses import replace

import numpy as np
import pytest

from mdpsim import evaluate, solve_soft
from mdpsim.kernels import bellman, lsvi
from mdpsim.learn.lsvi_ucb_ent import BONUSES, LSVIUCBEnt
from mdpsim.mdp import families
from mdpsim.mdp.linear import LinearMDP
from mdpsim.rng import generator

H, S, A, D = 4, 5, 2, 3
UNIFORM = families.uniform_policy(H, S, A)


def instance(seed, **sizes):
    return families.linear_simplex(**({"S": S, "A": A, "d": D, "H": H} | sizes), rng=seed)


def rewards(mdp):
    return np.ascontiguousarray(np.moveaxis(mdp.phi @ mdp.theta.T, -1, 0))


# --- planning --------------------------------------------------------------------------------------------------------


def ridge_fit(x, targets, ridge):
    """argmin |x w - targets|^2 + ridge |w|^2, by least squares on extended data."""
    d = x.shape[1]
    return np.linalg.lstsq(np.vstack([x, np.sqrt(ridge) * np.eye(d)]), np.concatenate([targets, np.zeros(d)]), rcond=None)[0]


def span_of(f, kind, top):
    return (f.min(), f.max()) if kind == "range" else (0.0, top)


def plain_plan(mdp, steps, ref, beta, kind, delta, c, ridge):
    """The formulas of the kernel's docstring from the transitions themselves, one (s, a) at a time."""
    r, t = rewards(mdp), len(steps[0])
    V = {name: np.zeros((H + 1, S)) for name in ("up", "low", "gap", "oracle")}
    q = {name: np.zeros((H, S, A)) for name in ("up", "low", "pi")}
    for h in reversed(range(H)):
        ahead = {name: np.zeros((S, A)) for name in ("up", "low", "gap", "oracle")}
        if h < H - 1:
            x, after = np.array([mdp.phi[s, a] for s, a, _ in steps[h]]).reshape(-1, D), [j for _, _, j in steps[h]]
            gram = ridge * np.eye(D) + x.T @ x
            log_det = np.linalg.slogdet(gram / ridge)[1]
            U = np.sqrt(log_det + 2 * (S - 1) * np.log(2) + 2 * np.log(H / delta)) + np.sqrt(ridge * D)
            if kind == "covering":
                U = 2 * D * np.sqrt(np.log(2 * D * H * (t + 1) / delta))
            for name, sign in (("up", 1), ("low", -1), ("gap", 1)):
                f = V[name][h + 1]
                lo, hi = span_of(f, "range" if name == "gap" else kind, H - h - 1)
                m = 0.0 if kind == "covering" and name != "gap" else (lo + hi) / 2
                w = ridge_fit(x, f[after] - m, ridge)
                for s in range(S):
                    for a in range(A):
                        phi = mdp.phi[s, a]
                        rad = c * (hi - lo) / 2 * U * np.sqrt(phi @ np.linalg.solve(gram, phi))
                        ahead[name][s, a] = np.clip(m + phi @ w + sign * rad, lo, hi)
            ahead["oracle"] = mdp.phi @ (mdp.mu[h] @ V["oracle"][h + 1])
        q["up"][h], q["low"][h] = r[h] + ahead["up"], r[h] + ahead["low"]
        for name in ("up", "low"):
            top = q[name][h].max(axis=-1, keepdims=True)
            weight = ref[h] * np.exp((q[name][h] - top) / beta)
            V[name][h] = beta * np.log(weight.sum(axis=-1)) + top[:, 0]
            if name == "up":
                q["pi"][h] = weight / weight.sum(axis=-1, keepdims=True)
        m = np.where(ref[h] > 0, q["up"][h] - q["low"][h], 0).max(axis=-1)
        for name in ("gap", "oracle"):
            V[name][h] = np.minimum(m, m**2 / (8 * beta)) + (q["pi"][h] * ahead[name]).sum(axis=-1)
    return q["up"], q["low"], q["pi"], V["up"], V["low"], V["gap"], V["oracle"]


def kernel_plan(mdp, steps, ref, beta, kind, delta, c, ridge):
    """The same by the kernels, from sums."""
    gram, sums = np.stack([ridge * np.eye(D)] * H), np.zeros((H, S, D))
    inverse, radius = np.zeros((H, D, D)), np.zeros(H)
    for h in range(H - 1):
        for s, a, j in steps[h]:
            gram[h] += np.outer(mdp.phi[s, a], mdp.phi[s, a])
            sums[h, j] += mdp.phi[s, a]
        log_det = lsvi.invert(gram[h], ridge, np.zeros((D, D)), inverse[h])
        radius[h] = c * lsvi.confidence_radius(BONUSES[kind], log_det, len(steps[h]), D, S, H, delta, ridge)
    q_up, q_low, pi = (np.empty((H, S, A)) for _ in range(3))
    up, low, gap, oracle = (np.zeros((H + 1, S)) for _ in range(4))
    widest = np.zeros((H, S), np.int64)
    work, soft_sums = bellman.soft_workspace(S, A)
    lsvi.plan(mdp.phi, mdp.phi, mdp.mu, rewards(mdp), ref, inverse, sums, radius, BONUSES[kind], beta, q_up, q_low, pi,
              widest, up, low, gap, oracle, work, soft_sums)
    width = np.where(ref > 0, q_up - q_low, -1)
    chosen = np.take_along_axis(width, widest[..., None], -1)[..., 0]
    assert chosen == pytest.approx(width.max(axis=-1), abs=1e-12), "equal widths up to rounding: either is the widest"
    return q_up, q_low, pi, up, low, gap, oracle


@pytest.mark.parametrize("kind", list(BONUSES))
@pytest.mark.parametrize("setting", [(0.05, 1.0, 0, 1.0), (1.0, 0.5, 60, 0.3), (30.0, 0.02, 3000, 1.0), (0.2, 0.0, 7, 2.0)])
def test_planning_is_ridge_regression(kind, setting):
    beta, c, n, ridge = setting
    rng, mdp = generator(n), instance(n)
    ref = rng.dirichlet(np.ones(A), (H, S))
    ref[0, 1] = [1.0, 0.0]
    steps = [list(zip(*(rng.integers(0, k, n).tolist() for k in (S, A, S)), strict=True)) for _ in range(H)]
    plain = plain_plan(mdp, steps, ref, beta, kind, 0.1, c, ridge)
    for found, expected in zip(kernel_plan(mdp, steps, ref, beta, kind, 0.1, c, ridge), plain, strict=True):
        assert found == pytest.approx(expected, abs=1e-10)


def test_one_hot_features_plan_as_the_tabular_learner_does():
    """Without bonus: phat from counts, shrunk to the middle by ridge / n. The linear learner's d is then S A."""
    mdp, rng = families.random_mdp(S=S, A=A, H=H, rng=0), generator(1)
    d, n, ridge, beta = S * A, 10_000, 1e-3, 0.3
    phi = np.eye(d).reshape(S, A, d)
    nexts = rng.multinomial(n, mdp.P).astype(float)
    inverse = np.stack([np.eye(d) / (n + ridge)] * H)
    sums = np.ascontiguousarray(np.moveaxis(nexts.reshape(H, d, S), 1, 2))
    q_up, q_low, pi = (np.empty((H, S, A)) for _ in range(3))
    up, low, gap, oracle = (np.zeros((H + 1, S)) for _ in range(4))
    lsvi.plan(phi, phi, mdp.P.reshape(H, d, S), mdp.r, UNIFORM, inverse, sums, np.zeros(H), lsvi.VERTEX, beta, q_up,
              q_low, pi, np.zeros((H, S), np.int64), up, low, gap, oracle, *bellman.soft_workspace(S, A))
    tabular = solve_soft(type(mdp)(nexts / n, mdp.r, mdp.mu0), UNIFORM, beta)  # UCBVI-Ent+ with c = 0 plans on phat
    for q in (q_up, q_low):
        assert q == pytest.approx(tabular.Q, abs=3 * ridge / n)
    assert pi == pytest.approx(tabular.pi, abs=1e-6)
    assert abs(q_up - solve_soft(mdp, UNIFORM, beta).Q).max() > 1e-3  # and phat is not P


# --- linear algebra --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 5, 17])
def test_inverse_and_determinant(d):
    rng = generator(d)
    x = rng.dirichlet(np.ones(d), 400)
    gram, inverse = 0.5 * np.eye(d) + x.T @ x, np.full((d, d), np.nan)
    log_det = lsvi.invert(np.tril(gram), 0.5, np.zeros((d, d)), inverse)
    assert inverse == pytest.approx(np.linalg.inv(gram), abs=1e-13)
    np.testing.assert_array_equal(inverse, inverse.T)
    assert log_det == pytest.approx(np.linalg.slogdet(gram / 0.5)[1], rel=1e-13)


def test_a_singular_matrix_gets_its_floor_back():
    """All features the same, 10^9 times: the ridge is still seen. Where rounding takes it, no entry exceeds 1 / ridge."""
    d = 6
    phi, first = np.full(d, 1 / d), np.eye(d)[0]
    gram, inverse = np.full((d, d), 1e9 / d**2) + 1e-3 * np.eye(d), np.empty((d, d))
    assert np.isfinite(lsvi.invert(gram, 1e-3, np.zeros((d, d)), inverse))
    assert 0.0 <= lsvi.quadratic(inverse, phi) <= 1.1e-9
    assert lsvi.quadratic(inverse, first) == pytest.approx((1 - 1 / d) / 1e-3, rel=1e-2)
    flat = np.empty((2, 2))
    assert np.isfinite(lsvi.invert(np.full((2, 2), 1e18), 1e-3, np.zeros((2, 2)), flat))
    assert abs(flat).max() <= 1.0001 / 1e-3


@pytest.mark.parametrize("d", [1, 4, 16])
def test_rank_one_updates_drift_little_between_refreshes(d):
    """Sherman-Morrison against the exact inverse: 1e-13 after REFRESH updates, from any state; and it does add up."""
    rng, y = generator(d), np.empty(d)
    for before in (0, 100_000):
        x = rng.dirichlet(np.full(d, 0.3), before)
        gram, inverse = np.eye(d) + x.T @ x, np.empty((d, d))
        log_det = lsvi.invert(gram, 1.0, np.zeros((d, d)), inverse)
        for row in rng.dirichlet(np.full(d, 0.3), lsvi.REFRESH + d):
            gram += np.outer(row, row)
            log_det += lsvi.rank_one(inverse, row, y)
        exact = np.linalg.inv(gram)
        assert abs(inverse - exact).max() <= 1e-13 * abs(exact).max()
        assert log_det == pytest.approx(np.linalg.slogdet(gram)[1], rel=1e-13)


@pytest.mark.parametrize("replan", [0.0, 0.01])
def test_updated_inverses_give_the_run_that_fresh_ones_give(replan, monkeypatch):
    """The same run with every inverse computed afresh: bounds to rounding, and not by chance.

    No bound has a say in the episodes: nothing is explored, and at this beta pi is the reference.
    """
    learner, runs = LSVIUCBEnt(beta=1e8, eps=1e-12, bonus_scale=0.3, explore=False, replan=replan, budget=2000), []
    for refresh in (lsvi.REFRESH, 0, 10**9):
        monkeypatch.setattr(lsvi, "REFRESH", refresh)
        runs.append(learner.run(instance(3), UNIFORM, 0))
    for other in runs[1:]:
        np.testing.assert_array_equal(runs[0].visits, other.visits)
        assert runs[0].upper == pytest.approx(other.upper, abs=1e-12)
        assert runs[0].certificates == pytest.approx(other.certificates, rel=1e-11)
    assert (runs[0].certificates != runs[1].certificates).any()


def test_no_array_of_size_s_a_s():
    """20 000 states: S A S float64 would be 6 GB; the run stays within 200 MB, and still learns."""
    mdp = families.linear_simplex(S=20_000, A=2, d=3, H=2, rng=0)
    ref = families.uniform_policy(2, 20_000, 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trace = LSVIUCBEnt(beta=1.0, eps=1e-12, bonus="covering", bonus_scale=0.05, budget=300, replan=0.5).run(mdp, ref, 0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    assert trace.n_episodes == trace.visits[1].sum() == 300
    assert trace.widths[-1] < trace.widths[0]


# --- validity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bonus", ["vertex", "range"])
@pytest.mark.parametrize("beta", [0.02, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_the_run_is_valid_and_what_it_says(seed, beta, bonus):
    """Bounds hold; gap <= oracle <= certificate at every checkpoint; what the trace reports is exact."""
    mdp = instance(seed)
    trace = LSVIUCBEnt(beta=beta, eps=0.3, bonus=bonus, budget=10**5).run(mdp, UNIFORM, seed)
    best = solve_soft(mdp, UNIFORM, beta)
    assert trace.violation <= 1e-12
    assert (trace.gaps <= trace.oracles + 1e-12).all()
    assert (trace.oracles <= trace.certificates + 1e-12).all()
    assert (trace.gaps >= -1e-13).all()
    assert (np.diff(trace.episodes) > 0).all()
    assert trace.episodes[-1] == trace.n_episodes == trace.visits[0].sum()
    assert (trace.visits.sum(axis=(1, 2)) == trace.n_episodes).all()
    assert trace.status == ("stopped" if trace.certificate <= 0.3 else "budget")
    value = evaluate(mdp, trace.pi, pi_ref=UNIFORM, beta=beta)
    assert trace.gap == pytest.approx(float(mdp.mu0 @ best.V[0]) - value.J, abs=1e-13)
    assert trace.kls[-1] == pytest.approx(value.kl)
    assert ((trace.lower <= best.Q + 1e-12) & (trace.upper + 1e-12 >= best.Q)).all()


def test_the_lemma_over_all_functions():
    """sup_f |P f - est(f)| / (w U |phi|) over all 2^S vertices and (s, a), at several times: below 1, above 1 with U / 10."""
    mdp, rng, ridge = instance(5), generator(5), 1.0
    vertices = 2.0 * np.array([[(i >> j) & 1 for j in range(S)] for i in range(2**S)]) - 1.0
    worst = []
    for _ in range(60):
        gram, sums = ridge * np.eye(D), np.zeros((D, S))
        for t in range(1, 301):
            phi = mdp.phi[rng.integers(S), rng.integers(A)]
            gram += np.outer(phi, phi)
            sums[:, rng.choice(S, p=phi @ mdp.mu[0])] += phi
            if t in (1, 10, 100, 300):
                error = vertices @ (np.linalg.solve(gram, sums) - mdp.mu[0]).T @ mdp.phi.reshape(-1, D).T
                norm = np.sqrt(np.einsum("kd,kd->k", mdp.phi.reshape(-1, D), np.linalg.solve(gram, mdp.phi.reshape(-1, D).T).T))
                log_det = np.linalg.slogdet(gram / ridge)[1]
                worst.append((abs(error) / norm).max() / lsvi.confidence_radius(lsvi.RANGE, log_det, t, D, S, H, 0.1, ridge))
    assert max(worst) < 1.0
    assert max(worst) > 0.1


def test_misspecified_features_break_the_bounds():
    mdp = families.random_deterministic(S=S, A=A, H=H, rng=0)
    one_hot = LinearMDP(np.eye(S * A).reshape(S, A, S * A), mdp.P.reshape(-1, S * A, S), mdp.r.reshape(-1, S * A), mdp.mu0)
    learner = LSVIUCBEnt(beta=0.1, eps=1e-12, budget=20_000)
    assert learner.run(one_hot, UNIFORM, 0).violation <= 1e-12
    assert learner.run(one_hot, UNIFORM, 0, phi=instance(0, d=2).phi).violation > 0.05


# --- runs ------------------------------------------------------------------------------------------------------------


def test_visits_follow_the_mdp():
    """Frequencies of next states where nothing is to be explored are those of P: chi-square at the 1e-4 level."""
    from scipy import stats

    mdp = instance(0)
    run = LSVIUCBEnt(beta=1e8, eps=1e-12, stop="width", explore=False, budget=50_000).run(mdp, UNIFORM, 7)
    expected = 50_000 * np.einsum("s,a->sa", mdp.mu0 @ mdp.to_tabular().P[0].mean(axis=1), np.full(A, 1 / A))
    assert stats.chisquare(run.visits[1].ravel(), expected.ravel()).pvalue > 1e-4
    assert abs(run.visits[0, 0] - 25_000).max() < 5 * np.sqrt(50_000 / 4)


def test_exploration_plays_what_is_least_known_in_a_fifth_of_the_episodes():
    """The reference hardly ever plays action 1 in the first state: it is explored there in one episode of H + 1 = 5."""
    mdp, ref = instance(0, overlap=0.1), UNIFORM.copy()
    ref[0, 0] = [1 - 1e-6, 1e-6]
    shares = [
        LSVIUCBEnt(beta=1e8, eps=1e-12, stop="width", explore=on, budget=4000).run(mdp, ref, 0).visits[0, 0, 1] / 4000
        for on in (True, False)
    ]
    assert 0.05 < shares[0] < 0.25
    assert shares[1] < 0.001


@pytest.mark.parametrize("replan", [0.0, 0.01])
def test_the_same_seed_gives_the_same_run_and_the_budget_its_prefix(replan):
    mdp = instance(0)
    one, two = (LSVIUCBEnt(beta=1.0, eps=1e-9, budget=500, replan=replan).run(mdp, UNIFORM, 3) for _ in range(2))
    for x, y in zip(one, two, strict=True):
        np.testing.assert_array_equal(x, y)
    longer = LSVIUCBEnt(beta=1.0, eps=1e-9, budget=2000, replan=replan).run(mdp, UNIFORM, 3)
    early = dict(zip(longer.episodes.tolist(), longer.certificates.tolist(), strict=True))
    shared = set(early) & set(one.episodes.tolist())
    assert len(shared) > 10
    assert all(early[t] == c for t, c in zip(one.episodes.tolist(), one.certificates.tolist(), strict=True) if t in shared)
    assert (one.status, one.n_episodes) == ("budget", 500)
    assert one.certificate > 1e-9


def test_each_rule_waits_for_what_it_names():
    mdp = instance(0)
    rules, learner = ("certificate", "width", "oracle"), LSVIUCBEnt(beta=1.0, eps=0.02, bonus="vertex", bonus_scale=0.1)
    runs = {rule: replace(learner, stop=rule).run(mdp, UNIFORM, 0) for rule in rules}
    for rule, column in zip(rules, ("certificates", "widths", "oracles"), strict=True):
        seen = getattr(runs[rule], column)
        assert seen[-1] <= 0.02 < seen[-2], rule
    assert runs["oracle"].n_episodes <= runs["certificate"].n_episodes < runs["width"].n_episodes


def test_the_range_that_is_seen_is_never_wider():
    """On the counts of no episode at all, and at the end of a run, the range bonus gives the smaller certificate."""
    mdp = instance(1)
    wide, narrow = (LSVIUCBEnt(beta=0.5, eps=1e-12, bonus=b, budget=3000).run(mdp, UNIFORM, 0) for b in ("vertex", "range"))
    assert narrow.certificates[0] <= wide.certificates[0]
    assert narrow.certificates[-1] < 0.5 * wide.certificates[-1]


def test_zeros_of_the_reference_are_never_played():
    mdp, ref = instance(0), UNIFORM.copy()
    ref[1, :, 0], ref[1, :, 1] = 0.0, 1.0
    trace = LSVIUCBEnt(beta=0.5, eps=0.05).run(mdp, ref, 0)
    assert trace.status == "stopped"
    assert trace.visits[1, :, 0].sum() == 0
    assert (trace.pi[ref == 0] == 0).all()


def test_a_bandit_is_known_at_once_and_stationary_mdps_are_not_copied():
    bandit = LSVIUCBEnt(beta=0.5, eps=0.05).run(instance(0, H=1, S=1), np.full((1, 1, A), 0.5), 0)
    assert (bandit.n_episodes, bandit.status, bandit.gap) == (0, "stopped", pytest.approx(0.0, abs=1e-15))
    one = LinearMDP(instance(0).phi, instance(0).mu[:1], instance(0).theta[:1], instance(0).mu0, horizon=H)
    all_ = LinearMDP(one.phi, np.repeat(one.mu, H, axis=0), np.repeat(one.theta, H, axis=0), one.mu0)
    runs = [LSVIUCBEnt(beta=0.5, eps=0.1).run(m, UNIFORM, 0) for m in (one, all_)]
    assert runs[0].n_episodes == runs[1].n_episodes
    np.testing.assert_array_equal(runs[0].pi, runs[1].pi)


EXTREMES = [
    {"budget": 1}, {"replan": 0.0}, {"bonus_scale": 0.0}, {"bonus_scale": 1e6}, {"eps": 1e12}, {"eps": 1e-12}, {"delta": 1e-12},
    {"stop": "width", "replan": 1e3}, {"ridge": 1e-3}, {"ridge": 1e6}, {"bonus": "vertex"},
    {"bonus": "covering", "stop": "oracle"},
]


@pytest.mark.parametrize("beta", [1e-8, 1e-3, 1.0, 1e8])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (1, 3, 5, 2), (4, 1, 3, 1), (7, 2, 1, 30), (30, 5, 6, 4)])
def test_extreme_settings_give_numbers_and_valid_bounds(sizes, beta):
    """Every entry finite; with the full bonus the sandwich holds and the certificate is above the exact gap, always."""
    n_states, n_actions, horizon, d = sizes
    mdp = families.linear_simplex(S=n_states, A=n_actions, H=horizon, d=d, rng=1)
    ref = families.random_policy(S=n_states, A=n_actions, H=horizon, rng=2).copy()
    if n_actions > 1:
        ref[..., 0] = 0.0
        ref /= ref.sum(axis=-1, keepdims=True)
    for change in EXTREMES:
        trace = LSVIUCBEnt(**({"beta": beta, "eps": 0.1, "budget": 300} | change)).run(mdp, ref, 0)
        assert all(np.isfinite(np.asarray(x, float)).all() for x in trace if not isinstance(x, str)), change
        if change.get("bonus_scale", 1.0) >= 1.0:
            assert trace.violation <= 1e-10, change
            assert (trace.gaps <= trace.certificates + 1e-9 * horizon).all(), change


GOOD = LSVIUCBEnt(beta=1.0, eps=0.1)
BAD = [
    ({"beta": 0.0}, "beta must be > 0"), ({"beta": -1.0}, "beta must"),
    ({"beta": np.nan}, "beta must"), ({"eps": 0.0}, "eps must"), ({"eps": -0.1}, "eps must"), ({"delta": 0.0}, "delta must"),
    ({"delta": 1.0}, "delta must"), ({"bonus_scale": -1.0}, "bonus_scale must"), ({"replan": -0.1}, "replan must"),
    ({"budget": 0}, "budget must"), ({"budget": 2.5}, "budget must"), ({"stop": "never"}, "stop must be one of"),
    ({"bonus": "bernstein"}, "bonus must be one of"), ({"bonus": ["range"]}, "bonus must be one of"),
    ({"ridge": 0.0}, "ridge must"), ({"explore": 1}, "explore must be True or False"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=f"LSVIUCBEnt: {message}"):
        replace(GOOD, **change)


def test_bad_runs_are_refused():
    mdp = instance(0)
    rich = LinearMDP(mdp.phi, mdp.mu, 2.0 + mdp.theta, mdp.mu0)
    for args, more, message in (
        ((mdp, UNIFORM[:2], 0), {}, r"pi_ref must have shape \[H, S, A\] = \(4, 5, 2\)"),
        ((mdp, -UNIFORM, 0), {}, "pi_ref must have no negative entries"),
        ((rich, UNIFORM, 0), {}, r"mdp must have rewards in \[0, 1\]; got \[2\."),
        ((mdp.to_tabular(), UNIFORM, 0), {}, "mdp must be a LinearMDP; got MDP"),
        ((mdp, UNIFORM, "seed"), {}, "rng must be"),
        ((mdp, UNIFORM, 0), {"phi": mdp.phi[:2]}, r"phi must have shape \[S, A, d\] = \(5, 2, d\)"),
        ((mdp, UNIFORM, 0), {"phi": 2 * mdp.phi}, "phi must have rows that sum to one"),
    ):
        with pytest.raises(ValueError, match=f"LSVIUCBEnt.run: {message}"):
            GOOD.run(*args, **more)
