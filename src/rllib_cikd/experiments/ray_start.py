"""How commands start Ray or join a cluster, and whether trials fit there."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray

from rllib_cikd.common.errors import CommandError
from rllib_cikd.common.user_modules import NO_MODULES, UserModules

# Threads of one process wait for each other by spinning, by default for milliseconds. Where other
# processes want the same CPUs, that makes small tensor operations ten times slower and more; this
# many rounds cost nothing on an idle machine.
_SPIN = {"GOMP_SPINCOUNT": "10000"}


def start_ray(address: str | None, modules: UserModules = NO_MODULES) -> bool:
    """Connects to the Ray cluster at `address` or `$RAY_ADDRESS`, or else starts one here.

    Args:
        address: Of the cluster; "local" for a new one here.
        modules: Made known in all of Ray's worker processes.

    Returns:
        Whether Ray was started on this machine, for this command alone.

    Raises:
        CommandError: If no cluster answers there.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    local = address == "local"
    _check_answers(address)
    options: dict[str, Any] = {"include_dashboard": False} if local else {}
    runtime_env: dict[str, Any] = {}
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        runtime_env["env_vars"] = dict(_SPIN)
    if modules.folders or modules.names:
        runtime_env["worker_process_setup_hook"] = modules.loader()
    try:
        with _groups_of_their_own():
            ray.init(address=address, runtime_env=runtime_env, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        # Clusters of `ray start` ask for a token, which `ray.init` sends only if told to.
        remedy = (
            ". It asks for an authentication token: set RAY_AUTH_MODE=token, and on another "
            "machine than the cluster's first copy its ~/.ray/auth_token."
            if "AuthenticationError" in str(error.__cause__)
            else ""
        )
        raise CommandError(f"no Ray cluster at {address!r}: {error}{remedy}") from error
    return local


_new_processes_lead_groups = False


def _lead_a_group() -> None:
    if _new_processes_lead_groups:
        os.setpgid(0, 0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lead_a_group)


@contextmanager
def _groups_of_their_own() -> Iterator[None]:
    """Processes started within it get no signal that is sent to this one's whole process group.

    `timeout` and batch systems send SIGTERM so. Ray's processes would end at once, while this one
    still waits for them to write the last checkpoint. (Ray ends them itself when this one dies.)
    """
    global _new_processes_lead_groups
    _new_processes_lead_groups = True
    try:
        yield
    finally:
        _new_processes_lead_groups = False


def _check_answers(address: str) -> None:
    """Where nobody listens, `ray.init` would try again for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except OSError as error:
            raise CommandError(f"no Ray cluster at {address!r}: {error}") from error


def check_fits(algorithm: Any, config: Mapping[str, Any], what: str) -> dict[str, float]:
    """The resources of a trial with this config, by kind: "CPU", "GPU" and so on.

    Raises:
        CommandError: If it needs more than there is: Tune would wait for it for ever.
    """
    needed = {"CPU": 0, **algorithm.default_resource_request(dict(config)).required_resources}
    available = ray.cluster_resources()
    for kind, amount in needed.items():
        if amount > available.get(kind, 0):
            raise CommandError(
                f"{what}: a trial needs {amount:g} {kind}s, and this machine has "
                f"{available.get(kind, 0):g}. Lower `num_env_runners`, "
                "`evaluation_num_env_runners`, `num_learners` or `num_gpus_per_learner`, or use a "
                "cluster with --ray-address."
            )
    return needed
