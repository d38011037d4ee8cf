r"""Xie et al.: Exploratory Preference Optimization (ICLR 2025).

Setting: contexts x ~ mu0, responses y, rewards r(x, y); a policy pi(y | x), a reference pi_ref. J(pi) = E r - beta KL(pi ||
pi_ref), V* = beta log E_ref e^{r/beta}, pi* = pi_ref e^{(r - V*)/beta}; so J(pi*) - J(pi) = beta KL(pi || pi*), by which
every regret here is computed. A label prefers y to y' with probability sigma(r(y) - r(y')) (Bradley-Terry).

XPO plays y ~ pi^t and a comparator y~ ~ pi_ref, sees a label, and takes
    pi^{t+1} = argmin_pi alpha sum_i log pi(y~_i) - sum_i log sigma(beta log pi/pi_ref(y+_i) - beta log pi/pi_ref(y-_i)).
alpha = 0 is "DPO against the reference". "Online DPO" is another algorithm: both responses come from pi^t. Classes of
policies are given by their implicit rewards rho: beta log pi_rho/pi_ref = rho - V_rho. alpha enters only as alpha/beta,
which is what is reported.

Files: ``passive`` (why exploration must be deliberate), ``coverage_invariance``, ``rates`` (Theorem 3.1 and its comparators),
``optimism`` (its price, and where it does not pay), ``reward_range``, ``token_lock``, ``one_line`` (XPO against DPO).
"""
