"""`rllib export`."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from rllib_cikd.cli.ray_command import Imports, Verbose

EXAMPLES = """\b
Examples:
  rllib export ~/ray_results/cikd-pendulum --out pendulum
  rllib export CHECKPOINT --member elected --format safetensors
"""


class Format(str, Enum):
    """Kinds of files."""

    onnx = "onnx"
    pt2 = "pt2"
    safetensors = "safetensors"


def export(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A checkpoint's folder; or a trial's or experiment's, for the latest one in it.",
        ),
    ],
    member: Annotated[
        str,
        typer.Option(metavar="MEMBER", help="best, elected, or an id such as policy_0."),
    ] = "best",
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="onnx for onnxruntime, pt2 for torch.export, safetensors for `load_policy` and "
            "`rllib evaluate`, which run no code of such a folder.",
        ),
    ] = Format.onnx,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="A new folder (default: named after checkpoint and member)."
        ),
    ] = None,
    episodes: Annotated[
        int, typer.Option(min=1, metavar="N", help="Episodes for the return on the model card.")
    ] = 20,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="Seed of these episodes (default: the training's, else 0)."
        ),
    ] = None,
    imports: Imports = None,
    verbose: Verbose = False,
) -> int:
    """Write one member for deployment.

    The file maps the environment's observations to its actions, with normalisation and action
    bounds inside. It is compared with the member before anything is written. A model card and a
    description in JSON come with it.
    """
    from rllib_cikd.experiments.export import export

    return export(
        checkpoint,
        member=member,
        form=form.value,
        out=out,
        num_episodes=episodes,
        seed=seed,
        imports=imports or (),
    )
