"""The maps of observations and actions, over all spaces that Gymnasium can make."""

from __future__ import annotations

import pickle
from fractions import Fraction
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_cikd.common.errors import EnvironmentFault, NotFinite
from rllib_cikd.rllib.action_map import ActionMap
from rllib_cikd.rllib.observation_map import ObservationMap
from rllib_cikd.rllib.spaces import Spaces

FLOATS = [np.float16, np.float32, np.float64]
INTEGERS = [np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64]
SHAPES = st.sampled_from([(1,), (3,), (2, 3), (), (2, 1, 2)])
SEEDS = st.integers(0, 2**31 - 1)


def bounds(dtype: Any) -> st.SearchStrategy:
    """(low, high), low <= high, of any size the type has."""
    if dtype is np.bool_:
        numbers: st.SearchStrategy = st.booleans()
    elif np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        numbers = st.integers(int(info.min), int(info.max))
    else:
        width = np.dtype(dtype).itemsize * 8
        numbers = st.floats(allow_nan=False, allow_infinity=False, width=width)
    return st.tuples(numbers, numbers).map(sorted)


@st.composite
def boxes(draw) -> spaces.Box:
    """Boxes of finite bounds, whatever the type holds."""
    dtype, shape = draw(st.sampled_from([*FLOATS, *INTEGERS, np.bool_])), draw(SHAPES)
    size = int(np.prod(shape))
    pairs = draw(st.lists(bounds(dtype), min_size=size, max_size=size))
    low, high = (np.array([pair[i] for pair in pairs], dtype).reshape(shape) for i in (0, 1))
    return spaces.Box(low, high, shape, dtype)


@st.composite
def plain_boxes(draw) -> spaces.Box:
    """Boxes that Gymnasium can draw from: its own arithmetic does not bear the largest numbers."""
    dtype = draw(st.sampled_from([*FLOATS, *INTEGERS, np.bool_]))
    low, width = draw(st.integers(0, 100)), draw(st.integers(1, 27))
    if dtype is np.bool_:
        low, high = 0.0, 1.0
    elif dtype in FLOATS and draw(st.booleans()):
        low, high = -np.inf, draw(st.sampled_from([np.inf, 3.5]))
    else:
        low, high = low, low + width
    shape = draw(SHAPES if dtype is not np.uint8 else st.sampled_from([(1,), (3,), ()]))
    return spaces.Box(low, high, shape, dtype)


OBSERVATION_LEAVES = st.one_of(
    plain_boxes(),
    st.builds(
        lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 9), st.integers(-5, 5)
    ),
    st.builds(spaces.MultiBinary, st.sampled_from([1, 4, (2, 3)])),
    st.builds(
        lambda n, start: spaces.MultiDiscrete(n, start=[start] * len(n)),
        st.lists(st.integers(1, 6), min_size=1, max_size=4),
        st.integers(-3, 3),
    ),
)


def structures(leaves: st.SearchStrategy) -> st.SearchStrategy:
    """The leaves, and dictionaries and tuples of them, a few levels deep."""
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
            st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3).map(
                spaces.Dict
            ),
        ),
        max_leaves=5,
    )


# ---------------------------------------------------------------------- Observations


@settings(deadline=None, max_examples=150)
@given(structures(OBSERVATION_LEAVES), SEEDS)
def test_observations_are_flattened_as_gymnasium_does(space, seed):
    space.seed(seed)
    observation = space.sample()
    observe = ObservationMap(space, "env")
    expected = spaces.flatten(space, observation)
    flat = observe(observation, "step()")
    assert flat.dtype == np.float32
    assert flat.shape == observe.member_space.shape == (spaces.flatdim(space),)
    assert np.allclose(flat, expected, rtol=1e-6, atol=1e-37)
    assert flat in observe.member_space


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e30, 1e30), min_size=3, max_size=3), st.sampled_from([*FLOATS[1:], list])
)
def test_a_float_space_takes_numbers_of_any_type(values, kind):
    observe = ObservationMap(spaces.Box(-np.inf, np.inf, (3,), np.float32), "env")
    came = values if kind is list else np.array(values, kind)
    assert observe(came, "step()").tolist() == np.array(values, np.float32).tolist()


