r"""Online preference optimisation with a language model: XPO and DPO on the full history, round by round.

A round draws x ~ mu0, y ~ pi^t and y~ from pi_ref or pi^t, sees a Bradley-Terry label, and takes ``optimiser.steps`` steps of
Adam from where it stands on

    sum_i -log sigma(rho(y+_i) - rho(y-_i)) + alpha sum_i log pi(y~_i),    rho = beta log pi / pi_ref,

over all pairs so far, divided by their number. Responses are enumerated, so the history is its counts and a step costs the
same at every round. Sampling is untempered. alpha > 0 is XPO's optimism, alpha = 0 DPO, alpha < 0 the wrong sign.

Unlike the tabular learners' argmin, the minimum is approached: ``slope`` records the gradient's norm that is left.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mdpsim.arrays import FloatArray, IntArray, as_count, as_floats, as_real, frozen, unknown
from mdpsim.lm import losses
from mdpsim.lm.device import to_device
from mdpsim.lm.model import LanguageModel
from mdpsim.lm.train import Adam, Space, TrainingError
from mdpsim.rng import as_generator

A_ROUND = Adam(steps=10, rate=1e-2, decay=False)
SOURCES = ("policy", "reference")


class LMExploration(NamedTuple):
    """A run of T rounds; read-only arrays.

    gap: [T + 1] J(pi*) - J(pi^t) = beta KL(pi^t || pi*), exact, pi^1 = the start. mass: [T + 1] probability of a best response.
    kl: [T + 1] KL(pi^t || pi_ref). slope: [T] norm of the gradient that a round leaves (per pair).
    pairs: [T, 4] prompt, first response, second response, whether the first was preferred. log_pi: [X, Y] at the end.
    """

    gap: FloatArray
    mass: FloatArray
    kl: FloatArray
    slope: FloatArray
    pairs: IntArray
    log_pi: FloatArray


def explore(
    model: LanguageModel, space: Space, r: ArrayLike, log_ref: Tensor, *, rounds: int, alpha: float, beta: float,
    rng: np.random.Generator | int, second: str = "reference", optimiser: Adam = A_ROUND,
) -> LMExploration:
    """Play T rounds.

    Args:
        model: pi^1, changed in place; a ``Residual`` of pi_ref starts there and stays in a bounded class.
        r: [X, Y] rewards, behind the labels. log_ref: [X, Y] of pi_ref.
        second: "reference" (XPO) or "policy" (online DPO's, where alpha = 0).
        optimiser: the steps of every round; its moments are kept from round to round.
    Returns:
        LMExploration.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
        TrainingError: a loss became NaN or infinite.
    """
    where = "explore"
    T, weight = as_count(where, "rounds", rounds, high=10**6), as_real(where, "alpha", alpha, -1e300, 1e300)
    temperature = as_real(where, "beta", beta, 1e-8, 1e8)
    if second not in SOURCES:
        unknown(where, "second", second, SOURCES)
    X, Y = log_ref.shape
    rewards = as_floats(where, "r", r, "X Y", (X, Y))
    device = log_ref.device
    table = to_device(rewards, device, log_ref.dtype)
    start = torch.full((X,), 1.0 / X, dtype=log_ref.dtype, device=device) if space.mu0 is None else space.mu0
    best = table == table.masked_fill(torch.isneginf(log_ref), -torch.inf).amax(dim=1, keepdim=True)
    top = start @ (temperature * torch.logsumexp(log_ref + table / temperature, dim=1))
    uniforms = as_generator(where, rng).random((T, 4))
    contexts = np.minimum(np.searchsorted(np.cumsum(start.double().cpu().numpy()), uniforms[:, 0], side="right"), X - 1)
    wins, against = torch.zeros(X, Y, Y, dtype=log_ref.dtype, device=device), torch.zeros_like(log_ref)
    adam = optimiser.over(model)
    curves, slopes, pairs = [], [], []
    log_pi = space.log_probs(model).detach()
    for t in range(T):
        x = int(contexts[t])
        curves.append(_numbers(log_pi, table, log_ref, temperature, start, top, best))
        y = _pick(log_pi[x], uniforms[t, 1])
        other = _pick(log_ref[x] if second == "reference" else log_pi[x], uniforms[t, 2])
        won = bool(uniforms[t, 3] < 1.0 / (1.0 + np.exp(rewards[x, other] - rewards[x, y])))
        wins[x, y if won else other, other if won else y] += 1.0
        against[x, other] += 1.0
        pairs.append((x, y, other, won))
        for _ in range(optimiser.steps):
            adam.zero_grad(set_to_none=True)
            loss = losses.history_loss(space.log_probs(model), log_ref, wins, against, alpha=weight, beta=temperature) / (t + 1)
            loss.backward()
            adam.step()
        if not bool(torch.isfinite(loss)):
            raise TrainingError(t, float(loss), t)
        slopes.append(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm())
        log_pi = space.log_probs(model).detach()
    curves.append(_numbers(log_pi, table, log_ref, temperature, start, top, best))
    gap, mass, kl = (frozen(np.ascontiguousarray(c)) for c in torch.stack(curves).double().cpu().numpy().T)
    return LMExploration(
        gap, mass, kl, frozen(torch.stack(slopes).double().cpu().numpy()), frozen(np.array(pairs, dtype=np.int64)),
        frozen(log_pi.double().cpu().numpy()),
    )


def _pick(log_p: Tensor, u: float) -> int:
    """A response at a uniform, by the cumulative law on the CPU."""
    cumulative = np.cumsum(np.exp(log_p.double().cpu().numpy()))
    return min(int(np.searchsorted(cumulative, u * cumulative[-1], side="right")), len(cumulative) - 1)


def _numbers(
    log_pi: Tensor, r: Tensor, log_ref: Tensor, beta: float, mu0: Tensor, top: Tensor, best: Tensor
) -> Tensor:
    """(gap, mass of best responses, KL to pi_ref)."""
    gap = top - losses.kl_reward(log_pi, r, log_ref, beta, mu0)
    mass = mu0 @ (log_pi.exp() * best).sum(dim=1)
    return torch.stack([gap, mass, mu0 @ losses.divergence(log_pi, log_ref)])
