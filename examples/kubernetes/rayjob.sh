#!/usr/bin/env bash
# A learner as a RayJob, beside a release that brings Redis, the reward service, the rollout pool and the storage:
#   examples/kubernetes/rayjob.sh RECIPE NAMESPACE [RELEASE]
# KubeRay's CRDs are larger than what client-side apply can store, so apply on the server.
set -euo pipefail
recipe=${1:?recipe, for example qwen3-4b-tmn-reweight} namespace=${2:?namespace} release=${3:-golongrl}
golongrl render rayjob "$recipe" --release "$release" --namespace "$namespace" |
    kubectl apply --server-side --namespace "$namespace" -f -
kubectl --namespace "$namespace" get rayjobs
