{{/*
A rollout pod: the worker is the main container, and its engine a native sidecar (an init container that keeps running).
So the worker starts after the engine's startup probe has passed. When the pod is deleted, the kubelet ends the worker
first, so that it can finish or return its groups while the engine still answers.
(list $ "leader") has both; (list $ "follower"), in a LeaderWorkerSet, has only the other ranks of an engine.
*/}}
{{- define "golongrl.rollout.pod" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $rollout := $root.Values.rollout -}}
{{- $copies := include "golongrl.weightsCopy" $root -}}
{{- $replayed := dig "learner" "routing_replay" false (include "golongrl.recipe" $root | fromJson) -}}
{{- include "golongrl.podCommon" (list $root "rollout" $rollout) }}
terminationGracePeriodSeconds: {{ int $rollout.drainSeconds }}
initContainers:
  - name: wait-for-weights
    image: {{ include "golongrl.image" (list $root $rollout.worker.image) | quote }}
    imagePullPolicy: {{ $rollout.worker.image.pullPolicy }}
    command: [sh, -c]
    args:
      - |
        # The learner prepares the data and then publishes version 0. If that takes an hour, something is wrong.
        for attempt in $(seq 720); do
          if ls {{ include "golongrl.store" $root }}/weights/v*[0-9]/manifest.json >/dev/null 2>&1; then exit 0; fi
          if [ $((attempt % 6)) -eq 1 ]; then
            echo "waiting for the learner to publish weights in {{ include "golongrl.store" $root }}/weights"
          fi
          sleep 5
        done
        echo "error: no weights in {{ include "golongrl.store" $root }}/weights after an hour: look at the learner's pods" >&2
        exit 1
    resources:
      requests: {cpu: 10m, memory: 16Mi}
      # A CPU limit too, because a ResourceQuota may require one, and no value sets it here.
      limits: {cpu: 100m, memory: 64Mi}
    securityContext:
      {{- include "golongrl.containerSecurity" $root | nindent 6 }}
    volumeMounts:
      - {name: store, mountPath: /store, readOnly: true}
{{- if eq $role "leader" }}
  - {{ include "golongrl.rollout.engine" . | nindent 4 | trim }}
    restartPolicy: Always
{{- end }}
containers:
{{- if eq $role "leader" }}
  - name: worker
    image: {{ include "golongrl.image" (list $root $rollout.worker.image) | quote }}
    imagePullPolicy: {{ $rollout.worker.image.pullPolicy }}
    # Groups may finish until shortly before the kubelet kills the pod. The others are returned to the queue.
    command: [golongrl, rollout, --host, 0.0.0.0, --port, "8090", --grace, {{ max 5 (sub (int $rollout.drainSeconds) 30) | quote }}]
    {{- with $rollout.worker.args }}
    args:
      {{- include "golongrl.arguments" . | nindent 6 }}
    {{- end }}
    env:
      {{- include "golongrl.envHome" $root | nindent 6 }}
      {{- include "golongrl.envQueue" $root | nindent 6 }}
      {{- include "golongrl.envTraces" $root | nindent 6 }}
      - name: GOLONGRL_WORKER
        valueFrom:
          fieldRef:
            fieldPath: metadata.name
      - {name: GOLONGRL_ENGINE_URL, value: "http://127.0.0.1:{{ int $rollout.engine.port }}"}
      - {name: GOLONGRL_REWARD_URL, value: {{ include "golongrl.rewardUrl" $root | quote }}}
      {{- if $copies }}
      - {name: GOLONGRL_WEIGHTS_COPY, value: /weights/$(GOLONGRL_WORKER)}
      {{- end }}
      {{- include "golongrl.envSecret" (list $root "GOLONGRL_REWARD_TOKEN" "reward-token") | nindent 6 }}
      {{- include "golongrl.envEngineKeys" $root | nindent 6 }}
      {{- with $rollout.env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    ports:
      - {name: http, containerPort: 8090}
    startupProbe:
      httpGet: {path: /healthz, port: http}
      periodSeconds: 2
      failureThreshold: 150
    livenessProbe:
      httpGet: {path: /healthz, port: http}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    # Ready means that the engine answers, and is at most max_staleness versions behind the announced one.
    readinessProbe:
      httpGet: {path: /readyz, port: http}
      periodSeconds: 5
      timeoutSeconds: 5
    resources:
      {{- include "golongrl.resources" (list $rollout.worker.resources) | nindent 6 }}
    securityContext:
      {{- include "golongrl.containerSecurity" $root | nindent 6 }}
    volumeMounts:
      - {name: recipe, mountPath: /etc/golongrl, readOnly: true}
      # Workers write recorded routes beside the weights.
      - {name: store, mountPath: /store, readOnly: {{ not $replayed }}}
      {{- if $copies }}
      - {{ include "golongrl.weightsMount" $root }}
      {{- end }}
      - {name: tmp, mountPath: /tmp}
{{- else }}
  - {{ include "golongrl.rollout.engine" . | nindent 4 | trim }}
{{- end }}
volumes:
  - name: recipe
    configMap:
      name: {{ include "golongrl.fullname" $root }}-recipe
  - name: store
    persistentVolumeClaim:
      claimName: {{ include "golongrl.claim" $root | quote }}
  {{- if and $copies (eq (int $rollout.nodes) 1) }}
  # What the worker patches and its engine loads.
  - name: weights
    emptyDir:
      sizeLimit: {{ $rollout.weightsCopy | quote }}
  {{- end }}
  {{- include "golongrl.scratch" $rollout.scratch | nindent 2 }}
  - name: shm
    emptyDir:
      medium: Memory
      sizeLimit: {{ $rollout.engine.sharedMemory | quote }}
{{- end -}}

{{/* Where the worker's copy of the weights is: on its node's disk, or for an engine over nodes on the shared volume. */}}
{{- define "golongrl.weightsMount" -}}
{{- if eq (int .Values.rollout.nodes) 1 -}}
{name: weights, mountPath: /weights}
{{- else -}}
{name: store, mountPath: /weights, subPath: copies}
{{- end -}}
{{- end -}}

{{/* The engine container, without a restart policy. It starts from the newest published weights, so that a new pod has nothing to catch up with. A follower starts from its leader's. */}}
{{- define "golongrl.rollout.engine" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $rollout := $root.Values.rollout -}}
{{- $engine := $rollout.engine -}}
{{- $recipe := include "golongrl.recipe" $root | fromJson -}}
{{- $routes := ternary " --enable-return-routed-experts" "" (dig "learner" "routing_replay" false $recipe) -}}
{{- $traces := include "golongrl.tracesEndpoint" $root -}}
{{- $gpus := 0 -}}
{{- if eq $engine.kind "sglang" -}}
{{- $gpus = div (int $engine.tensorParallel) (int $rollout.nodes) -}}
{{- end -}}
name: engine
image: {{ include "golongrl.image" (list $root $engine.image) | quote }}
imagePullPolicy: {{ $engine.image.pullPolicy }}
command: [sh, -c]
args:
  - |
    set -e
    {{- if eq $role "leader" }}
    # The newest version that is stored whole; the worker brings the engine from there to the announced one.
    folder=
    for manifest in $(ls -d {{ include "golongrl.store" $root }}/weights/v*[0-9]/manifest.json | sort -V); do
      ls "${manifest%/manifest.json}"/*.delta >/dev/null 2>&1 || folder=${manifest%/manifest.json}
    done
    {{- if gt (int $rollout.nodes) 1 }}
    # The other nodes ask for the version: the learner may publish a newer one meanwhile, and all ranks of an engine must
    # load the same.
    mkdir -p /tmp/choice
    printf %s "$folder" >/tmp/choice/folder
    python3 -m http.server 20001 --directory /tmp/choice &
    {{- end }}
    {{- else }}
    folder=
    for attempt in $(seq 720); do
      if folder=$(python3 -c "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())" \
        "http://$LWS_LEADER_ADDRESS:20001/folder" 2>/dev/null); then break; fi
      if [ $((attempt % 6)) -eq 1 ]; then echo "waiting for the leader to choose its weights"; fi
      sleep 5
    done
    if [ -z "$folder" ]; then echo "error: the leader chose no weights within an hour: look at its pod" >&2; exit 1; fi
    {{- end }}
    echo "starting from $folder"
    {{- if eq $engine.kind "embedded" }}
    exec golongrl engine --model-path "$folder" --weight-version "${folder##*/v}" \
      --host 0.0.0.0 --port {{ int $engine.port }} --context-length {{ int $recipe.model.context_length }}{{ $routes }} "$@"
    {{- else }}
    {{- if eq $role "leader" }}
    # The keys are in a file in memory that only this user can read, because the process list shows command lines.
    keys=/dev/shm/keys.yaml
    (umask 077 && python3 -c 'import json, os, sys; json.dump({
      "api-key": os.environ["GOLONGRL_ENGINE_API_KEY"].strip(),
      "admin-api-key": os.environ["GOLONGRL_ENGINE_ADMIN_API_KEY"].strip(),
    }, sys.stdout)' >"$keys")
    {{- end }}
    {{- if $traces }}
    # SGLang ends at once where its image lacks these.
    if python3 -c "import opentelemetry.exporter.otlp.proto.grpc, opentelemetry.exporter.otlp.proto.http" 2>/dev/null; then
      set -- "$@" --enable-trace --otlp-traces-endpoint "${OTEL_EXPORTER_OTLP_ENDPOINT%/}/v1/traces"
    else
      echo "no spans of this engine: its image has no OpenTelemetry (sglang[tracing])"
    fi
    {{- end }}
    exec python3 -m sglang.launch_server --model-path "$folder" --weight-version "${folder##*/v}" \
      --host 0.0.0.0 --port {{ int $engine.port }} --context-length {{ int $recipe.model.context_length }}{{ $routes }} \
      --tp-size {{ int $engine.tensorParallel }} --enable-metrics \
      {{- if eq $role "leader" }}
      --config "$keys" \
      {{- end }}
      {{- if gt (int $rollout.nodes) 1 }}
      --dist-init-addr "$LWS_LEADER_ADDRESS:20000" --nnodes "$LWS_GROUP_SIZE" --node-rank "$LWS_WORKER_INDEX" \
      {{- end }}
      "$@"
    {{- end }}
  - engine
  {{- with $engine.args }}
  {{- include "golongrl.arguments" . | nindent 2 }}
  {{- end }}
