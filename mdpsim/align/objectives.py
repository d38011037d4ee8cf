r"""What fine-tuning maximises, over an enumerable space of responses: reward, reward with KL or entropy, closeness to a target.

An objective enters a policy gradient only through its signal, the number that multiplies the score of a response:

    grad J(theta) = E_{x ~ pi_theta}[signal(x) grad log pi_theta(x)],   signal defined up to a constant (a baseline).

* ``Reward``: J = E r, signal r.
* ``KLReward``: J = E r - beta KL(pi || pi0), signal r + beta log(pi0 / pi): the gradient of -beta KL(pi || pi*).
* ``EntropyReward``: J = E r + alpha H(pi) - beta KL(pi || pi0), signal r - alpha log pi + beta log(pi0 / pi).
* ``Distribution``: J = -KL(target || pi), signal target / pi: distributional policy gradient (GDC).

References: Korbak, Perez and Buckley (2022); Parshakova, Andreoli and Dymetman (2019); Korbak et al. (2022, RL and DM).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, as_floats, as_real, as_simplex, fail, frozen
from mdpsim.records import record


class Objective(Protocol):
    """J of a policy, and the signal of its gradient."""

    def signal(self, log_pi: FloatArray) -> FloatArray:
        """[K] signal of each response under the policy."""
        ...

    def value(self, log_pi: FloatArray) -> float:
        """J of the policy."""
        ...


@record
@dataclass(frozen=True, init=False, eq=False)
class Reward:
    """J = E_pi r. Args: r [K], finite."""

    r: FloatArray

    def __init__(self, r: ArrayLike) -> None:
        object.__setattr__(self, "r", as_floats("Reward", "r", r, "K", (None,)))

    def signal(self, log_pi: FloatArray) -> FloatArray:
        """r."""
        return self.r

    @np.errstate(under="ignore")
    def value(self, log_pi: FloatArray) -> float:
        """E_pi r."""
        return float(np.exp(log_pi) @ self.r)


@record
@dataclass(frozen=True, init=False, eq=False)
class EntropyReward:
    """J = E_pi r + alpha H(pi) - beta KL(pi || pi0). Args: r [K] finite, pi0 [K] > 0, alpha >= 0, beta >= 0, not both zero.

    Its optimum is proportional to pi0^{beta / (alpha + beta)} e^{r / (alpha + beta)}.
    """

    r: FloatArray
    log_pi0: FloatArray
    alpha: float
    beta: float

    def __init__(self, r: ArrayLike, pi0: ArrayLike, *, alpha: float, beta: float) -> None:
        name = type(self).__name__
        prior = as_simplex(name, "pi0", pi0, "K", (None,))
        if prior.min() == 0.0:
            fail(name, "pi0", "be positive: softmax policies reach no face of the simplex", "zeros")
        object.__setattr__(self, "r", as_floats(name, "r", r, "K", (prior.size,)))
        object.__setattr__(self, "log_pi0", frozen(np.log(prior)))
        object.__setattr__(self, "alpha", as_real(name, "alpha", alpha, 0.0, 1e300))
        object.__setattr__(self, "beta", as_real(name, "beta", beta, 0.0, 1e300))
        if self.alpha + self.beta == 0.0:
            fail(name, "beta", "be positive where alpha is zero", "0.0")

    @np.errstate(under="ignore")
    def signal(self, log_pi: FloatArray) -> FloatArray:
        """r + beta log pi0 - (alpha + beta) log pi."""
        return self.r + self.beta * self.log_pi0 - (self.alpha + self.beta) * log_pi

    @np.errstate(under="ignore")
    def value(self, log_pi: FloatArray) -> float:
        """E_pi of the signal; responses of probability zero count nothing."""
        pi = np.exp(log_pi)
        return float(pi[pi > 0.0] @ self.signal(log_pi)[pi > 0.0])

    @np.errstate(under="ignore")
    def optimum(self) -> FloatArray:
        """[K] the maximiser over all laws."""
        x = (self.r + self.beta * self.log_pi0) / (self.alpha + self.beta)
        weights = np.exp(x - x.max())
        return frozen(weights / weights.sum())


class KLReward(EntropyReward):
    """J = E_pi r - beta KL(pi || pi0). Args: r [K] finite, pi0 [K] > 0, beta > 0."""

    def __init__(self, r: ArrayLike, pi0: ArrayLike, *, beta: float) -> None:
        super().__init__(r, pi0, alpha=0.0, beta=beta)


@record
@dataclass(frozen=True, init=False, eq=False)
class Distribution:
    """J = -KL(target || pi).

    Args: target [K], or unnormalised [K] >= 0 with a positive sum (its sum is Z). pi0: the prior [K] that the target is to be
    reached from, if it is to be checked that the target stays on its support.
    """

    target: FloatArray
    Z: float

    def __init__(self, target: ArrayLike, *, pi0: ArrayLike | None = None) -> None:
        weights = as_floats("Distribution", "target", target, "K", (None,))
        with np.errstate(over="ignore"):
            total = float(weights.sum())
        if weights.min() < 0.0 or not 0.0 < total < np.inf:
            fail("Distribution", "target", "be nonnegative with a positive, finite sum", f"sum {total:.6g}")
        if pi0 is not None:
            outside = (weights > 0.0) & (as_simplex("Distribution", "pi0", pi0, "K", (weights.size,)) == 0.0)
            if outside.any():
                fail("Distribution", "target", "stay on the support of pi0", f"mass at {int(outside.argmax())}, where pi0 = 0")
        object.__setattr__(self, "Z", float(weights.sum()))
        object.__setattr__(self, "target", frozen(weights / weights.sum()))

    @np.errstate(under="ignore")
    def signal(self, log_pi: FloatArray) -> FloatArray:
        """target / pi; infinite where the policy cannot give what the target wants."""
        with np.errstate(over="ignore", divide="ignore"):
            return np.where(self.target > 0.0, np.exp(np.log(np.where(self.target > 0.0, self.target, 1.0)) - log_pi), 0.0)

    @np.errstate(under="ignore")
    def value(self, log_pi: FloatArray) -> float:
        """-KL(target || pi)."""
        on = self.target > 0.0
        return float(self.target[on] @ (log_pi[on] - np.log(self.target[on])))
