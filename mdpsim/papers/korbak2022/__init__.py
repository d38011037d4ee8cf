r"""Korbak, Perez, Buckley: RL with KL penalties is better viewed as Bayesian inference (Findings of EMNLP 2022).

Setting: a finite response space X with |X| = K, a prior (reference) pi_0 > 0, a reward r and beta > 0. The objective is

    J(pi) = E_pi r - beta KL(pi || pi_0).

X is the action set of a one-state, one-stage MDP, or the leaves of a token tree, so that everything is computed by the
package's exact solvers.
Each file holds claims that share a derivation: ``posterior`` (what J and its maximiser are), ``gradient``, ``token_level``,
``temperature`` (beta -> 0), ``collapse`` and ``vanilla`` (what happens without the KL term, by the natural and the plain
gradient), ``divergences`` (forward against reverse), ``binary`` (constraints) and ``entropy`` (a bonus in the place of the KL
term).
"""
