r"""The losses, each the tabular function of the same name for models that torch can differentiate.

Log-probabilities are of whole responses: ``log_pi`` [X, Y] where responses are enumerated, [n] where they are drawn. What is
maximised is written as an objective J [scalar]; what is minimised as a loss.

    reward                E_pi r                                               (RL)
    kl_reward             E_pi r - beta KL(pi || pi_ref)                       (KL-RL: reverse KL to the posterior)
    distribution          -KL(target || pi)                                    (GDC: forward KL)
    reinforce             (1/n) sum_i (signal_i - baseline_i) log pi(y_i)      (a surrogate: its gradient is REINFORCE)
    cloning               -(1/N) (sum_i log pi(y_i) + kappa sum over prefixes and tokens log pi(a | prefix))
    dpo                   mean of -log sigma(d), d = beta (log pi/pi_ref(y+) - log pi/pi_ref(y-)); smoothing, IPO
    xpo                   dpo + alpha mean log pi(y~)      (per pair; the paper's sum over n)

Means over prompts weigh them by ``mu0``. Shapes are those stated, never broadcast; NaN in a tensor without a gradient is
refused (``lm.guards``), in a model's own it is the training loop's to see. Tabular counterparts: ``align.objectives`` and
``align.gradient``, ``align.dpo``, ``align.cccp``, ``align.ctrl`` and ``estimate.cloning``.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from mdpsim.align.calibration import calibrate_by_anchors
from mdpsim.align.ctrl import Quantiles, calibrated
from mdpsim.align.dpo import LOSSES
from mdpsim.align.transforms import Transform
from mdpsim.arrays import FloatArray, as_real, fail, frozen, unknown
from mdpsim.lm.guards import alike, any_of, as_floating, dense, guard_finite, guard_laws, guard_logs, guard_mu0, seen


def _mean(values: Tensor, mu0: Tensor | None) -> Tensor:
    """Over prompts."""
    return values.mean() if mu0 is None else mu0.to(values) @ values


def entropy(log_pi: Tensor) -> Tensor:
    """[X] H(pi) = -E_pi log pi of enumerated responses; responses of probability zero count nothing."""
    as_floating("entropy", "log_pi", log_pi, "..Y", (None,))
    guard_logs("entropy", log_pi=log_pi)
    return -(log_pi.exp() * log_pi.masked_fill(torch.isneginf(log_pi), 0.0)).sum(dim=-1)


def divergence(log_pi: Tensor, log_other: Tensor) -> Tensor:
    """[X] KL(pi || other) of enumerated responses; infinite where pi writes what the other never does."""
    alike("divergence", "..Y", log_pi=log_pi, log_other=log_other)
    guard_logs("divergence", log_pi=log_pi, log_other=log_other)
    zero = torch.isneginf(log_pi)
    return (log_pi.exp() * (log_pi - log_other).masked_fill(zero, 0.0)).sum(dim=-1)


def reward(log_pi: Tensor, r: Tensor, mu0: Tensor | None = None) -> Tensor:
    """J = E r. log_pi, r: [X, Y]; mu0 [X]."""
    return _reward("reward", log_pi, r, mu0)


def _reward(where: str, log_pi: Tensor, r: Tensor, mu0: Tensor | None) -> Tensor:
    shape = alike(where, "X Y", log_pi=log_pi, r=r)
    guard_mu0(where, mu0, shape[0])
    guard_logs(where, log_pi=log_pi)
    guard_finite(where, r=r)
    return _mean((log_pi.exp() * r).sum(dim=-1), mu0)


def kl_reward(log_pi: Tensor, r: Tensor, log_ref: Tensor, beta: float, mu0: Tensor | None = None) -> Tensor:
    """J = E r - beta KL(pi || pi_ref) = beta log Z - beta KL(pi || posterior). log_pi, r, log_ref: [X, Y]."""
    value = _reward("kl_reward", log_pi, r, mu0)
    alike("kl_reward", "X Y", log_pi=log_pi, log_ref=log_ref)
    return value - _weight("kl_reward", beta) * _mean(divergence(log_pi, log_ref), mu0)


def distribution(log_pi: Tensor, target: Tensor, mu0: Tensor | None = None) -> Tensor:
    """J = -KL(target || pi), target [X, Y] probabilities."""
    shape = alike("distribution", "X Y", log_pi=log_pi, target=target)
    guard_mu0("distribution", mu0, shape[0])
    guard_logs("distribution", log_pi=log_pi)
    guard_laws("distribution", "target", target, logs=False)
    surprise = torch.where(target > 0.0, target * log_pi, torch.zeros_like(log_pi)).sum(dim=-1)
    return _mean(surprise - torch.xlogy(target, target).sum(dim=-1), mu0)


def reinforce(log_pi: Tensor, signal: Tensor, baseline: float | str = "leave-one-out") -> Tensor:
    """The surrogate whose gradient estimates grad E signal, from responses drawn of the policy itself.

    Args:
        log_pi: [n] of the responses drawn. signal: [n], as ``align.objectives`` defines it; treated as constant.
        baseline: a number, or "leave-one-out": for each response the mean signal of the others (n >= 2).
    Raises:
        ValueError: naming the argument; one response with the baseline "leave-one-out".
    """
    (n,) = alike("reinforce", "n", log_pi=log_pi, signal=signal)
    heard = signal.detach()
    guard_logs("reinforce", log_pi=log_pi)
    guard_finite("reinforce", signal=signal)
    if isinstance(baseline, str) and baseline == "leave-one-out":
        if n == 1:
            fail("reinforce", "log_pi", "hold at least 2 responses for the baseline 'leave-one-out'", 1)
        heard = (heard - heard.mean()) * (n / (n - 1))
    elif isinstance(baseline, str):
        fail("reinforce", "baseline", "be a number or 'leave-one-out'", repr(baseline))
    else:
        heard = heard - as_real("reinforce", "baseline", baseline, -1e300, 1e300)
    return (heard * log_pi).mean()


def cloning(levels: list[Tensor], counts: list[Tensor], kappa: float = 0.0) -> Tensor:
    """Negative log-likelihood of demonstrations, with kappa pseudo-counts of every token after every prefix, per demonstration.

    Its minimiser over all policies is ``estimate.cloning.fit_bc`` with smoothing kappa.

    Args:
        levels: log pi(a | prefix) by length of the prefix, [X, V^t, V] (``LanguageModel.tree_log_probs``).
        counts: how often the token followed the prefix in the demonstrations, [X, V^t, V].
    Raises:
        ValueError: naming the argument; no demonstrations.
    """
    k = as_real("cloning", "kappa", kappa, 0.0, 1e300)
    for name, given in (("levels", levels), ("counts", counts)):
        if not isinstance(given, list | tuple) or not given:
            fail("cloning", name, "be a list of tensors, one a length of the prefix", repr(given))
    if len(counts) != len(levels):
        fail("cloning", "counts", f"have the {len(levels)} lengths of levels", len(counts))
    for t, (c, lp) in enumerate(zip(counts, levels, strict=True)):
        alike("cloning", "X prefixes V", **{f"levels[{t}]": lp, f"counts[{t}]": c})
        guard_logs("cloning", **{f"levels[{t}]": lp})
        guard_finite("cloning", **{f"counts[{t}]": c})
        if seen(c) and any_of(c < 0.0):
            fail("cloning", f"counts[{t}]", "be numbers of demonstrations, not negative", "a negative number")
    n = counts[0].sum()
    if seen(n) and any_of(n == 0.0):
        fail("cloning", "counts", "hold at least one demonstration", 0)
    parts = [(torch.where(c + k > 0.0, (c + k) * lp, torch.zeros_like(lp))).sum() for c, lp in zip(counts, levels, strict=True)]
    return -torch.stack(parts).sum() / n


def preference_losses(d: Tensor, *, beta: float, smoothing: float = 0.0, loss: str = "logistic") -> Tensor:
    """The losses of margins d = beta (log pi/pi_ref(y+) - log pi/pi_ref(y-)), of any shape; infinite at d = -inf."""
    if not dense(d) or not d.is_floating_point():
        fail("dpo", "d", "be a tensor of floating-point numbers", type(d).__name__)
    if seen(d) and any_of(torch.isnan(d)):
        fail("dpo", "d", "be numbers", "NaN")
    if not isinstance(loss, str) or loss not in LOSSES:
        unknown("dpo", "loss", loss, LOSSES)
    s, weight = as_real("dpo", "smoothing", smoothing, 0.0, 0.5), _weight("dpo", beta)
    if loss == "ipo":
        if s > 0.0:
            fail("dpo", "smoothing", "be 0 for the loss 'ipo'", s)
        return ((d - 0.5) / weight) ** 2
    plain = functional.softplus(-d)
    return plain if s == 0.0 else torch.where(torch.isneginf(d), torch.inf, plain + s * d)


def dpo(
    better: Tensor, worse: Tensor, better_ref: Tensor, worse_ref: Tensor, *, beta: float, smoothing: float = 0.0,
    loss: str = "logistic",
) -> Tensor:
    """The mean loss of n labelled pairs.

    Args:
        better, worse: [n] log pi of the preferred response and of the other, sums over tokens.
        better_ref, worse_ref: [n] their log pi_ref.
        beta: in [1e-8, 1e8]. smoothing: in [0, 1/2]. loss: "logistic" or "ipo".
    Returns:
        A scalar; infinite where the policy never writes a preferred response.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    References: Rafailov et al. (2023), Eq. 7; Azar et al. (2024).
    """
    return _dpo("dpo", better, worse, better_ref, worse_ref, beta, smoothing, loss)


def _dpo(
    where: str, better: Tensor, worse: Tensor, better_ref: Tensor, worse_ref: Tensor, beta: float, smoothing: float, loss: str
) -> Tensor:
    alike(where, "n", better=better, worse=worse, better_ref=better_ref, worse_ref=worse_ref)
    guard_logs(where, better=better, worse=worse, better_ref=better_ref, worse_ref=worse_ref)
    guard_finite(where, better_ref=better_ref, worse_ref=worse_ref)
    d = _weight(where, beta) * ((better - better_ref) - (worse - worse_ref))
    d = torch.where(torch.isneginf(better), -torch.inf, d)  # also where the other is never written either
    return preference_losses(d, beta=beta, smoothing=smoothing, loss=loss).mean()


def xpo(
    better: Tensor, worse: Tensor, better_ref: Tensor, worse_ref: Tensor, comparator: Tensor, *, alpha: float, beta: float,
    smoothing: float = 0.0, loss: str = "logistic",
) -> Tensor:
    """DPO's loss plus alpha times the mean of log pi(y~); alpha = 0 is DPO. comparator: [n] log pi of the second responses,
    one a pair.

    Raises:
        ValueError: naming the argument, what was wanted and what came.
    Reference: Xie et al. (2024), Algorithm 1: its sum over pairs, divided by their number.
    """
    value = _dpo("xpo", better, worse, better_ref, worse_ref, beta, smoothing, loss)
    weight = as_real("xpo", "alpha", alpha, -1e300, 1e300)
    alike("xpo", "n", better=better, comparator=comparator)
    guard_logs("xpo", comparator=comparator)
    if weight != 0.0 and seen(comparator) and any_of(torch.isneginf(comparator)):
        fail("xpo", "comparator", "be finite: the bonus of a response that is never written has no bound", "-inf")
    return value if weight == 0.0 else value + weight * comparator.mean()


def history_loss(
    log_pi: Tensor, log_ref: Tensor, wins: Tensor, second: Tensor, *, alpha: float | Tensor, beta: float | Tensor
) -> Tensor:
    """XPO's loss of a whole history, summed over its pairs, from counts: its cost does not grow with the rounds.

    Args:
        log_pi, log_ref: [.., X, Y]; responses that pi_ref never gives count nothing.
        wins: [.., X, Y, Y] how often the first was preferred to the second.
        second: [.., X, Y] how often y was the second response y~.
        alpha, beta: numbers, or tensors [..].
    Returns:
        [..].
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    where, shape = "history_loss", alike("history_loss", "..X Y", log_pi=log_pi, log_ref=log_ref)
    as_floating(where, "wins", wins, "..X Y Y", (*shape[-2:], shape[-1]))
    alike(where, "..X Y", log_pi=log_pi, second=second)
    if wins.shape[:-3] != shape[:-2]:
        fail(where, "wins", f"have shape {(*shape, shape[-1])}", tuple(wins.shape))
    for name, weight, low, high in (("alpha", alpha, -1e300, 1e300), ("beta", beta, 1e-8, 1e8)):
        if not isinstance(weight, Tensor):
            as_real(where, name, weight, low, high)
        elif weight.ndim and weight.shape != shape[:-2]:
            fail(where, name, f"be a number or have shape {tuple(shape[:-2])}", tuple(weight.shape))
    guard_logs(where, log_pi=log_pi, log_ref=log_ref)
    guard_finite(where, wins=wins, second=second)
    alphas, betas = (torch.as_tensor(w, dtype=log_pi.dtype, device=log_pi.device)[..., None, None] for w in (alpha, beta))
    written = ~torch.isneginf(log_ref)
    rho = betas * torch.where(written, log_pi - torch.where(written, log_ref, 0.0), 0.0)
    value = (wins * functional.softplus(rho[..., None, :] - rho[..., :, None])).sum(dim=(-3, -2, -1))
    return value + (alphas * second * torch.where(written, log_pi, 0.0)).sum(dim=(-2, -1))


