#!/usr/bin/env bash
# Installs the real SGLang server for CPU into a virtual environment of its own: about 3 GB and several minutes.
#
#   scripts/sglang-cpu/install.sh DIR        (or: make sglang)
#
# SGLang imports GPU-only packages at start-up even where it never calls them; gpu_stubs.py stands in for those.
# Its own requirements pin CUDA builds, so it is installed without them, and what the CPU path needs is named here.
set -euo pipefail

venv=${1:?usage: install.sh DIR}
here=$(cd "$(dirname "$0")" && pwd)

"${PYTHON:-python3.11}" -m venv "$venv"
"$venv/bin/pip" install --quiet torch==2.13.0 transformers==5.19.0
"$venv/bin/pip" install --quiet --no-deps sglang==0.5.23
"$venv/bin/pip" install --quiet -r "$here/requirements.txt"

site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
cp "$here/gpu_stubs.py" "$site/gpu_stubs.py"
# A .pth line runs at every start of this interpreter, before SGLang is imported.
echo 'import gpu_stubs' > "$site/gpu_stubs.pth"
"$venv/bin/python" -c 'import sglang; print("SGLang", sglang.__version__, "is installed")'
