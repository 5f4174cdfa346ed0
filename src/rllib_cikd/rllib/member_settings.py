"""SAC's hyperparameters of one member, from its config and its actions."""

from __future__ import annotations

from typing import Any

from rllib_cikd.algorithm.sac_update import SACSettings
from rllib_cikd.rllib.sac_module import head_of


def sac_settings(config: Any, action_space: Any) -> SACSettings:
    """From the config with the member's overrides, and its action space."""
    target_entropy = config.target_entropy
    if target_entropy in (None, "auto"):
        target_entropy = head_of(action_space).target_entropy(action_space.shape[0])
    return SACSettings(
        actor_lr=config.actor_lr,
        critic_lr=config.critic_lr,
        alpha_lr=config.alpha_lr,
        gamma=config.gamma,
        tau=config.tau,
        target_entropy=target_entropy,
        grad_clip=config.grad_clip,
        policy_delay=config.policy_delay,
        adam_beta1=config.adam_beta1,
    )
