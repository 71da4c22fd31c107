"""``clipmux bench``: measurements."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from clipmux.engine.errors import UsageError
from clipmux.engine.exits import exits

from .options import Workers
from .scaling import cluster, simulate
from .speed import decode, devices, end_to_end, inference, memory, streams, sweep, transport, watchers, wire

bench_app = typer.Typer(help="Measure.", no_args_is_help=True)


@bench_app.callback()
def bench() -> None:
    """Measure."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as by Ctrl-C: in order, with nothing left behind


@bench_app.command(short_help="What each precision costs in accuracy.")
@exits
def accuracy(
    model: Annotated[str, typer.Argument(help="Model folder to compile, or 'demo'.")],
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="VIDEOS…", help="Videos sorted into a folder per label.")
    ] = None,
    target: Annotated[str, typer.Option(help="openvino, torch or magicmind.")] = "openvino",
    precisions: Annotated[str, typer.Option(help="Precisions of the target, with commas between.")] = "float32",
    output: Annotated[Path | None, typer.Option(help="Folder for models, runs and the table.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="The reference's JSON, in place of VIDEOS.")] = None,
    root: Annotated[Path | None, typer.Option(help="Where ROOT/<label>/<video_id> are.")] = None,
    subset: Annotated[str, typer.Option(help="Subset of the annotations.")] = "validation",
    demo: Annotated[int, typer.Option(help="In place of VIDEOS: so many made videos of moving shapes.")] = 0,
    calibrate: Annotated[list[str] | None, typer.Option(help="Videos to measure activations on; repeatable.")] = None,
    clips: Annotated[int, typer.Option(help="How many clips to draw from them.")] = 128,
    seed: Annotated[int, typer.Option(help="Seed of that draw.")] = 0,
    batch: Annotated[int, typer.Option(help="Clips in one device call at most.")] = 64,
    device: Annotated[str | None, typer.Option(help="The target's first unless given.")] = None,
    workers: Workers = "auto",
    fixed_batch: Annotated[int | None, typer.Option(help="magicmind: compile for this batch only.")] = None,
    arch: Annotated[list[str] | None, typer.Option(help="magicmind: mtp_372 (the default) …; repeatable.")] = None,
    k: Annotated[
        list[int] | None, typer.Option("-k", help="Labels that count; repeatable. 1 and 5 unless given.")
    ] = None,
    ignore: Annotated[bool, typer.Option("--ignore", help="Leave out videos without a result.")] = False,
) -> None:
    """Build, run and score a model at several precisions, and print the table; a second call goes on with a first.

    Examples:

      clipmux bench accuracy demo --demo 240 --precisions float32,bfloat16,int8 --output runs/accuracy

      clipmux bench accuracy model --annotations kinetics.json --root jpg --calibrate train/ --target magicmind
      --precisions force_float32,force_float16,qint8_mixed_float16 --output runs/kinetics
    """
    from rich.console import Console

    from clipmux.build.compile import check_precision
    from clipmux.engine.config import parse_workers

    from .precisions import accuracy_table, annotated_task, demo_task, sorted_task

    if output is None:
        raise UsageError("no --output: give a folder for models, runs and the table, for example runs/accuracy")
    ways = [bool(inputs), annotations is not None, demo > 0]
    if sum(ways) != 1:
        raise UsageError("give one of VIDEOS, --annotations with --root, or --demo N")
    chosen = precisions.split(",")
    for precision in chosen:  # before any video is made
        check_precision(target, precision, calibrated=demo > 0 or bool(calibrate))
    if annotations is not None:
        if root is None:
            raise UsageError("--annotations needs --root: the folder that holds <label>/<video_id>")
        task = annotated_task(annotations, root, subset=subset, calibrate=calibrate or [])
    elif inputs:
        task = sorted_task(inputs, model, output, calibrate=calibrate or [])
    else:
        task = demo_task(output, demo)
    options = {"fixed_batch": fixed_batch, "arch": arch or None}
    accuracy_table(
        model,
        task,
        target=target,
        precisions=chosen,
        output=output,
        console=Console(markup=False, emoji=False),
        batch=batch,
        device=device,
        options={name: value for name, value in options.items() if value is not None},
        clips=clips,
        seed=seed,
        workers=parse_workers(workers),
        ks=k or (1, 5),
        ignore=ignore,
    )


@bench_app.command(short_help="Saved results as one HTML page.")
@exits
def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT.json…", help="What --json wrote; one or more.")],
    html: Annotated[Path, typer.Option(help="Page to write.")],
) -> None:
    """Make a page of tables and charts, which opens without a network, from results that were saved with --json.

    Example: clipmux bench report float32.json int8.json --html report.html
    """
    from .report import check_html, read_result, write_reports

    check_html(html)
    write_reports([read_result(path) for path in results], html)
    typer.echo(f"{len(results)} result{'s' if len(results) > 1 else ''}: {html}")


bench_app.command(short_help="The device alone, as mm_run measures it.")(inference)
bench_app.command(short_help="Frames per second and core, with and without preprocessing.")(decode)
bench_app.command("end-to-end", short_help="A real run beside what its stages cost alone.")(end_to_end)
bench_app.command(short_help="Peak memory for a few videos and for many.")(memory)
bench_app.command(short_help="Runs over a grid of workers, batches and precisions.")(sweep)
bench_app.command(short_help="Clips to the device and nothing else, beside a bare PUSH and PULL.")(transport)
bench_app.command(short_help="What metrics, a trace, a log of JSON and the jail cost a run.")(watchers)
bench_app.command(short_help="What --wire jpeg does to clips and scores.")(wire)
bench_app.command(short_help="The same run on one device and on several.")(devices)
bench_app.command(short_help="The engine simulated, beside a real run.")(simulate)
bench_app.command(short_help="A cluster on paper, and what saturates first.")(cluster)
bench_app.command(short_help="How many camera streams are sustained.")(streams)
