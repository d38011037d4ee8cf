r"""Xie et al.: Exploratory Preference Optimization: Harnessing Implicit Q*-Approximation for Sample-Efficient RLHF (ICLR 2025).

Setting: a prompt, responses (trajectories) tau, a reference pi_ref, a reward r, beta > 0, J(pi) = E_pi r - beta KL(pi||pi_ref),
V* = beta log E_ref e^{r / beta}, pi* = pi_ref e^{(r - V*) / beta}, and J(pi*) - J(pi) = beta KL(pi || pi*) for every policy.
Preferences are Bradley-Terry, P(tau > tau') = sigma(r(tau) - r(tau')).
"""