env:
  {{- include "golongrl.envHome" $root | nindent 2 }}
  {{- include "golongrl.envTraces" $root | nindent 2 }}
  {{- if eq $role "leader" }}
  {{- include "golongrl.envEngineKeys" $root | nindent 2 }}
  {{- end }}
  {{- if eq $engine.kind "sglang" }}
  # Otherwise /health generates a token. It would hang while the engine is paused for new weights, and the kubelet would
  # restart the engine.
  - {name: SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION, value: "0"}
  {{- if $traces }}
  # As the other processes send theirs; SGLang's default is gRPC.
  - {name: OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, value: http/protobuf}
  {{- end }}
  {{- else }}
  {{- include "golongrl.envThreads" (list $engine.env) | trim | nindent 2 }}
  {{- end }}
  {{- with include "golongrl.envNetwork" $root | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with $engine.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if eq $role "leader" }}
ports:
  - {name: engine, containerPort: {{ int $engine.port }}}
# Loading a large model may take most of an hour. The worker starts after this probe has passed.
startupProbe:
  httpGet: {path: /health, port: engine}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: {{ max 1 (div (int $engine.startupSeconds) 10) }}
livenessProbe:
  httpGet: {path: /health, port: engine}
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 6
{{- end }}
resources:
  {{- include "golongrl.resources" (list $engine.resources $engine.gpuResource $gpus $root.Values.network.rdma) | nindent 2 }}
securityContext:
  {{- include "golongrl.gpuContainerSecurity" $root | nindent 2 }}
volumeMounts:
  - {name: store, mountPath: /store, readOnly: true}
  {{- if include "golongrl.weightsCopy" $root }}
  - {{ include "golongrl.weightsMount" $root }}
  {{- end }}
  - {name: tmp, mountPath: /tmp}
  - {name: shm, mountPath: /dev/shm}
{{- end -}}

{{/* Pod metadata: (list $ "leader"). A changed recipe replaces the pods, unless only the learner reads what has changed: draining a large pool takes hours. */}}
{{- define "golongrl.rollout.metadata" -}}
{{- $root := index . 0 -}}
labels:
  {{- include "golongrl.podLabels" (list $root "rollout" $root.Values.rollout) | nindent 2 }}
  golongrl.io/role: {{ index . 1 }}
annotations:
  checksum/recipe: {{ omit (include "golongrl.recipe" $root | fromJson) "learner" "algorithm" | toJson | sha256sum | quote }}
  kubectl.kubernetes.io/default-container: {{ ternary "worker" "engine" (eq (index . 1) "leader") }}
  {{- with $root.Values.rollout.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
