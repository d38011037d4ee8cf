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

from mdpsim.align.inference import Policy, align, as_procedure, as_space, checked_law, inference_loss_rate
from mdpsim.align.optimum import Optimum, optimal_transform
from mdpsim.align.procedures import Procedure
from mdpsim.align.spaces import QuantileScale, Responses, Space, quantile_scale
from mdpsim.align.transforms import CUBIC, IDENTITY, LOG, LOGIT, Exponential, Transform, as_transform, scale_for
from mdpsim.arrays import FloatArray, as_floats, as_real, fail, frozen
from mdpsim.records import record

TILTS = (1.5, 3.5, 6.0, 10.0, 18.0, 40.0, 100.0, 250.0, 600.0)  # |t| between which the tuning looks
STANDARD = (IDENTITY, LOG, CUBIC, LOGIT)


class Tilt(NamedTuple):
    """The exponential transform tuned to a KL: t, the policy, and its win rate."""

    t: float
    policy: Policy
    win: float


@record
class Tradeoff(NamedTuple):
    """Win rates at equal KL.

    kls: [L]. names: of the T transforms, with "exp tuned" last. loss: [T, L] 1 - W, accurate where W is near 1. beta: [T, L].
    tilts: [L] the t of the tuned exponential. optima: one Optimum for each KL. optimal_loss: [L]. error: by how much the
    losses at the least and the largest KL may be off: :func:`halving_error`, the optimum's among them; 0 on a finite space,
    where they are exact.
    """

    kls: FloatArray
    names: tuple[str, ...]
    loss: FloatArray
    beta: FloatArray
    tilts: FloatArray
    optima: tuple[Optimum, ...]
    optimal_loss: FloatArray
    error: float

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
    """The finite space given, or the quantile scale given with what the transform needs besides; else one that suits both."""
    if isinstance(space, Responses):
        return space
    if space is None:
        return scale_for(transform, tuple(procedure.breaks))
    if not isinstance(space, QuantileScale):
        fail("tradeoff", "space", "be Responses, a QuantileScale or None", type(space).__name__)
    return scale_for(transform, given=space)


@np.errstate(under="ignore")
def tuned_exponential(procedure: Procedure, kl: float, space: Space | None = None) -> Tilt:
    """The t, of either sign, at which e^{tu} (or -e^{tu}) wins most at a given KL; t = 0 is the identity.

    The sign is that of the better of t = -1.5 and 1.5 (0 if neither beats the identity); |t| goes up a grid until the win rate
    falls, then Brent's method works in asinh t between the neighbours of the best point. Win rates are unimodal in t for the
    procedures of this package; where one is not, this is a local maximum. |t| is at most 600: for N above 100 the best is
    beyond.

    Cost: about 20 alignments.
    Raises:
        ValueError: naming the argument; a KL that is not attainable.
    """
    from scipy.optimize import minimize_scalar  # slow to import: at the first call

    where = "tuned_exponential"
    as_procedure(where, procedure)
    if space is not None:
        as_space(where, space)
    on = space if space is not None else quantile_scale(tuple(procedure.breaks), pieces=2)
    rival = on.ranks(checked_law(where, procedure, on, on.pi_ref))
    missed = rival.above + 0.5 * rival.mass

    def lost(s: float) -> float:
        law = procedure.law(on, align(on, Exponential(float(np.sinh(s))), kl=kl).pi)
        return float(law @ missed) / float(law.sum())  # a tilt too sharp for the panels may be looked at, not returned

    sides = [lost(np.arcsinh(t)) for t in (0.0, TILTS[0], -TILTS[0])]
    sign = 1.0 if sides[1] <= sides[2] else -1.0
    grid, values = [0.0, sign * float(np.arcsinh(TILTS[0]))], [sides[0], min(sides[1:])]
    for t in TILTS[1:]:
        if values[-1] > values[-2]:
            break
        grid.append(sign * float(np.arcsinh(t)))
        values.append(lost(grid[-1]))
    i = int(np.argmin(values))
    ends = sorted((grid[i - 1] if i else -grid[1], grid[min(i + 1, len(grid) - 1)]))
    found = minimize_scalar(lost, bounds=ends, method="bounded", options={"xatol": 1e-4})
    s = float(found.x) if found.fun < values[i] else grid[i]
    t = float(np.sinh(s))
    policy = align(on, Exponential(t), kl=kl)
    return Tilt(t, policy, 1.0 - inference_loss_rate(procedure, policy.pi, on))


