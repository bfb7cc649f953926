{{/* Not empty if the release starts engines for the stage `passrate`. */}}
{{- define "golongrl.passrate" -}}
{{- if and .Values.construction.enabled .Values.construction.passrate.enabled -}}true{{- end -}}
{{- end -}}

{{/* The Job of a model's engines: (list $ "small"). Jobs cannot be changed: other values or pods make others. */}}
{{- define "golongrl.passrate.name" -}}
{{- $root := index . 0 -}}
{{- $spec := omit (include "golongrl.passrate.job" (append . "x") | fromYaml).spec "suspend" -}}
{{ include "golongrl.fullname" $root }}-passrate-{{ index . 1 }}-{{ list $root.Values.construction $spec | toJson | sha256sum | trunc 8 }}
{{- end -}}

{{/* Where the stage says which round a model has. */}}
{{- define "golongrl.passrate.board" -}}
{{ include "golongrl.store" (index . 0) }}/{{ (index . 0).Values.construction.out }}/passrate/rollouts/{{ index . 1 }}.json
{{- end -}}

{{/* The API token, for the container that mounts it alone; renewed every hour. */}}
{{- define "golongrl.passrate.token" -}}
- name: token
  projected:
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap:
          name: kube-root-ca.crt
          items: [{key: ca.crt, path: ca.crt}]
      - downwardAPI:
          items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]
{{- end -}}

{{/*
The engines of one model, each with its rollout worker: (list $ "small" NAME). Suspended, so that it has no pods and no GPUs
until the stage asks the model; the stage then lets it run. The workers end when the model has answered all prompts, and the
Job is complete.
*/}}
{{- define "golongrl.passrate.job" -}}
{{- $root := index . 0 -}}
{{- $model := index . 1 -}}
{{- $values := $root.Values.construction.passrate -}}
{{- $pool := index $values $model -}}
{{- $engine := $pool.engine -}}
{{- $name := last . -}}
{{- $live := lookup "batch/v1" "Job" $root.Release.Namespace $name -}}
{{- $gpus := ternary (int $engine.tensorParallel) 0 (eq $engine.kind "sglang") -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "golongrl.labels" (list $root "passrate") | nindent 4 }}
    golongrl.io/passrate: {{ $model }}
