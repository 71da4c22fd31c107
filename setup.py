"""What setup.cfg cannot say: the compiled parts, which an installation without a C compiler does without."""

from setuptools import Extension, setup

# Python's own -fwrapv keeps GCC from using 16-bit vectors; unrolling outer loops into inner ones keeps it from any.
FLAGS = ["-O3", "-fno-wrapv", "-fno-loop-unroll-and-jam"]
PARTS = ("workers/_planes.c", "engine/_gather.c")


def extension(source: str) -> Extension:
    name = "clipmux." + source.removesuffix(".c").replace("/", ".")
    return Extension(name, [source], extra_compile_args=FLAGS, optional=True)


setup(ext_modules=[extension(source) for source in PARTS])
