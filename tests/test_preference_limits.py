"""Preference optimisation at its limits: numbers too large to compare, records made by hand, laws that are none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction

import mpmath
import numpy as np
import pytest

from mdpsim import (
    XPO,
    FiniteClass,
    OfflineDPO,
    OnlineDPO,
    Pairs,
    PreferenceModel,
    ResponseBox,
    RewardBox,
    Softmax,
    TokenMDP,
    box_coverability,
    concentrability,
    coverability,
    dpo_gradient,
    dpo_losses,
    extrapolation_bound,
    fit_dpo,
    fit_softmax,
    greedy_extrapolation,
    sample_preferences,
    theorem_alpha,
)
from mdpsim.kernels import finite_class
from mdpsim.mdp import families

HALF = np.log([[0.5, 0.5]])
MDP = TokenMDP([[1.0, 0.0]], vocabulary=2, length=1)
CLASS = FiniteClass.from_rewards([[[1.0, 0.0]], [[0.0, 0.0]], [[0.0, 1.0]]], HALF)
LAW = np.log([[[0.5, 0.5]]])
ONE = Pairs([0], [0], [1])


# --- loops that search for a value -----------------------------------------------------------------------------------

CRASHES = {
    "rewards": "FiniteClass.from_rewards(np.array([[[1e308, -1e308]], [[-1e308, 1e308]]]), np.log([[.5, .5]])), 1.0",
    "policies": "FiniteClass.from_policies(np.array([[[-1e308, 0.]], [[0., -1e308]]]), np.log([[.5, .5]])), 100.0",
}


@pytest.mark.parametrize("kind", CRASHES)
@pytest.mark.parametrize("learner", ["OfflineDPO(beta=beta)", "XPO(alpha=.1, beta=beta)"])
def test_numbers_whose_differences_overflow_are_refused(kind: str, learner: str) -> None:
    """In a process of its own: these read beyond an array once, and ended it."""
    script = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import numpy as np\nfrom mdpsim import FiniteClass, OfflineDPO, TokenMDP, XPO\n"
        f"try:\n    policies, beta = {CRASHES[kind]}\n"
        "    mdp = TokenMDP(np.array([[1., 0.]]), vocabulary=2, length=1)\n"
        f"    found = {learner}.run(mdp, policies, 50, list(range(20)), keep=True)\n"
        "    print('finite' if np.isfinite(found.scores).all() else 'NaN')\n"
        "except ValueError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert f"from_{kind}: " in done.stdout
    assert " must " in done.stdout
    assert "1e+100" in done.stdout


@pytest.mark.parametrize("compiled", [True, False])
def test_the_argmin_ends_within_the_array_whatever_the_scores(compiled: bool) -> None:
    """As plain Python, an index beyond the array raises; compiled, it is only looked at where it cannot crash."""
    nan, inf = np.nan, np.inf
    cases = [([3.0, 1.0, 1.0], {1}, {1, 2}), ([nan, 2.0, nan], {1}, {1}), ([inf, 5.0], {1}, {1}), ([-inf, nan], {0}, {0})]
    lost = [[nan], [nan, nan, nan], [inf, inf]]
    if compiled:
        helper, any_helper = finite_class.least, finite_class._any_least
    else:
        helper, any_helper = plain("least"), plain("_any_least")
    for scores, first, tied in cases:
        assert helper(np.array(scores)) in first
        assert {any_helper(np.array(scores), u) for u in (0.0, 0.3, 0.7, 1.0 - 2.0**-53)} <= tied
    for scores in lost:
        assert 0 <= helper(np.array(scores)) < len(scores)
        assert {0 <= any_helper(np.array(scores), u) < len(scores) for u in (0.0, 0.999)} == {True}


def plain(name: str) -> Callable[..., int]:
    """A helper without numba; what it calls is not compiled either."""
    lowest = finite_class._lowest.py_func
    function = getattr(finite_class, name).py_func
    return type(function)(function.__code__, {**function.__globals__, "_lowest": lowest})


def test_scores_that_would_overflow_are_refused() -> None:
    big = FiniteClass.from_rewards(1e100 * CLASS.values, HALF)
    assert np.isfinite(XPO(alpha=0.1, beta=1e-8, loss="ipo").run(MDP, big, 200, 0, keep=True).scores).all()
    with pytest.raises(ValueError, match=r"XPO.run: alpha must keep sums of T bonuses .* below 1e306; got alpha = 1e\+250"):
        XPO(alpha=1e250, beta=1e-8).run(MDP, big, 5, 0)
    found = XPO(alpha=1e300, beta=1.0).run(MDP, CLASS, 50, 0, keep=True)
    assert np.isfinite(found.scores).all()


# --- pairs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("args", "message"), [
    (([0], [0], [-1]), r"Pairs: worse must have entries in \[0, .*; got -1"),
    (([-1], [0], [1]), r"Pairs: context must have entries in \[0, .*; got -1"),
    (([0], [0, 1], [1]), r"Pairs: better must have shape \[n\] = \(1,\); got \(2,\)"),
    (([], [], []), "Pairs: context must hold at least one number; got none"),
    (([0], [0.0], [1]), "Pairs: better must hold integers; got dtype float64"),
    (([[0]], [0], [1]), r"Pairs: context must have shape \[n\]"),
    ((["a"], [0], [1]), "Pairs: context must hold integers"),
])
def test_pairs_made_by_hand_are_checked(args: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pairs(*args)  # type: ignore[arg-type]


def test_pairs_of_lists_are_pairs_of_arrays() -> None:
    given = np.array([0, 1])
    data = Pairs(given, [0, 1], [1, 0])
    given[:] = 7
    context, better, worse = data
    assert (context.tolist(), better.tolist(), worse.tolist(), data.n) == ([0, 1], [0, 1], [1, 0], 2)
    assert not any(a.flags.writeable for a in data)
    with pytest.raises(ValueError, match=r"dpo_losses: data must answer 1 contexts with 2 responses; got context 1, resp"):
        dpo_losses(LAW, HALF, data, beta=1.0)


# --- laws that are none ----------------------------------------------------------------------------------------------


def test_rows_that_are_no_laws_are_refused() -> None:
    """A mean over tokens is the kind: the log-probabilities of two tokens each, averaged, sum to more than one."""
    tokens = np.log(np.full((1, 1, 4), 0.25))
    mean = tokens / 2.0
    for wrong in (mean, np.zeros((1, 1, 4)), tokens - 1.0):
        with pytest.raises(ValueError, match=r"dpo_losses: exp\(log_pi\) must have rows that sum to one within 1e-09"):
            dpo_losses(wrong, tokens[0], ONE, beta=1.0)


@pytest.mark.parametrize(("loss", "smoothing"), [("logistic", 0.0), ("logistic", 0.2), ("ipo", 0.0)])
def test_a_policy_that_never_writes_the_preferred_response_has_an_infinite_loss(loss: str, smoothing: float) -> None:
    """Whatever it does with the other; and by the formula -(1-s) log sigma(d) - s log sigma(-d) where that is d = +inf."""
    ref, never = np.log([[0.2, 0.3, 0.5]]), np.array([[[-np.inf, -np.inf, 0.0]]])
    how = {"beta": 0.1, "loss": loss, "smoothing": smoothing}
    for worse in (0, 1, 2):
        assert dpo_losses(never, ref, Pairs([0], [0], [worse]), **how)[0] == np.inf
    sure = dpo_losses(never, ref, Pairs([0], [2], [0]), **how)[0]
    assert sure == (0.0 if loss == "logistic" and smoothing == 0.0 else np.inf)


@pytest.mark.parametrize("bad", ["abc", [[1.0, 2.0], [3.0]], np.array([[0.5 + 0j, 0.5]]), None, [["a", "b"]],
                                 np.array([[1, 2]], "M8[s]"), np.ma.masked_array(HALF, mask=[[True, False]])],
                         ids=["text", "ragged", "complex", "nothing", "letters", "dates", "mask"])
def test_what_is_no_array_of_real_numbers_is_refused(bad: object) -> None:
    steps, many = {"D": 1.0, "least": 1.0}, bad[None] if isinstance(bad, np.ndarray) else [bad]
    for call, name in (
        (lambda: FiniteClass.from_rewards([[[1.0, 0.0]]], bad), "from_rewards: log_ref"),  # type: ignore[arg-type]
        (lambda: FiniteClass.from_policies(many, HALF), "from_policies: log_pi"),  # type: ignore[arg-type]
        (lambda: RewardBox().grid(bad, 3), "RewardBox.grid: log_ref"),  # type: ignore[arg-type]
        (lambda: dpo_losses(many, HALF, ONE, beta=1.0), "dpo_losses: log_pi"),  # type: ignore[arg-type]
        (lambda: dpo_gradient(Softmax(2), [[0.0, 0.0]], bad, ONE, beta=1.0), "dpo_gradient: log_ref"),  # type: ignore[arg-type]
        (lambda: coverability(bad), "coverability: log_pi"),  # type: ignore[arg-type]
        (lambda: extrapolation_bound(2.0, steps=bad, **steps), "extrapolation_bound: steps"),  # type: ignore[arg-type]
        (lambda: MDP.token_policy(bad), "token_policy: log_prob"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=rf"\A{name} must .+; got .+"):
            call()


# --- preference models -----------------------------------------------------------------------------------------------


def test_a_link_is_a_law_of_preferences() -> None:
    """p(d) + p(-d) = 1: one of the two is preferred, whichever is called the first."""
    for link in (lambda d: 1.0 * (d > 0.0), lambda d: np.full(d.shape, 0.9), lambda d: np.clip(0.6 + d, 0.0, 1.0)):
        with pytest.raises(ValueError, match=r"PreferenceModel: link\(differences\) must sum to one at every d and -d; got"):
            PreferenceModel(link=link)
        mdp, pi = families.bandit([0.5, 0.5]), np.full((1, 1, 2), 0.5)
        with pytest.raises(ValueError, match=r"sample_preferences: link\(differences\) must sum to one"):
            sample_preferences(mdp, pi, pi, 20, 0, link=link)
    thurstone = PreferenceModel(link=lambda d: 0.5 * (1.0 + np.tanh(d)))
    assert np.allclose(thurstone.wins([[0.0, 1.0]]) + thurstone.wins([[0.0, 1.0]]).swapaxes(1, 2), 1.0, rtol=0, atol=1e-15)
    beyond = PreferenceModel(link=lambda d: np.where(np.abs(d) > 1e3, 0.9, 0.5))  # odd only where it was not tried
    with pytest.raises(ValueError, match="must sum to one at every d and -d; got 0.9 and 0.9 at"):
        beyond.wins([[0.0, 1e4]])


@pytest.mark.parametrize("bad", [np.ones(3), np.ones((1, 2, 2)), [[1.0], [2.0, 3.0]], [[np.nan]], "r"])
def test_wins_names_what_it_cannot_read(bad: object) -> None:
    with pytest.raises(ValueError, match=r"wins: rewards must .+; got .+"):
        PreferenceModel().wins(bad)  # type: ignore[arg-type]


# --- comparators, weights, sizes -------------------------------------------------------------------------------------

NEVER = FiniteClass.from_rewards([[[1.0, 0.0]], [[0.0, 0.0]]], np.array([[0.0, -np.inf]]))
HUGE = TokenMDP([[1e308, -1e308]], vocabulary=2, length=1)
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "no comparator": (lambda: XPO(alpha=0.1, beta=1.0, comparator=None), "XPO: comparator must"),  # type: ignore[arg-type]
    "listed name": (lambda: XPO(alpha=0.1, beta=1.0, comparator=["reference"]), "XPO: comparator must"),
    "no law": (lambda: XPO(alpha=0.1, beta=1.0, comparator=[[0.5, 0.6]]), "XPO: comparator must have rows that sum to one"),
    "off the support": (lambda: XPO(alpha=0.1, beta=1.0, comparator=[[0.5, 0.5]]).run(MDP, NEVER, 5, 0),
                        "XPO.run: comparator must stay on the support of pi_ref; got 0.5 for response 1 to context 0"),
    "mu0": (lambda: fit_dpo(CLASS, ONE, beta=1.0, mu0=[-3.0]), "fit_dpo: mu0 must have no negative entries; got -3"),
    "huge rewards": (lambda: OnlineDPO(beta=1.0).run(HUGE, CLASS, 5, 0), "the rewards of mdp must lie within"),
    "huge gaps": (lambda: CLASS.gaps(HUGE, 1.0), "gaps: the rewards of mdp must lie within"),
    "no mdp": (lambda: CLASS.misfit(None, 1.0), "misfit: mdp must be a TokenMDP"),  # type: ignore[arg-type]
    "no checkpoints": (lambda: OfflineDPO(beta=1.0).run(MDP, CLASS, 5, 0, checkpoints=[]),
                       "OfflineDPO.run: checkpoints must hold at least one number; got none"),
    "no winners": (lambda: fit_softmax(ResponseBox([0.5, 0.5], beta=1.0, r_max=1.0), [], []),
                   "fit_softmax: winners must hold at least one number"),
    "steps": (lambda: greedy_extrapolation(LAW[0], [0.5, 0.5], [0.0, 1.0], beta=1.0, steps=10**12, least=1.0),
              "greedy_extrapolation: steps must be an integer >= 1 and <= 16777216"),
    "overflow": (lambda: greedy_extrapolation(LAW[0], [0.5, 0.5], [0.0, 1e308], beta=1.0, steps=2, least=1.0),
                 r"beta log\(pi / pi_ref\) - r must lie within"),
    "theta": (lambda: dpo_gradient(Softmax(2), [[1e308, 0.0]], HALF, ONE, beta=1.0), "dpo_gradient: theta must lie within"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_given_comparator_cannot_be_changed() -> None:
    law = np.array([[0.25, 0.75]])
    one = XPO(alpha=0.05, beta=0.5, comparator=law)
    before = one.run(MDP, CLASS, 40, 3, keep=True).pairs
    law[:] = [[1.0, 0.0]]
    assert np.array_equal(one.run(MDP, CLASS, 40, 3, keep=True).pairs, before)
    assert one == XPO(alpha=0.05, beta=0.5, comparator=[[0.25, 0.75]])


# --- the theorem's alpha for classes of any size ---------------------------------------------------------------------


@pytest.mark.parametrize("n", [10**30, 10**1000, 7**500], ids=["10^30", "10^1000", "7^500"])
def test_the_theorems_alpha_for_large_classes(n: int) -> None:
    """Against the formula in 40 digits, the class given by its number or by its logarithm."""
    how = {"beta": 0.1, "rounds": 100, "coverability": 3.0}
    with mpmath.workdps(40):
        log_n = mpmath.log(mpmath.mpf(n))
        root = mpmath.sqrt((log_n + mpmath.log(100) - mpmath.log(mpmath.mpf("0.05"))) * mpmath.log(100) / 300)
        wanted = float(mpmath.mpf("0.1") / (2 * mpmath.e**2) * root)
    assert theorem_alpha(n_policies=n, **how) == pytest.approx(wanted, rel=1e-14)
    assert theorem_alpha(log_n_policies=float(log_n), **how) == pytest.approx(wanted, rel=1e-14)


def test_the_theorems_alpha_needs_one_size() -> None:
    how = {"beta": 0.1, "rounds": 100, "coverability": 3.0}
    assert theorem_alpha(n_policies=61, **how) == pytest.approx(theorem_alpha(log_n_policies=np.log(61.0), **how), rel=1e-14)
    assert np.isfinite(theorem_alpha(n_policies=2**60, delta=1e-300, beta=0.1, rounds=10**9, coverability=1.0))
    for wrong in ({}, {"n_policies": 3, "log_n_policies": 1.0}):
        with pytest.raises(ValueError, match="n_policies or log_n_policies must be given, exactly one of the two"):
            theorem_alpha(**how, **wrong)
    for wrong in ({"n_policies": 0}, {"n_policies": 2.0}, {"log_n_policies": -1.0}, {"log_n_policies": np.nan}):
        with pytest.raises(ValueError, match=r"theorem_alpha: (log_)?n_policies must"):
            theorem_alpha(**how, **wrong)  # type: ignore[arg-type]


# --- callers who ask numpy to raise ----------------------------------------------------------------------------------


def test_underflow_is_no_error_even_where_numpy_is_told_to_raise() -> None:
    """A probability below 1e-308 is 0; values against exact fractions."""
    far, both = np.array([[[-1e4, 0.0]]]), Pairs([0, 0], [0, 1], [1, 0])
    with np.errstate(all="raise"):
        loss = dpo_losses(far, HALF, both, beta=1e3)[0]
        gradient = dpo_gradient(Softmax(2), [[1e3, -1e3]], HALF, both, beta=1e3)
        fit = fit_dpo(FiniteClass.from_rewards([[[1e3, 0.0]], [[0.0, 0.0]]], HALF), both, beta=1e-3)
        run = XPO(alpha="theorem", beta=1e-4).run(MDP, CLASS, 50, 0)
        numbers = [
            coverability(far[0]), box_coverability([0.5, 0.5], r_max=1e4, beta=1.0), concentrability(far[0], [0.5, 0.5]),
            RewardBox().grid(HALF, 3).misfit(MDP, 1e-4).distance,
        ]
        soft = fit_softmax(ResponseBox([0.5, 0.5], beta=1e-4, r_max=1.0), [0, 1, 1], [1, 0, 0], [0, 0, 1], alpha=0.1)
    assert loss == float(Fraction(10**3) * 10**4 / 2)  # one pair costs beta 1e4, the other nothing
    assert gradient.tolist() == [[500.0, -500.0]]
    assert fit.index == 1
    assert np.isfinite(run.gap).all()
    assert numbers == [1.0, 2.0, 2.0, 0.0]
    assert np.isfinite(soft.value)