@np.errstate(under="ignore")
def tradeoff(
    procedure: Procedure, kls: ArrayLike, *, transforms: Sequence[Transform] | None = None, space: Space | None = None,
    n_starts: int = 1,
) -> Tradeoff:
    """The trade-off curve of a procedure: every transform, the tuned exponential and the optimum at each KL.

    Args:
        procedure: any. kls: [L] increasing, in (0, 30]. transforms: None takes identity, log, cubic and logit; the identity
            is added where it is missing.
        space: a finite space, or a quantile scale with the procedure's breaks, on which everything is computed (the breaks and
            the depth that a transform needs are added for it); None takes the quantile scale that suits each transform.
        n_starts: of the optimum at each KL (see :func:`optimal_transform`), beside the optimum at the KL before.
    Cost: about 0.2 s a KL on the quantile scale.
    Raises:
        ValueError: naming the argument; a KL that is not attainable.
    """
    levels = as_floats("tradeoff", "kls", kls, "L", (None,))
    if levels[0] <= 0.0 or (np.diff(levels) <= 0.0).any():
        fail("tradeoff", "kls", "be positive and increase", levels)
    as_real("tradeoff", "kls", float(levels[-1]), 0.0, 30.0)
    as_procedure("tradeoff", procedure, "reward")
    chosen = list(STANDARD if transforms is None else _transforms(transforms))
    if all(t.name != "identity" for t in chosen):
        chosen.insert(0, IDENTITY)
    rows, betas = [], []
    for transform in chosen:
        on = space_of(transform, procedure, space)
        policies = [align(on, transform, kl=float(k)) for k in levels]
        rows.append(_losses(procedure, on, policies))
        betas.append([p.beta for p in policies])
    on = space if space is not None else quantile_scale(tuple(procedure.breaks), pieces=2)
    tilts = [tuned_exponential(procedure, float(k), on) for k in levels]
    rows.append(_losses(procedure, on, [t.policy for t in tilts]))
    betas.append([t.policy.beta for t in tilts])
    optima: list[Optimum] = []
    for k in levels:
        start = optima[-1].transform if optima else None
        optima.append(optimal_transform(procedure, on, kl=float(k), n_starts=n_starts, start=start))
    best = [inference_loss_rate(procedure, o.pi, on) for o in optima]
    names = (*(t.name for t in chosen), "exp tuned")
    error = max(
        [halving_error(procedure, t, float(k), space) for t in chosen for k in levels[[0, -1]]]
        + [halving_error(procedure, Exponential(tilts[i].t), float(levels[i]), on) for i in (0, -1)]
        + [_optimum_error(procedure, optima[i], best[i], on) for i in (0, -1)]
    )
    return Tradeoff(
        levels, names, frozen(np.array(rows)), frozen(np.array(betas)), frozen(np.array([t.t for t in tilts])), tuple(optima),
        frozen(np.array(best)), error,
    )


@np.errstate(under="ignore")
def halving_error(procedure: Procedure, transform: Transform, kl: float, space: Space | None = None) -> float:
    """By how much the win rate of a transform at a KL may be off: three times its largest change on finer panels.

    The panels are cut in two, three and five: with a kink inside a panel the error goes down slowly, and two scales may agree
    by chance. Jumps inside a panel are refused (:class:`mdpsim.align.transforms.Function`). Not seen are spikes so thin that
    no node of the four scales meets them, and kinks within 1e-4 of a panel's end, which cost less than 1e-8.

    Args:
        space: None takes the quantile scale that suits the transform; on a finite space there is no quadrature, and it is 0.
    Cost: eleven times that of the win rate.
    Raises:
        ValueError: naming the argument; a KL that is not attainable.
    """
    as_procedure("halving_error", procedure)
    as_transform("halving_error", transform)
    coarse = space_of(transform, procedure, space)
    if isinstance(coarse, Responses):
        return 0.0
    scales = (coarse, *(coarse.cut(k) for k in (2, 3, 5)))
    found = [inference_loss_rate(procedure, align(x, transform, kl=kl).pi, x) for x in scales]
    return 3.0 * max(abs(found[0] - other) for other in found[1:])


def _transforms(given: object) -> Sequence[Transform]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        fail("tradeoff", "transforms", "be a list of transforms, or None", repr(given))
    return [as_transform("tradeoff", t, f"transforms[{i}]") for i, t in enumerate(given)]


def _optimum_error(procedure: Procedure, found: Optimum, loss: float, space: Space) -> float:
    """The same for the optimum, solved again on the halved panels."""
    if not isinstance(space, QuantileScale):
        return 0.0
    fine = space.halved()
    start = np.interp(fine.u, space.u, found.transform)
    again = optimal_transform(procedure, fine, kl=found.kl, n_starts=1, start=start)
    return abs(inference_loss_rate(procedure, again.pi, fine) - loss)


def _losses(procedure: Procedure, space: Space, policies: Sequence[Policy]) -> list[float]:
    """1 - W of some policies, with the rival's law computed once."""
    rival = space.ranks(checked_law("tradeoff", procedure, space, space.pi_ref))
    missed = rival.above + 0.5 * rival.mass
    return [float(checked_law("tradeoff", procedure, space, p.pi) @ missed) for p in policies]
