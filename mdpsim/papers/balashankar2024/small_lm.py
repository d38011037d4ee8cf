r"""Calibrate and transform on a small language model, for the best of 4 responses.

Instances. pi_ref is a causal transformer with random weights over four tokens, two prompts, responses of L tokens; its head is
small, so that no response of the 4^L has much mass: calibrated rewards are then nearly uniform, as on the quantile scale,
where the gain at KL = 0.5 is 0.072. Rewards are the log-probabilities of another transformer; only their order matters.

Both arms maximise E_pi Phi(C) - beta KL(pi || pi_ref) over the weights from pi_ref, by 40 evaluations of L-BFGS with exact
gradients: Phi = e^{10 u} (the exponential for best-of-N) and Phi = u, the calibrated reward itself. Neither optimum pi* =
pi_ref e^{Phi / beta} / Z is in the class by construction. What training leaves is KL(pi || pi*) = (J(pi*) - J(pi)) / beta
(columns ``left_ctrl``, ``left_identity``), an upper bound on the distance to the class's own optimum.

Equal KL. beta is solved for each arm on the tables, so that its optimum spends an average KL of ``kl`` over prompts. Training
leaves kl_ctrl and kl_identity, not quite equal. Let W(k) be the best-of-4 win rate of the identity's exact policy pi_ref
e^{C / b} / Z at average KL k. W increases: a smaller b raises the law of the reward in the likelihood-ratio order, prompt by
prompt, and with it the law of the best of 4. CTRL must beat both of

    the trained identity's win rate + W(max(kl_ctrl, kl_identity)) - W(kl_identity),    what the KL it was denied could buy,
    W(kl_ctrl),                                                         an identity without error at CTRL's own KL,

and gets nothing back where it spent less itself.

Sampling. 400 best-of-4 draws a prompt of either model and of the reference (``lm.sample.best_of_n``), the two models at common
uniforms; all pairs of a model's and the reference's are compared. This two-sample statistic has the standard error of DeLong et
al. (1988), about 0.014; that of the difference of the two arms, whose errors are correlated, is about 0.009 (measured, 36
instances at KL = 0.25), of which six fit into the gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mdpsim.align.ctrl import CTRL, PromptPolicies, prompt_win_rates
from mdpsim.align.procedures import BestOfN
from mdpsim.align.transforms import IDENTITY, Exponential, Transform
from mdpsim.arrays import FloatArray
from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity
from mdpsim.papers.balashankar2024.bounds import PAPER

if TYPE_CHECKING:  # torch is an extra: without it claims are listed all the same
    from mdpsim.lm.model import LanguageModel, Transformer
    from mdpsim.lm.train import Space

V, WIDTH, GAIN, PROMPTS = 4, 32, 0.5, 2
N = 4
DRAWS = 400  # best-of-4 draws a prompt
APART = 6.0  # standard errors: once in 5 * 10^8 for a normal law


class _Instance(NamedTuple):
    """The reference as a model and as a table [X, Y], the space of its responses, and rewards [X, Y]."""

    reference: Transformer
    space: Space
    p: FloatArray
    r: FloatArray


class _Arm(NamedTuple):
    """A trained model: its average KL to pi_ref, KL(pi || pi*), and its win rates for the best of 4 and for one response."""

    model: LanguageModel
    kl: float
    left: float
    win: float
    win_of_one: float


def _instance(point: Point, rng: np.random.Generator) -> _Instance:
    import torch

    from mdpsim.lm.model import Config, Transformer
    from mdpsim.lm.train import Space

    L = point["tokens"]
    config = Config(vocabulary=V, prompts=PROMPTS, context=L + 1, layers=point["layers"], width=WIDTH, gain=GAIN)
    on = {"device": point["device"], "dtype": point["dtype"]}
    reference, other = Transformer(config, rng, **on), Transformer(config, rng, **on)
    space = Space(prompts=torch.arange(V, V + PROMPTS, device=reference.device)[:, None], length=L)
    with torch.no_grad():
        log_p, r = (space.log_probs(m).double().cpu().numpy() for m in (reference, other))
    return _Instance(reference, space, _normalised(log_p), r)


def _normalised(log_p: FloatArray) -> FloatArray:
    """[X, Y] laws that sum to one in float64 whatever the model's own number type."""
    p = np.exp(log_p)
    return p / p.sum(axis=1, keepdims=True)


