"""CIKD: collaborative inter-agent knowledge distillation, as an RLlib algorithm.

Importing this package registers "CIKD" with Ray Tune and RLlib.
"""

from typing import TYPE_CHECKING, Any

from ray.tune.registry import register_trainable

from rllib_cikd.cikd import CIKD
from rllib_cikd.common.version import __version__
from rllib_cikd.config import CIKDConfig
from rllib_cikd.rllib.policy import load_policy

if TYPE_CHECKING:
    from rllib_cikd.experiments.resume import restore
    from rllib_cikd.experiments.tensorboard import TensorBoard

__all__ = ["CIKD", "CIKDConfig", "TensorBoard", "__version__", "load_policy", "restore"]

register_trainable("CIKD", CIKD)


def __getattr__(name: str) -> Any:
    # Of a room that not every worker of Ray's needs:
    if name == "restore":
        from rllib_cikd.experiments.resume import restore

        return restore
    if name == "TensorBoard":
        from rllib_cikd.experiments.tensorboard import TensorBoard

        return TensorBoard
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
