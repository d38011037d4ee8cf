r"""Win rate against KL: transforms side by side, the exponential tuned to the KL, and the optimum as their envelope.

All transforms are compared at equal KL, by root finding on beta. ``tradeoff`` takes any procedure, one's own included, on the
quantile scale or on a finite space, and gives the whole table: what each transform wins, what the best policy wins, and so what
standard alignment (the identity) loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.align.inference import Policy, align, checked_law, inference_loss_rate
from mdpsim.align.optimum import Optimum, optimal_transform
from mdpsim.align.procedures import Procedure
from mdpsim.align.spaces import QuantileScale, Responses, Space, quantile_scale
from mdpsim.align.transforms import CUBIC, IDENTITY, LOG, LOGIT, Exponential, Transform, scale_for
from mdpsim.arrays import FloatArray, as_floats, as_real, fail, frozen

TILTS = (1.0, 3.0, 6.0, 12.0, 25.0, 60.0, 150.0, 500.0)  # |t| from which the tuning starts
STANDARD = (IDENTITY, LOG, CUBIC, LOGIT)


class Tilt(NamedTuple):
    """The exponential transform tuned to a KL: t, the policy, and its win rate."""

    t: float
    policy: Policy
    win: float


class Tradeoff(NamedTuple):
    """Win rates at equal KL.

    kls: [L]. names: of the T transforms, with "exp tuned" last. loss: [T, L] 1 - W, accurate where W is near 1. beta: [T, L].
    tilts: [L] the t of the tuned exponential. optima: one Optimum for each KL. optimal_loss: [L].
    """

    kls: FloatArray
    names: tuple[str, ...]
    loss: FloatArray
    beta: FloatArray
    tilts: FloatArray
    optima: tuple[Optimum, ...]
    optimal_loss: FloatArray

    @property
    def win(self) -> FloatArray:
        """[T, L] win rates."""
        return 1.0 - self.loss

    @property
    def regret(self) -> FloatArray:
        """[T, L] what each transform loses against the optimum."""
        return self.loss - self.optimal_loss

    def gap(self) -> FloatArray:
        """[L] what standard alignment loses against the optimum: the regret of the identity."""
        return self.regret[self.names.index("identity")]


def space_of(transform: Transform, procedure: Procedure, space: Space | None = None) -> Space:
    """The finite space given, or the quantile scale that suits the transform and the procedure."""
    if isinstance(space, Responses):
        return space
    if space is not None and not isinstance(space, QuantileScale):
        fail("tradeoff", "space", "be Responses, a QuantileScale or None", type(space).__name__)
    return scale_for(transform, tuple(procedure.breaks))


def tuned_exponential(procedure: Procedure, kl: float, space: Space | None = None) -> Tilt:
    """The t, of either sign, at which e^{tu} (or -e^{tu}) wins most at a given KL; t = 0 is the identity.

    The win rate is searched over a grid of t, then by Brent's method in asinh t between the neighbours of its best point.

    Cost: about 40 alignments.
    Raises:
        ValueError: naming the argument; a KL that is not attainable.
    """
    from scipy.optimize import minimize_scalar  # slow to import: at the first call

    on = space if space is not None else quantile_scale(tuple(procedure.breaks))

    def lost(s: float) -> float:
        return inference_loss_rate(procedure, align(on, Exponential(float(np.sinh(s))), kl=kl).pi, on)

    grid = np.arcsinh(np.array([*(-t for t in TILTS[::-1]), 0.0, *TILTS]))
    values = [lost(s) for s in grid]
    i = int(np.argmin(values))
    low, high = grid[max(i - 1, 0)], grid[min(i + 1, grid.size - 1)]
    found = minimize_scalar(lost, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    s = float(found.x) if found.fun < values[i] else float(grid[i])
    t = float(np.sinh(s))
    return Tilt(t, align(on, Exponential(t), kl=kl), 1.0 - lost(s))


def tradeoff(
    procedure: Procedure, kls: ArrayLike, *, transforms: Sequence[Transform] | None = None, space: Space | None = None,
    n_starts: int = 1,
) -> Tradeoff:
    """The trade-off curve of a procedure: every transform, the tuned exponential and the optimum at each KL.

    Args:
        procedure: any. kls: [L] increasing, in (0, 30]. transforms: None takes identity, log, cubic and logit; the identity
        is added
            where it is missing.
        space: a finite space; None takes the quantile scale (each transform on the one that it needs).
        n_starts: of the optimum at each KL (see :func:`optimal_transform`), beside the optimum at the KL before.
    Cost: about 0.2 s a KL on the quantile scale.
    Raises:
        ValueError: naming the argument; a KL that is not attainable.
    """
    levels = as_floats("tradeoff", "kls", kls, "L", (None,))
    if levels[0] <= 0.0 or (np.diff(levels) <= 0.0).any():
        fail("tradeoff", "kls", "be positive and increase", levels)
    as_real("tradeoff", "kls", float(levels[-1]), 0.0, 30.0)
    chosen = list(STANDARD if transforms is None else transforms)
    if all(t.name != "identity" for t in chosen):
        chosen.insert(0, IDENTITY)
    rows, betas = [], []
    for transform in chosen:
        on = space_of(transform, procedure, space)
        policies = [align(on, transform, kl=float(k)) for k in levels]
        rows.append(_losses(procedure, on, policies))
        betas.append([p.beta for p in policies])
    on = space if space is not None else quantile_scale(tuple(procedure.breaks))
    tilts = [tuned_exponential(procedure, float(k), on) for k in levels]
    rows.append(_losses(procedure, on, [t.policy for t in tilts]))
    betas.append([t.policy.beta for t in tilts])
    optima: list[Optimum] = []
    for k in levels:
        start = optima[-1].transform if optima else None
        optima.append(optimal_transform(procedure, on, kl=float(k), n_starts=n_starts, start=start))
    best = [inference_loss_rate(procedure, o.pi, on) for o in optima]
    names = (*(t.name for t in chosen), "exp tuned")
    return Tradeoff(
        levels, names, frozen(np.array(rows)), frozen(np.array(betas)), frozen(np.array([t.t for t in tilts])), tuple(optima),
        frozen(np.array(best)),
    )


def _losses(procedure: Procedure, space: Space, policies: Sequence[Policy]) -> list[float]:
    """1 - W of some policies, with the rival's law computed once."""
    rival = space.ranks(checked_law("tradeoff", procedure, space, space.pi_ref))
    missed = rival.above + 0.5 * rival.mass
    return [float(checked_law("tradeoff", procedure, space, p.pi) @ missed) for p in policies]