def _train(x: _Instance, stated: PromptPolicies) -> _Arm:
    """Maximise E_pi Phi(C) - beta KL(pi || pi_ref) over weights, from pi_ref; ``stated``: scores, beta, the exact optimum."""
    from mdpsim.lm import losses
    from mdpsim.lm.device import to_device
    from mdpsim.lm.quasi_newton import climb

    model = x.reference.perturbed(0.0, 0)
    log_ref = x.space.log_probs(model).detach()
    scores = to_device(stated.scores, log_ref, log_ref.dtype)
    climb(model, x.space, lambda log_pi: losses.kl_reward(log_pi, scores, log_ref, stated.beta))
    log_pi = x.space.log_probs(model).detach()
    pi = _normalised(log_pi.double().cpu().numpy())
    optimum = float((stated.pi * stated.scores).sum(axis=1).mean() - stated.beta * stated.kl.mean())
    return _Arm(
        model, float(losses.divergence(log_pi, log_ref).mean()),
        (optimum - float(losses.kl_reward(log_pi, scores, log_ref, stated.beta))) / stated.beta,
        *(float(prompt_win_rates(BestOfN(n), pi, x.r, x.p).mean()) for n in (N, 1)),
    )


def _drawn(x: _Instance, model: LanguageModel, rng: np.random.Generator | int) -> FloatArray:
    """[X, DRAWS] rewards of best-of-4 draws."""
    from mdpsim.lm.device import to_device
    from mdpsim.lm.sample import best_of_n, response_index

    rewards = to_device(x.r, model.device).repeat_interleave(DRAWS, dim=0)
    found = best_of_n(model, x.space.prompts.repeat_interleave(DRAWS, dim=0), x.space.length, rewards, N, rng)
    place = response_index(found.responses, V).cpu().numpy().reshape(PROMPTS, DRAWS)
    return np.take_along_axis(x.r, place, axis=1)


def two_sample(mine: FloatArray, other: FloatArray) -> tuple[float, float]:
    """Mean over prompts of P(mine > other) + 1/2 P(tie), from all pairs of samples [X, n] and [X, m]; its standard error."""
    beaten = (mine[:, :, None] > other[:, None, :]) + 0.5 * (mine[:, :, None] == other[:, None, :])
    first, second = beaten.mean(axis=2).var(axis=1, ddof=1), beaten.mean(axis=1).var(axis=1, ddof=1)
    variance = first / mine.shape[1] + second / other.shape[1]
    return float(beaten.mean()), float(np.sqrt(variance.sum())) / len(mine)


def _exact_win(x: _Instance, kl: float, transform: Transform = IDENTITY) -> float:
    """W(kl) of the docstring, or that of another transform's exact policy."""
    stated = CTRL(transform=transform, kl=kl).run(x.r, x.p)
    return float(prompt_win_rates(BestOfN(N), stated.pi, x.r, x.p).mean())


def strongest_rival(x: _Instance, ctrl: float, identity: float, win: float) -> tuple[float, float]:
    """(win rate of the stronger rival, credit) for the two arms' average KLs and the trained identity's win rate."""
    own = _exact_win(x, ctrl)
    credit = max(own - _exact_win(x, identity), 0.0) if ctrl > identity else 0.0
    return max(win + credit, own), credit


