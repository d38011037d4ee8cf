r"""Distribution collapse: without the KL term, natural policy gradient concentrates on the best responses.

J_RL(pi) = E_pi r, pi = softmax(theta), F = diag(pi) - pi pi^T. Since grad J_RL = pi (r - E r) = F r and the null space of F is
spanned by 1, a step theta += eta F^+ grad J_RL adds eta (r - mean r): exactly, and whatever pi is. So

    pi_k = q_tau ~ pi_0 e^{tau r},   tau = eta k,                                                                (3)

which is the posterior at temperature 1/tau: the prior's weight decays like 1/k and nothing stops it. With M, Delta and C as in
:mod:`mdpsim.papers.korbak2022.bounds`, (2) there gives 1 - pi_k(M) = C e^{-Delta tau} (1 + o(1)) with the o(1) explicit;
best responses keep the proportions of the prior, so the entropy tends to that of pi_0 given M; and from

    dH/dtau = -Cov_{q_tau}(r, log q_tau) = -Cov(r, log pi_0) - tau Var(r)

the entropy decreases where the prior is uniform, and not in general: a rare best response first has to become likely.

Numerics. F^+ comes from an eigendecomposition of F, which is off by about K eps tr F, so that a step of size eta is off by up
to eta K eps tr F range(r) / pi(x) in log pi(x): harmless to pi itself, as F is small where pi is. ``_Path`` adds this up along
the path, with a factor of 8. Eigenvalues below 8 K eps of the largest count as zero: the null space of F, and also a response
that has fallen that low, which from there on is off by at most as much: the last term of the tolerances. Two things that
lose half of the digits are avoided: the largest entry of diag(pi) - pi pi^T is pi (1 - pi), which near collapse keeps only the
digits of 1 - pi, so F is formed as a sum over pairs; and F^+ is applied in its eigenbasis, for as a matrix (numpy.linalg.pinv)
it has entries of size 1 / min pi, whose rounding reaches every response. The comparison stops at pi(not M) = 1e-8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mdpsim.claims.claim import PRESETS, Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity
from mdpsim.mdp.families import bandit
from mdpsim.papers.korbak2022.bounds import EPS, LEVELLED, PAPER, Levels, Vector, levelled_instance
from mdpsim.solve.exact import solve_soft

MAX_STEPS, COLLAPSED = 1000, 1e-8
Matrix = NDArray[np.float64]
Step = Callable[[Vector, Vector], Vector]
_NUMBERS = ("policy", "rate", "ties", "entropy", "rate_halved", "ties_equal", "entropy_any_prior")


def gradient(pi: Vector, rewards: Vector) -> tuple[Vector, Matrix]:
    """grad J_RL = pi (r - E r) and F = diag(pi) - pi pi^T, both as sums over pairs: 1 - pi(x) is never formed."""
    pairs = np.outer(pi, pi)
    np.fill_diagonal(pairs, 0.0)
    return (pairs * np.subtract.outer(rewards, rewards)).sum(axis=1), np.diag(pairs.sum(axis=1)) - pairs


def natural_step(pi: Vector, rewards: Vector) -> Vector:
    """F^+ grad J_RL, by the pseudo-inverse: nothing is put in of the closed form."""
    slope, fisher = gradient(pi, rewards)
    values, vectors = np.linalg.eigh(fisher)
    kept = values > 8 * len(pi) * EPS * values[-1]
    return vectors[:, kept] @ ((vectors[:, kept].T @ slope) / values[kept])


def vanilla_step(pi: Vector, rewards: Vector) -> Vector:
    """grad J_RL: policy gradient without the metric."""
    return gradient(pi, rewards)[0]


@per_seed
def measure_natural_pg(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Along the iterates of natural policy gradient, the gaps of four statements, each at the step where it is worst.

    ``policy``: max_x |pi_k(x) - q_tau(x)|, q_tau from the exact solver. ``rate``: how far log(1 - pi_k(M)) is from
    log C - Delta tau plus the logarithm of the explicit 1 + o(1). ``ties``: how far log pi_k(x) / pi_k(y) is from its start,
    over best responses x and y. ``entropy``: the largest rise in a step, for a uniform prior (0 else). The twins' columns halve
    Delta (and allow the whole o(1)), let best responses share equally, and take the rise of the entropy for every prior. Each
    has its tolerance: rounding, as derived above.
    """
    return _follow(point, rng, natural_step)