def test_whole_numbers_for_floats_and_floats_for_whole_numbers():
    for declared in (np.float32, np.float64, np.int64, np.uint8):
        observe = ObservationMap(spaces.Box(0, 100, (2,), declared), "env")
        for came in ([1, 2], np.array([1, 2]), np.array([1.0, 2.0]), np.array([1, 2], np.uint8)):
            assert observe(came, "reset()").tolist() == [1.0, 2.0]
    with pytest.raises(
        EnvironmentFault, match=r"env='env': step\(\) returned an observation with 0"
    ):
        ObservationMap(spaces.Box(0, 9, (1,), np.int64), "env")(np.array([0.5]), "step()")


def test_the_environment_may_reuse_its_array():
    observe = ObservationMap(spaces.Box(-1, 1, (2,), np.float32), "env")
    buffer = np.zeros(2, np.float32)
    first = observe(buffer, "step()")
    buffer += 1.0
    assert first.tolist() == [0.0, 0.0]


VECTOR = spaces.Box(-1.0, 1.0, (2,), np.float32)
NESTED = spaces.Dict({"a": VECTOR, "b": spaces.Tuple([spaces.Discrete(3), VECTOR])})


@pytest.mark.parametrize(
    ("space", "came", "words"),
    [
        (VECTOR, None, "None for observation"),
        (VECTOR, np.zeros(3), r"an observation of shape \(3,\) instead of \(2,\)"),
        (VECTOR, np.zeros((1, 2)), r"an observation of shape \(1, 2\)"),
        (VECTOR, 0.5, r"an observation of shape \(\)"),
        (VECTOR, [1.0, None], r"\[1.0, None\] \(list\) for observation"),
        (VECTOR, [[1.0], [2.0, 3.0]], "which is no array"),
        (VECTOR, "ab", r"'ab' \(str\) for observation"),
        (VECTOR, np.array(["1", "2"]), "type <U1 for observation"),
        (VECTOR, np.array([1 + 1j, 0]), "type complex128"),
        (VECTOR, {"a": 1}, "(dict) for observation".replace("(", r"\(").replace(")", r"\)")),
        (VECTOR, np.array([0.0, np.nan]), r"a non-finite observation \(nan"),
        (VECTOR, np.array([-np.inf, 0.0], np.float32), r"a non-finite observation \(-inf"),
        (
            VECTOR,
            np.array([1e300, 0.0]),
            r"non-finite observation \(1e\+300: too large for float32",
        ),
        (spaces.Discrete(3), 3, r"3 \(int\) for observation, which has no such choice"),
        (spaces.Discrete(3, start=1), 0, "no such choice"),
        (spaces.Discrete(3), 1.5, "an observation with 1.5"),
        (spaces.MultiDiscrete([2, 3]), [1, 3], "no such choice"),
        (spaces.MultiBinary(2), [0, 2], "whose numbers are 0 or 1"),
        (NESTED, {"a": np.zeros(2)}, r"keys \['a'\] instead of \['a', 'b'\]"),
        (NESTED, {"a": np.zeros(2), "c": 0}, r"keys \['a', 'c'\] instead of"),
        (NESTED, [0, 0], "for the dictionary observation"),
        (NESTED, {"a": np.zeros(2), "b": (1,)}, r"for observation\['b'\] of 2 parts"),
        (NESTED, {"a": np.zeros(2), "b": (1, None)}, r"None for observation\['b'\]\[1\]"),
        (NESTED, {"a": np.zeros(1), "b": (1, np.zeros(2))}, r"observation\['a'\] of shape \(1,\)"),
    ],
)
def test_other_observations_are_faults(space, came, words):
    with pytest.raises(EnvironmentFault, match=words) as error:
        ObservationMap(space, "MyEnv")(came, "step()")
    text = str(error.value)
    assert text.startswith("env='MyEnv': step() returned ")
    assert str(space) in text
    assert "return observations of that space, or declare" in text


