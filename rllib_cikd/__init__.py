"""CIKD: collaborative inter-agent knowledge distillation, as an RLlib algorithm.

Importing this package registers "CIKD" with Ray Tune and RLlib.
"""

from ray.tune.registry import register_trainable

from rllib_cikd.cikd import CIKD
from rllib_cikd.config import CIKDConfig

__all__ = ["CIKD", "CIKDConfig"]
__version__ = "0.1.0"

register_trainable("CIKD", CIKD)
