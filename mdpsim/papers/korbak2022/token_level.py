r"""Token by token: soft backward induction over prefixes samples from the posterior over whole responses.

A response is a string x of L tokens, its prior a product of conditionals, pi_0(x) = prod pi_0(a | prefix), its reward r(x). Let

    V(x) = r(x),   V(prefix) = beta log sum_a pi_0(a | prefix) exp(V(prefix a) / beta),
    pi*(a | prefix) = pi_0(a | prefix) exp((V(prefix a) - V(prefix)) / beta).                                   (1)

Substituting V along a string telescopes: V(root) = beta log sum_x pi_0(x) e^{r(x)/beta} = beta log Z, and the product of (1) is
pi_0(x) exp((r(x) - V(root)) / beta), the posterior. So KL-regularised RL on the token tree, with the reward paid at the end,
is posterior inference over responses.

The tree is a :class:`TokenMDP` with one prompt: r(x) is paid by the last token. A response that ends early goes on with the
end token, which is then the only one its prior allows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import special

from mdpsim.arrays import FloatArray
from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity
from mdpsim.mdp.token import TokenMDP
from mdpsim.papers.korbak2022.bounds import EPS, PAPER, Vector, positive
from mdpsim.solve.exact import evaluate, solve_soft

END = 0  # the end token of the "stop" family


@per_seed
def measure_tokens(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Total variation between the law of whole responses under the token policies and the enumerated posterior.

    ``tv`` is that of the soft optimum of the token tree, ``value`` is |V(root) - beta log Z|. The other columns are token
    policies ~ pi_0 e^{Q/beta} with a false Q: the prior's mean of r given the prefix, the best r that the prefix can lead to,
    or no Q but at the last token.

    Tolerance: log pi*(x) sums L terms, each known to 16 roundings of 1 + |log pi_0(x)| + max|r|/beta; log-ratios of at
    most t give a total variation of at most t, and beta times that in the value.
    """
    beta, length = point["beta"], point["length"]
    prior, rewards = random_tree(point, rng)
    mdp = TokenMDP(rewards[None], vocabulary=point["vocabulary"], length=length)
    log_prior = mdp.responses(prior).log_prob[0]
    log_z = float(special.logsumexp(log_prior + rewards / beta))
    posterior = np.exp(log_prior + rewards / beta - log_z)
    solution = solve_soft(mdp, prior, beta)
    false = {
        "tv_mean_backup": evaluate(mdp, prior).Q,
        "tv_max_backup": solve_soft(mdp, prior, 0.0).Q,
        "tv_last_token": mdp.tabular.r,
    }
    spread = 1.0 + float(np.abs(log_prior[np.isfinite(log_prior)]).max()) + float(np.abs(rewards).max()) / beta
    tolerance = 16 * EPS * length * spread
    return {
        "tv": _total_variation(mdp, solution.pi, posterior),
        "value": abs(float(solution.V[0, 0]) - beta * log_z),
        "tolerance": tolerance,
        "value_tolerance": beta * tolerance,
        **{name: _total_variation(mdp, _tilted(prior, Q, beta), posterior) for name, Q in false.items()},
    }


def random_tree(point: Point, rng: np.random.Generator) -> tuple[FloatArray, Vector]:
    """Token conditionals [L, S, V] and rewards [V^L].

    "dense" and "peaked" conditionals are Dirichlet(5) and Dirichlet(0.3); "rare" pays 1 for the least likely response and at
    most 0.2 for the others; "stop" ends a response at its first end token.
    """
    V, L, family = point["vocabulary"], point["length"], point["family"]
    shape = (L, V ** (L - 1))
    prior = positive(rng.dirichlet(np.full(V, 0.3 if family == "peaked" else 5.0), size=shape))
    rewards = rng.normal(0.0, 1.0, V**L) if family == "peaked" else rng.uniform(0.0, 1.0, V**L)
    if family == "rare":
        rewards *= 0.2
        rewards[np.argmin(TokenMDP(rewards[None], vocabulary=V, length=L).responses(prior).log_prob)] = 1.0
    if family == "stop":
        ended = np.zeros(1, dtype=bool)
        for row in prior:
            row[: len(ended)][ended] = np.eye(V)[END]
            ended = (ended[:, None] | (np.arange(V) == END)).reshape(-1)
    return prior, rewards


def _tilted(prior: FloatArray, Q: FloatArray, beta: float) -> FloatArray:
    """Token policies ~ prior e^{Q/beta}."""
    with np.errstate(divide="ignore"):  # tokens that the prior forbids stay forbidden
        return special.softmax(np.log(prior) + Q / beta, axis=-1)


def _total_variation(mdp: TokenMDP, pi: FloatArray, law: Vector) -> float:
    return 0.5 * float(np.abs(np.exp(mdp.responses(pi).log_prob[0]) - law).sum())


_FAMILIES = ("dense", "peaked", "rare", "stop")


def _twin(name: str, column: str, statement: str, distance: str) -> Twin:
    return Twin(name, statement, distance, rule=Identity({column: "tolerance"}))


token_level_posterior = Claim(
    id="korbak2022/token-level-posterior",
    statement=(
        r"Soft backward induction over prefixes, $V(s) = \beta \log \sum_a \pi_0(a|s)\,e^{V(sa)/\beta}$ with $V(x) = r(x)$ and "
        r"$\pi^*(a|s) = \pi_0(a|s)\,e^{(V(sa)-V(s))/\beta}$, samples whole responses from the posterior "
        r"$\pi_0(x)\,e^{r(x)/\beta}/Z$, and $V(\mathrm{root}) = \beta \log Z$."
    ),
    origin="derived",
    cites=(PAPER.at("language models as autoregressive policies"),),
    grid={
        "smoke": product(family=_FAMILIES, vocabulary=(3,), length=(5,), beta=(0.1, 0.4)),
        "quick": product(family=_FAMILIES, vocabulary=(3,), length=(3, 5), beta=(0.1, 0.4, 2.0)),
        "paper": product(family=_FAMILIES, vocabulary=(2, 3, 4), length=(2, 3, 5), beta=(0.05, 0.1, 0.4, 2.0)),
        "full": product(family=_FAMILIES, vocabulary=(2, 3, 4), length=(2, 3, 4, 5), beta=(0.02, 0.05, 0.1, 0.4, 2.0)),
    },
    measure=measure_tokens,
    rule=Identity({"tv": "tolerance", "value": "value_tolerance"}),
    twins=(
        _twin(
            "mean-backup", "tv_mean_backup", r"The same with $V(s) = \mathbb{E}_{\pi_0}[r \mid s]$.",
            r"a total variation of 0.01 (large $\beta$) to 0.9, in the worst instance more than $10^{11}$ tolerances",
        ),
        _twin(
            "max-backup", "tv_max_backup", r"The same with $V(s) = \max\{r(x) : x \text{ begins with } s\}$.",
            r"a total variation of 0.01 (large $\beta$) to 0.9, in the worst instance more than $10^{11}$ tolerances",
        ),
        _twin(
            "last-token-only", "tv_last_token", r"Only the last token is tilted by the reward; the others follow the prior.",
            r"a total variation of 0.01 (large $\beta$) to 0.9, in the worst instance more than $10^{11}$ tolerances",
        ),
    ),
    seeds={"smoke": 20, "quick": 100, "paper": 1000, "full": 10000},
    tags=("exact", "random-instances", "tokens"),
)