class OwnSpace(gym.Space):
    """A space that nobody else knows."""


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Box(0, 255, (8, 8, 3), np.uint8), "is an image, and images are not supported"),
        (
            spaces.Dict(eye=spaces.Box(0, 255, (8, 8), np.uint8)),
            r"observation\['eye'\] is an image",
        ),
        (spaces.Graph(VECTOR, None), "is a Graph"),
        (spaces.Sequence(VECTOR), "is a Sequence"),
        (spaces.Text(5), "is a Text"),
        (spaces.OneOf([VECTOR, spaces.Discrete(2)]), "is a OneOf"),
        (spaces.Tuple([VECTOR, spaces.Text(5)]), r"observation\[1\] is a Text"),
        (OwnSpace(), "is a OwnSpace"),
        (spaces.Box(-1, 1, (0,), np.float32), "it has 0 numbers"),
        (spaces.Discrete(10**9), "it has 1,000,000,000 numbers"),
    ],
)
def test_other_observation_spaces_are_refused(space, words):
    with pytest.raises(EnvironmentFault, match=words) as error:
        ObservationMap(space, "MyEnv")
    assert str(error.value).startswith("env='MyEnv' has the observation space ")
    assert "Give features instead" in str(error.value)


# ---------------------------------------------------------------------- Actions


def leaves(space: gym.Space, action: Any) -> list[tuple[spaces.Box, Any]]:
    if isinstance(space, spaces.Dict):
        return [leaf for k, s in space.spaces.items() for leaf in leaves(s, action[k])]
    if isinstance(space, spaces.Tuple):
        return [leaf for s, a in zip(space.spaces, action, strict=True) for leaf in leaves(s, a)]
    return [(space, action)]


@settings(deadline=None, max_examples=200)
@given(structures(boxes()), st.data())
def test_actions_are_in_the_space_and_where_they_should(space, data):
    to_env = ActionMap(space, "env")
    (dim,) = to_env.member_space.shape
    unit = st.floats(-1.0, 1.0, width=32)
    numbers = data.draw(st.lists(unit, min_size=dim, max_size=dim))
    action = to_env(np.array(numbers, np.float32))
    assert space.contains(action)
    rest = iter(numbers)
    for box, part in leaves(space, action):
        assert part.dtype == box.dtype
        for low, high, value in zip(
            box.low.flat, box.high.flat, np.asarray(part).flat, strict=True
        ):
            exact_low, exact_high = Fraction(low.item()), Fraction(high.item())
            exact = exact_low + (Fraction(next(rest)) + 1) / 2 * (exact_high - exact_low)
            off = abs(Fraction(value.item()) - exact)
            if box.dtype.kind == "f":
                rounding = Fraction(float(np.finfo(box.dtype).eps)) * max(
                    abs(exact_low), abs(exact_high)
                )
                assert off <= rounding + Fraction(float(np.finfo(box.dtype).smallest_subnormal))
            else:  # the nearest integer, as far as float64 can tell
                assert off <= Fraction(1, 2) + max(abs(exact_low), abs(exact_high)) / 2**51


@settings(deadline=None, max_examples=100)
@given(structures(boxes()))
def test_the_bounds_are_reached_exactly(space):
    to_env = ActionMap(space, "env")
    for unit in (-1.0, 1.0):
        action = to_env(np.full(to_env.member_space.shape, unit, np.float32))
        for box, part in leaves(space, action):
            assert np.array_equal(part, box.low if unit < 0 else box.high)
            assert np.shape(part) == box.shape


