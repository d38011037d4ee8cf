r"""Quasi-Newton ascent of objectives over enumerated responses.

Where every response is enumerated the objective is an exact, smooth function of the weights, with no noise for small steps to
average out: L-BFGS (Liu and Nocedal, 1989) with a line search by the strong Wolfe conditions gets as near to the optimum in
40 evaluations as Adam in some hundred steps. The less an optimiser leaves undone, the better it is told apart from what a
theorem says of the optimum.

It stops where the gradient has fallen by a factor: on the plateau around a point mass, where reward alone leads, nothing is
left to see but rounding, and a line search that goes on there can jump off the plateau and end anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mdpsim.arrays import as_count, as_real, fail, frozen
from mdpsim.lm.guards import as_scalar, guard_callable
from mdpsim.lm.model import LanguageModel, guard_language_model
from mdpsim.lm.train import Space, TrainingError, TrainingTrace, guard_space


@dataclass(frozen=True, kw_only=True)
class LBFGS:
    """Args: evaluations of objective and gradient, at least 2 (a line search under way is finished, which may take up to 25
    more); history: pairs kept; tolerance: stop where the largest entry of the gradient is at most this times that at the start.
    """

    evaluations: int = 40
    history: int = 20
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        as_count("LBFGS", "evaluations", self.evaluations, low=2, high=10**6)
        as_count("LBFGS", "history", self.history, high=10**4)
        as_real("LBFGS", "tolerance", self.tolerance, 0.0, 1.0)


EXACT = LBFGS()


def climb(
    model: LanguageModel, space: Space, objective: Callable[[Tensor], Tensor], *, optimiser: LBFGS = EXACT
) -> TrainingTrace:
    """Maximise an objective of the enumerated log-probabilities [X, Y], as ``train.maximise`` does, by L-BFGS.

    The tolerance is relative because rewards have no scale: multiplying the objective by a constant changes nothing but the
    length of the first trial step.

    Returns:
        TrainingTrace: ``loss`` is minus the objective at every evaluation, those of line searches among them, ``seen`` empty.
    Cost: as many passes forward and back as ``optimiser.evaluations``; each waits for the device.
    Raises:
        TrainingError: the loss became NaN or infinite; the model has the weights of the smallest loss so far.
        ValueError: naming the argument; a model without parameters to train, an objective that is no scalar.
    """
    guard_language_model("climb", model)
    guard_space("climb", space)
    guard_callable("climb", "objective", objective)
    if not isinstance(optimiser, LBFGS):
        fail("climb", "optimiser", "be an LBFGS", type(optimiser).__name__)
    weights = [p for p in model.parameters() if p.requires_grad]
    if not weights:
        fail("climb", "model", "have parameters to train", "none")
    curve: list[float] = []
    best: tuple[float, int, list[Tensor]] = (np.inf, 0, [p.detach().clone() for p in weights])

    def evaluate() -> Tensor:
        nonlocal best
        for p in weights:
            p.grad = None
        loss = -as_scalar("climb", "objective(log_pi)", objective(space.log_probs(model)))
        value = float(loss.detach())
        if not np.isfinite(value):
            with torch.no_grad():
                for p, good in zip(weights, best[2], strict=True):
                    p.copy_(good)
            raise TrainingError(len(curve), value, best[1])
        if value < best[0]:
            best = value, len(curve), [p.detach().clone() for p in weights]
        curve.append(value)
        loss.backward()
        return loss

    evaluate()
    steepest = max(float(p.grad.abs().max()) for p in weights if p.grad is not None)
    torch.optim.LBFGS(
        weights, lr=1.0, max_iter=optimiser.evaluations, max_eval=optimiser.evaluations - 1, history_size=optimiser.history,
        tolerance_grad=optimiser.tolerance * steepest, tolerance_change=0.0, line_search_fn="strong_wolfe",
    ).step(evaluate)  # type: ignore[arg-type]
    return TrainingTrace(frozen(np.arange(len(curve))), frozen(np.array(curve)), {})
