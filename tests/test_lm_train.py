"""The loops: they reach what is known, keep the last good weights when a loss is no number, and repeat bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from mdpsim.align.gradient import TokenSoftmax, exact_gradient
from mdpsim.align.objectives import KLReward

torch = pytest.importorskip("torch", reason="needs [lm]")

from mdpsim.lm import losses  # noqa: E402
from mdpsim.lm.device import reproducible  # noqa: E402
from mdpsim.lm.model import Config, Transformer  # noqa: E402
from mdpsim.lm.sample import response_index, sample_responses  # noqa: E402
from mdpsim.lm.table import TokenTable, table_of  # noqa: E402
from mdpsim.lm.train import Adam, Space, TrainingError, clone, fit, maximise, prefix_counts, reinforce_fit  # noqa: E402

SPACE = Space(prompts=torch.tensor([[3]]), length=2)


def table(seed: int = 0) -> TokenTable:
    return TokenTable(3, 2, np.random.default_rng(seed).normal(size=(1, 12)))


def problem() -> tuple[torch.Tensor, torch.Tensor, float]:
    rng = np.random.default_rng(6)
    return torch.from_numpy(rng.normal(size=(1, 9))), torch.log(torch.from_numpy(rng.dirichlet(np.ones(9), size=1))), 0.5


def test_kl_reward_reaches_the_posterior_and_the_evidence() -> None:
    r, log_ref, beta = problem()
    model = table()
    trace = maximise(
        model, SPACE, lambda lp: losses.kl_reward(lp, r, log_ref, beta), optimiser=Adam(steps=600, rate=0.05), log_ref=log_ref
    )
    posterior = torch.log_softmax(log_ref + r / beta, dim=1)
    left = losses.divergence(SPACE.log_probs(model), posterior).item()
    assert left < 1e-3  # what 600 steps leave; at the start it was above 0.5
    evidence = beta * torch.logsumexp(log_ref + r / beta, dim=1).item()
    assert abs(evidence - beta * left - trace.seen["value"][-1]) <= 1e-12
    assert evidence - trace.seen["value"][0] > 0.5 * beta
    assert trace.steps.tolist() == [*range(0, 600, 50), 600]
    assert trace.loss.shape == (601,)
    assert np.abs(trace.loss[trace.steps] + trace.seen["value"]).max() <= 1e-12
    assert not trace.loss.flags.writeable
    assert abs(trace.seen["kl"][-1] - losses.divergence(posterior, log_ref).item()) < 0.02


def test_reinforce_moves_along_the_exact_gradient() -> None:
    """The mean of many one-step updates of plain gradients is the exact gradient (leave-one-out is unbiased)."""
    r, log_ref, beta = problem()
    reference = TokenTable(3, 2, table_of(log_ref.numpy(), 3, 2))
    theta = table(1).theta.detach().numpy()
    exact = exact_gradient(TokenSoftmax(3, 2), theta[0], KLReward(r[0].numpy(), np.exp(log_ref[0].numpy()), beta=beta))
    rng, found = np.random.default_rng(0), []
    for _ in range(800):
        model = TokenTable(3, 2, theta)
        before: list[np.ndarray] = []
        hook = model.theta.register_hook(lambda g, before=before: before.append(-g.numpy().copy()[0]))
        reinforce_fit(model, SPACE.prompts, 2, lambda p, y: r[0][response_index(y, 3)], 2, rng, reference=reference,
                      beta=beta, optimiser=Adam(steps=1))
        hook.remove()
        found.append(before[0])
    mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
    assert (np.abs(mean - exact) <= 5.0 * error + 1e-12).all()  # 12 numbers at 5 standard errors: 1e-5
    assert (np.abs(mean - exact / 2.0) > 5.0 * error).any()  # a baseline that is no leave-one-out would be seen


def test_reinforce_without_kl_collapses_and_with_it_does_not() -> None:
    r, log_ref, beta = problem()
    reference = TokenTable(3, 2, table_of(log_ref.numpy(), 3, 2))
    ends = []
    for weight in (0.0, beta):
        model = TokenTable(3, 2, table_of(log_ref.numpy(), 3, 2))
        reinforce_fit(model, SPACE.prompts, 2, lambda p, y: r[0][response_index(y, 3)], 20, 0, reference=reference,
                      beta=weight, optimiser=Adam(steps=300, rate=0.1))
        ends.append(losses.entropy(SPACE.log_probs(model)).item())
    posterior = torch.log_softmax(log_ref + r / beta, dim=1)
    assert ends[0] < 0.05
    assert abs(ends[1] - losses.entropy(posterior).item()) < 0.3


def test_cloning_reaches_the_tabular_clone() -> None:
    rng = np.random.default_rng(0)
    y = torch.from_numpy(rng.integers(3, size=(40, 2)))
    counts = prefix_counts(y, torch.zeros(40, dtype=torch.int64), 1, 3)
    assert [tuple(c.shape) for c in counts] == [(1, 1, 3), (1, 3, 3)]
    assert counts[1][0, 2].tolist() == [float(((y[:, 0] == 2) & (y[:, 1] == a)).sum()) for a in range(3)]
    model = table()
    clone(model, SPACE, counts, kappa=1.0, optimiser=Adam(steps=400, rate=0.05))
    for level, c in zip(model.tree_log_probs(SPACE.prompts, 2), counts, strict=True):  # type: ignore[arg-type]
        assert (level.exp() - (c + 1) / (c + 1).sum(dim=-1, keepdim=True)).abs().max() < 1e-3


def test_a_run_repeats_bit_for_bit_on_a_transformer() -> None:
    r, log_ref, beta = problem()

    def once() -> torch.Tensor:
        model = Transformer(Config(vocabulary=3, prompts=1, context=3, width=16, heads=2), 1)
        with reproducible():
            maximise(model, SPACE, lambda lp: losses.kl_reward(lp, r, log_ref, beta), optimiser=Adam(steps=20))
            reinforce_fit(model, SPACE.prompts, 2, lambda p, y: r[0][response_index(y, 3)], 8, 5, optimiser=Adam(steps=20))
            return SPACE.log_probs(model).detach()

    assert torch.equal(once(), once())


@pytest.mark.parametrize(("bad", "every", "kept"), [(7, 5, 5), (0, 5, 0), (12, 50, 0), (20, 5, 15)])
def test_a_loss_that_is_no_number_stops_with_the_last_good_weights(bad: int, every: int, kept: int) -> None:
    model, calls = table(), [0]
    states = []

    def loss() -> torch.Tensor:
        step = calls[0]
        calls[0] += 1
        states.append(model.theta.detach().clone())
        return (model.theta**2).sum() * (np.nan if step == bad else 1.0)

    message = f"the loss is nan at step {bad}: the weights of step {kept} were put back"
    with pytest.raises(TrainingError, match=message) as error:
        fit(model, loss, optimiser=Adam(steps=20), every=every)
    assert (error.value.step, error.value.kept) == (bad, kept)
    assert torch.equal(model.theta.detach(), states[kept])


def test_learning_rates_fall_to_zero_and_states_go_on() -> None:
    assert [Adam(steps=4, rate=0.4).rate_at(k) for k in range(4)] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert Adam(steps=4, rate=0.4, decay=False).rate_at(3) == 0.4
    plan = Adam(steps=5, rate=0.01, decay=False)
    one, two = table(), table()
    fit(one, lambda: (one.theta**2).sum(), optimiser=Adam(steps=10, rate=0.01, decay=False))
    state = plan.over(two)
    for _ in range(2):
        fit(two, lambda: (two.theta**2).sum(), optimiser=plan, state=state)
    assert torch.equal(one.theta, two.theta)


def test_what_is_refused() -> None:
    r = problem()[0]
    frozen, signal = table().requires_grad_(False), lambda p, y: r[0]
    for call, message in (
        (lambda: Adam(steps=0), "Adam: steps must be an integer >= 1"),
        (lambda: Adam(rate=-1.0), "Adam: rate must be a number"),
        (lambda: fit(frozen, lambda: frozen.theta.sum()), "fit: model must have parameters to train; got none"),
        (lambda: fit(table(), lambda: r.sum(), every=0), "fit: every must be an integer >= 1"),
        (lambda: reinforce_fit(table(), SPACE.prompts, 2, signal, 1, 0), "n must be an integer >= 2"),
        (lambda: reinforce_fit(table(), SPACE.prompts, 2, signal, 4, 0, beta=0.1), "reference must be given where beta > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert sample_responses(frozen, SPACE.prompts, 2, 0).responses.shape == (1, 2)
