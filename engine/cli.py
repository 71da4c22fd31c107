"""The ``clipmux`` command."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

from .errors import ClipmuxError, UsageError

RUN_EXAMPLES = """
Examples:

  clipmux run videos/ --model model --output runs/first

  clipmux run 'clips/**/*.mp4' a.mkv frames_folder/ --model model --output runs/second --top-k 3

  find . -name '*.webm' | clipmux run - --model model --output runs/third

  clipmux run --annotations kinetics.json --root jpg --model model --output runs/validation

Exit status: 0 every video classified; 3 some videos failed, all others done; 2 wrong usage; 1 the run itself failed;
130 interrupted (go on with --resume).
"""

app = typer.Typer(
    help="Video classification at the speed of the accelerator. Start with: clipmux demo",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "CLIPMUX"},
    pretty_exceptions_enable=False,
)
build_app = typer.Typer(help="From a checkpoint to a model folder.", no_args_is_help=True)
app.add_typer(build_app, name="build")

Arguments = ParamSpec("Arguments")


def main() -> None:
    """The console command."""
    app(prog_name="clipmux")


def _said(command: Callable[Arguments, int | None]) -> Callable[Arguments, None]:
    """Turn our errors into one sentence on standard error and the exit status that belongs to them."""

    @functools.wraps(command)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            status = command(*args, **kwargs)
        except ClipmuxError as error:
            print(f"clipmux: {error}", file=sys.stderr)  # noqa: T201
            status = error.exit_status
        except KeyboardInterrupt:
            print("clipmux: interrupted", file=sys.stderr)  # noqa: T201
            status = 130
        except BrokenPipeError:
            status = 1
        raise typer.Exit(status or 0)

    return wrapped


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take defaults from a TOML file; options on the command line and in the environment win."""
    if path is None:
        return None
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise typer.BadParameter(f"'{path}' cannot be read as TOML: {error}") from None
    known = {parameter.name for parameter in context.command.params}
    settings = {key.replace("-", "_"): value for key, value in content.items()}
    for key in settings:
        if key not in known or key == "config":
            raise typer.BadParameter(f"'{path}' has '{key}', which is not an option of 'clipmux {context.info_name}'")
    context.default_map = {**(context.default_map or {}), **settings}
    return path


def _delay(text: str) -> tuple[float, float]:
    try:
        per_batch, per_clip = (float(part) for part in text.split("+"))
    except ValueError:
        raise UsageError(f"--null-delay is '{text}': give two times in ms, like 0.4+0.25") from None
    return per_batch, per_clip


ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file with any of these options as keys.", callback=_read_config, is_eager=True),
]


