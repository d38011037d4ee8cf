"""Everything public in inference-time alignment and KL-as-inference runs where the caller has numpy raise on underflow too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mdpsim.align import calibration, gradient, objectives
from mdpsim.align.ctrl import CTRL, align_prompts, prompt_win_rates, standardised
from mdpsim.align.inference import align, inference_loss_rate, inference_win_rate, policy_kl, sample_win_rate
from mdpsim.align.optimum import optimal_transform
from mdpsim.align.procedures import BestOfN, Custom, Distortion, Rejection, Temperature, WorstOfN
from mdpsim.align.selection import MajorityVote, NoisyBestOfN, ProxyBestOfN, SoftBestOfN
from mdpsim.align.spaces import QuantileScale, Responses, quantile_scale
from mdpsim.align.tradeoff import halving_error, tradeoff, tuned_exponential
from mdpsim.align.transforms import CUBIC, IDENTITY, LOG, LOGIT, Exponential, Function, logit_cdf, scale_for
from mdpsim.solve import projection, sequence

Y = 200
RNG = np.random.default_rng(0)
R = RNG.integers(0, 90, Y).astype(float)
REF = np.append(0.0, RNG.dirichlet(np.full(Y - 1, 0.05)))  # masses down to 1e-200, and a zero
REF /= REF.sum()
SPACE, SCALE = Responses(R, REF), quantile_scale()
PI = RNG.dirichlet(np.full(Y, 0.05))
TABLE = RNG.normal(size=(3, Y)) * [[1e-200], [1.0], [1e200]]
LAWS = np.array([REF, REF[::-1], np.full(Y, 1.0 / Y)])
PROCEDURES = [
    BestOfN(1), BestOfN(1000), BestOfN(10**6), WorstOfN(1000), WorstOfN(10**6), Temperature(0.001), Temperature(3.0),
    Rejection(0.9, 10**5), Rejection(0.5), SoftBestOfN(1000, 0.01), NoisyBestOfN(1000, 0.1), ProxyBestOfN(1000, -R),
    MajorityVote(500, (R > 50).astype(int)), Distortion(lambda x: x**1000), Distortion(lambda x: 3 * x**2 - 2 * x**3),
    Custom(lambda pi, space: BestOfN(1000).law(space, pi)),
]
DISCRETE = (ProxyBestOfN, MajorityVote, Custom, Rejection, Temperature)
TRANSFORMS = [IDENTITY, LOG, CUBIC, LOGIT, Exponential(600.0), Exponential(-600.0), Function(lambda u: u**500, "steep")]
SOFT, TREE = gradient.Softmax(5), gradient.TokenSoftmax(2, 3)
SHARP = np.exp(-99.0 * np.arange(5)) / np.exp(-99.0 * np.arange(5)).sum()
APART = np.exp(300.0 * np.eye(2)) / np.exp(300.0 * np.eye(2)).sum()
THETA = np.array([0.0, -700.0, 3.0, 700.0, 1.0])


def raising(call: Callable[[], object]) -> None:
    with np.errstate(all="raise"):
        call()


@pytest.mark.parametrize("procedure", PROCEDURES, ids=lambda p: f"{type(p).__name__}-{getattr(p, 'n', '')}")
def test_procedures(procedure) -> None:  # type: ignore[no-untyped-def]
    def call() -> None:
        law = procedure.law(SPACE, PI)
        procedure.reward(SPACE, PI, procedure.law(SPACE, REF))
        policy_kl(law, SPACE)
        for found in (inference_win_rate, inference_loss_rate):
            found(procedure, PI, SPACE)
        sample_win_rate(procedure, PI, SPACE, 20, 0)
        prompt_win_rates(procedure, LAWS, TABLE, LAWS[::-1]) if not isinstance(procedure, DISCRETE) else None

    raising(call)


@pytest.mark.parametrize(
    "procedure", [p for p in PROCEDURES if not isinstance(p, DISCRETE) and getattr(p, "g", None) is None],
    ids=lambda p: f"{type(p).__name__}-{getattr(p, 'n', '')}",
)
def test_procedures_on_the_quantile_scale(procedure) -> None:  # type: ignore[no-untyped-def]
    pi = align(SCALE, Exponential(10.0), kl=3.0).pi
    raising(lambda: (inference_win_rate(procedure, pi, SCALE), sample_win_rate(procedure, pi, SCALE, 20, 0)))
    raising(lambda: procedure.reward(SCALE, pi, procedure.law(SCALE, SCALE.pi_ref)))


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: t.name)
def test_aligned_policies(transform) -> None:  # type: ignore[no-untyped-def]
    def call() -> None:
        for space in (SPACE, scale_for(transform)):
            align(space, transform, kl=0.5)
            align(space, transform, beta=2.0)
        if transform is not LOGIT:
            align(SPACE, transform, beta=1e-3)
        halving_error(BestOfN(1000), transform, 0.5, QuantileScale(depth=1000, pieces=2))
        CTRL(transform=transform, K=5, interpolate=True, beta=0.1).run(TABLE, LAWS)

    raising(call)


@pytest.mark.parametrize("call", [
    lambda: tradeoff(BestOfN(4), [0.5, 1.0]), lambda: tuned_exponential(WorstOfN(4), 0.3),
    lambda: optimal_transform(WorstOfN(16), SPACE, kl=0.3, n_starts=3),
    lambda: optimal_transform(BestOfN(500), SCALE, beta=0.01),
    lambda: align_prompts(TABLE[1:2], LAWS[1:2], kl=0.3), lambda: align_prompts(TABLE, LAWS, beta=1e-250),
    lambda: standardised(TABLE, LAWS), lambda: logit_cdf(scale_for(LOGIT), 1.1),
    lambda: calibration.calibrate(TABLE, LAWS), lambda: calibration.calibration_variance(TABLE, LAWS),
    lambda: calibration.calibration_mse(TABLE, LAWS, 3), lambda: calibration.ks_distance(SPACE.C, PI),
    lambda: calibration.calibrate_by_interpolation(TABLE, calibration.sample_anchors(TABLE, LAWS, 9, 0)),
    lambda: calibration.calibrate_by_anchors(TABLE, calibration.sample_anchors(TABLE, LAWS, 9, 0, shared=False)),
    lambda: sequence.tilt(REF, R, 1e-3), lambda: sequence.condition(REF, R > 80), lambda: sequence.kl(PI, PI[::-1]),
    lambda: sequence.fit_moments(np.full(5, 0.2), THETA[:, None], [600.0]), lambda: sequence.elbo(REF, REF, R, 1e-3),
    lambda: sequence.rejection_sample(REF, R / 100, 50, 0), lambda: sequence.importance_sample(REF, R, 1e-3, 50, 0),
    lambda: projection.project_markov(APART, "reverse", restarts=3), lambda: projection.project_markov(APART, "forward"),
    lambda: projection.project_softmax(SHARP, THETA[:, None], "forward"),
    lambda: projection.project_softmax(SHARP, THETA[:, None], "reverse", restarts=2),
    *(lambda o=o, f=f: f(SOFT, THETA, o) for o in (
        objectives.Reward(THETA), objectives.KLReward(THETA, np.full(5, 0.2), beta=1e-3),
        objectives.EntropyReward(THETA, np.full(5, 0.2), alpha=1e-3, beta=0.0), objectives.Distribution(np.arange(5.0)),
    ) for f in (gradient.exact_gradient, lambda *a: gradient.sampled_gradient(*a, 20, 0, baseline="leave-one-out"),
                lambda *a: gradient.ascend(*a, eta=0.1, steps=30), lambda p, t, o: o.value(p.log_pi(t)))),
    lambda: gradient.natural_gradient(SOFT, THETA, objectives.KLReward(THETA, np.full(5, 0.2), beta=1e-3)),
    lambda: gradient.flow(TREE, np.zeros(14), objectives.Reward(np.arange(8.0)), [0.0, 1.0, 1e4]),
    lambda: objectives.KLReward(THETA, np.full(5, 0.2), beta=1e-3).optimum(),
])
def test_other_functions(call: Callable[[], object]) -> None:
    raising(call)
