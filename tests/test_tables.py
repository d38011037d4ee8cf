"""Episodes and preferences from flat tables: by hand, and there and back from drawn episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mdpsim
from mdpsim import MDP, Preferences, Trajectories, fit_bc, fit_reward, load, sample, sample_preferences, save
from mdpsim.mdp import families

H, S, A, N = 3, 4, 2, 25
RNG = np.random.default_rng(0)
MODEL = MDP(RNG.dirichlet(np.ones(S), (H, S, A)), RNG.normal(size=(H, S, A)), np.eye(S)[0])
PI = families.random_policy(H=H, S=S, A=A, rng=1)
DRAWN = sample(MODEL, PI, N, 2)
ROOMS, MOVES = ("hall", "kitchen", "attic", "cellar"), ("wait", "go")
# Two episodes: kitchen -go-> hall -wait-> attic, and hall -go-> (end).
SHORT = {
    "episode": [7, 7, 3], "t": [0, 1, 0], "state": ["kitchen", "hall", "hall"], "action": ["go", "wait", "go"],
    "reward": [1.0, 2.0, 4.0],
}
STRUCTURE = [("episode", "i8"), ("t", "i8"), ("state", "U9"), ("action", "U9"), ("reward", "f8")]


def flat(drawn: Trajectories) -> pd.DataFrame:
    """The table of episodes: a row a step, states and actions as numbers."""
    e, t = np.divmod(np.arange(drawn.n * drawn.H), drawn.H)
    return pd.DataFrame({
        "episode": e, "t": t, "state": drawn.states[e, t], "action": drawn.actions[e, t], "reward": drawn.rewards[e, t],
        "next_state": drawn.states[e, t + 1],
    })


def same(one: Trajectories, two: Trajectories) -> None:
    for x, y in zip(vars(one).values(), vars(two).values(), strict=True):
        np.testing.assert_array_equal(x, y)


# --- episodes --------------------------------------------------------------------------------------------------------


def test_there_and_back() -> None:
    table = flat(DRAWN)
    same(Trajectories.from_table(table, S=S, A=A), DRAWN)
    shuffled = table.sample(frac=1.0, random_state=0)
    forms: list[Any] = [
        shuffled, shuffled.to_records(index=False), dict(shuffled), shuffled.to_dict("list"), shuffled.astype(object),
        shuffled.astype({"state": "Int64", "action": "category", "t": np.uint8}), shuffled.set_index("reward", drop=False),
    ]
    for form in forms:
        same(Trajectories.from_table(form, S=S, A=A), DRAWN)
    renamed = shuffled.rename(columns={name: name.upper() for name in shuffled})
    same(Trajectories.from_table(renamed, S=S, A=A, episode="EPISODE", t="T", state="STATE", action="ACTION", reward="REWARD",
                                 next_state="NEXT_STATE"), DRAWN)


def test_labels_there_and_back() -> None:
    table = flat(DRAWN)
    named = table.assign(state=[ROOMS[s] for s in table.state], next_state=[ROOMS[s] for s in table.next_state],
                         action=[MOVES[a] for a in table.action], episode=[f"run {e:02d}" for e in table.episode])
    given = Trajectories.from_table(named, state_labels=ROOMS, action_labels=MOVES)
    for name in ("states", "actions", "rewards"):
        np.testing.assert_array_equal(getattr(given, name), getattr(DRAWN, name))
    assert (given.state_labels, given.action_labels) == (ROOMS, MOVES)
    found = Trajectories.from_table(named)  # sorted, where nothing was said
    assert found.state_labels == ("attic", "cellar", "hall", "kitchen")
    assert found.action_labels == ("go", "wait")
    back = [[found.state_labels[s] for s in row] for row in found.states]
    assert back == [[ROOMS[s] for s in row] for row in DRAWN.states]
    same(Trajectories.from_table(named, state_labels=pd.Series(found.state_labels), action_labels=["go", "wait"]), found)
    numbered = Trajectories.from_table(table, state_labels=[3, 2, 1, 0])
    np.testing.assert_array_equal(numbered.states, 3 - DRAWN.states)
    assert numbered.state_labels == (3, 2, 1, 0)
    assert numbered.action_labels is None


@pytest.mark.parametrize("make", [dict, pd.DataFrame, lambda x: np.array(list(zip(*x.values(), strict=True)), STRUCTURE)])
def test_short_episodes_by_hand(make: Any) -> None:
    """Episode 3 comes first and has one step: it stays in the added state, number 2, playing action 0 for nothing."""
    t = Trajectories.from_table(make(SHORT), terminal="end")
    assert t.state_labels == ("hall", "kitchen", "end")
    assert t.action_labels == ("go", "wait")
    assert (t.n, t.H, t.S, t.A) == (2, 2, 3, 2)
    np.testing.assert_array_equal(t.states, [[0, 2, 2], [1, 0, 2]])
    np.testing.assert_array_equal(t.actions, [[0, 0], [0, 1]])
    np.testing.assert_array_equal(t.rewards, [[4.0, 0.0], [1.0, 2.0]])
    # What the clone sees: hall: go at stage 0; wait at stage 1. end: action 0 once, at stage 1. kitchen: go at stage 0.
    rows = [[[2 / 3, 1 / 3], [2 / 3, 1 / 3], [1 / 2, 1 / 2]], [[1 / 3, 2 / 3], [1 / 2, 1 / 2], [2 / 3, 1 / 3]]]
    np.testing.assert_allclose(fit_bc(t), rows, rtol=1e-15)


def test_the_last_step_of_an_episode_of_full_length_leads_where_the_table_says() -> None:
    table = SHORT | {"next_state": ["hall", "attic", "attic"]}
    t = Trajectories.from_table(table, terminal="end")
    assert t.state_labels == ("attic", "hall", "kitchen", "end")
    np.testing.assert_array_equal(t.states, [[1, 3, 3], [2, 1, 0]])
    t = Trajectories.from_table(table, terminal="end", next_state=None)
    np.testing.assert_array_equal(t.states, [[0, 2, 2], [1, 0, 2]])


def test_numbers_and_the_state_that_is_added() -> None:
    table = {"episode": [0, 0, 1], "t": [0, 1, 0], "state": [1, 0, 0], "action": [0, 3, 0]}
    for given, wanted in ((None, 2), (5, 5)):
        t = Trajectories.from_table(table, terminal="end", reward=None, S=given)
        assert (t.S, t.A, t.state_labels) == (wanted + 1, 4, None)
        np.testing.assert_array_equal(t.states, [[1, 0, wanted], [0, wanted, wanted]])
        assert not t.rewards.any()


def test_padding_leaves_the_rows_of_all_other_states_alone() -> None:
    """Episodes of an MDP cut where they first meet state 3 are those of the MDP in which state 3 ends an episode."""
    table = flat(DRAWN).drop(columns="next_state")
    seen = table.groupby("episode").state.transform(lambda s: (s == 3).cumsum().shift(1, fill_value=0))
    cut = table[(seen == 0) & (table.state != 3)]
    t = Trajectories.from_table(cut, S=S, A=A, terminal="end")
    counts = np.zeros((H, S, A))
    for row in cut.itertuples():
        counts[row.t, row.state, row.action] += 1
    mass = counts + 1.0
    np.testing.assert_allclose(fit_bc(t)[:, :S], mass / mass.sum(axis=-1, keepdims=True), rtol=1e-15)
    assert (t.states[:, 1:][t.states[:, :-1] == S] == S).all()
    assert not t.rewards[t.states[:, :-1] == S].any()


def test_a_second_table_gets_the_numbers_of_the_first() -> None:
    first = Trajectories.from_table(SHORT, terminal="end")
    other = {k: v[2:] for k, v in SHORT.items()}
    second = Trajectories.from_table(other, terminal="end", state_labels=first.state_labels, action_labels=first.action_labels)
    assert second.state_labels == first.state_labels
    np.testing.assert_array_equal(second.states, [[0, 2]])


def test_what_the_user_holds_stays_his() -> None:
    table = flat(DRAWN)
    found = Trajectories.from_table(table, S=S, A=A)
    table.loc[:, "state"] = 0
    same(found, DRAWN)


def test_labels_are_kept_in_files(tmp_path: Path) -> None:
    t = Trajectories.from_table(SHORT, terminal="end", state_labels=("kitchen", "hall", 5))
    save(t, tmp_path / "t.npz")
    back = load(tmp_path / "t.npz")
    same(back, t)
    assert back.state_labels == ("kitchen", "hall", 5, "end")
    pairs = Preferences(t, t, [0, 1])
    save(pairs, tmp_path / "p.npz")
    assert load(tmp_path / "p.npz").second.action_labels == ("go", "wait")
    save(DRAWN, tmp_path / "plain.npz")
    assert '"schema": 1' in str(np.load(tmp_path / "plain.npz")["header"])  # an older mdpsim reads it


STEPS = "column 't' must count the steps of each episode: 0, 1, .., each once; got "
KIND = " must hold integers, or text where it holds labels; got "
END = "the label of a state, added last, "
NA = pd.array([1, pd.NA, 0], "Int64")
BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no such column": ({}, {"state": "stat"}, "column 'stat' must be one of the known names (nearest: state"),
    "no reward": (
        {"reward": None}, {}, "reward must be one of the columns, or None where no reward was seen (0 is kept); got 'reward'",
    ),
    "t twice, none at 0": ({"t": [1, 1, 0]}, {}, f"{STEPS}no t = 0 in episode 7"),
    "a step twice": ({"episode": [7, 7, 7], "t": [0, 1, 1]}, {}, f"{STEPS}t = 1 twice in episode 7"),
    "a gap": ({"t": [0, 2, 0]}, {}, f"{STEPS}no t = 1 in episode 7, which has t = 2"),
    "from one": (
        {"t": [1, 2, 1]}, {}, f"{STEPS}no t = 0 in episode 3, which has t = 1 (steps that count from 1: subtract 1)",
    ),
    "negative t": ({"t": [0, -1, 0]}, {}, f"{STEPS}no t = 0 in episode 7, which has t = -1"),
    "t missing": ({"t": [0, None, 0]}, {}, f"column 't'{KIND}nothing in a row of episode 7"),
    "float t": (
        {"t": np.zeros(3)}, {}, f"column 't'{KIND}dtype float64, 0.0 in a row of episode 7 (x.astype(int) if all are whole)",
    ),
    "text t": ({"t": ["0", "1", "0"]}, {}, "column 't' must hold integers; got '0' in a row of episode 7"),
    "episode missing": ({"episode": [7, None, 3]}, {}, f"column 'episode'{KIND}nothing in row 1"),
    "NaN state": (
        {"state": np.array([1.0, np.nan, 0.0])}, {},
        f"column 'state'{KIND}dtype float64, nan in episode 7 at t = 1 (nan is what is missing)",
    ),
    "NaN state in a list": ({"state": [1, np.nan, 0]}, {}, f"column 'state'{KIND}nothing in episode 7 at t = 1"),
    "float state": (
        {"state": np.array([1.0, 0.0, 0.0])}, {},
        f"column 'state'{KIND}dtype float64, 1.0 in episode 7 at t = 0 (x.astype(int) if all are whole)",
    ),
    "pandas NA": ({"action": NA}, {}, f"column 'action'{KIND}"),  # as nan or as NA: that depends on pandas
    "pandas NA, objects": ({"action": NA.astype(object)}, {}, f"column 'action'{KIND}nothing in episode 7 at t = 1"),
    "mixed": (
        {"state": ["a", 1, "b"]}, {},
        "column 'state' must hold integers or text, not both; got 'a' and 1 in episode 7 at t = 1",
    ),
    "a whole float": ({"state": (0, 1.0, 1)}, {}, f"column 'state'{KIND}1.0 of type float in episode 7 at t = 1"),
    "a float in text": ({"state": ["a", 1.0, "b"]}, {}, f"column 'state'{KIND}1.0 of type float in episode 7 at t = 1"),
    "bools": ({"action": np.eye(3)[0] > 0}, {}, f"column 'action'{KIND}dtype bool (x.astype(int) makes 0 and 1 of it)"),
    "bytes": ({"action": np.array([b"a"] * 3)}, {}, f"column 'action'{KIND}dtype |S1 (x.astype(str) makes text of bytes)"),
    "negative state": (
        {"state": [1, -1, 0]}, {},
        "column 'state' must hold numbers >= 0, or come with state_labels; got -1 in episode 7 at t = 1",
    ),
    "beyond S": (
        {"state": [1, 3, 0]}, {"S": 3},
        "column 'state' must hold numbers in [0, 3), or come with state_labels; got 3 in episode 7 at t = 1",
    ),
    "beyond 64 bits": ({"state": [1, 2**64, 0]}, {}, "column 'state' must hold integers below 2^63"),
    "unknown label": (
        {}, {"state_labels": ["kitchen"]},
        "column 'state' must hold labels of state_labels; got 'hall' in episode 7 at t = 1",
    ),
    "labels twice": ({}, {"state_labels": ["kitchen", "hall", "hall"]}, "state_labels must be different; got 'hall' twice"),
    "one string": ({}, {"state_labels": "kitchen"}, "state_labels must be a sequence of different strings or integers"),
    "float labels": ({}, {"state_labels": [1.0]}, "state_labels must hold strings or integers; got 1.0 of type float"),
    "S for labels": (
        {}, {"S": 5}, "S must be the number of labels, 2 (state_labels names those that the table lacks); got 5",
    ),
    "rewards of two columns": ({"reward": np.zeros((3, 2))}, {}, "column 'reward' must be one column; got shape (3, 2)"),
    "NaN reward": ({"reward": np.array([0, np.nan, 0])}, {}, "column 'reward' must be finite; got nan in episode 7 at t = 1"),
    "None for a reward": (
        {"reward": [0.0, None, 0.0]}, {}, "column 'reward' must hold numbers; got nothing in episode 7 at t = 1",
    ),
    "text reward": ({"reward": ["x", "y", "z"]}, {}, "column 'reward' must hold numbers; got 'x' of type str in episode 7"),
    "text reward, array": ({"reward": np.array(["1", "2", "3"])}, {}, "column 'reward' must hold real numbers"),
    "a short column": ({"reward": [0.0]}, {}, "column 'reward' must have 3 rows, as the columns before it; got 1"),
    "no rows": ({"episode": np.zeros(0, int)}, {}, "column 'episode' must have a row at least; got none"),
    "masked": ({"state": np.ma.masked_array([1, 0, 0], [0, 1, 0])}, {}, "column 'state' must have no mask that is set"),
    "lengths": (
        {}, {"terminal": None}, f"terminal must be given where episodes have different lengths: {END}in which they then stay; "
        "got None, episode 3 of 1 steps and episode 7 of 2",
    ),
    "nowhere to go": (
        {"episode": [1, 1, 1], "t": [0, 1, 2]}, {"terminal": None},
        f"terminal must be given where no column says what state the last action led to: {END}for that; got None, and no col",
    ),
    "terminal a number": ({}, {"terminal": 2}, "terminal must be None, or a string: the label of a state that is added; got 2"),
    "terminal a state": (
        {}, {"terminal": "hall"}, "terminal must be a label that no state of the table has: a state is added; got 'hall'",
    ),
    "contradiction": (
        {"next_state": ["attic", "hall", "hall"]}, {}, "column 'next_state' must be the state of the next row; got 'attic' in "
        "episode 7 at t = 0, and 'hall' in the row after it",
    ),
    "another kind of next state": (
        {"next_state": [1, 2, 3]}, {},
        "column 'next_state' must hold what column 'state' holds; got 'kitchen' in 'state' and 1 in 'next_state'",
    ),
    "no such next state": ({}, {"next_state": "then"}, "column 'then' must be one of the known names"),
    "a view that no memory holds": ({"episode": np.broadcast_to(1, 10**15)}, {}, "column 'episode' must fit in memory"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables(name: str) -> None:
    changes, options, message = BAD[name]
    table = {k: v for k, v in (SHORT | changes).items() if v is not None}
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared whole
        Trajectories.from_table(table, **{"terminal": "end", **options})
    assert str(caught.value).startswith(f"Trajectories.from_table: {message}")


@pytest.mark.parametrize("table", [None, 3, "x.csv", [1, 2], np.zeros((2, 5)), pd.Series([1])])
def test_what_is_no_table(table: Any) -> None:
    with pytest.raises(ValueError, match="Trajectories.from_table: table must be a table: a DataFrame"):
        Trajectories.from_table(table)


def test_two_columns_of_one_name() -> None:
    table = pd.DataFrame(np.zeros((1, 6), int), columns=["episode", "t", "state", "action", "reward", "reward"])
    with pytest.raises(ValueError, match=r"column 'reward' must be one column; got shape \(1, 2\)"):
        Trajectories.from_table(table, terminal="end")


@pytest.mark.parametrize(("labels", "message"), [
    (["a"], "state_labels must have a label for each of 4; got 1 labels"),
    (["a", "a", "b", "c"], "state_labels must be different; got 'a' twice"),
    ([None] * 4, "state_labels must hold strings or integers"), ([True, 2, 3, 4], "state_labels must hold strings or integers"),
    ({1, 2, 3, 4}, "state_labels must be a sequence"),
])
def test_labels_of_the_record(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"Trajectories: {message}"):
        Trajectories(DRAWN.states, DRAWN.actions, DRAWN.rewards, S=S, A=A, state_labels=labels)


# --- preferences -----------------------------------------------------------------------------------------------------

PAIRS = sample_preferences(MODEL, PI, PI, N, 3)


def flat_pairs(prefs: Preferences) -> pd.DataFrame:
    sides = [flat(t).assign(which=k, label=np.repeat(prefs.label, prefs.H)) for k, t in enumerate((prefs.first, prefs.second))]
    return pd.concat(sides).rename(columns={"episode": "pair"}).sample(frac=1.0, random_state=1)


def test_preferences_there_and_back() -> None:
    table = flat_pairs(PAIRS)
    for form in (table, table.assign(which=np.where(table.which == 0, "first", "second")), table.to_records(index=False)):
        found = Preferences.from_table(form, S=S, A=A)
        same(found.first, PAIRS.first)
        same(found.second, PAIRS.second)
        np.testing.assert_array_equal(found.label, PAIRS.label)
    np.testing.assert_array_equal(fit_reward(Preferences.from_table(table, S=S, A=A, reward=None)).r, fit_reward(PAIRS).r)


def test_preferences_of_different_lengths_by_hand() -> None:
    table = pd.DataFrame({
        "pair": ["x"] * 3, "which": [0, 1, 1], "label": [0] * 3, "t": [0, 0, 1], "state": ["a", "a", "b"],
        "action": ["l", "r", "l"],
    })
    found = Preferences.from_table(table, reward=None, terminal="end")
    np.testing.assert_array_equal(found.first.states, [[0, 2, 2]])
    np.testing.assert_array_equal(found.second.states, [[0, 1, 2]])
    np.testing.assert_array_equal(found.second.actions, [[1, 0]])
    assert found.label.tolist() == [0]
    assert found.first.state_labels == found.second.state_labels == ("a", "b", "end")


@pytest.mark.parametrize(("change", "message"), [
    (lambda x: x[(x.pair != 4) | (x.which != 1)],
     "column 'which' must name both episodes of each pair; got no second in pair 4"),
    (lambda x: x.assign(which=x.which + 1), "column 'which' must hold 0 and 1, or 'first' and 'second'; got 2 in row "),
    (lambda x: x.assign(label=np.where(x.pair == 4, 2, x.label)),
     "column 'label' must hold 1 (the first is preferred) or 0; got 2 in pair 4"),
    (lambda x: x.assign(label=np.where((x.pair == 4) & (x.t == 1) & (x.which == 1), 1 - x.label, x.label)),
     "column 'label' must be one in every row of a pair; got 0 and 1 in pair 4"),
    (lambda x: x.assign(label=x.label.astype(float)), "column 'label' must hold integers"),
    (lambda x: x.assign(state=np.where((x.pair == 4) & (x.t == 0) & (x.which == 1), 2, x.state)),
     "column 'state' must be one in both episodes of a pair at t = 0 (a preference is between episodes of one context); got"),
    (lambda x: x[(x.pair != 4) | (x.which != 1) | (x.t != 1)],
     "column 't' must count the steps of each episode: 0, 1, .., each once; got no t = 1 in pair 4, second, which has t = 2"),
])
def test_bad_pairs(change: Any, message: str) -> None:
    table = change(flat_pairs(PAIRS))
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared whole
        Preferences.from_table(table, S=S, A=A)
    assert str(caught.value).startswith(f"Preferences.from_table: {message}")


def test_the_two_sides_have_the_same_labels() -> None:
    t = Trajectories.from_table(SHORT, terminal="end")
    other = Trajectories(t.states, t.actions, t.rewards, S=t.S, A=t.A)
    with pytest.raises(ValueError, match="Preferences: second must have the state_labels of first; got None"):
        Preferences(t, other, [0, 1])


def test_the_quick_start_runs(tmp_path: Path) -> None:
    """The example of the README, with its table."""
    text = (Path(__file__).parent.parent / "README.md").read_text()
    block = text.split("```python\nimport pandas as pd\n")[1].split("```")[0]
    space: dict[str, Any] = {"pd": pd, "mdpsim": mdpsim, "np": np}
    exec(block, space)
    assert space["clone"].shape == (3, 3, 2)
    assert space["clone"][0, space["s"], space["a"]] == pytest.approx((1 + 1) / (3 + 2))  # hall: go once, wait twice
