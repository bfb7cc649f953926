#!/usr/bin/env bash
# Remove from an environment what no service reads: bytecode, packages' own tests, symbols that only a debugger reads,
# and parts of large packages that nothing here imports.
#
#   trim.sh ENVIRONMENT      # needs `strip` of binutils
set -euo pipefail

cd "${1:?usage: trim.sh ENVIRONMENT}"/lib/python3.*/site-packages
find . -name __pycache__ -prune -exec rm -rf {} +
find . -type d \( -name tests -o -name test \) -prune -exec rm -rf {} +

unused=(
    # Reading from S3 and Arrow's own network protocol; runs read files.
    pyarrow/{libarrow_flight.so*,_flight.*.so,libarrow_s3.so*,_s3fs.*.so,include}
    # A class for each group and each kind of the Kubernetes API; the dynamic client uses neither.
    kubernetes/{client,aio/client}/{api/*_api,models/[a-z]*}.py
    # Programs that test torch, and compilers of protocol buffers.
    torch/bin/{test_*,*Test,protoc*}
    torch/lib/lib{torchbind,jitbackend}_test.so
    # Ray for Java, and the source maps of its dashboard.
    ray/jars
    ray/dashboard/client/build/static/js/*.map
    # Serves TensorBoard's pages faster; services only write its files.
    tensorboard_data_server/bin
)
rm -rf "${unused[@]}"

# Libraries that were rewritten by auditwheel (*.libs) or signed by their maker (nvidia) stay as they are.
find . \( -path '*.libs/*' -o -path './nvidia/*' \) -prune -o -type f \( -name '*.so' -o -name '*.so.*' -o -name raylet -o -name gcs_server \) \
    -print0 | xargs -0 --no-run-if-empty strip --strip-unneeded
