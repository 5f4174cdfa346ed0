"""CIKD: collaborative inter-agent knowledge distillation, as an RLlib algorithm.

Importing this package registers "CIKD" with Ray Tune and RLlib.
"""

from ray.tune.registry import register_trainable

from rllib_cikd.cikd import CIKD
from rllib_cikd.common.version import __version__
from rllib_cikd.config import CIKDConfig
from rllib_cikd.rllib.policy import load_policy

__all__ = ["CIKD", "CIKDConfig", "__version__", "load_policy"]

register_trainable("CIKD", CIKD)
