"""The shared ring buffer against plain arrays and n-step returns recomputed step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rllib_cikd.algorithm.replay_buffer import Batch, ReplayBuffer

D, A = 3, 2
GAMMA = 0.9


class Stream:
    """Two environments that write to one buffer in turns, a fragment at a time.

    obs[0] is the transition's number, so that a row found in the buffer can be told.
    """

    FIELDS = ("obs", "actions", "rewards", "next_obs", "terminated", "truncated", "episodes")

    def __init__(self, seed: int = 0, end_probability: float = 0.15):
        self._rng = np.random.default_rng(seed)
        self._end_probability = end_probability
        self._episode_of_env = [0, 1]
        self._next_episode = 2
        self.all: dict[str, list] = {name: [] for name in self.FIELDS}

    def fragment(self, length: int, env: int = 0) -> dict[str, np.ndarray]:
        rng, first = self._rng, len(self.all["rewards"])
        fragment: dict[str, list] = {name: [] for name in self.FIELDS}
        for number in range(first, first + length):
            ends = rng.random() < self._end_probability
            terminated = ends and rng.random() < 0.5
            fragment["obs"].append([number, *rng.normal(size=D - 1)])
            fragment["next_obs"].append(rng.normal(size=D))
            fragment["actions"].append(rng.uniform(-1, 1, size=A))
            fragment["rewards"].append(rng.normal())
            fragment["terminated"].append(terminated)
            fragment["truncated"].append(ends and not terminated)
            fragment["episodes"].append(self._episode_of_env[env])
            if ends:
                self._episode_of_env[env] = self._next_episode
                self._next_episode += 1
        for name, values in fragment.items():
            self.all[name] += values
        return {name: np.array(values) for name, values in fragment.items()}

    def transition(self, number: int, n_step: int) -> tuple[float, float, np.ndarray]:
        """Return, discount and last observation over what has come so far, by a plain loop."""
        reward, discount, i, episode = 0.0, 1.0, number, self.all["episodes"][number]
        for _ in range(n_step):
            last = i
            reward += discount * self.all["rewards"][i]
            discount *= GAMMA
            if self.all["terminated"][i]:
                discount = 0.0
            if self.all["terminated"][i] or self.all["truncated"][i]:
                break
            later = [j for j in range(i + 1, self.count) if self.all["episodes"][j] == episode]
            if not later:
                break
            i = later[0]
        return reward, discount, np.asarray(self.all["next_obs"][last])

    @property
    def count(self) -> int:
        return len(self.all["rewards"])


def _everything(buffer: ReplayBuffer) -> Batch:
    return buffer.gather(torch.arange(len(buffer)), GAMMA)


def _numbers(batch: Batch) -> list[int]:
    return batch.obs[..., 0].flatten().long().tolist()


def _assert_holds_newest(buffer: ReplayBuffer, stream: Stream, n_step: int) -> None:
    """The buffer has exactly the newest transitions, and of each the right return."""
    batch = _everything(buffer)
    newest = list(range(max(0, stream.count - buffer.capacity), stream.count))
    assert sorted(_numbers(batch)) == newest
    for row, number in enumerate(_numbers(batch)):
        reward, discount, next_obs = stream.transition(number, n_step)
        np.testing.assert_allclose(batch.obs[row], stream.all["obs"][number], rtol=1e-6)
        np.testing.assert_allclose(batch.actions[row], stream.all["actions"][number], rtol=1e-6)
        np.testing.assert_allclose(batch.rewards[row], reward, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(batch.discounts[row], discount, rtol=1e-6)
        np.testing.assert_allclose(batch.next_obs[row], next_obs, rtol=1e-6)


# ---------------------------------------------------------------- what is in it


@pytest.mark.parametrize("n_step", [1, 2, 3, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_fragments_of_two_environments_over_several_rounds(n_step, seed):
    """No transition is lost or repeated, and every return equals the plain loop's, after every
    fragment: with episodes cut by fragments, terminations, truncations, overwriting, and newest
    rows whose successors have not come yet."""
    rng = np.random.default_rng(seed)
    stream, buffer = Stream(seed), ReplayBuffer(37, D, A, n_step=n_step)
    for turn in range(40):
        buffer.add(**stream.fragment(int(rng.integers(1, 9)), env=turn % 2))
        _assert_holds_newest(buffer, stream, n_step)
    assert stream.count > 3 * buffer.capacity  # it went round several times
    assert sum(stream.all["terminated"]) > 5
    assert sum(stream.all["truncated"]) > 5


def test_one_call_may_fill_the_whole_buffer():
    stream, buffer = Stream(), ReplayBuffer(20, D, A, n_step=3)
    for length in (7, 20, 20, 13):
        buffer.add(**stream.fragment(length))
        _assert_holds_newest(buffer, stream, 3)


def test_one_step_returns_are_the_transitions_themselves():
    """Rewards as given; γ, or 0 after a termination; a truncation changes nothing."""
    stream, buffer = Stream(), ReplayBuffer(100, D, A)
    data = stream.fragment(100)
    buffer.add(**data)
    batch = _everything(buffer)
    for name in ("obs", "actions", "rewards", "next_obs"):
        np.testing.assert_array_equal(getattr(batch, name), data[name].astype(np.float32))
    np.testing.assert_allclose(batch.discounts, np.where(data["terminated"], 0.0, GAMMA))
    assert data["truncated"].any()
    np.testing.assert_array_equal(
        batch.obs_and_actions, np.hstack([data["obs"], data["actions"]]).astype(np.float32)
    )
    assert all(x.dtype == torch.float32 for x in batch)


def test_three_step_returns_by_hand():
    """Rewards 1, 2, 4, … and γ = 0.5. Episode 0 (rows 0 to 3) terminates, episode 1 (4 and 5) is
    cut, episode 2 (6 and 7) goes on.

    row 0: 1 + 0.5·2 + 0.25·4 = 3,    from s_3 on with γ³ = 0.125
    row 1: 2 + 0.5·4 + 0.25·8 = 6,    terminal: 0
    row 2: 4 + 0.5·8          = 8,    terminal: 0
    row 3: 8,                         terminal: 0
    row 4: 16 + 0.5·32        = 32,   cut: γ² = 0.25
    row 5: 32,                        cut: γ = 0.5
    row 6: 64 + 0.5·128       = 128,  not further yet: γ² = 0.25
    row 7: 128,                       not further yet: γ = 0.5
    """
    buffer = ReplayBuffer(10, 1, 1, n_step=3)
    states = np.array([[0.0], [1], [2], [3], [10], [11], [20], [21]])
    buffer.add(
        obs=states,
        actions=np.zeros((8, 1)),
        rewards=2.0 ** np.arange(8),
        next_obs=states + 1,
        terminated=np.arange(8) == 3,
        truncated=np.arange(8) == 5,
        episodes=np.array([0, 0, 0, 0, 1, 1, 2, 2]),
    )
    batch = buffer.gather(torch.arange(8), gamma=0.5)
    assert batch.rewards.tolist() == [3, 6, 8, 8, 32, 32, 128, 128]
    assert batch.discounts.tolist() == [0.125, 0, 0, 0, 0.25, 0.5, 0.25, 0.5]
    assert batch.next_obs[:, 0].tolist() == [3, 4, 4, 4, 12, 12, 22, 22]


def test_constant_reward_has_its_closed_form():
    """Reward 1 with a perfect value 1/(1-γ): n-step target Σ γ^i + γ^n / (1-γ) = 1/(1-γ)."""
    buffer = ReplayBuffer(30, 1, 1, n_step=4)
    ones = np.ones((30, 1))
    cut = np.arange(30) == 17
    buffer.add(ones, ones, ones[:, 0], ones, np.zeros(30, bool), cut, np.cumsum(cut) - cut)
    batch = _everything(buffer)
    np.testing.assert_allclose(batch.rewards + batch.discounts / (1 - GAMMA), 10.0, rtol=1e-5)


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4)])
def test_any_shape_of_indices(shape, n_step):
    stream, buffer = Stream(), ReplayBuffer(50, D, A, n_step=n_step)
    buffer.add(**stream.fragment(50))
    indices = torch.randint(50, shape, generator=torch.Generator().manual_seed(0))
    batch, flat = buffer.gather(indices, GAMMA), buffer.gather(indices.flatten(), GAMMA)
    assert batch.obs.shape == (*shape, D)
    assert batch.actions.shape == (*shape, A)
    assert batch.obs_and_actions.shape == (*shape, D + A)
    assert batch.next_obs.shape == (*shape, D)
    assert batch.rewards.shape == batch.discounts.shape == shape
    assert _numbers(batch) == indices.flatten().tolist()
    for shaped, expected in zip(batch, flat, strict=True):
        assert torch.equal(shaped.reshape(expected.shape), expected)


def test_episode_whose_last_row_was_overwritten_is_not_linked_to_the_new_one():
    """Capacity 4: episode 0's only row is overwritten by episode 1's last before it goes on."""
    buffer = ReplayBuffer(4, 1, 1, n_step=2)

    def add(episode: int, rewards: list[float]) -> None:
        n = len(rewards)
        zeros, no = np.zeros((n, 1)), np.zeros(n, bool)
        buffer.add(zeros, zeros, np.array(rewards), zeros, no, no, np.full(n, episode))

    add(0, [1.0])
    add(1, [10.0, 20.0, 30.0, 40.0])  # 40 takes the place of 1
    add(0, [2.0])  # takes the place of 10, and follows on no row that is still there
    batch = _everything(buffer)
    returns = dict(zip([2.0, 20.0, 30.0, 40.0], batch.rewards[[1, 2, 3, 0]].tolist(), strict=True))
    # 20 + 0.9·30 = 47, 30 + 0.9·40 = 66; 40 and 2 have no successor yet.
    assert returns == pytest.approx({2.0: 2.0, 20.0: 47.0, 30.0: 66.0, 40.0: 40.0})


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_nothing_follows_on_the_end_of_an_episode(end):
    """Not even rows with the same episode number. Rewards 1, 2 | 4 and γ = 0.9: 1 + 0.9·2, 2, 4."""
    buffer = ReplayBuffer(5, 1, 1, n_step=3)
    ends = {"terminated": np.zeros(3, bool), "truncated": np.zeros(3, bool)}
    ends[end][1] = True
    zeros = np.zeros((3, 1))
    buffer.add(zeros, zeros, np.array([1.0, 2, 4]), zeros, **ends, episodes=np.zeros(3, int))
    assert _everything(buffer).rewards.tolist() == pytest.approx([2.8, 2.0, 4.0])


def test_more_than_the_capacity_at_once_is_refused():
    buffer = ReplayBuffer(10, D, A)
    with pytest.raises(ValueError, match="11 transitions do not fit into a capacity of 10"):
        buffer.add(**Stream().fragment(11))
    assert len(buffer) == buffer.num_added == 0


def test_length_and_lifetime_count():
    stream, buffer = Stream(), ReplayBuffer(10, D, A)
    lengths = []
    for _ in range(4):
        buffer.add(**stream.fragment(4))
        lengths.append(len(buffer))
    assert lengths == [4, 8, 10, 10]
    assert buffer.num_added == 16


# ---------------------------------------------------------------- state


@pytest.mark.parametrize("num_added", [0, 9, 20, 53])
@pytest.mark.parametrize("n_step", [1, 3])
def test_state_round_trip_and_what_is_added_after(n_step, num_added):
    """Before it is full, when just full, and after it went round."""
    stream, buffer = Stream(), ReplayBuffer(20, D, A, n_step=n_step)
    while stream.count < num_added:
        buffer.add(**stream.fragment(min(7, num_added - stream.count)))
    restored = ReplayBuffer(20, D, A, n_step=n_step)
    restored.set_state(buffer.get_state())
    assert restored.num_added == num_added
    assert len(restored) == len(buffer)
    if num_added:
        _assert_holds_newest(restored, stream, n_step)
    more = stream.fragment(6)
    more["episodes"] += 1000  # episodes start anew after a restore
    stream.all["episodes"][-6:] = more["episodes"].tolist()
    restored.add(**more)
    _assert_holds_newest(restored, stream, n_step)


def test_an_episode_does_not_go_on_after_a_restore():
    """Env runners start anew; were a number used again, its rows would belong elsewhere."""
    stream, buffer = Stream(end_probability=0.0), ReplayBuffer(20, D, A, n_step=3)
    buffer.add(**stream.fragment(5))
    state, last = buffer.get_state(), float(stream.all["rewards"][4])
    for restored in (ReplayBuffer(20, D, A, n_step=3), buffer):
        restored.set_state(state)
        restored.add(**Stream(seed=9, end_probability=0.0).fragment(5))
        assert _everything(restored).rewards[4].item() == pytest.approx(last)


def test_state_is_a_copy():
    stream, buffer = Stream(), ReplayBuffer(20, D, A, n_step=3)
    buffer.add(**stream.fragment(20))
    state = buffer.get_state()
    before = {name: np.copy(value) for name, value in state.items()}
    buffer.add(**stream.fragment(20))
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)


def test_restoring_replaces_what_was_there():
    stream = Stream()
    small, used = ReplayBuffer(20, D, A, n_step=3), ReplayBuffer(20, D, A, n_step=3)
    used.add(**Stream(seed=5).fragment(20))
    small.add(**stream.fragment(4))
    used.set_state(small.get_state())
    _assert_holds_newest(used, stream, 3)
    used.add(**stream.fragment(3))
    assert len(used) == 7


def test_a_buffer_does_not_go_into_a_smaller_one():
    full = ReplayBuffer(20, D, A)
    for _ in range(3):
        full.add(**Stream().fragment(20))
    other = ReplayBuffer(10, D, A)
    with pytest.raises(ValueError, match=r"(?s)\[20, .*capacity 10.*capacity.*changed"):
        other.set_state(full.get_state())
    assert len(other) == 0


def test_a_full_buffer_goes_into_a_larger_one():
    """Where the oldest row is depends on the capacity, and so do the links between rows."""
    stream, full = Stream(), ReplayBuffer(20, D, A, n_step=3)
    for _ in range(4):
        full.add(**stream.fragment(7))  # the oldest row is in the middle of the ring
    larger = ReplayBuffer(30, D, A, n_step=3)
    larger.set_state(full.get_state())
    assert len(larger) == 20

    def by_number(buffer: ReplayBuffer) -> dict[int, list[float]]:
        batch = buffer.gather(torch.arange(20), gamma=0.9)
        columns = [batch.rewards[:, None], batch.discounts[:, None], batch.next_obs]
        rows = torch.cat(columns, dim=1).tolist()
        return dict(zip(batch.obs[:, 0].int().tolist(), rows, strict=True))

    assert by_number(larger) == by_number(full)
    assert list(by_number(larger)) == list(range(8, 28))
    larger.add(**stream.fragment(12))  # it goes on: first into free rows, then over the oldest
    assert len(larger) == 30
    numbers = larger.gather(torch.arange(30), gamma=0.9).obs[:, 0].int().tolist()
    assert sorted(numbers) == list(range(10, 40))


def test_transitions_of_another_task_are_refused():
    buffer = ReplayBuffer(20, D, A)
    buffer.add(**Stream().fragment(5))
    with pytest.raises(ValueError, match="observation or action dimension"):
        ReplayBuffer(20, D + 1, A).set_state(buffer.get_state())


def test_a_buffer_that_never_was_full_may_grow():
    stream, buffer = Stream(), ReplayBuffer(20, D, A, n_step=3)
    buffer.add(**stream.fragment(12))
    larger = ReplayBuffer(40, D, A, n_step=3)
    larger.set_state(buffer.get_state())
    _assert_holds_newest(larger, stream, 3)


def test_a_checkpoint_with_one_step_returns_can_go_on_with_three():
    """Successors of old rows are not known, whatever the buffer knew of the rows that were in
    their places: their returns stay one step long."""
    stream, plain = Stream(), ReplayBuffer(20, D, A)
    plain.add(**stream.fragment(10))
    buffer = ReplayBuffer(20, D, A, n_step=3)
    buffer.add(**Stream(seed=5).fragment(20))
    buffer.set_state(plain.get_state())
    for ours, theirs in zip(_everything(buffer), _everything(plain), strict=True):
        assert torch.equal(ours, theirs)