@per_seed
def measure_vanilla_pg(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's false algorithm: the same with grad J_RL for a step, without F^+."""
    return _follow(point, rng, vanilla_step)


def _follow(point: Point, rng: np.random.Generator, step: Step) -> dict[str, float]:
    """Steps from the prior until the closed form has collapsed, and the worst of every gap."""
    levels, eta = levelled_instance(point["family"], rng), point["eta"]
    path = _Path(levels)
    for k in range(1, MAX_STEPS + 1):
        closed = solve_soft(bandit(levels.rewards), levels.prior[None, None], 1.0 / (eta * k)).pi[0, 0]
        if closed[~levels.best].sum() < COLLAPSED:
            break
        path.take(eta, step)
        path.compare(eta * k, closed)
    return path.numbers()


class _Path:
    """The iterates, the rounding they have gathered, and the worst gap of every statement so far."""

    def __init__(self, levels: Levels) -> None:
        self.levels = levels
        self.theta = np.log(levels.prior)
        self.pi = levels.prior
        self.entropy = float(special.entr(self.pi).sum())
        self.drift = np.zeros_like(self.pi)  # of log pi(x), to first order
        self.worst = dict.fromkeys(_NUMBERS, (0.0, 0.0))

    def take(self, eta: float, step: Step) -> None:
        """One step, and what it adds to the drift."""
        spread = float(np.ptp(self.levels.rewards))
        trace = float(self.pi @ (1.0 - self.pi))
        self.drift = self.drift + 8 * len(self.pi) * EPS * eta * spread * trace / self.pi
        self.theta = self.theta + eta * step(self.pi, self.levels.rewards)
        self.pi = special.softmax(self.theta)

    def compare(self, tau: float, closed: Vector) -> None:
        """Record the gaps at this iterate, each with its tolerance."""
        levels, best = self.levels, self.levels.best
        # log q_tau is known to 16 roundings of its exponents; cut-off responses are off by 8 K eps of what is not collapsed
        exponents = 16 * EPS * (1.0 + tau * float(np.abs(levels.rewards).max()) + np.abs(np.log(levels.prior)))
        drift, cut = self.drift + exponents, 8 * len(closed) * EPS
        off, miss = closed * drift, closed[~best].sum()
        self._note("policy", float(np.abs(self.pi - closed).max()), float(off.max()) + cut)
        log_miss = float(np.log(self.pi[~best].sum()))
        miss_off = float(off[~best].sum() / miss + off[best].sum()) + cut
        self._note("rate", abs(log_miss - levels.log_miss(tau) - levels.correction(tau)), miss_off)
        self._note("rate_halved", abs(log_miss - levels.log_ratio + 0.5 * levels.gap * tau), miss_off + levels.remainder(tau))
        log_pi = np.log(self.pi[best])
        ties_off = 2.0 * float(drift[best].max())
        self._note("ties", float(np.ptp(log_pi - np.log(levels.prior[best]))), ties_off)
        self._note("ties_equal", float(np.ptp(log_pi)), ties_off)
        before, self.entropy = self.entropy, float(special.entr(self.pi).sum())
        rise = max(self.entropy - before, 0.0)
        entropy_off = 2.0 * float(off @ (1.0 + np.abs(np.log(closed)))) + 2.0 * cut * float(np.abs(np.log(closed)).max())
        uniform = float(np.ptp(levels.prior)) == 0.0
        self._note("entropy", rise if uniform else 0.0, entropy_off)
        self._note("entropy_any_prior", rise, entropy_off)

    def _note(self, name: str, gap: float, tolerance: float) -> None:
        old, old_tolerance = self.worst[name]
        if old_tolerance == 0.0 or gap / tolerance > old / old_tolerance:
            self.worst[name] = gap, tolerance

    def numbers(self) -> dict[str, float]:
        """Every worst gap and its tolerance."""
        gaps = {name: gap for name, (gap, _) in self.worst.items()}
        return gaps | {f"{name}_tolerance": tolerance for name, (_, tolerance) in self.worst.items()}


def _rule(*names: str) -> Identity:
    return Identity({name: f"{name}_tolerance" for name in names})


_FAMILIES = ("six-arms", *LEVELLED)


def _among(*families: str) -> dict[str, tuple[Point, ...]]:
    """Points of the claim's own grids where a twin is false."""
    return {preset: product(family=families, eta=(2.0,)) for preset in PRESETS}


collapse_natural_pg = Claim(
    id="korbak2022/collapse-natural-pg",
    statement=(
        r"Without the KL term natural policy gradient collapses: its $k$-th iterate is exactly $\pi_k \propto "
        r"\pi_0\,e^{\eta k r}$. So $1 - \pi_k(M) = u\,\frac{1+\rho}{1+u(1+\rho)}$, $u = C e^{-\Delta \eta k}$, $\rho = "
        r"O(e^{-(\Delta_3-\Delta)\eta k})$: $M$ are the best responses, $\Delta$ and $\Delta_3$ the gaps to the next two "
        r"levels, $C = \pi_0(\text{second-best level})/\pi_0(M)$. Best responses keep the proportions of $\pi_0$; the "
        r"entropy decreases at every step if $\pi_0$ is uniform."
    ),
    origin="derived",
    cites=(PAPER.at("Section 2, equation (2)"),),
    grid={
        "smoke": product(family=_FAMILIES, eta=(2.0,)),
        "quick": product(family=_FAMILIES, eta=(0.5, 2.0)),
        "paper": product(family=_FAMILIES, eta=(0.2, 0.5, 2.0, 5.0)),
        "full": product(family=_FAMILIES, eta=(0.2, 0.5, 1.0, 2.0, 5.0)),
    },
    measure=measure_natural_pg,
    rule=_rule("policy", "rate", "ties", "entropy"),
    twins=(
        Twin(
            "half-the-gap", r"$1 - \pi_k(M) = C e^{-\Delta \eta k/2}(1 + o(1))$.",
            r"$\Delta \eta k/2$, about 9 at the end of the path, against an explicit $o(1)$ below $10^{-2}$ there",
            rule=_rule("rate_halved"),
        ),
        Twin(
            "vanilla-gradient", r"The same for the steps $\eta\,\nabla J$, without $F^+$.",
            r"$1 - \pi_k(M)$ decays as $1/k$: at the end of the path it is above $10^{-3}$, not $10^{-8}$",
            measure=measure_vanilla_pg,
            grid=_among(*_FAMILIES),
            rule=_rule("policy", "rate"),
        ),
        Twin(
            "ties-share-equally", r"Best responses end up with equal probabilities.",
            r"$|\log \pi_0(x)/\pi_0(y)|$, $\log 3$ in the six-arm instance: $10^{10}$ tolerances",
            rule=_rule("ties_equal"),
            grid=_among("six-arms", "ties"),
        ),
        Twin(
            "entropy-decreases-for-any-prior", r"The entropy decreases at every step, whatever $\pi_0$.",
            r"where the best responses have prior mass $10^{-3}$, a rise of up to 0.1 in a step: $10^{10}$ tolerances",
            rule=_rule("entropy_any_prior"),
            grid=_among("rare"),
        ),
    ),
    seeds={"smoke": 12, "quick": 20, "paper": 200, "full": 2000},
    tags=("bandit", "exact", "random-instances"),
)
