#!/usr/bin/env bash
# Tells Spark which GPUs a machine has: spark.worker.resource.gpu.discoveryScript (standalone) or
# spark.executor.resource.gpu.discoveryScript (YARN, Kubernetes). Prints {"name": "gpu", "addresses": ["0", ...]}.
set -euo pipefail
if ! command -v nvidia-smi >/dev/null; then
  echo "find_gpus.sh: nvidia-smi is not on the PATH: install NVIDIA's driver on this worker" >&2
  exit 2
fi
addresses=$(nvidia-smi --query-gpu=index --format=csv,noheader | sed 's/.*/"&"/' | paste -sd, -)
echo "{\"name\": \"gpu\", \"addresses\": [${addresses}]}"
