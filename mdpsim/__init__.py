"""mdpsim: theorems of KL-regularised reinforcement learning as executable claims.

Exact solvers give the truth, estimators what is measured, and each theorem is a claim with its bound, a statistical verdict
with stated error rates, and twins: falsehoods that the same test must reject. Axis order is always [H, S, A, S'], time first;
beta is the weight of the KL divergence. Start with ``mdpsim.verify("korbak2022/elbo-identity")`` or the command ``mdpsim``.
"""

from mdpsim.align.cccp import SoftmaxFit, fit_softmax, xpo_objective
from mdpsim.align.classes import FiniteClass, RewardBox
from mdpsim.align.coverage import (
    Extrapolation,
    Ranges,
    box_coverability,
    concentrability,
    coverability,
    effective_ranges,
    extrapolation_bound,
    greedy_extrapolation,
)
from mdpsim.align.dpo import (
    ComparatorDPO,
    IterativeDPO,
    OfflineDPO,
    OnlineDPO,
    Pairs,
    dpo_gradient,
    dpo_losses,
    fit_dpo,
    pairs_of,
)
from mdpsim.align.gradient import Softmax, TokenSoftmax, ascend, exact_gradient, flow, natural_gradient, sampled_gradient
from mdpsim.align.objectives import Distribution, EntropyReward, KLReward, Reward
from mdpsim.align.rounds import Exploration, PreferenceModel
from mdpsim.align.softmax_class import LinearBox, ResponseBox, TokenBox
from mdpsim.align.xpo import XPO, theorem_alpha
from mdpsim.claims.claim import Claim, Paper, Point, Twin, geometric, per_seed, product
from mdpsim.claims.rules import HighProb, Identity, Inequality, Limit, Mean, Order, Rate
from mdpsim.claims.run import MeasureError, run
from mdpsim.estimate.cloning import CloningFit, FiniteFit, fit_bc, fit_bc_finite, fit_bc_linear
from mdpsim.estimate.data import Counts, Trajectories, sample, sample_counts
from mdpsim.estimate.experts import epsilon_greedy_expert, optimal_expert, random_expert, soft_expert, suboptimal_expert
from mdpsim.estimate.files import load, save
from mdpsim.estimate.preferences import Preferences, sample_preferences
from mdpsim.estimate.reward import RewardFit, fit_reward
from mdpsim.learn.demonstration import DemonstrationRL, DemonstrationRun
from mdpsim.learn.demonstration_linear import LinearDemonstrationRL
from mdpsim.learn.lsvi_ucb_ent import LSVIUCBEnt
from mdpsim.learn.rlhf import RLHF, RLHFRun
from mdpsim.learn.trace import Trace
from mdpsim.learn.ucbvi import UCBVI
from mdpsim.learn.ucbvi_ent import UCBVIEnt
from mdpsim.mdp.discounted import DiscountedMDP
from mdpsim.mdp.gym import from_gymnasium, to_gymnasium
from mdpsim.mdp.interop import from_matrices
from mdpsim.mdp.linear import LinearMDP
from mdpsim.mdp.successors import Successors
from mdpsim.mdp.tabular import MDP
from mdpsim.mdp.token import TokenMDP
from mdpsim.registry import all_claims, get_claim, load_claims
from mdpsim.rng import generator
from mdpsim.solve.batch import solve_soft_batch, solve_soft_many
from mdpsim.solve.discounted import DiscountedSolution, DiscountedValue, evaluate_discounted, solve_discounted
from mdpsim.solve.exact import Solution, Value, evaluate, occupancy, solve_hard, solve_soft, trajectory_kl
from mdpsim.solve.projection import project_markov, project_softmax
from mdpsim.solve.sequence import condition, elbo, fit_moments, importance_sample, kl, rejection_sample, tilt
from mdpsim.store import Store
from mdpsim.verdict.judge import judge
from mdpsim.verdict.records import Verdict
from mdpsim.verify import verify

__version__ = "0.1.0"

__all__ = [
    "MDP", "RLHF", "UCBVI", "XPO", "Claim", "CloningFit", "ComparatorDPO", "Counts", "DemonstrationRL", "DemonstrationRun",
    "DiscountedMDP", "DiscountedSolution", "DiscountedValue", "Distribution", "EntropyReward", "Exploration",
    "Extrapolation", "FiniteClass", "FiniteFit", "HighProb", "Identity", "Inequality", "IterativeDPO", "KLReward",
    "LSVIUCBEnt", "Limit", "LinearBox", "LinearDemonstrationRL", "LinearMDP", "Mean", "MeasureError", "OfflineDPO",
    "OnlineDPO", "Order", "Pairs", "Paper", "Point", "PreferenceModel", "Preferences", "RLHFRun", "Ranges", "Rate",
    "ResponseBox", "Reward", "RewardBox", "RewardFit", "Softmax", "SoftmaxFit", "Solution", "Store", "Successors",
    "TokenBox", "TokenMDP", "TokenSoftmax", "Trace", "Trajectories", "Twin", "UCBVIEnt", "Value", "Verdict", "all_claims",
    "ascend", "box_coverability", "concentrability", "condition", "coverability", "dpo_gradient", "dpo_losses",
    "effective_ranges", "elbo", "epsilon_greedy_expert", "evaluate", "evaluate_discounted", "exact_gradient",
    "extrapolation_bound", "fit_bc", "fit_bc_finite", "fit_bc_linear", "fit_dpo", "fit_moments", "fit_reward",
    "fit_softmax", "flow", "from_gymnasium", "from_matrices", "generator", "geometric", "get_claim", "greedy_extrapolation",
    "importance_sample", "judge", "kl", "load", "load_claims", "natural_gradient", "occupancy", "optimal_expert",
    "pairs_of", "per_seed", "product", "project_markov", "project_softmax", "random_expert", "rejection_sample", "run",
    "sample", "sample_counts", "sample_preferences", "sampled_gradient", "save", "soft_expert", "solve_discounted",
    "solve_hard", "solve_soft", "solve_soft_batch", "solve_soft_many", "suboptimal_expert", "theorem_alpha", "tilt",
    "to_gymnasium", "trajectory_kl", "verify", "xpo_objective",
]
