"""What setup.cfg cannot say: the compiled parts, which an installation without a C compiler does without."""

from pathlib import Path

from setuptools import Extension, setup

# Python's own -fwrapv keeps GCC from using 16-bit vectors; unrolling outer loops into inner ones keeps it from any.
FLAGS = ["-O3", "-fno-wrapv", "-fno-loop-unroll-and-jam"]
PARTS = {"workers/_planes": ("", "_any", "_avx2", "_picture"), "engine/_gather": ("",)}


def extension(part: str, files: tuple[str, ...]) -> Extension:
    name, sources = f"clipmux.{part.replace('/', '.')}", [f"{part}{file}.c" for file in files]
    headers = sorted(str(header) for header in Path().glob(f"{part}*.h"))
    return Extension(name, sources, depends=headers, extra_compile_args=FLAGS, optional=True)


setup(ext_modules=[extension(part, files) for part, files in PARTS.items()])