spec:
  # An upgrade leaves it as the stage has set it.
  suspend: {{ dig "spec" "suspend" true ($live | default dict) }}
  # Without completions: the first worker that ends well says that the work is done.
  parallelism: {{ int $pool.replicas }}
  backoffLimit: {{ int $values.backoffLimit }}
  # A pod that was evicted by a drain does not count as a failure.
  podFailurePolicy:
    rules:
      - action: Ignore
        onPodConditions:
          - {type: DisruptionTarget, status: "True"}
  template:
    metadata:
      labels:
        {{- include "golongrl.podLabels" (list $root "passrate" $pool) | nindent 8 }}
      annotations:
        kubectl.kubernetes.io/default-container: worker
        {{- with $pool.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "golongrl.podCommon" (list $root "passrate" $pool) | nindent 6 }}
      restartPolicy: Never
      terminationGracePeriodSeconds: {{ int $values.drainSeconds }}
      initContainers:
        # A sidecar: the worker starts when it answers, and ends before it.
        - name: engine
          restartPolicy: Always
          image: {{ include "golongrl.image" (list $root $engine.image) | quote }}
          imagePullPolicy: {{ $engine.image.pullPolicy }}
          command: [sh, -c]
          args:
            - |
              set -e
              said() {
                python3 -c 'import json, sys; print(json.load(open(sys.argv[1], encoding="utf-8"))[sys.argv[2]])' \
                  {{ include "golongrl.passrate.board" . }} "$1"
              }
              model=$(said model)
              length=$(said context_length)
              if [ -z "$model" ]; then echo "the stage asks no model now" >&2; exit 1; fi
              echo "starting from $model"
              {{- if eq $engine.kind "embedded" }}
              exec golongrl engine --model-path "$model" --weight-version 0 \
                --host 0.0.0.0 --port {{ int $engine.port }} --context-length "$length" "$@"
              {{- else }}
              type=$(said dtype)
              # The keys are in a file in memory that only this user can read, because the process list shows command lines.
              keys=/dev/shm/keys.yaml
              (umask 077 && python3 -c 'import json, os, sys; json.dump({
                "api-key": os.environ["GOLONGRL_ENGINE_API_KEY"].strip(),
                "admin-api-key": os.environ["GOLONGRL_ENGINE_ADMIN_API_KEY"].strip(),
              }, sys.stdout)' >"$keys")
              exec python3 -m sglang.launch_server --model-path "$model" --weight-version 0 --dtype "$type" \
                --host 0.0.0.0 --port {{ int $engine.port }} --context-length "$length" \
                --tp-size {{ int $engine.tensorParallel }} --enable-metrics --config "$keys" "$@"
              {{- end }}
            - engine
            {{- with $engine.args }}
            {{- include "golongrl.arguments" . | nindent 12 }}
            {{- end }}
          env:
            {{- include "golongrl.envHome" $root | nindent 12 }}
            {{- include "golongrl.envEngineKeys" $root | nindent 12 }}
            {{- if eq $engine.kind "sglang" }}
            # Otherwise /health generates a token. It would hang while the engine is paused for weights.
            - {name: SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION, value: "0"}
            {{- else }}
            {{- include "golongrl.envThreads" (list $engine.env) | trim | nindent 12 }}
            {{- end }}
            {{- with include "golongrl.envNetwork" $root | trim }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- with $engine.env }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - {name: engine, containerPort: {{ int $engine.port }}}
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
          resources:
            {{- include "golongrl.resources" (list $engine.resources $engine.gpuResource $gpus dict) | nindent 12 }}
          securityContext:
            {{- include "golongrl.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            - {name: store, mountPath: /store, readOnly: true}
            - {name: tmp, mountPath: /tmp}
            - {name: shm, mountPath: /dev/shm}
      containers:
        - name: worker
          image: {{ include "golongrl.image" (list $root $values.worker.image) | quote }}
          imagePullPolicy: {{ $values.worker.image.pullPolicy }}
          # Groups may finish until shortly before the kubelet kills the pod. The others are returned to the queue.
          command:
            - golongrl
            - data
            - worker
            - --board={{ include "golongrl.passrate.board" . }}
            - --host=0.0.0.0
            - --port=8090
            - --grace={{ max 1 (sub (int $values.drainSeconds) 40) }}
            - --idle={{ int $values.idleSeconds }}
            {{- with $values.worker.args }}
            - --
            {{- include "golongrl.arguments" . | nindent 12 }}
            {{- end }}
          env:
            {{- include "golongrl.envHome" $root | nindent 12 }}
            - {name: GOLONGRL_REDIS_URL, value: {{ include "golongrl.redisUrl" $root | quote }}}
            {{- include "golongrl.envSecret" (list $root "GOLONGRL_REDIS_PASSWORD" "redis-password") | nindent 12 }}
            - name: GOLONGRL_WORKER
              valueFrom:
                fieldRef:
                  fieldPath: metadata.name
            - {name: GOLONGRL_ENGINE_URL, value: "http://127.0.0.1:{{ int $engine.port }}"}
            - {name: GOLONGRL_REWARD_URL, value: {{ include "golongrl.rewardUrl" $root | quote }}}
            {{- include "golongrl.envSecret" (list $root "GOLONGRL_REWARD_TOKEN" "reward-token") | nindent 12 }}
            {{- include "golongrl.envEngineKeys" $root | nindent 12 }}
            {{- with $pool.env }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - {name: http, containerPort: 8090}
          resources:
            {{- include "golongrl.resources" (list $values.worker.resources) | nindent 12 }}
          securityContext:
            {{- include "golongrl.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            - {name: store, mountPath: /store, readOnly: true}
            - {name: tmp, mountPath: /tmp}
      volumes:
        - name: store
          persistentVolumeClaim:
            claimName: {{ include "golongrl.claim" $root | quote }}
        {{- include "golongrl.scratch" $values.scratch | nindent 8 }}
        - name: shm
          emptyDir:
            medium: Memory
            sizeLimit: {{ $engine.sharedMemory | quote }}
{{- end -}}
