#!/usr/bin/env bash
# The whole loop on a real cluster: builds the images, starts kind (or k3d), installs the chart with no values and waits
# until the learner has trained. Needs docker, kubectl, helm and kind or k3d, 4 CPUs and 8 GB.
#
#   scripts/e2e.sh                    # a plain Job with a local Ray
#   KUBERAY=1 scripts/e2e.sh          # a RayJob: installs KubeRay first
#   KUBERAY=1 OPERATOR=1 scripts/e2e.sh # a TrainingRun, whose RayJob the operator makes
#   CLUSTER=k3d KEEP=1 scripts/e2e.sh # in k3d; keep the cluster afterwards
set -euo pipefail
cd "$(dirname "$0")/.."

CLUSTER=${CLUSTER:-kind}
NAME=${NAME:-golongrl-e2e}
KUBERAY_VERSION=${KUBERAY_VERSION:-1.7.0}
STEPS=${STEPS:-5}
WAIT=${WAIT:-1800}
NAMESPACE=golongrl

for tool in docker kubectl helm "$CLUSTER"; do
    command -v "$tool" >/dev/null || { echo "error: $tool is not on PATH" >&2; exit 1; }
done

cleanup() {
    if [ "${KEEP:-0}" != 1 ]; then
        case $CLUSTER in
            kind) kind delete cluster --name "$NAME" ;;
            k3d) k3d cluster delete "$NAME" ;;
        esac
    fi
}
explain() {
    echo "--- what the cluster says" >&2
    kubectl -n $NAMESPACE get pods,jobs,pvc -o wide >&2 || true
    kubectl -n $NAMESPACE get events --sort-by=.lastTimestamp | tail -n 40 >&2 || true
    kubectl -n $NAMESPACE logs -l app.kubernetes.io/instance=golongrl --all-containers --prefix --tail=40 >&2 || true
}
trap 'code=$?; [ $code = 0 ] || explain; cleanup; exit $code' EXIT

ENGINE=docker TAG=e2e scripts/images.sh

case $CLUSTER in
    kind)
        kind create cluster --name "$NAME" --wait 120s
        kind load docker-image --name "$NAME" golongrl-{reward,rollout,learner,operator}:e2e
        ;;
    k3d)
        k3d cluster create "$NAME" --wait
        k3d image import --cluster "$NAME" golongrl-{reward,rollout,learner,operator}:e2e
        ;;
esac

kubectl create namespace $NAMESPACE
# The strictest level: what the chart's pods may not do, admission refuses.
kubectl label namespace $NAMESPACE pod-security.kubernetes.io/enforce=restricted

if [ "${KUBERAY:-0}" = 1 ]; then
    helm repo add kuberay https://ray-project.github.io/kuberay-helm/
    helm install kuberay-operator kuberay/kuberay-operator --version "$KUBERAY_VERSION" --wait
fi

images=()
for key in reward.image:reward rollout.worker.image:rollout rollout.engine.image:learner learner.image:learner operator.image:operator; do
    images+=(--set "${key%%:*}.registry=" --set "${key%%:*}.repository=golongrl-${key##*:}" --set "${key%%:*}.tag=e2e")
done
helm install golongrl charts/golongrl -n $NAMESPACE "${images[@]}" --set "recipe.learner.steps=$STEPS" \
    --set "operator.enabled=$([ "${OPERATOR:-0}" = 1 ] && echo true || echo false)"

kubectl -n $NAMESPACE rollout status statefulset/golongrl-redis --timeout=300s
kubectl -n $NAMESPACE rollout status deployment/golongrl-reward --timeout=300s
helm test golongrl -n $NAMESPACE
kubectl -n $NAMESPACE rollout status deployment/golongrl-rollout --timeout=900s

if [ "${OPERATOR:-0}" = 1 ]; then
    kubectl -n $NAMESPACE wait trainingrun/golongrl --for=condition=Complete --timeout="${WAIT}s"
elif [ "${KUBERAY:-0}" = 1 ]; then
    kubectl -n $NAMESPACE wait rayjob -l app.kubernetes.io/instance=golongrl \
        --for=jsonpath='{.status.jobStatus}'=SUCCEEDED --timeout="${WAIT}s"
else
    kubectl -n $NAMESPACE wait job -l app.kubernetes.io/instance=golongrl --for=condition=complete --timeout="${WAIT}s"
fi

worker=$(kubectl -n $NAMESPACE get pods -l app.kubernetes.io/component=rollout -o name | head -n 1)
if [ -n "$worker" ]; then
    kubectl -n $NAMESPACE exec "$worker" -c worker -- golongrl status
    version=$(kubectl -n $NAMESPACE exec "$worker" -c worker -- golongrl status --json \
        | python3 -c 'import json, sys; print(json.load(sys.stdin)["queue"]["version"])')
    [ "$version" = "$STEPS" ] || { echo "error: the policy is at version $version after $STEPS steps" >&2; exit 1; }
fi

# An upgrade keeps password and claims.
before=$(kubectl -n $NAMESPACE get secret golongrl-auth -o jsonpath='{.data}')
helm upgrade golongrl charts/golongrl -n $NAMESPACE --reuse-values --set reward.replicas=2
after=$(kubectl -n $NAMESPACE get secret golongrl-auth -o jsonpath='{.data}')
[ "$before" = "$after" ] || { echo "error: the upgrade changed the Secret" >&2; exit 1; }
kubectl -n $NAMESPACE rollout status deployment/golongrl-reward --timeout=300s
echo "passed: $STEPS steps on $CLUSTER"
