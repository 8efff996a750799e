#!/usr/bin/env bash
# Wheels of this package, and of what it needs beside PyTorch and Lightning, for a machine without a
# network:
#
#     scripts/pack_wheels.sh FOLDER [PYTHON]      # of the machine; 3.12 by default
#
# and there, where python3 has the packages of "there" below, from a copy of the sources:
#
#     python3 -m pip install --no-index --no-deps --target site FOLDER/*.whl
#     export PYTHONPATH=site
#     python3 scripts/check_cuda.py
#     python3 -m benchmarks.gpu
set -euo pipefail

folder=${1:?name the folder for the wheels: scripts/pack_wheels.sh FOLDER}
python=${2:-3.12}
there=(torch lightning torchmetrics numpy safetensors h5py rich matplotlib jaxtyping filelock
    huggingface-hub)
pure=(hydra-core "omegaconf<2.4" "antlr4-python3-runtime==4.9.*" fair-esm xopen)  # bounds: Hydra's
compiled=(biopython zstandard isal zlib-ng backports.zstd)  # the last three: xopen's

cd "$(dirname "$0")/.."
platforms=()
for glibc in 2_17 2_24 2_27 2_28 2_31 2_34; do
    platforms+=(--platform "manylinux_${glibc}_x86_64")
done
platforms+=(--platform manylinux2014_x86_64)

mkdir -p "$folder"
rm -f "$folder"/*.whl  # two versions of one package would stop the installation
python3 -m pip wheel --quiet --no-deps --wheel-dir "$folder" . "${pure[@]}"
python3 -m pip download --quiet --no-deps --only-binary=:all: --implementation cp \
    --python-version "$python" "${platforms[@]}" --dest "$folder" "${compiled[@]}"
echo "wheels for Python $python: $folder"
ls "$folder"
echo "needed there: ${there[*]}"