@app.command(epilog=RUN_EXAMPLES, short_help="Classify videos.")
@_said
def run(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT…", help="Files, folders, folders of frames, globs, or - for paths on standard input."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Model folder, or 'demo'.")] = "",
    output: Annotated[Path | None, typer.Option(help="Run folder to write.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="The reference's JSON, in place of INPUT.")] = None,
    root: Annotated[Path | None, typer.Option(help="Where ROOT/<label>/<video_id> are.")] = None,
    subset: Annotated[str, typer.Option(help="Subset of the annotations.")] = "validation",
    names: Annotated[str, typer.Option(help="Name videos by their file's 'stem' or by their 'path'.")] = "stem",
    stride: Annotated[int, typer.Option(help="Frames from one clip's start to the next's.")] = 16,
    top_k: Annotated[int, typer.Option(help="Labels per prediction.")] = 5,
    per_clip: Annotated[bool, typer.Option("--per-clip", help="Results per clip instead of their mean.")] = False,
    workers: Annotated[int, typer.Option(help="Decoder processes; 0 is one per core.")] = 0,
    max_batch: Annotated[int, typer.Option(help="Clips in one device call at most, up to 64.")] = 64,
    device: Annotated[str, typer.Option(help="Where inference runs: cpu.")] = "cpu",
    backend: Annotated[str, typer.Option(help="auto, openvino, or null (fixed scores).")] = "auto",
    null_delay: Annotated[str, typer.Option(help="null answers N clips after A+B·N ms.", metavar="A+B")] = "0+0",
    max_delay: Annotated[float, typer.Option(help="Seconds a clip may wait for its batch to fill.")] = 0.25,
    decode_timeout: Annotated[float, typer.Option(help="Seconds without a frame after which a video fails.")] = 60.0,
    queue_memory: Annotated[int, typer.Option(help="MiB that clips on their way may take.")] = 256,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output.")] = False,
    config: ConfigFile = None,  # noqa: ARG001  (its callback does the work)
) -> int:
    """Classify videos: clips of different videos share each batch, results come as each video finishes."""
    if not model:
        raise UsageError("no --model: give a model folder (clipmux build export makes one), or 'demo'")
    if output is None:
        raise UsageError("no --output: give the run folder to write, for example runs/first")

    from .config import EngineConfig
    from .model import read_model

    settings = EngineConfig(
        model=str(read_model(model).path.resolve()),
        stride=stride,
        top_k=top_k,
        per_clip=per_clip,
        workers=workers,
        max_batch=max_batch,
        device=device,
        backend=backend,
        null_delay_ms=_delay(null_delay),
        max_delay_s=max_delay,
        decode_timeout_s=decode_timeout,
        queue_bytes=queue_memory << 20,
    )
    listing = _listed(inputs or [], annotations, root, subset, names)
    from rich.console import Console

    from .prediction import Prediction
    from .run import run_videos, show_failures

    console = Console(stderr=True)
    failures: list[Prediction] = []

    def keep_failure(prediction: Prediction) -> None:
        if prediction.error is not None:
            failures.append(prediction)

    status = run_videos(listing, settings, output=output, resume=resume, console=console, on_prediction=keep_failure)
    show_failures(failures, console)
    return status


def _listed(inputs: list[str], annotations: Path | None, root: Path | None, subset: str, names: str) -> Any:
    from clipmux.workers.sources import list_annotated, list_videos

    if annotations is None:
        if root is not None:
            raise UsageError(f"--root is '{root}' without --annotations: give both, or plain INPUTs")
        return list_videos(inputs, stdin=sys.stdin, names=names)
    if inputs:
        raise UsageError(f"both --annotations and the input '{inputs[0]}' were given: give one of them")
    if root is None:
        raise UsageError("--annotations needs --root: the folder that holds <label>/<video_id>")
    return list_annotated(annotations, root, subset=subset)


@app.command(short_help="See it work: made videos, the whole pipeline, a table.")
@_said
def demo(
    output: Annotated[Path | None, typer.Option(help="Folder to write videos and results to.")] = None,
    workers: Annotated[int, typer.Option(help="Decoder processes; 0 is one per core.")] = 0,
) -> int:
    """Write 24 short videos of moving shapes and classify them with the small model that comes with clipmux.

    Example: clipmux demo
    """
    from rich.console import Console

    from clipmux.bench.demo import run_demo
    from clipmux.workers.sources import list_videos

    from .config import EngineConfig
    from .prediction import Prediction
    from .run import run_videos

    folder = output or Path("runs") / datetime.now().astimezone().strftime("demo-%Y%m%d-%H%M%S")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"the folder '{folder}' is not empty: give another --output")
    console = Console()

    def classify(videos: list[Path]) -> dict[str, tuple[str, float]]:
        found: dict[str, tuple[str, float]] = {}

        def keep(prediction: Prediction) -> None:
            found[prediction.video_id] = (prediction.label, prediction.score)

        run_videos(
            list_videos([str(video) for video in videos], stdin=None),
            EngineConfig(model="demo", workers=workers),
            output=folder / "run",
            resume=False,
            console=console,
            on_prediction=keep,
        )
        return found

    accuracy = run_demo(folder / "videos", classify, console)
    return 0 if accuracy >= 0.95 else 1


@app.command("eval", short_help="Score results against annotations.")
@_said
def evaluate(
    annotations: Annotated[Path, typer.Argument(help="The reference's JSON with labels and subsets.")],
    results: Annotated[Path, typer.Argument(help="results.json, or a run folder.")],
    k: Annotated[
        list[int] | None, typer.Option("-k", help="Count a video right if its label is among k; repeatable.")
    ] = None,
    subset: Annotated[str, typer.Option(help="Subset of the annotations.")] = "validation",
    ignore: Annotated[bool, typer.Option("--ignore", help="Leave out videos without a result.")] = False,
) -> None:
    """Top-k accuracy, as the reference computes and prints it.

    Example: clipmux eval kinetics.json runs/validation -k 1 -k 5
    """
    from clipmux.bench.accuracy import evaluate as accuracy

    accuracy(annotations, results, ks=k or [1], subset=subset, ignore=ignore, say=typer.echo)


@build_app.command("export", short_help="A PyTorch checkpoint to a model folder.")
@_said
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
    from clipmux.build.export import export_checkpoint
    from clipmux.build.recognise import Overrides

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


if __name__ == "__main__":
    main()
