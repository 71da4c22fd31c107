"""What setup.cfg cannot say: the compiled part, which an installation without a C compiler does without."""

from setuptools import Extension, setup

# Python's own -fwrapv keeps GCC from using 16-bit vectors; unrolling outer loops into inner ones keeps it from any.
FLAGS = ["-O3", "-fno-wrapv", "-fno-loop-unroll-and-jam"]
PLANES = Extension("clipmux.workers._planes", ["workers/_planes.c"], extra_compile_args=FLAGS, optional=True)

setup(ext_modules=[PLANES])
