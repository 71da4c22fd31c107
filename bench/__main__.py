"""``python -m clipmux.bench``: the same as ``clipmux bench``."""

from .cli import bench_app

if __name__ == "__main__":
    bench_app(prog_name="python -m clipmux.bench")