@per_seed
def measure_best_of_n(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Best-of-4 win rates against the reference's best-of-4 of two models trained to one average KL, e^{10u} and identity.

    ``behind`` and ``behind_sampled``: by how much CTRL fails to beat the stronger rival, by enumeration and by sampling.
    ``apart``: standard errors between sampled and exact win rate, for the arm where they are more. Beside them: both win
    rates (exact and sampled), both KLs, the credit, and what training left. For twins: ``ahead``, by how much the identity
    fails to beat CTRL; ``behind_far``, behind the exact identity at three times the KL; ``behind_of_one``, behind the
    trained identity by the standard win rate (N = 1); ``behind_worst``, by how much the exact policy of -e^{-10u} fails to
    beat the identity's.
    """
    from mdpsim.lm.device import reproducible

    kl, transform = point["kl"], Exponential(10.0)
    with reproducible():
        x = _instance(point, rng)
        ctrl, identity = (_train(x, CTRL(transform=phi, kl=kl).run(x.r, x.p)) for phi in (transform, IDENTITY))
        theirs, common = _drawn(x, x.reference, rng), int(rng.integers(2**62))
        (win_c, se_c), (win_i, se_i) = (two_sample(_drawn(x, arm.model, common), theirs) for arm in (ctrl, identity))
    rival, credit = strongest_rival(x, ctrl.kl, identity.kl, identity.win)
    return {
        "behind": max(rival - ctrl.win, 0.0), "behind_sampled": max(win_i + credit - win_c, 0.0),
        "apart": max(abs(win_c - ctrl.win) / se_c, abs(win_i - identity.win) / se_i),
        "win_ctrl": ctrl.win, "win_identity": identity.win, "rival": rival, "credit": credit,
        "sampled_ctrl": win_c, "sampled_identity": win_i, "kl_ctrl": ctrl.kl, "kl_identity": identity.kl,
        "left_ctrl": ctrl.left, "left_identity": identity.left,
        "ahead": max(ctrl.win - identity.win, 0.0), "behind_far": max(_exact_win(x, 3.0 * kl) - ctrl.win, 0.0),
        "behind_of_one": max(identity.win_of_one - ctrl.win_of_one, 0.0),
        "behind_worst": max(_exact_win(x, kl) - _exact_win(x, kl, Exponential(-10.0)), 0.0),
    }


_AXES: dict[str, Any] = {"kl": (0.25, 0.5), "tokens": (3,), "layers": (1,), "device": ("cpu",), "dtype": ("float64",)}

small_lm_best_of_n = Claim(
    id="balashankar2024/small-lm-best-of-n",
    statement=(
        r"Small transformers (four tokens, width 32, one or two layers, random weights; responses of 3 or 4 tokens to two "
        r"prompts) trained on the calibrated reward, another transformer's log-probability, to one average $\mathrm{KL}$ of "
        r"$0.2$ to $0.5$: the best of 4 with $\Phi = e^{10u}$ beats the reference's best of 4 more often than with $\Phi = u$, "
        r"by exact enumeration (the KL that training leaves unequal credited to the identity) and by sampling."
    ),
    origin="observed",
    cites=(PAPER.at("InfAlign-CTRL for best-of-N"),),
    grid={
        "smoke": product(**_AXES),
        "quick": product(**_AXES | {"layers": (1, 2)}),
        "paper": product(**_AXES | {"layers": (1, 2), "kl": (0.2, 0.25, 0.35, 0.5), "tokens": (3, 4)}),
    },
    measure=measure_best_of_n,
    rule=Identity({"behind": 0.0, "behind_sampled": 0.0, "apart": APART}),
    twins=(
        Twin(
            "identity-wins", r"$\Phi = u$ beats $\Phi = e^{10u}$.", r"it wins $0.05$ to $0.07$ less often",
            rule=Identity({"ahead": 0.0}),
        ),
        Twin(
            "at-a-third-of-the-kl", r"The same against the identity at three times the KL.",
            r"the identity wins $0.05$ more often there", rule=Identity({"behind_far": 0.0}),
        ),
        Twin(
            "standard-win-rate", r"The same for $N = 1$, one response against one.",
            r"the identity is optimal there and wins $0.05$ more often", rule=Identity({"behind_of_one": 0.0}),
        ),
        Twin(
            "worst-of-4-transform", r"The same for $\Phi = -e^{-10u}$.", r"it wins $0.1$ less often than the identity",
            rule=Identity({"behind_worst": 0.0}),
        ),
    ),
    seeds={"smoke": 2, "quick": 8, "paper": 24},
    draws=("tokens", "layers"),
    needs=("lm",),
    tags=("lm", "transformer", "ctrl", "exact", "sampling", "random-instances"),
)