def transformed_rewards(
    r: ArrayLike, transform: Transform, *, pi_ref: ArrayLike | None = None, anchors: ArrayLike | None = None
) -> FloatArray:
    """Phi(C(x, y)): the reward that CTRL trains on; calibration and transform are those of ``align``.

    Args:
        r: [X, Y] rewards. pi_ref: [X, Y], for exact calibration; or anchors: [X, K] rewards of responses drawn from pi_ref.
    Raises:
        ValueError: both or neither of pi_ref and anchors; a transform that is infinite at a calibrated reward.
    """
    where = "transformed_rewards"
    if isinstance(transform, type) or not (callable(transform) and isinstance(getattr(transform, "name", None), str)):
        fail(where, "transform", "be a Transform, as in mdpsim.align.transforms", type(transform).__name__)
    if (pi_ref is None) == (anchors is None):
        fail(where, "pi_ref or anchors", "be given, exactly one of the two", "both" if anchors is not None else "neither")
    if anchors is None:
        assert pi_ref is not None
        ranks = calibrated(r, pi_ref)
    else:
        C = calibrate_by_anchors(r, anchors)
        ranks = Quantiles(C, 1.0 - C)
    scores = transform(ranks)  # type: ignore[arg-type]
    if not np.isfinite(scores).all():
        fail(where, transform.name, "be finite at every calibrated reward", "inf")
    return frozen(np.asarray(scores, dtype=np.float64))


def _weight(where: str, beta: float) -> float:
    return as_real(where, "beta", beta, 1e-8, 1e8)
