#!/bin/sh
# Installs clipmux into a virtual environment of its own: what the container files do. Run it in the source folder:
#
#   deploy/install.sh /opt/clipmux live,parquet
#
# PYTHON names another interpreter than python3. pip heeds its own variables (PIP_INDEX_URL …).
set -eu

prefix=${1:?"usage: deploy/install.sh PREFIX [EXTRA,EXTRA…]"}
extras=${2:-}

"${PYTHON:-python3}" -m venv "$prefix"
"$prefix/bin/pip" install --quiet --disable-pip-version-check --constraint constraints.txt ".${extras:+[$extras]}"
"$prefix/bin/python" -c 'import clipmux.engine, sys; print("clipmux for Python", sys.version.split()[0])'
