"""Preference optimisation over a finite class in plain Python: every round recomputes every score from all pairs so far.

Integers below 2^64 for the streams, math for everything else; nothing of mdpsim.
"""

from __future__ import annotations

import math

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(x):
    """splitmix64's finaliser."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def uniform(key, t, number):
    """Number ``number`` of the stream of round t."""
    start = mix(mix((key[0] + GOLDEN * t) & MASK) ^ key[1])
    return (mix((start + GOLDEN * (number + 1)) & MASK) >> 11) * 2.0**-53


def pick(p, u):
    """First index whose cumulative probability exceeds u; the last positive one where none does."""
    total, last = 0.0, 0
    for j, x in enumerate(p):
        total += x
        if u < total:
            return j
        if x > 0.0:
            last = j
    return last


def soft_value(rho, ref, beta):
    """beta log sum ref e^{rho / beta}."""
    top = max(x / beta + math.log(p) for x, p in zip(rho, ref, strict=True) if p > 0.0)
    return beta * (top + math.log(sum(p * math.exp(x / beta - top) for x, p in zip(rho, ref, strict=True) if p > 0.0)))


def policy(rho, ref, beta):
    """ref e^{(rho - V) / beta}."""
    V = soft_value(rho, ref, beta)
    return [p * math.exp((x - V) / beta) if p > 0.0 else 0.0 for x, p in zip(rho, ref, strict=True)]


def kl(p, q):
    """sum p log(p / q)."""
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0.0)


def loss(d, beta, smoothing, kind):
    """Of one pair."""
    if kind == "ipo":
        return ((d - 0.5) / beta) ** 2
    softplus = math.log1p(math.exp(-abs(d))) + max(-d, 0.0)
    return (1.0 - smoothing) * softplus + smoothing * (softplus + d)


def play(
    rho, ref, mu0, r, *, beta, alpha, first, second, rounds, key, every=1, start=None, smoothing=0.0, kind="logistic",
    given=None, win=None,
):
    """(pairs, chosen [T + 1], scores): rho[k][x][y], ref[x][y], r[x][y]; chosen n is pi_ref."""
    n, X = len(rho), len(ref)
    win = win or (lambda d: 1.0 / (1.0 + math.exp(-d)))
    laws = [[policy(rho[k][x], ref[x], beta) for x in range(X)] for k in range(n)] + [ref, given or ref]
    centred = [[[v - soft_value(rho[k][x], ref[x], beta) for v in rho[k][x]] for x in range(X)] for k in range(n)]
    away = [sum(mu0[x] * kl(laws[k][x], ref[x]) for x in range(X)) for k in range(n)]
    current, chosen, pairs, scores = n if start is None else start, [], [], None
    for t in range(1, rounds + 1):
        chosen.append(current)
        x = pick(mu0, uniform(key, t, 0))
        past = chosen[int(uniform(key, t, 2) * t)]
        source = {"policy": current, "history": past, "reference": n, "given": n + 1}
        y = pick(laws[source[first]][x], uniform(key, t, 1))
        z = pick(laws[source[second]][x], uniform(key, t, 3))
        pairs.append((x, y, z, int(uniform(key, t, 4) < win(r[x][y] - r[x][z]))))
        if t % every == 0:
            scores = []
            for k in range(n):
                total = 1e-9 * away[k]
                for c, a, b, label in pairs:
                    d = rho[k][c][a] - rho[k][c][b]
                    total += loss(d if label else -d, beta, smoothing, kind) if a != b else 0.0
                    total += alpha / beta * centred[k][c][b]
                scores.append(total)
            current = scores.index(min(scores))
    return pairs, [*chosen, current], scores
