"""XPO's objective over softmax classes in 50 digits and by scipy, and least values by L-BFGS-B from many starts."""

from __future__ import annotations

import numpy as np
from mpmath import mp, mpf
from scipy import optimize, special


def objective_mp(rho, ref, winners, losers, comparators, prompts, alpha, beta):
    """F at rewards rho [X, Y], in 50 digits and more for a large beta."""
    with mp.workdps(60 + max(0, int(np.log10(beta)))):
        n_prompts = len(ref)
        r = [[mpf(float(x)) for x in row] for row in rho]
        total = mpf(0)
        soft = []
        for x in range(n_prompts):
            whole = sum(mpf(float(p)) for p in ref[x])
            weights = [mpf(float(p)) / whole for p in ref[x]]
            top = max(v for v, p in zip(r[x], ref[x], strict=True) if p > 0)
            terms = [w * mp.exp((v - top) / mpf(float(beta))) for v, w in zip(r[x], weights, strict=True) if w > 0]
            soft.append(top + mpf(float(beta)) * mp.log(sum(terms)))
        for x, a, b, c in zip(prompts, winners, losers, comparators, strict=True):
            total += mp.log(1 + mp.exp(-(r[x][a] - r[x][b])))
            total += mpf(float(alpha)) / mpf(float(beta)) * (r[x][c] - soft[x])
        return total


def objective(theta, features, ref, winners, losers, comparators, prompts, alpha, beta):
    """(F, gradient) at theta for features [X, Y, d], by scipy."""
    rho = features @ theta
    soft = beta * special.logsumexp(rho / beta, b=ref, axis=1)
    p = ref * np.exp((rho - soft[:, None]) / beta)
    difference = rho[prompts, winners] - rho[prompts, losers]
    value = np.logaddexp(0.0, -difference).sum() + alpha / beta * (rho[prompts, comparators] - soft[prompts]).sum()
    pull = -special.expit(-difference) @ (features[prompts, winners] - features[prompts, losers])
    mean = np.einsum("xy,xyd->xd", p, features)
    return value, pull + alpha / beta * (features[prompts, comparators] - mean[prompts]).sum(axis=0)


def least(features, low, high, rng, data, n_starts=24):
    """The least F that L-BFGS-B finds from random points and corners of the box."""
    d = features.shape[2]
    starts = np.concatenate([rng.uniform(low, high, (n_starts // 2, d)), rng.choice([low, high], (n_starts // 2, d))])
    found = [optimize.minimize(objective, x, (features, *data), jac=True, method="L-BFGS-B", bounds=[(low, high)] * d)
             for x in starts]
    return min(f.fun for f in found)
