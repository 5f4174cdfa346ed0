"""`rllib evaluate`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rllib_cikd.cli.ray_command import Imports, RayAddress, RayCommand, Verbose
from rllib_cikd.experiments import graphics

EXAMPLES = """\b
Example:
  rllib evaluate ~/ray_results/cikd-pendulum --episodes 50 --video films
"""


class EvaluateCommand(RayCommand):
    """A command that may draw videos."""

    def invoke(self, ctx: Any) -> int:
        if ctx.params["video"]:
            graphics.prepare()
        return super().invoke(ctx)


def evaluate(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A checkpoint's folder; or a trial's or experiment's, for the latest one in it.",
        ),
    ],
    episodes: Annotated[
        int, typer.Option(min=1, metavar="N", help="Episodes of each member of the ensemble.")
    ] = 20,
    member: Annotated[
        str,
        typer.Option(
            metavar="MEMBER",
            help="Whose episodes to list and record: all, best (the one the checkpoint holds for "
            "the best), elected (the highest R_k), or an id such as policy_0.",
        ),
    ] = "all",
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Seed of the episodes' initial states (default: the training's seed, else 0).",
        ),
    ] = None,
    video: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Also record an episode of each listed member, as MP4."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the results to this JSON file.")
    ] = None,
    imports: Imports = None,
    ray_address: RayAddress = None,
    verbose: Verbose = False,
) -> int:
    """Evaluate a checkpoint.

    Plays deterministic episodes with the policies of a checkpoint. The same checkpoint, episodes
    and seed give the same numbers.
    """
    from rllib_cikd.experiments.checkpoint_evaluation import evaluate

    return evaluate(
        checkpoint,
        num_episodes=episodes,
        member=member,
        seed=seed,
        video_folder=video,
        out=out,
        imports=imports or (),
        ray_address=ray_address,
    )
