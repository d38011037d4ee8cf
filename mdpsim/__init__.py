"""mdpsim: theorems of KL-regularised reinforcement learning as executable claims.

Exact solvers give the truth, estimators what is measured, and each theorem is a claim with its bound, a statistical verdict
with stated error rates, and twins: falsehoods that the same test must reject. Axis order is always [H, S, A, S'], time first;
beta is the weight of the KL divergence. Start with ``mdpsim.verify("korbak2022/elbo-identity")`` or the command ``mdpsim``.
"""

from mdpsim.align.calibration import (
    calibrate,
    calibrate_by_anchors,
    calibrate_by_interpolation,
    calibration_mse,
    calibration_variance,
    ks_distance,
    sample_anchors,
)
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
from mdpsim.align.ctrl import CTRL, align_prompts, prompt_win_rates
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
from mdpsim.align.inference import inference_loss_rate, inference_win_rate, sample_win_rate
from mdpsim.align.objectives import Distribution, EntropyReward, KLReward, Reward
from mdpsim.align.optimum import optimal_transform
from mdpsim.align.procedures import BestOfN, Custom, Distortion, Rejection, Temperature, WorstOfN
from mdpsim.align.rounds import Exploration, PreferenceModel
from mdpsim.align.selection import MajorityVote, NoisyBestOfN, ProxyBestOfN, SoftBestOfN
from mdpsim.align.softmax_class import LinearBox, ResponseBox, TokenBox
from mdpsim.align.spaces import QuantileScale, Responses
from mdpsim.align.tradeoff import tradeoff, tuned_exponential
from mdpsim.align.transforms import Exponential
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
    "CTRL", "MDP", "RLHF", "UCBVI", "XPO", "BestOfN", "Claim", "CloningFit", "ComparatorDPO", "Counts", "Custom",
    "DemonstrationRL", "DemonstrationRun", "DiscountedMDP", "DiscountedSolution", "DiscountedValue", "Distortion",
    "Distribution", "EntropyReward", "Exploration", "Exponential", "Extrapolation", "FiniteClass", "FiniteFit", "HighProb",
    "Identity", "Inequality", "IterativeDPO", "KLReward", "LSVIUCBEnt", "Limit", "LinearBox", "LinearDemonstrationRL",
    "LinearMDP", "MajorityVote", "Mean", "MeasureError", "NoisyBestOfN", "OfflineDPO", "OnlineDPO", "Order", "Pairs",
    "Paper", "Point", "PreferenceModel", "Preferences", "ProxyBestOfN", "QuantileScale", "RLHFRun", "Ranges", "Rate",
    "Rejection", "ResponseBox", "Responses", "Reward", "RewardBox", "RewardFit", "SoftBestOfN", "Softmax", "SoftmaxFit",
    "Solution", "Store", "Successors", "Temperature", "TokenBox", "TokenMDP", "TokenSoftmax", "Trace", "Trajectories",
    "Twin", "UCBVIEnt", "Value", "Verdict", "WorstOfN", "align_prompts", "all_claims", "ascend", "box_coverability",
    "calibrate", "calibrate_by_anchors", "calibrate_by_interpolation", "calibration_mse", "calibration_variance",
    "concentrability", "condition", "coverability", "dpo_gradient", "dpo_losses", "effective_ranges", "elbo",
    "epsilon_greedy_expert", "evaluate", "evaluate_discounted", "exact_gradient", "extrapolation_bound", "fit_bc",
    "fit_bc_finite", "fit_bc_linear", "fit_dpo", "fit_moments", "fit_reward", "fit_softmax", "flow", "from_gymnasium",
    "from_matrices", "generator", "geometric", "get_claim", "greedy_extrapolation", "importance_sample",
    "inference_loss_rate", "inference_win_rate", "judge", "kl", "ks_distance", "load", "load_claims", "natural_gradient",
    "occupancy", "optimal_expert", "optimal_transform", "pairs_of", "per_seed", "product", "project_markov",
    "project_softmax", "prompt_win_rates", "random_expert", "rejection_sample", "run", "sample", "sample_anchors",
    "sample_counts", "sample_preferences", "sample_win_rate", "sampled_gradient", "save", "soft_expert", "solve_discounted",
    "solve_hard", "solve_soft", "solve_soft_batch", "solve_soft_many", "suboptimal_expert", "theorem_alpha", "tilt",
    "to_gymnasium", "tradeoff", "trajectory_kl", "tuned_exponential", "verify", "xpo_objective",
]
