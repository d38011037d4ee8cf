"""Demonstration-regularised RL in linear MDPs: the weight, the losses, the dimension of log-linear policies, the edges."""

from __future__ import annotations

import numpy as np
import pytest

from mdpsim import evaluate, occupancy, sample, sample_counts, solve_hard, trajectory_kl
from mdpsim.estimate.cloning import fit_bc_linear
from mdpsim.estimate.data import count
from mdpsim.estimate.experts import optimal_expert, soft_expert
from mdpsim.learn.demonstration_linear import LinearDemonstrationRL, policy_dimension
from mdpsim.mdp import families
from mdpsim.mdp.linear import LinearMDP

H, S, A, D = 3, 6, 3, 4


def instance(seed, **sizes):
    return families.linear_simplex(**({"S": S, "A": A, "d": D, "H": H} | sizes), rng=seed)


def test_the_weight_and_the_losses_are_what_they_say():
    mdp = instance(1)
    expert, best = soft_expert(mdp, beta=0.05), float(mdp.mu0 @ solve_hard(mdp).V[0])
    short = best - evaluate(mdp, expert).J
    for n in (8, 200):
        demos = sample_counts(mdp, expert, n, 0)
        run = LinearDemonstrationRL(eps=0.05).run(mdp, demos, 0)
        assert run.beta == pytest.approx(0.05 * (n + 1) / (2 + 3 + 3))  # one start state: rank A - 1; then d - 1
        np.testing.assert_array_equal(run.clone, fit_bc_linear(demos, mdp.phi).pi)
        assert run.loss == pytest.approx(best - evaluate(mdp, run.pi).J, abs=1e-13)
        assert run.cloning_loss == pytest.approx(best - evaluate(mdp, run.clone).J, abs=1e-13)
        assert run.trace.status == "stopped"
        assert run.trace.certificate <= 0.05
        spent = run.beta * trajectory_kl(mdp, expert, run.clone)  # the reduction, with this run's own divergence
        assert run.loss <= short + run.trace.certificate + spent
    assert LinearDemonstrationRL(eps=0.05, beta=0.7).run(mdp, sample_counts(mdp, expert, 8, 0), 0).beta == 0.7


def test_trajectories_and_their_counts_give_the_same_run():
    mdp = instance(2)
    demos = sample(mdp, optimal_expert(mdp), 20, 0)
    one, two = (LinearDemonstrationRL(eps=0.1).run(mdp, d, 0) for d in (demos, count(demos)))
    np.testing.assert_array_equal(one.pi, two.pi)
    assert one.beta == two.beta


@pytest.mark.parametrize("seed", range(4))
def test_policy_dimension_counts_what_can_be_reached(seed):
    """Against ranks over the states that the uniform policy occupies, on sparse random instances."""
    rng = np.random.default_rng(seed)
    phi, mu = rng.dirichlet(np.ones(D), (S, A)), rng.dirichlet(np.ones(2), (H, D))
    phi[..., 2:] = 0.0
    phi = phi / phi.sum(axis=-1, keepdims=True)
    laws = np.zeros((H, D, S))
    laws[:, :2, :2], laws[:, 2:, 3:5] = mu[:, :2], mu[:, 2:]
    mdp = LinearMDP(phi, laws, np.zeros((H, D)), np.eye(S)[0])
    occ = occupancy(mdp, families.uniform_policy(H, S, A))
    centred = phi - phi.mean(axis=1, keepdims=True)
    assert policy_dimension(mdp) == sum(np.linalg.matrix_rank(centred[occ[h] > 0].reshape(-1, D)) for h in range(H)) == 3
    assert policy_dimension(instance(0, A=1)) == 0


def test_one_action_and_no_demonstration_to_speak_of():
    """Nothing to clone (A = 1), or a single demonstration: a number, and a policy."""
    for mdp, n in ((instance(0, A=1), 3), (instance(0), 1), (instance(0, H=1), 1), (instance(0, S=1, d=1), 5)):
        run = LinearDemonstrationRL(eps=0.1, budget=2000).run(mdp, sample_counts(mdp, optimal_expert(mdp), n, 0), 0)
        assert np.isfinite([run.beta, run.loss, run.cloning_loss]).all()
        assert run.pi.sum(axis=-1) == pytest.approx(1.0)


def test_bad_demonstrations_are_refused():
    mdp, other = instance(1), instance(1, S=S + 1)
    demos = sample_counts(other, families.uniform_policy(H, S + 1, A), 5, 0)
    learner = LinearDemonstrationRL(eps=0.1)
    with pytest.raises(ValueError, match=r"LinearDemonstrationRL.run: demos must be of H, S, A = \(3, 6, 3\); got \(3, 7, 3\)"):
        learner.run(mdp, demos, 0)
    with pytest.raises(ValueError, match="LinearDemonstrationRL.run: mdp must be a LinearMDP; got MDP"):
        learner.run(mdp.to_tabular(), demos, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="LinearDemonstrationRL.run: demos must be Trajectories or Counts; got int"):
        learner.run(mdp, 3, 0)  # type: ignore[arg-type]
    for change in ({"eps": 0.0}, {"beta": 0.0}, {"delta": 2.0}, {"bonus": "none"}, {"ridge": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(change))} must be"):
            LinearDemonstrationRL(**({"eps": 0.1} | change))
