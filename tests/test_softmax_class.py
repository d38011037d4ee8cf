"""Softmax classes in rewards on a box, and XPO's least value over them: against grids, scipy, enumeration and 50 digits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import optimize, special

from mdpsim.align.cccp import fit_softmax, xpo_objective
from mdpsim.align.softmax_class import LinearBox, ResponseBox, TokenBox
from mdpsim.kernels import concave_convex as kernels
from mdpsim.mdp.token_families import combination_lock, token_tree
from reference import softmax_fit as reference

EPS = np.finfo(float).eps


def draw(rng: np.random.Generator, model, n: int) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def]
    """n pairs and comparators among the responses that the reference can give, labels by chance."""
    x = rng.integers(model.X, size=n)
    pick = lambda: np.array([rng.choice(np.flatnonzero(model.pi_ref[i])) for i in x])  # noqa: E731
    return {"winners": pick(), "losers": pick(), "comparators": pick(), "prompts": x}


def scale(data: dict[str, np.ndarray], model, alpha: float) -> float:  # type: ignore[no-untyped-def]
    """Size of the terms of F, for rounding."""
    return len(data["prompts"]) * (1.0 + alpha / model.beta * np.abs(model.rewards(_high(model))).max() + alpha * 30.0)


def _high(model) -> np.ndarray:  # type: ignore[no-untyped-def]
    return np.full(model.size, model.bound if isinstance(model, LinearBox) else model.r_max)


def models(rng: np.random.Generator, beta: float):  # type: ignore[no-untyped-def]
    tree = token_tree(vocabulary=2, length=2, rng=rng, prompts=2)
    return [
        ResponseBox(rng.dirichlet(np.ones(4)), beta=beta, r_max=1.0),
        ResponseBox(rng.dirichlet(np.ones(3), size=2), beta=beta, r_max=0.7),
        ResponseBox([0.2, 0.0, 0.5, 0.3], beta=beta, r_max=1.0),
        TokenBox(tree.mdp, tree.pi_ref, beta=beta, r_max=0.5),
        LinearBox(rng.dirichlet(np.ones(5), size=2), rng.normal(size=(2, 5, 3)), beta=beta, bound=1.0),
    ]


# --- the classes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.05, 1.0, 30.0])
def test_policies_are_tilts_of_the_reference(beta: float) -> None:
    rng = np.random.default_rng(0)
    for model in models(rng, beta):
        theta = rng.uniform(0.0, 0.5, model.size)
        with np.errstate(divide="ignore"):
            stated = special.log_softmax(np.log(model.pi_ref) + model.rewards(theta) / beta, axis=1)
        assert model.log_pi(theta) == pytest.approx(stated, rel=1e-13, abs=1e-13)


def test_reference_is_constant_rewards() -> None:
    rng = np.random.default_rng(1)
    for model in models(rng, 0.1):
        theta = np.zeros(model.size) if isinstance(model, LinearBox) else np.full(model.size, 0.3)
        assert np.exp(model.log_pi(theta)) == pytest.approx(model.pi_ref, rel=1e-13)


@pytest.mark.parametrize(("beta", "prompts"), [(0.03, 1), (0.5, 3), (1e6, 2)])
def test_token_values_by_soft_backward_induction_and_by_enumeration(beta: float, prompts: int) -> None:
    """V, the policy and the gradient of the token class: soft DP and occupancy against sums over all responses."""
    rng = np.random.default_rng(2)
    tree = token_tree(vocabulary=3, length=3, rng=rng, prompts=prompts)
    model = TokenBox(tree.mdp, tree.pi_ref, beta=beta, r_max=1.0)
    theta = rng.uniform(0.0, 1.0, model.size)
    V, pi, visits = model.soft(theta)
    rho, law = model.rewards(theta), np.exp(model.log_pi(theta))
    stated = beta * special.logsumexp(rho / beta, b=model.pi_ref, axis=1)
    assert pytest.approx(stated, rel=1e-12 if beta < 1 else 1e-8) == V
    assert tree.mdp.responses(pi).log_prob == pytest.approx(model.log_pi(theta), abs=1e-12 * max(1.0, 1.0 / beta))
    gradient = np.zeros(model.size)
    for block in model.blocks():
        weights = law.reshape(-1)[block.rows] / prompts
        gradient[block.columns] += weights @ block.Phi
    assert visits.reshape(-1) == pytest.approx(gradient, abs=1e-13)


def test_token_rewards_are_sums_along_responses() -> None:
    tree = token_tree(vocabulary=2, length=3, rng=3, prompts=2)
    model = TokenBox(tree.mdp, tree.pi_ref, beta=0.1, r_max=1.0)
    theta = np.random.default_rng(3).uniform(size=model.size)
    table, tokens = theta.reshape(3, -1, 2), tree.mdp.responses().tokens
    for x, y in itertools.product(range(2), range(8)):
        state, total = x, 0.0
        for h in range(3):
            total += table[h, state, tokens[y, h]]
            state = 2 * state + tokens[y, h]
        assert model.rewards(theta)[x, y] == pytest.approx(total, rel=1e-14)
    read = np.unique(np.concatenate([b.columns for b in model.blocks()]))
    assert read.size == 2 * (2 + 4 + 8)


# --- the objective -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [1e-8, 1e-3, 0.2, 10.0, 1e8])
def test_objective_in_50_digits(beta: float) -> None:
    """F at random parameters, kappa = alpha / beta of order 1: absolute errors of a few roundings of n (1 + kappa R)."""
    rng = np.random.default_rng(4)
    for model in models(rng, beta):
        data, theta = draw(rng, model, 20), rng.uniform(0.0, 0.5, model.size)
        alpha = 0.3 * beta
        stated = reference.objective_mp(model.rewards(theta), model.pi_ref, *data.values(), alpha, beta)
        # V is known to a rounding of R whatever beta, for pi_ref rows that sum to one within a rounding, times beta
        slack = 64 * EPS * 20 * (1.0 + 0.3 * (1.5 + beta * 2.0))
        assert float(abs(xpo_objective(model, theta, **data, alpha=alpha) - stated)) <= slack


def test_objective_is_dpo_where_alpha_is_zero_and_xpo_else() -> None:
    rng = np.random.default_rng(5)
    for model in models(rng, 0.2):
        data, theta = draw(rng, model, 50), rng.uniform(0.0, 0.5, (3, model.size))
        for i, f in enumerate(xpo_objective(model, theta, **data, alpha=0.05)):
            h = 0.2 * (model.log_pi(theta[i]) - np.log(np.where(model.pi_ref > 0, model.pi_ref, 1.0)))
            x = data["prompts"]
            dpo = np.logaddexp(0.0, h[x, data["losers"]] - h[x, data["winners"]]).sum()
            optimism = 0.05 / 0.2 * h[x, data["comparators"]].sum()
            assert f == pytest.approx(dpo + optimism, rel=1e-12)
            assert xpo_objective(model, theta[i], **data) == pytest.approx(dpo, rel=1e-12)


# --- the fit -----------------------------------------------------------------------------------------------------------


def grid_least(model: ResponseBox, data: dict[str, np.ndarray], alpha: float, n: int) -> float:
    """Least F on n x n grids of the three faces min rho = 0 of a box of three responses."""
    side = np.linspace(0.0, model.r_max, n)
    pairs = np.array(list(itertools.product(side, side)))
    faces = np.concatenate([np.insert(pairs, i, 0.0, axis=1) for i in range(3)])
    return float(xpo_objective(model, faces, **data, alpha=alpha).min())


@pytest.mark.parametrize("seed", range(6))
def test_no_grid_undercuts_the_fit(seed: int) -> None:
    """K = 3, 201^2 x 3 points; the grid comes within its mesh of the fit."""
    rng = np.random.default_rng(seed)
    for _ in range(5):
        model = ResponseBox(rng.dirichlet(np.full(3, 0.5)) * (1 - 3e-6) + 1e-6, beta=10 ** rng.uniform(-2, 0.5), r_max=1.0)
        data, alpha = draw(rng, model, int(rng.integers(1, 200))), model.beta * 10 ** rng.uniform(-2.5, 0.5)
        fit, least = fit_softmax(model, **data, alpha=alpha), grid_least(model, data, alpha, 201)
        rounding = 1000 * EPS * scale(data, model, alpha)
        assert fit.value <= least + rounding
        steep = len(data["prompts"]) * (2.0 + 2.0 * alpha / model.beta)
        assert least <= fit.value + steep * 0.5 / 200
        assert fit.lower - rounding <= fit.value <= fit.relaxed + rounding
        assert fit.lower - rounding <= least
        assert fit.value == pytest.approx(xpo_objective(model, fit.theta, **data, alpha=alpha), abs=rounding)


@pytest.mark.parametrize("seed", range(3))
def test_no_random_search_undercuts_the_fit(seed: int) -> None:
    """All classes, up to 14 parameters, beta 0.01 to 3: L-BFGS-B of scipy from 60 points."""
    rng = np.random.default_rng(100 + seed)
    beta = 10 ** rng.uniform(-2, 0.5)
    for model in models(rng, beta):
        data, alpha = draw(rng, model, int(rng.integers(5, 150))), beta * 10 ** rng.uniform(-2, 0.5)
        eye = np.eye(model.size)
        features = np.stack([model.rewards(e) for e in eye], axis=-1)
        low, high = (-1.0, 1.0) if isinstance(model, LinearBox) else (0.0, model.r_max)
        found = reference.least(features, low, high, rng, (model.pi_ref, *data.values(), alpha, beta))
        fit = fit_softmax(model, **data, alpha=alpha)
        assert fit.value <= found + 1e-9 * scale(data, model, alpha)
        assert fit.lower <= found + 1e-9 * scale(data, model, alpha)


def test_no_random_point_undercuts_the_token_class() -> None:
    """15 instances of two binary tokens: 10^5 random points and every corner."""
    rng = np.random.default_rng(6)
    points = np.concatenate([rng.uniform(0.0, 0.5, (100_000, 6)), np.array(list(itertools.product((0.0, 0.5), repeat=6)))])
    for _ in range(15):
        tree = token_tree(vocabulary=2, length=2, rng=rng, concentration=0.5)
        model = TokenBox(tree.mdp, tree.pi_ref, beta=10 ** rng.uniform(-2, 0), r_max=0.5)
        data, alpha = draw(rng, model, 60), model.beta * 10 ** rng.uniform(-2, 0.5)
        theta = np.zeros((len(points), model.size))
        theta[:, next(model.blocks()).columns] = points
        least = xpo_objective(model, theta, **data, alpha=alpha).min()
        assert fit_softmax(model, **data, alpha=alpha).value <= least + 1e-9


def test_a_single_start_fails() -> None:
    """The negative control: without the families of starts some of the same instances end in another basin."""
    rng, failed = np.random.default_rng(7), 0
    for _ in range(60):
        model = ResponseBox(rng.dirichlet(np.full(3, 0.5)) * (1 - 3e-6) + 1e-6, beta=10 ** rng.uniform(-2, -0.5), r_max=1.0)
        data, alpha = draw(rng, model, 60), model.beta * 10 ** rng.uniform(-2, 0.5)
        single = fit_softmax(model, **data, alpha=alpha, starts=np.full((1, 3), 0.5), basins=0)
        full = fit_softmax(model, **data, alpha=alpha)
        assert single.value >= full.value - 1e-9
        assert single.slope < 1e-5
        failed += single.value > full.value + 1e-4
    assert failed >= 3


def test_two_families_of_starts_fail_where_two_responses_matter_together() -> None:
    """Found by brute force: with beta = 0.133 both rare responses are raised, (1, 0, 1); no one-response start leads there."""
    model = ResponseBox([0.01207083, 0.98541625, 1 - 0.01207083 - 0.98541625], beta=0.13329501525211196, r_max=1.0)
    comparators = np.repeat([0, 1, 2], [4, 145, 1])
    none = np.zeros(150, np.int64)
    alpha = 2.4358981507412683 * model.beta
    fit = fit_softmax(model, none, none, comparators, alpha=alpha)
    assert fit.theta == pytest.approx([1.0, 0.0, 1.0])
    corners = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
    assert fit.value == pytest.approx(xpo_objective(model, corners, none, none, comparators, alpha=alpha).min(), rel=1e-13)


@pytest.mark.parametrize("beta", [0.02, 0.3])
def test_fit_of_prompts_is_that_of_each_alone(beta: float) -> None:
    rng = np.random.default_rng(8)
    both = ResponseBox(rng.dirichlet(np.ones(3), size=2), beta=beta, r_max=1.0)
    data = draw(rng, both, 80)
    fit = fit_softmax(both, **data, alpha=0.2 * beta)
    alone = []
    for x in range(2):
        mine = data["prompts"] == x
        part = {k: v[mine] for k, v in data.items() if k != "prompts"}
        alone.append(fit_softmax(ResponseBox(both.pi_ref[x], beta=beta, r_max=1.0), **part, alpha=0.2 * beta))
    assert fit.value == pytest.approx(sum(f.value for f in alone), rel=1e-13)
    # where the value is least to eps, theta is least to its root
    assert fit.theta == pytest.approx(np.concatenate([f.theta for f in alone]), abs=100 * np.sqrt(EPS))


def test_linear_class_with_unit_features_is_the_tabular_one() -> None:
    """Features 1{y} on [-1/2, 1/2]: the box of rewards moved by the gauge."""
    rng = np.random.default_rng(9)
    for _ in range(10):
        ref, beta = rng.dirichlet(np.ones(4)), 10 ** rng.uniform(-1.5, 0)
        tabular = ResponseBox(ref, beta=beta, r_max=1.0)
        linear = LinearBox(ref, np.eye(4), beta=beta, bound=0.5)
        data = draw(rng, tabular, 60)
        one, two = (fit_softmax(m, **data, alpha=0.3 * beta) for m in (tabular, linear))
        assert one.value == pytest.approx(two.value, rel=1e-10)
        assert one.lower == pytest.approx(two.lower, rel=1e-8)


def test_likelihood_part_against_scipy() -> None:
    """alpha = 0: the convex problem alone, against L-BFGS-B."""
    rng = np.random.default_rng(10)
    for model in models(rng, 0.2):
        data = draw(rng, model, 100)
        features = np.stack([model.rewards(e) for e in np.eye(model.size)], axis=-1)
        low, high = (-1.0, 1.0) if isinstance(model, LinearBox) else (0.0, model.r_max)
        found = optimize.minimize(
            reference.objective, np.full(model.size, (low + high) / 2), (features, model.pi_ref, *data.values(), 0.0, 0.2),
            jac=True, method="L-BFGS-B", bounds=[(low, high)] * model.size, options={"ftol": 1e-15, "gtol": 1e-10},
        )
        fit = fit_softmax(model, **{k: v for k, v in data.items() if k != "comparators"})
        assert fit.value == pytest.approx(found.fun, rel=1e-10)
        assert fit.value <= found.fun + 1e-11 * found.fun
        assert fit.value - fit.lower <= 1e-9
        if isinstance(model, LinearBox):  # the same optimum inside a box 1e4 times wider: what rounding leaves, magnified
            wide = LinearBox(model.pi_ref, model.features, beta=0.2, bound=1e4)
            inner = LinearBox(model.pi_ref, model.features, beta=0.2, bound=10.0)
            one, two = (fit_softmax(m, **{k: v for k, v in data.items() if k != "comparators"}) for m in (wide, inner))
            assert one.value == pytest.approx(two.value, rel=1e-14)
            assert one.value - one.lower <= 1e-8


def test_what_no_pair_identifies_stays_at_the_reference() -> None:
    """alpha = 0: unseen responses keep their odds, and a pair moves its two rewards apart by as much either way."""
    model = ResponseBox([0.5, 0.2, 0.2, 0.1], beta=0.3, r_max=4.0)
    assert np.exp(fit_softmax(model, [1], [1]).log_pi[0]) == pytest.approx(model.pi_ref[0], rel=1e-12)
    fit = fit_softmax(model, [0, 0, 0, 1], [1, 1, 1, 0])
    difference = np.log(3.0)
    assert fit.rewards[0] == pytest.approx([difference, 0.0, difference / 2, difference / 2], abs=1e-7)


def test_large_alpha_is_pure_optimism() -> None:
    """kappa = 1e6: the response of least count / pi_ref is raised, whatever the labels say."""
    model = ResponseBox([0.9, 0.06, 0.04], beta=0.01, r_max=1.0)
    fit = fit_softmax(model, [0] * 50, [1] * 50, [0] * 45 + [1] * 4 + [2] * 1, alpha=1e4)
    assert fit.theta == pytest.approx([0.0, 0.0, 1.0])


@pytest.mark.parametrize("beta", [1e-8, 1e-4, 1e4, 1e8])
def test_extreme_beta(beta: float) -> None:
    """Every class, pi_ref down to 1e-300, zeros: a finite value that its certificate covers and no corner undercuts."""
    rng = np.random.default_rng(11)
    rare = ResponseBox([1.0 - 1e-10, 1e-10, 1e-300, 0.0], beta=beta, r_max=1.0)
    for model in (*models(rng, beta), rare):
        data = draw(rng, model, 40)
        fit = fit_softmax(model, **data, alpha=0.2 * beta)
        assert np.isfinite([fit.value, fit.slope]).all()
        assert fit.lower <= fit.value + 1e-12 * scale(data, model, 0.2 * beta)
        on = model.pi_ref > 0.0
        assert np.exp(fit.log_pi[on]).sum() == pytest.approx(model.X, rel=1e-12)
        ends = (-1.0, 1.0) if isinstance(model, LinearBox) else (0.0, model.r_max)
        corners = rng.choice(ends, (500, model.size))
        least = xpo_objective(model, corners, **data, alpha=0.2 * beta).min()
        assert fit.value <= least + 1e-12 * scale(data, model, 0.2 * beta)


def test_large_beta_is_certified_to_be_optimal() -> None:
    """beta -> inf: V is the mean of rho under pi_ref, the problem is convex, and the second certificate closes as 1 / beta."""
    rng = np.random.default_rng(12)
    for model in models(rng, 1e7):
        data = draw(rng, model, 50)
        fit = fit_softmax(model, **data, alpha=0.2e7)
        assert fit.lower - 1e-9 <= fit.value <= fit.lower + 1e-5


def test_both_certificates_are_nearly_attained() -> None:
    """Where R is far below beta, L is n alpha log K above min F but for R / beta; the second gap is R^2 / (8 beta) a comparator
    where one of two equally likely responses is raised."""
    for n_responses in (2, 8):
        model = ResponseBox(np.full(n_responses, 1 / n_responses), beta=1.0, r_max=0.1)
        y = np.zeros(40, np.int64)
        fit = fit_softmax(model, y, y, y, alpha=0.5)
        allowed = 40 * 0.5 * np.log(n_responses)
        assert allowed - 40 * 0.5 * 0.1 <= fit.relaxed - fit.value <= allowed
        assert fit.lower <= fit.value
    two = ResponseBox([0.5, 0.5], beta=1.0, r_max=0.1)
    fit = fit_softmax(two, [0], [0], [0], alpha=1.0)
    assert fit.theta == pytest.approx([0.0, 0.1])
    assert fit.value - np.log(2.0) == pytest.approx(-0.05 - 0.1**2 / 8, rel=1e-4)
    assert 0.0 <= fit.value - fit.lower <= 1e-6


def test_one_response_and_huge_rewards() -> None:
    one = fit_softmax(ResponseBox([1.0], beta=0.1, r_max=1.0), [0, 0], [0, 0], [0, 0], alpha=1.0)
    assert one.value == pytest.approx(2 * np.log(2.0), rel=1e-15)
    assert one.log_pi[0, 0] == pytest.approx(0.0, abs=1e-15)
    huge = ResponseBox([0.5, 0.3, 0.2], beta=1e3, r_max=1e6)
    data = [0, 0, 1, 2], [1, 2, 2, 1], [0, 0, 1, 2]
    fit = fit_softmax(huge, *data, alpha=10.0)
    assert np.isfinite(fit.value)
    assert fit.lower <= fit.value <= float(xpo_objective(huge, [1e6, 0.0, 0.0], *data, alpha=10.0))


def test_lock_is_opened_by_optimism() -> None:
    """Token class on a combination lock: with nothing but comparators seen, the unseen code is what optimism raises."""
    lock = combination_lock(length=3, rare=0.05)
    model = TokenBox(lock.mdp, lock.pi_ref, beta=0.02, r_max=1.0 / 3)
    zeros = np.zeros(30, np.int64)
    fit = fit_softmax(model, zeros, zeros, zeros, alpha=0.1 * 0.02)
    assert fit.value < 30 * np.log(2.0) - 0.5
    assert np.exp(fit.log_pi[0, 0]) < 1e-3
    plain = fit_softmax(model, zeros, zeros)
    assert np.exp(plain.log_pi[0]) == pytest.approx(model.pi_ref[0], rel=1e-10)


# --- kernels -----------------------------------------------------------------------------------------------------------


def test_kernels_compiled_and_plain_agree() -> None:
    rng = np.random.default_rng(13)
    model = ResponseBox(rng.dirichlet(np.ones(3)), beta=0.1, r_max=1.0)
    block = next(model.blocks())
    Z = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0], [-1.0, 0.0, 1.0]])
    c, m = np.array([5.0, 2.0, 1.0]), np.array([4.0, 3.0, 1.0])
    for array in (Z, c, m):
        array.flags.writeable = False
    results = []
    for function in (kernels.minimise, kernels.minimise.py_func):
        theta = np.array([[0.5, 0.5, 0.5], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        value, gap, count = np.empty(3), np.empty(3), np.empty(3, np.int64)
        function(Z, c, block.Phi, block.edges, block.ref, block.log_ref, m, 0.4, 0.1, block.low, block.high, 500, theta, value,
                 gap, count)
        results.append((theta, value))
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-13)
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-6)


def test_cccp_never_rises() -> None:
    rng = np.random.default_rng(14)
    for model in models(rng, 0.05):
        data = draw(rng, model, 60)
        starts = rng.uniform(0.0, 0.5, (1, model.size))
        before = float(xpo_objective(model, starts[0], **data, alpha=0.02))
        assert fit_softmax(model, **data, alpha=0.02, starts=starts, basins=0).value <= before
