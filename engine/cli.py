"""The ``clipmux`` command."""

from __future__ import annotations

from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from clipmux.bench.cli import bench_app
from clipmux.bench.scaling import plan
from clipmux.build.cli import build_app

from .elsewhere_cli import DECODE_EXAMPLES, SERVE_INFERENCE_EXAMPLES, decode, serve_inference
from .errors import UsageError
from .exits import exits
from .keys_cli import keys_app
from .live_cli import LIVE_EXAMPLES, live
from .options import WORKERS
from .run_cli import RAY_EXAMPLES, RUN_EXAMPLES, SERVE_EXAMPLES, run, run_on_ray, serve

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "CLIPMUX"},
    pretty_exceptions_enable=False,
)
app.add_typer(build_app, name="build")
app.add_typer(bench_app, name="bench")
app.add_typer(keys_app, name="keys")
app.command(short_help="What a load needs: cores, hosts, links, devices.")(plan)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"clipmux {metadata.version('clipmux')}")
        raise typer.Exit


VERSION = typer.Option(
    "--version", help="Say which version this is.", callback=_say_version, is_eager=True, allow_from_autoenv=False
)


@app.callback()
def clipmux(version: Annotated[bool, VERSION] = False) -> None:
    """Video classification at the speed of the accelerator.

    Start with: clipmux demo
    """


def main() -> None:
    """The console command."""
    app(prog_name="clipmux")


app.command("run", epilog=RUN_EXAMPLES, short_help="Classify videos.")(run)
app.command("serve", epilog=SERVE_EXAMPLES, short_help="Classify videos that other hosts decode.")(serve)
ray_app = typer.Typer(help="Runs over the nodes of a Ray cluster.", no_args_is_help=True)
app.add_typer(ray_app, name="ray")
ray_app.command("run", epilog=RAY_EXAMPLES, short_help="Classify videos on a Ray cluster.")(run_on_ray)
app.command(epilog=DECODE_EXAMPLES, short_help="Decode for an engine on another host.")(decode)
app.command("serve-inference", epilog=SERVE_INFERENCE_EXAMPLES, short_help="Inference for an engine elsewhere.")(
    serve_inference
)


@app.command(short_help="A run's outcomes as one table.")
@exits
def results(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder or its URL, also of a run that is going on.")],
    form: Annotated[str, typer.Option("--format", help="json, jsonl, csv or parquet.")] = "jsonl",
    output: Annotated[Path | None, typer.Option(help="File to write; standard output unless given.")] = None,
    per_clip: Annotated[bool, typer.Option("--per-clip", help="A row per clip, of a run with --per-clip.")] = False,
    verbatim: Annotated[
        bool, typer.Option("--verbatim", help="csv: text as it is, even if spreadsheets take it for a formula.")
    ] = False,
) -> None:
    """Every video's outcome as a row, from the run's journal; the columns are in docs/results.md.

    Examples:

      clipmux results runs/first --format csv --output first.csv

      clipmux results runs/first --format parquet --per-clip --output clips.parquet
    """
    from clipmux.workers.stored import fetched
    from clipmux.workers.table import Table, write_table

    with fetched(run) as folder:
        write_table(Table(folder, per_clip=per_clip, verbatim=verbatim), form, output)


app.command(epilog=LIVE_EXAMPLES, short_help="Watch streams as they happen.")(live)


@app.command(short_help="See it work: made videos, the whole pipeline, a table.")
@exits
def demo(
    output: Annotated[Path | None, typer.Option(help="Folder to write videos and results to.")] = None,
    workers: Annotated[str, typer.Option(help=WORKERS)] = "auto",
) -> int:
    """Write 24 short videos of moving shapes and classify them with the small model that comes with clipmux.

    Example: clipmux demo
    """
    from rich.console import Console

    from clipmux.bench.demo import run_demo
    from clipmux.workers.sources import list_videos

    from .config import EngineConfig, parse_workers
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
            EngineConfig(model="demo", workers=parse_workers(workers)),
            output=folder / "run",
            resume=False,
            console=console,
            on_prediction=keep,
        )
        return found

    accuracy = run_demo(folder / "videos", classify, console)
    return 0 if accuracy >= 0.95 else 1


@app.command("eval", short_help="Score results against annotations.")
@exits
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


@app.command(short_help="Whether clipmux would run here, and on what.")
@exits
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    arch: Annotated[str, typer.Option(help="What MagicMind builds its trial models for.")] = "mtp_372",
) -> int:
    """Look at Python, packages, codecs, the machine, backends and devices; exit status 0 when a run would work.

    Example: clipmux doctor
    """
    from .doctor import diagnose, show, to_json, would_run

    checks = diagnose(arch=arch)
    if as_json:
        typer.echo(to_json(checks))
    else:
        from rich.console import Console

        show(checks, Console())
    return 0 if would_run(checks) else 1


if __name__ == "__main__":
    main()
