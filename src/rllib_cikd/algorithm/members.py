"""Ids of the members, and who acts in an episode."""

from __future__ import annotations

from typing import Any

#: Where an episode keeps the id of the member that acts in it.
_MEMBER_KEY = "cikd_member"
#: … and that it is not going to be continued.
_ABANDONED_KEY = "cikd_abandoned"


def policy_id(k: int) -> str:
    """Id of member k: "policy_k"."""
    return f"policy_{k}"


def policy_ids(ensemble_size: int) -> list[str]:
    """Ids of all members, in order."""
    return [policy_id(k) for k in range(ensemble_size)]


def assign_member(episode: Any, member: int) -> None:
    """Makes `member` act through the whole of a new `MultiAgentEpisode`."""
    episode.custom_data[_MEMBER_KEY] = policy_id(member)


def member_of(episode: Any) -> int:
    """Index of the member that acts in `episode`."""
    return int(episode.custom_data[_MEMBER_KEY].rpartition("_")[2])


def abandon(episode: Any) -> None:
    """Marks an episode that neither ended nor can go on."""
    episode.custom_data[_ABANDONED_KEY] = True


def is_abandoned(episode: Any) -> bool:
    """Whether `episode` was marked so."""
    return bool(episode.custom_data.get(_ABANDONED_KEY))


def acting_member(agent_id: Any, episode: Any, **kwargs: Any) -> str:
    """RLlib's `policy_mapping_fn`: reads who was assigned to the episode.

    RLlib calls it again at every cut of an episode, once on a half-built object, so it must
    neither draw nor count.
    """
    return getattr(episode, "_custom_data", {}).get(_MEMBER_KEY, policy_id(0))
