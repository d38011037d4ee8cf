"""The language models answer bad input with a ValueError that names function and argument; nothing is broadcast."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs [lm]")

from mdpsim.align.dpo import Pairs, dpo_losses  # noqa: E402
from mdpsim.align.transforms import IDENTITY  # noqa: E402
from mdpsim.lm import losses  # noqa: E402
from mdpsim.lm.device import reproducible, resolve_device, resolve_dtype  # noqa: E402
from mdpsim.lm.ensemble import Ensemble  # noqa: E402
from mdpsim.lm.explore import Search, explore, explore_many  # noqa: E402
from mdpsim.lm.model import Config, Transformer  # noqa: E402
from mdpsim.lm.quasi_newton import LBFGS, climb  # noqa: E402
from mdpsim.lm.reference import ngram_perplexity, perplexity  # noqa: E402
from mdpsim.lm.sample import (  # noqa: E402
    as_tokens,
    best_of_n,
    draw,
    enumerate_log_probs,
    response_index,
    sample_responses,
    sequence_log_probs,
    token_log_probs,
)
from mdpsim.lm.table import Residual, TokenTable, table_of  # noqa: E402
from mdpsim.lm.train import Adam, Space, TrainingError, clone, fit, maximise, prefix_counts, reinforce_fit  # noqa: E402
from mdpsim.mdp.ngram import fit_ngram  # noqa: E402

SHAPE = Config(vocabulary=3, context=5, prompts=2, layers=1, width=8, heads=2, gain=1.0)
READ, STUDENT = Transformer(SHAPE, 0), Transformer(SHAPE, 1)
TABLE = TokenTable(3, 2, np.zeros((2, 12)))
LAWS = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], dtype=torch.float64))
R, MU0, ONES = LAWS * 0 + 0.5, torch.tensor([0.4, 0.6], dtype=torch.float64), torch.ones(2, 3, 3, dtype=torch.float64)
PROMPTS, Y = torch.tensor([[3], [4]]), torch.tensor([[0, 1], [2, 2]])
LOG_REF = torch.log_softmax(torch.linspace(-1.0, 1.0, 18, dtype=torch.float64).view(2, 9), dim=1)
PAID, SPACE = LOG_REF * 0 + 0.5, Space(prompts=PROMPTS, length=2)
LEVELS = [torch.log_softmax(torch.zeros(2, 3**t, 3, dtype=torch.float64), dim=2) for t in range(2)]
COUNTS = prefix_counts(Y, torch.tensor([0, 1]), 2, 3)
FEW = Adam(steps=1)
PLAY: dict[str, Any] = {"space": SPACE, "rounds": 1, "optimiser": Search(steps=1)}
PAIR: dict[str, Any] = {"better": LAWS[0], "worse": LAWS[0], "better_ref": LAWS[0], "worse_ref": LAWS[0], "beta": 1.0}


def paid(prompts: Any, responses: Any) -> Any:
    return responses.sum(dim=1).double()


# function, arguments that are good, and of which the bad ones are tried
TABLES: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
    "entropy": (losses.entropy, {"log_pi": LAWS}, "log_pi"),
    "divergence": (losses.divergence, {"log_pi": LAWS, "log_other": LAWS}, "log_pi log_other"),
    "reward": (losses.reward, {"log_pi": LAWS, "r": R, "mu0": MU0}, "log_pi r mu0"),
    "kl_reward": (losses.kl_reward, {"log_pi": LAWS, "r": R, "log_ref": LAWS, "beta": 0.1}, "log_pi r log_ref beta"),
    "distribution": (losses.distribution, {"log_pi": LAWS, "target": LAWS.exp(), "mu0": MU0}, "log_pi target mu0"),
    "reinforce": (losses.reinforce, {"log_pi": LAWS[0], "signal": R[0]}, "log_pi signal baseline"),
    "cloning": (losses.cloning, {"levels": LEVELS, "counts": COUNTS}, "levels counts kappa"),
    "dpo": (losses.dpo, PAIR, "better worse better_ref worse_ref beta smoothing loss"),
    "xpo": (losses.xpo, {**PAIR, "comparator": LAWS[0], "alpha": 0.1},
            "better worse better_ref worse_ref comparator alpha beta"),
    "preference_losses": (losses.preference_losses, {"d": LAWS, "beta": 1.0}, "d beta"),
    "history_loss": (losses.history_loss, {"log_pi": LAWS, "log_ref": LAWS, "wins": ONES, "second": R, "alpha": 0.1,
                                           "beta": 1.0}, "log_pi log_ref wins second alpha beta"),
    "transformed_rewards": (losses.transformed_rewards, {"r": R.numpy(), "transform": IDENTITY, "pi_ref": LAWS.exp().numpy()},
                            "r transform pi_ref"),
    "token_log_probs": (token_log_probs, {"model": READ, "prompts": PROMPTS, "responses": Y}, "model prompts responses end"),
    "sequence_log_probs": (sequence_log_probs, {"model": READ, "prompts": PROMPTS, "responses": Y}, "prompts responses end"),
    "sample_responses": (sample_responses, {"model": READ, "prompts": PROMPTS, "length": 2, "rng": 0},
                         "model prompts length rng end"),
    "draw": (draw, {"log_p": LAWS, "uniforms": MU0}, "log_p uniforms"),
    "best_of_n": (best_of_n, {"model": READ, "prompts": PROMPTS, "length": 2, "reward": PAID, "n": 2, "rng": 0},
                  "model prompts length reward n end"),
    "response_index": (response_index, {"responses": Y, "vocabulary": 3}, "responses vocabulary"),
    "enumerate_log_probs": (enumerate_log_probs, {"model": READ, "prompts": PROMPTS, "length": 2},
                            "model prompts length end method"),
    "log_probs": (READ.log_probs, {"tokens": Y}, "tokens start"),
    "next_log_probs": (READ.next_log_probs, {"tokens": Y}, "tokens"),
    "tree_log_probs": (READ.tree_log_probs, {"prompts": PROMPTS, "length": 2}, "prompts"),
    "a table's tree_log_probs": (TABLE.tree_log_probs, {"prompts": PROMPTS, "length": 2}, "prompts length"),
    "a table's log_probs": (TABLE.log_probs, {"tokens": torch.tensor([[3, 1]]), "start": 1}, "tokens start"),
    "TokenTable": (TokenTable, {"V": 3, "length": 2, "theta": np.zeros((2, 12))}, "V length theta device dtype"),
    "Residual": (Residual, {"reference": TABLE, "correction": TABLE, "bound": 1.0}, "reference correction bound"),
    "table_of": (table_of, {"log_pi": LOG_REF.numpy(), "V": 3, "length": 2}, "log_pi V length"),
    "Space": (Space, {"prompts": PROMPTS, "length": 2, "mu0": MU0}, "prompts length mu0 end"),
    "fit": (fit, {"model": STUDENT, "loss": lambda: STUDENT.log_probs(Y).sum(), "optimiser": FEW},
            "model loss optimiser every"),
    "maximise": (maximise, {"model": STUDENT, "space": SPACE, "objective": lambda lp: losses.reward(lp, PAID),
                            "optimiser": FEW}, "model space objective optimiser log_ref every"),
    "climb": (climb, {"model": STUDENT, "space": SPACE, "objective": lambda lp: losses.reward(lp, PAID),
                      "optimiser": LBFGS(evaluations=2)}, "model space objective optimiser"),
    "reinforce_fit": (reinforce_fit, {"model": STUDENT, "prompts": PROMPTS, "length": 2, "reward": paid, "n": 2, "rng": 0,
                                      "optimiser": FEW}, "model prompts length reward n reference beta end every"),
    "prefix_counts": (prefix_counts, {"responses": Y, "prompt": torch.tensor([0, 1]), "n_prompts": 2, "vocabulary": 3},
                      "responses prompt n_prompts vocabulary"),
    "clone": (clone, {"model": STUDENT, "space": SPACE, "counts": COUNTS, "optimiser": FEW}, "model space counts kappa every"),
    "explore": (explore, {**PLAY, "model": STUDENT, "r": PAID.numpy(), "log_ref": LOG_REF, "alpha": 0.1, "beta": 1.0, "rng": 0},
                "model space r log_ref rounds alpha beta rng second optimiser"),
    "explore_many": (explore_many, {**PLAY, "models": [STUDENT], "r": PAID.numpy()[None], "log_ref": LOG_REF[None],
                                    "alpha": [0.1], "beta": [1.0], "rngs": [0], "second": ["policy"]},
                     "models space r log_ref rounds alpha beta rngs second optimiser"),
    "Ensemble": (Ensemble, {"models": [STUDENT]}, "models"),
    "perplexity": (perplexity, {"model": READ, "sentences": [(1, 2)]}, "model sentences"),
    "ngram_perplexity": (ngram_perplexity, {"model": fit_ngram(5, order=2, kappa=1.0), "sentences": [(1, 2)]},
                         "model sentences"),
    "Transformer": (Transformer, {"config": SHAPE}, "config rng device dtype"),
    "resolve_device": (resolve_device, {"name": "cpu"}, "name"), "resolve_dtype": (resolve_dtype, {"name": "float64"}, "name"),
}
FREE = {("entropy", "log_pi"), ("preference_losses", "d")}  # of any shape
NUMBERS = {"minus one", "a scalar", "an empty tensor"}
ALLOWED: dict[tuple[str, str], set[str]] = {  # labels that are no fault of an argument, whatever the function ("")
    ("", "end"): {"nothing"}, ("", "mu0"): {"nothing"}, ("", "reference"): {"nothing"}, ("Residual", "reference"): set(),
    ("maximise", "log_ref"): {"nothing"}, ("reinforce", "baseline"): NUMBERS, ("", "alpha"): NUMBERS,
    ("history_loss", "beta"): NUMBERS - {"minus one"}, ("explore", "beta"): {"a scalar"},
    ("ngram_perplexity", "sentences"): {"ragged"}, ("best_of_n", "reward"): {"inf in it"}, ("Space", "prompts"): {"99"},
    ("preference_losses", "d"): NUMBERS | {"inf in it"}, ("entropy", "log_pi"): NUMBERS - {"a scalar"},
}
ODD: dict[str, Any] = {
    "nothing": None, "text": "x", "minus one": -1, "NaN": float("nan"), "a dict": {}, "an object": object(), "nones": [None],
    "ragged": [[1, 2], [3]], "an array": np.zeros(3), "an empty tensor": torch.zeros(0, 3, 4), "a scalar": torch.tensor(1.0),
    "complex": torch.zeros(2, 3, dtype=torch.complex64), "int32": torch.zeros(2, 1, dtype=torch.int32), "functions": [len],
}


def bad_values(name: str, argument: str, good: Any) -> Iterator[tuple[str, Any]]:
    found = dict(ODD)
    if isinstance(good, torch.Tensor):
        found["a list"] = good.tolist()
        if (name, argument) not in FREE:
            found["an axis more"] = good[..., None]
        if good.is_floating_point():
            for value in (float("nan"), float("inf")):
                found[f"{value} in it"] = good.clone().index_fill(0, torch.tensor([0]), value)
        else:
            found |= {"negative": good * 0 - 1, "99": good * 0 + 99, "floats": good.double()}
    allowed = ALLOWED.get((name, argument), ALLOWED.get(("", argument), set()))
    yield from ((label, value) for label, value in found.items() if label not in allowed)


@pytest.mark.parametrize("name", TABLES)
def test_bad_input_is_named(name: str) -> None:
    function, good, arguments = TABLES[name]
    taken, other = [], []
    with reproducible():
        function(**good)
        for argument in arguments.split():
            for label, bad in bad_values(name, argument, good.get(argument)):
                try:
                    function(**(good | {argument: bad}))
                except ValueError as error:
                    if not re.match(r"\A[\w .]+: .+ must .+; got .+", str(error)) or len(str(error)) > 400:
                        other.append((argument, label, str(error)))
                else:
                    taken.append((argument, label))
    assert (taken, other) == ([], [])


# --- numbers that were wrong without a word --------------------------------------------------------------------------


def test_nothing_is_broadcast() -> None:
    """[n, 1] with [n] made n x n pairs: the mean over pairs that nobody compared."""
    column = LAWS[0][:, None]
    for name in ("better", "worse", "better_ref", "worse_ref"):
        with pytest.raises(ValueError, match=r"dpo: (better|worse|better_ref|worse_ref) must (have|be a tensor of the) shape"):
            losses.dpo(**PAIR | {name: column})
    for other in (LAWS[0][:2], LAWS[0][:0], LAWS, None):
        with pytest.raises(ValueError, match="xpo: comparator must be a tensor of the shape of better"):
            losses.xpo(**PAIR, comparator=other, alpha=0.1)
    with pytest.raises(ValueError, match=r"reward\(prompts, responses\) must have shape \[N\] = \(4,\); got \(4, 1\)"):
        reinforce_fit(STUDENT, PROMPTS, 2, lambda p, y: y[:, :1].double(), 2, 0, optimiser=FEW)


@pytest.mark.parametrize(("loss", "smoothing"), [("logistic", 0.0), ("logistic", 0.2), ("ipo", 0.0)])
def test_a_response_that_is_never_written(loss: str, smoothing: float) -> None:
    """As the tabular loss: infinite where it is the preferred one, whatever the other is."""
    ref, never = np.log([[0.2, 0.3, 0.5]]), np.array([[[-np.inf, -np.inf, 0.0]]])
    how: dict[str, Any] = {"beta": 0.1, "smoothing": smoothing, "loss": loss}
    pi, prior = torch.from_numpy(never[0, 0]), torch.from_numpy(ref[0])
    for a, b in ((0, 1), (0, 2), (2, 0)):
        found = losses.dpo(pi[[a]], pi[[b]], prior[[a]], prior[[b]], **how).item()
        assert found == dpo_losses(never, ref, Pairs([0], [a], [b]), **how)[0]
    with pytest.raises(ValueError, match="dpo: better_ref must be finite"):
        losses.dpo(pi[[0]], pi[[2]], pi[[0]], prior[[2]], **how)
    with pytest.raises(ValueError, match="xpo: comparator must be finite"):
        losses.xpo(pi[[2]], pi[[2]], prior[[2]], prior[[2]], pi[[0]], alpha=0.1, **how)


def test_cloning_needs_demonstrations() -> None:
    none = [torch.zeros_like(c) for c in COUNTS]
    with pytest.raises(ValueError, match="cloning: counts must hold at least one demonstration; got 0"):
        losses.cloning(LEVELS, none)
    with pytest.raises(ValueError, match=r"cloning: counts\[1\] must be numbers of demonstrations, not negative"):
        losses.cloning(LEVELS, [COUNTS[0], -COUNTS[1]])
    with pytest.raises(ValueError, match="cloning: counts must have the 2 lengths of levels; got 1"):
        losses.cloning(LEVELS, COUNTS[:1])
    side_by_side = torch.func.vmap(lambda levels, own: losses.cloning(levels, own, 1.0))
    many = side_by_side([x[None] for x in LEVELS], [c[None] for c in COUNTS])
    assert many[0].item() == pytest.approx(losses.cloning(LEVELS, COUNTS, 1.0).item(), rel=1e-14)


def test_a_reference_that_is_no_law_is_refused() -> None:
    play = {**PLAY, "model": STUDENT, "r": PAID.numpy(), "alpha": 0.1, "beta": 1.0, "rng": 0}
    for wrong in (LOG_REF * 0.0, LOG_REF - 1.0):
        with pytest.raises(ValueError, match=r"explore: exp\(log_ref\) must have rows that sum to one within 1e-09; got \d"):
            explore(log_ref=wrong, **play)
    with pytest.raises(ValueError, match=r"explore: log_ref must be of the models' type and device, torch.float64"):
        explore(log_ref=LOG_REF.float(), **play)
    with pytest.raises(ValueError, match=r"explore: log_ref must have shape \[X, Y\] = \(2, 9\); got \(2, 8\)"):
        explore(log_ref=LOG_REF[:, :8], **play)
    with pytest.raises(ValueError, match="explore: models must be a sequence of at least one model"):
        explore_many(**{**TABLES["explore_many"][1], "models": [], "rngs": [], "second": [], "alpha": [], "beta": []})


def test_a_gradient_whose_square_overflows_stops_the_training() -> None:
    """Adam divides by the root of the squares: it would stand still, and the loss is finite."""
    model = Transformer(SHAPE, 3)
    before = [p.detach().clone() for p in model.parameters()]
    play = {**PLAY, "model": model, "r": PAID.numpy(), "log_ref": LOG_REF, "beta": 1.0, "rng": 0}
    with reproducible(), pytest.raises(TrainingError, match="the gradient's norm is inf at step 0: the weights of step 0 were"):
        explore(alpha=1e300, **play)
    with pytest.raises(TrainingError, match="the gradient's norm is inf at step [01]: the weights of step 0 were put back"):
        maximise(model, SPACE, lambda lp: losses.reward(lp, 1e300 * PAID * torch.arange(9)), optimiser=Adam(steps=3), every=1)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_values_that_would_be_read_as_something_else() -> None:
    """A negative id is another's row; NaN is the largest to argmax, and the first token to a cumulative law."""
    nan = torch.full((2, 3), torch.nan, dtype=torch.float64)
    for call, message in (
        (lambda: TABLE.tree_log_probs(PROMPTS - 3, 2), "TokenTable: prompts must be numbers of prompts, from 3 on; got 0"),
        (lambda: TABLE.tree_log_probs(PROMPTS, 3), "tree_log_probs: length must be an integer >= 1 and <= 2"),
        (lambda: prefix_counts(Y - 1, torch.tensor([0, 1]), 2, 3), r"prefix_counts: responses must be ids in 0 .. 2; got -1"),
        (lambda: prefix_counts(Y, torch.tensor([0, 2]), 2, 3), "prefix_counts: prompt must be ids in 0 .. 1; got 2"),
        (lambda: draw(nan, MU0), "draw: log_p must hold logarithms of laws; got NaN"),
        (lambda: best_of_n(READ, PROMPTS, 2, lambda p, y: y.sum(1) * torch.nan, 2, 0), "best_of_n: reward must give numbers"),
        (lambda: response_index(torch.zeros(1, 64, dtype=torch.int64), 2), r"be among at most 2\^62; got 2\^64"),
        (lambda: perplexity(READ, [(1, 0.5)]), "perplexity: sentences must be sequences of integers"),
        (lambda: perplexity(READ, [(1, -1)]), r"perplexity: sentences must hold ids in 0 .. 2; got -1"),
        (lambda: table_of(np.zeros((1, 9)), 3, 2), r"table_of: exp\(log_pi\) must have rows that sum to one within 1e-4"),
        (lambda: as_tokens("f", "prompts", [[0], [1, 2]], READ), r"f: prompts must have shape \[N, T\], N >= 1; got a ragged"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    for end in (-1, 1.5, 3, 2**62):
        with pytest.raises(ValueError, match=r"end must be an integer >= 0 and <= 2"):
            enumerate_log_probs(READ, PROMPTS, 2, end=end)  # type: ignore[arg-type]


@pytest.mark.parametrize("vocabulary", [1, 3])
def test_lengths_without_bound_are_refused_before_levels_are_counted(vocabulary: int) -> None:
    model = Transformer(Config(vocabulary=vocabulary, context=5, prompts=2, layers=1, width=8, heads=2), 0)
    assert model.tree_log_probs(torch.tensor([[vocabulary]]), 2**62) is None
    for call in (
        lambda: TokenTable(vocabulary, 2**62, np.zeros((1, 1))), lambda: table_of(np.zeros((1, 1)), vocabulary, 2**62),
        lambda: enumerate_log_probs(model, torch.tensor([[vocabulary]]), 2**62), lambda: Space(prompts=PROMPTS, length=2**62),
    ):
        with pytest.raises(ValueError, match="length must be an integer >= 1 and <= "):
            call()


def test_rewards_may_be_whole_numbers_or_truth_values() -> None:
    for reward in (lambda p, y: (y == 1).sum(dim=1), lambda p, y: (y == 1).any(dim=1).int()):
        best = best_of_n(READ, PROMPTS, 2, reward, 64, 0)
        assert (best.responses == 1).any(dim=1).all()
        assert np.isfinite(reinforce_fit(Transformer(SHAPE, 2), PROMPTS, 2, reward, 4, 0, optimiser=FEW).loss).all()


def test_values_are_looked_at_where_that_is_free() -> None:
    """Not in a tensor with a gradient: what a model in training gives is the loop's to watch, which restores the weights."""
    gone = torch.full((2, 3), torch.nan, dtype=torch.float64)
    with pytest.raises(ValueError, match="reward: log_pi must hold logarithms of probabilities; got NaN"):
        losses.reward(gone, R)
    assert torch.isnan(losses.reward(gone.clone().requires_grad_(), R))
    with pytest.raises(ValueError, match="reward: r must be finite; got NaN or inf"):
        losses.reward(LAWS.clone().requires_grad_(), gone)
