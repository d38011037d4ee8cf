r"""Tiapkin et al.: Demonstration-Regularized RL (ICLR 2024).

Setting: a finite-horizon MDP with stages h = 0 .. H-1, rewards in [0, 1], an expert pi_E, and N independent demonstrations
(full trajectories of pi_E). KL_traj(pi || pi') = E_pi sum_h KL(pi_h(s_h) || pi'_h(s_h)). The paper's lambda is beta here.
Cloning is add-one: pi_BC(a|s) = (N_h(s,a) + 1) / (N_h(s) + A). d_h(s) is the expert's occupancy.

Demonstrations enter through their visit counts only, which are drawn forward, N_h(s,.) ~ Mult(N_h(s), pi_E) and
N_{h+1} = sum of Mult(N_h(s,a), P): exact in joint law. Each trial has its own random MDP and expert; points that differ in N
alone share them.

Each file holds claims that share a derivation. What demonstrations give: ``cloning``, ``constant``, ``exact_mean``,
``scaling``, ``linear``, ``finite_class``, ``minimax`` (how near the clone is), ``value_gap``, ``value_limits`` (what its errors
cost), ``reduction`` (regularised RL towards the clone). Exploring: ``curvature`` (why regularised RL is fast), ``validity`` and
``identification`` (UCBVI-Ent+ and its baseline), ``demonstrations``; in linear MDPs ``linear_identification`` and
``demonstrations_linear``. Preferences: ``rlhf`` and ``rlhf_coverage``. Numbers of formulas run through the files.
"""
