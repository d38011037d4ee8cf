r"""Balashankar et al.: InfAlign: Inference-aware language model alignment (ICML 2025).

Setting: a reference pi_ref over responses with rewards, a procedure T that turns draws of a policy into what is returned
(best-of-N with the reward, worst-of-N by an attacker, ..), and the objective

    W(pi) - beta KL(pi || pi_ref),   W(pi) = P(T(pi) beats T(pi_ref)) + 1/2 P(tie).

The calibrated reward C(y) = P_{z ~ pi_ref}(r(z) < r(y)) + 1/2 P(tie) takes responses to quantiles; without ties it is uniform
under pi_ref, and everything is said on [0, 1]: a policy is a density f of u = C, F its CDF,

    best-of-N: W = 1 - N int u^{N-1} F^N du,   worst-of-N: W = N int (1-u)^{N-1} (1-F)^N du,   KL = int f log f.

Each file holds claims that share a derivation: ``calibration``, ``empirical`` (calibration from samples), ``best_of_n`` (its
KL and win rate), ``quantiles`` (only the transform matters), ``transformed`` (the transformed reward, and what standard RLHF
loses), ``transforms`` (the optimal one, exponentials, gains) and ``tables`` (calibrate and transform over prompts).
"""
