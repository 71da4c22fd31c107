"""``clipmux build``: from a checkpoint to a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clipmux.engine.exits import exits

build_app = typer.Typer(help="From a checkpoint to a model folder.", no_args_is_help=True)


@build_app.command("export", short_help="A PyTorch checkpoint to a model folder.")
@exits
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint of the reference (r3d50_K_200ep.pth …).")],
    labels: Annotated[Path, typer.Option(help="One label a line, or the reference's annotations JSON.")],
    output: Annotated[Path, typer.Option(help="Model folder to write.")],
    mean: Annotated[str, typer.Option(help="kinetics, activitynet, 0.5, or R,G,B.")] = "kinetics",
    std: Annotated[str, typer.Option(help="kinetics, activitynet, 0.5, or R,G,B.")] = "kinetics",
    frames: Annotated[int, typer.Option(help="Frames per clip.")] = 16,
    size: Annotated[int, typer.Option(help="Rows and columns of a clip.")] = 112,
    family: Annotated[str | None, typer.Option(help="Override: resnet, resnet2p1d, wideresnet.")] = None,
    depth: Annotated[int | None, typer.Option(help="Override: 10, 18, 34, 50, 101, 152, 200.")] = None,
    widen_factor: Annotated[float | None, typer.Option(help="Override.")] = None,
    shortcut: Annotated[str | None, typer.Option(help="Override: A or B.")] = None,
    conv1_t_size: Annotated[int | None, typer.Option(help="Override.")] = None,
    conv1_t_stride: Annotated[int | None, typer.Option(help="Not visible in weights; 1 unless given.")] = None,
    no_max_pool: Annotated[bool | None, typer.Option("--no-max-pool", help="Not visible in weights.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over an existing model folder.")] = False,
) -> None:
    """Export a checkpoint to ONNX and model.json, and check the result against PyTorch.

    Example: clipmux build export r3d50_K_200ep.pth --labels kinetics700_labels.txt --output model
    """
    from .export import export_checkpoint
    from .recognise import Overrides

    model = export_checkpoint(
        checkpoint,
        labels,
        output,
        mean=mean,
        std=std,
        frames=frames,
        size=size,
        force=force,
        overrides=Overrides(
            family=family,
            depth=depth,
            widen_factor=widen_factor,
            shortcut=shortcut,
            conv1_t_size=conv1_t_size,
            conv1_t_stride=conv1_t_stride,
            no_max_pool=no_max_pool,
        ),
    )
    typer.echo(f"{model.name}, {len(model.labels)} classes: {model.path}")