@settings(deadline=None, max_examples=100)
@given(structures(boxes()), SEEDS)
def test_training_and_evaluation_map_alike(space, seed):
    """One action at a time in training, a batch of them in evaluation."""
    to_env = ActionMap(space, "env")
    to_env.member_space.seed(seed)
    actions = np.stack([to_env.member_space.sample() for _ in range(4)])
    for one, of_batch in zip(map(to_env, actions), to_env.batch(actions), strict=True):
        for (box, a), (_, b) in zip(leaves(space, one), leaves(space, of_batch), strict=True):
            assert np.array_equal(a, b)
            assert a.dtype == b.dtype == box.dtype


def test_a_hand_worked_case():
    space = spaces.Tuple(
        [
            spaces.Box(np.array([-2.0, 5.0]), np.array([6.0, 5.0]), dtype=np.float32),
            spaces.Dict(gear=spaces.Box(-128, 127, (), np.int8), lamp=spaces.Box(0, 1, (1,), bool)),
        ]
    )
    to_env = ActionMap(space, "env")
    assert to_env.member_space == spaces.Box(-1.0, 1.0, (4,), np.float32)
    # -2 + 1.5/2 * 8 = 4; bounds 5 and 5; -128 + 0.75/2 * 255 = -32.375; 1.02/2 * 1 -> 1.
    vector, parts = to_env(np.array([0.5, 0.9, -0.25, 0.02], np.float32))
    assert vector.tolist() == [4.0, 5.0]
    assert parts["gear"] == -32
    assert parts["lamp"].tolist() == [True]


def test_symmetric_bounds_scale_exactly():
    """So that a run on HalfCheetah gets the very numbers that its policies gave."""
    actions = np.random.default_rng(0).uniform(-1, 1, (100, 6)).astype(np.float32)
    mapped = ActionMap(spaces.Box(-1.0, 1.0, (6,), np.float32), "env").batch(actions)
    assert np.array_equal(mapped, actions)


def mutated(low: float, high: float) -> spaces.Box:
    """A box with bounds that Gymnasium's constructor would not let pass."""
    box = spaces.Box(-1.0, 1.0, (2,), np.float32)
    box.low[1], box.high[1] = low, high
    return box


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (
            spaces.Box(-np.inf, np.inf, (2,), np.float32),
            "unbounded.*`gymnasium.wrappers.TransformA",
        ),
        (spaces.Box(0.0, np.inf, (2,), np.float64), "unbounded.*leave `ClipAction` out"),
        (spaces.Box(-np.inf, 5, (2,), np.int64), "unbounded"),
        (spaces.Tuple([VECTOR, spaces.Box(-np.inf, 0, (1,))]), "unbounded"),
        (mutated(np.nan, 1.0), "unbounded"),
        (mutated(1.0, -1.0), "a lower bound is above its upper bound"),
        (spaces.Box(-1, 1, (0,), np.float32), "there is nothing to decide"),
        (spaces.Dict(), "there is nothing to decide"),
        (spaces.MultiDiscrete([2, 3]), "MultiDiscrete is not supported.*gymnasium.ActionWrapper"),
        (spaces.Tuple([VECTOR, spaces.Discrete(2)]), "discrete actions cannot stand beside others"),
        (spaces.MultiBinary(3), "MultiBinary is not supported.*gymnasium.ActionWrapper"),
        (spaces.Dict(a=VECTOR, b=spaces.MultiBinary(3)), "MultiBinary is not supported"),
        (spaces.Sequence(VECTOR), "Sequence is not supported"),
        (spaces.Text(3), "Text is not supported"),
    ],
)
def test_other_action_spaces_are_refused(space, words):
    with pytest.raises(EnvironmentFault, match=words) as error:
        ActionMap(space, "MyEnv")
    assert str(error.value).startswith("env='MyEnv' has the action space ")


