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


@build_app.command("import", short_help="Any ONNX clip model to a model folder.")
@exits
def import_(
    network: Annotated[Path, typer.Argument(help="An ONNX file with one clip as input (X3D, I3D …).")],
    labels: Annotated[Path, typer.Option(help="One label a line, or the reference's annotations JSON.")],
    output: Annotated[Path, typer.Option(help="Model folder to write.")],
    mean: Annotated[str, typer.Option(help="kinetics, activitynet, 0.5, or R,G,B of pixels scaled to 0…1.")],
    std: Annotated[str | None, typer.Option(help="As --mean; that of --mean's name unless given.")] = None,
    layout: Annotated[str | None, typer.Option(help="NCDHW or NDHWC, where the file's shape does not tell.")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames per clip, where the file leaves them free.")] = None,
    size: Annotated[int | None, typer.Option(help="Rows and columns, where the file leaves them free.")] = None,
    name: Annotated[str | None, typer.Option(help="What the network is called; the file's name unless given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over an existing model folder.")] = False,
) -> None:
    """Make a model folder from an ONNX file; clip length and size are read from it.

    Example: clipmux build import x3d_s.onnx --labels kinetics.txt --mean 0.45,0.45,0.45 --std 0.225,0.225,0.225
    --output model
    """
    from .import_onnx import import_onnx

    model = import_onnx(
        network, labels, output, mean=mean, std=std, layout=layout, frames=frames, size=size, name=name, force=force
    )
    typer.echo(f"{model.name}, {len(model.labels)} classes: {model.path}")


@build_app.command("untrained", short_help="A model folder with random weights, to measure speed with.")
@exits
def untrained(
    architecture: Annotated[str, typer.Argument(help="Family and depth: resnet-50, resnet2p1d-18, wideresnet-50 …")],
    output: Annotated[Path, typer.Option(help="Model folder to write.")],
    classes: Annotated[int, typer.Option(help="How many classes.")] = 700,
    widen_factor: Annotated[float, typer.Option(help="So many times 64, 128, 256, 512 planes.")] = 1.0,
    frames: Annotated[int, typer.Option(help="Frames per clip.")] = 16,
    size: Annotated[int, typer.Option(help="Rows and columns of a clip.")] = 112,
    seed: Annotated[int, typer.Option(help="Seed of the weights.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Write over an existing model folder.")] = False,
) -> None:
    """Make a model that is as fast as a trained one of its architecture; what it answers means nothing.

    Example: clipmux build untrained resnet-50 --output models/r3d50
    """
    from .untrained import make_untrained

    model = make_untrained(
        architecture,
        output,
        classes=classes,
        widen_factor=widen_factor,
        frames=frames,
        size=size,
        seed=seed,
        force=force,
    )
    typer.echo(f"{model.name}, {len(model.labels)} classes: {model.path}")


@build_app.command("compile", short_help="A model folder for one device and precision.")
@exits
def compile_(
    folder: Annotated[Path, typer.Argument(help="Model folder made by export or import; or 'demo'.")],
    target: Annotated[str, typer.Option(help="openvino, torch or magicmind.")],
    precision: Annotated[str, typer.Option(help="float32, bfloat16, float16; of openvino also int8; see below.")],
    output: Annotated[Path, typer.Option(help="Model folder to write.")],
    calibrate: Annotated[list[str] | None, typer.Option(help="Videos to measure activations on; repeatable.")] = None,
    clips: Annotated[int, typer.Option(help="How many clips to draw from them.")] = 128,
    per_video: Annotated[int, typer.Option(help="How many of one video at most.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of that draw.")] = 0,
    fixed_batch: Annotated[int | None, typer.Option(help="magicmind: clips in every call.")] = None,
    max_batch: Annotated[int | None, typer.Option(help="magicmind: clips in one call at most, 64.")] = None,
    arch: Annotated[list[str] | None, typer.Option(help="magicmind: mtp_372 (the default) …; repeatable.")] = None,
    cluster: Annotated[list[int] | None, typer.Option(help="magicmind: cluster counts; repeatable.")] = None,
    weight_granularity: Annotated[str | None, typer.Option(help="magicmind: per_tensor or per_axis.")] = None,
    activation_algorithm: Annotated[str | None, typer.Option(help="magicmind: symmetric or asymmetric.")] = None,
    calibration_algorithm: Annotated[str | None, typer.Option(help="magicmind: linear or eqnm.")] = None,
    remote: Annotated[str | None, typer.Option(help="magicmind: HOST:PORT of an MLU to calibrate on.")] = None,
    float_input: Annotated[bool, typer.Option("--float-input", help="magicmind: float32 NCDHW input.")] = False,
    pytorch_pt: Annotated[Path | None, typer.Option(help="magicmind: TorchScript in place of the ONNX file.")] = None,
    config: Annotated[Path | None, typer.Option(help="magicmind: JSON merged last into the build config.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over an existing model folder.")] = False,
) -> None:
    """Compile a model folder for one target, at a precision of its own.

    magicmind has force_float32, force_float16, and qint8 or qint16 with _mixed_float16 or _mixed_float32.

    Examples:

      clipmux build compile model --target openvino --precision int8 --calibrate videos/ --output model-int8

      clipmux build compile model --target magicmind --precision qint8_mixed_float16 --calibrate videos/ --output mlu
    """
    from clipmux.engine.model import read_model

    from .calibration import draw_clips
    from .compile import check_precision, compile_model, needs_calibration

    check_precision(target, precision, calibrated=bool(calibrate))
    options = {
        "fixed_batch": fixed_batch,
        "max_batch": max_batch,
        "arch": arch or None,
        "cluster": cluster or None,
        "weight_granularity": weight_granularity,
        "activation_algorithm": activation_algorithm,
        "calibration_algorithm": calibration_algorithm,
        "remote": remote,
        "float_input": float_input or None,
        "pytorch_pt": pytorch_pt,
        "config": config,
    }
    if target == "magicmind":
        from .compile_magicmind import check

        check(read_model(folder), precision=precision, options=options)
    calibration = None
    if calibrate and needs_calibration(precision):
        calibration = draw_clips(calibrate, read_model(folder), clips=clips, per_video=per_video, seed=seed)
        typer.echo(f"calibrating on {len(calibration.clips)} clips")
    model = compile_model(
        folder,
        output,
        target=target,
        precision=precision,
        calibration=calibration,
        options={name: value for name, value in options.items() if value is not None},
        force=force,
    )
    typer.echo(f"{model.name} for {model.target} in {model.precision}: {model.path}")