def test_the_remedy_for_an_unbounded_space_works():
    env = gym.wrappers.ClipAction(gym.make("Pendulum-v1"))
    with pytest.raises(EnvironmentFault):
        ActionMap(env.action_space, "env")
    bounded = gym.wrappers.TransformAction(env, lambda action: action, spaces.Box(-2.0, 2.0, (1,)))
    assert ActionMap(bounded.action_space, "env")(np.ones(1)).tolist() == [2.0]


def test_an_action_that_is_no_number_is_a_fault():
    to_env = ActionMap(VECTOR, "MyEnv")
    with pytest.raises(NotFinite, match=r"'MyEnv' would get a non-finite action.*learning rates"):
        to_env(np.array([0.0, np.nan], np.float32))
    with pytest.raises(NotFinite):
        to_env.batch(np.array([[0.0, 0.0], [np.inf, 0.0]], np.float32))


@pytest.mark.parametrize(
    "space", [spaces.Discrete(3), spaces.Discrete(4, start=-2), spaces.Discrete(1)]
)
def test_discrete_actions_are_one_hot_vectors_of_members(space):
    to_env = ActionMap(space, "MyEnv")
    to_env.member_space.seed(0)
    seen = set()
    for _ in range(60):
        one_hot = to_env.member_space.sample()
        assert one_hot in to_env.member_space
        action = to_env(one_hot)
        assert type(action) is int
        assert action in space
        assert action == space.start + one_hot.tolist().index(1.0)
        seen.add(action)
    assert len(seen) == space.n
    assert to_env.batch(np.eye(int(space.n))) == [int(space.start) + i for i in range(space.n)]
    assert np.zeros(int(space.n), np.float32) not in to_env.member_space
    with pytest.raises(EnvironmentFault, match="non-finite action"):
        to_env(np.full(int(space.n), np.nan))


def spaces_of(observation: gym.Space, action: gym.Space) -> Spaces:
    observations, actions = ObservationMap(observation, "env"), ActionMap(action, "env")
    return Spaces(observations.member_space, actions.member_space)


SEEN, DONE = spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (2,))


@pytest.mark.parametrize(
    ("seen", "done", "field"),
    [
        (SEEN, DONE, None),
        (spaces.Box(-9, 9, (2,), np.float64), DONE, None),  # bounds of observations do not matter
        (spaces.Box(-1, 1, (2, 1)), DONE, "observation_space"),
        (spaces.Discrete(2), DONE, "observation_space"),
        (SEEN, spaces.Box(-2, 2, (2,)), "action_space"),
        (SEEN, spaces.Box(-1, 1, (2,), np.float64), "action_space"),
        (SEEN, spaces.Discrete(2), "action_space"),
    ],
)
def test_what_differs_between_two_environments(seen, done, field):
    found = spaces_of(SEEN, DONE).difference(spaces_of(seen, done))
    assert (found and found[0]) == field
    if field is not None:
        assert found[1:] == ((SEEN, seen) if field == "observation_space" else (DONE, done))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (spaces.Discrete(3), spaces.Discrete(3, start=1)),
        (
            spaces.Dict([("a", SEEN), ("b", spaces.Box(-1, 1, (1,)))]),
            spaces.Dict([("b", spaces.Box(-1, 1, (1,))), ("a", SEEN)]),
        ),
        (spaces.Tuple([SEEN, spaces.Discrete(3)]), spaces.Tuple([spaces.Discrete(3), SEEN])),
    ],
)
def test_as_many_numbers_that_mean_something_else(one, other):
    """Networks of the same shapes would take either."""
    assert spaces_of(one, DONE).difference(spaces_of(other, DONE)) is not None


def test_spaces_know_the_environments_own_after_pickling():
    stored = pickle.loads(pickle.dumps(spaces_of(SEEN, spaces.Box(-2, 2, (2,)))))
    assert stored.difference(spaces_of(SEEN, spaces.Box(-2, 2, (2,)))) is None
    assert stored.action_space.own == spaces.Box(-2, 2, (2,))
