{{/* Pod Security `restricted`, pod level. */}}
{{- define "golongrl.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
# Do not change the owner of every file of a large volume at every start.
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* A user's arguments, as they are written: Kubernetes would replace $(NAME) by a variable. */}}
{{- define "golongrl.arguments" -}}
{{- range . }}
- {{ replace "$" "$$" . | quote }}
{{- end }}
{{- end -}}

{{/* Pod Security `restricted`, container level. */}}
{{- define "golongrl.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/*
Containers that may use RDMA. Pinning memory needs IPC_LOCK, and only root gets an added capability; all others stay
dropped.
*/}}
{{- define "golongrl.gpuContainerSecurity" -}}
{{- if .Values.network.rdma.enabled -}}
runAsNonRoot: false
runAsUser: 0
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  add: [IPC_LOCK]
{{- else -}}
{{ include "golongrl.containerSecurity" . }}
{{- end -}}
{{- end -}}

{{/*
The affinity if the values set none: (list $ "rollout" $placement).
- Pods of a volume that only one node can attach run on one node, because others would hang with a Multi-Attach error.
  The first pod may run anywhere, because it matches itself.
- Engines are scheduled after the learner's ranks, which need whole nodes. Engines that were spread over all nodes would
  leave none, and then wait for weights that no learner publishes. The topology key covers the whole cluster.
*/}}
{{- define "golongrl.affinity" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $storage := $root.Values.storage -}}
{{- $learner := $root.Values.learner -}}
{{- if and (has $component (list "rollout" "learner" "evaluation" "construction" "passrate")) (not $storage.existingClaim) (not (has "ReadWriteMany" $storage.accessModes)) -}}
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
        matchExpressions:
          - key: app.kubernetes.io/component
            operator: In
            values: [construction, evaluation, learner, passrate, rollout]
{{- else if and (eq $component "rollout") (not $learner.clusterSelector) (gt (mul (int $learner.workers.replicas) (int $learner.workers.gpus)) 0) -}}
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/os
      labelSelector:
        matchLabels:
          {{- include "golongrl.selector" (list $root "learner") | nindent 10 }}
          ray.io/group: ranks
{{- end -}}
{{- end -}}

{{/*
How pods spread if the values set nothing: (list $ "reward" $placement). The loss of one node should not end all pods of a
stateless component. It is a preference, so that a full or small cluster runs them too. Zones are not named, because a
cluster without zone labels would then not spread by node either.
*/}}
{{- define "golongrl.spread" -}}
{{- if and (has (index . 1) (list "reward" "rollout")) (hasKey (index . 2) "topologySpreadConstraints") -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "golongrl.selector" (list (index . 0) (index . 1)) | nindent 6 }}
{{- end -}}
{{- end -}}

{{/* What every pod spec starts with: (list $ "reward" $placement). */}}
{{- define "golongrl.podCommon" -}}
{{- $root := index . 0 -}}
{{- $placement := index . 2 -}}
serviceAccountName: {{ include "golongrl.serviceAccountName" . }}
automountServiceAccountToken: false
# Otherwise Kubernetes sets REWARD_PORT and the like for every Service, and options that are read from the environment
# take their values.
enableServiceLinks: false
securityContext:
  {{- include "golongrl.podSecurity" $root | nindent 2 }}
{{- with $root.Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
{{- with $placement.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $placement.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $placement.affinity | default (include "golongrl.affinity" . | fromYaml) }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $placement.topologySpreadConstraints | default (include "golongrl.spread" . | fromYamlArray) }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $placement.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $placement.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{/*
Resources of a container: (list $resources $gpuResource $gpus $rdma). GPUs and RDMA devices need equal requests and limits.
Every amount is text: KubeRay's operator writes a RayJob back with quantities as text, and a number of ours would then be
its field, which Helm's server-side apply refuses to change at the next upgrade.
*/}}
{{- define "golongrl.resources" -}}
{{- $given := index . 0 | default dict -}}
{{- $requests := deepCopy ($given.requests | default dict) -}}
{{- $limits := deepCopy ($given.limits | default dict) -}}
{{- if gt (len .) 1 -}}
{{- $gpus := index . 2 | int -}}
{{- if gt $gpus 0 -}}
{{- $_ := set $requests (index . 1) $gpus -}}
{{- $_ := set $limits (index . 1) $gpus -}}
{{- end -}}
{{- $rdma := index . 3 -}}
{{- if $rdma.enabled -}}
{{- $_ := set $requests $rdma.resource (int $rdma.count) -}}
{{- $_ := set $limits $rdma.resource (int $rdma.count) -}}
{{- end -}}
{{- end -}}
{{- $resources := dict -}}
{{- range $part, $amounts := dict "requests" $requests "limits" $limits -}}
{{- range $name, $amount := $amounts -}}
{{- $_ := set $amounts $name (kindIs "string" $amount | ternary $amount (int64 $amount | toString)) -}}
{{- end -}}
{{- with $amounts }}{{- $_ := set $resources $part . -}}{{- end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* Environment of every container: only the scratch volume is writable. */}}
{{- define "golongrl.envHome" -}}
- {name: HOME, value: /tmp}
# Some libraries look up the user's name, which fails for an id that is not in /etc/passwd.
- {name: USER, value: golongrl}
- {name: LOGNAME, value: golongrl}
{{- end -}}

{{/* Where a process sends spans, and with which headers; nothing without `telemetry.otlp_endpoint` in the recipe. */}}
{{- define "golongrl.envTraces" -}}
{{- with include "golongrl.tracesEndpoint" . }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- include "golongrl.learner.env.token" (list "OTEL_EXPORTER_OTLP_HEADERS" $.Values.metrics.traces) }}
{{- end }}
{{- end -}}

{{/* Environment of processes that connect to the queue. */}}
{{- define "golongrl.envQueue" -}}
- {name: GOLONGRL_RUN, value: {{ include "golongrl.run" . | quote }}}
- {name: GOLONGRL_RECIPE, value: /etc/golongrl/recipe.yaml}
- {name: GOLONGRL_DATA, value: {{ include "golongrl.store" . }}/data}
- {name: GOLONGRL_WEIGHTS, value: {{ include "golongrl.store" . }}/weights}
- {name: GOLONGRL_REDIS_URL, value: {{ include "golongrl.redisUrl" . | quote }}}
{{ include "golongrl.envSecret" (list . "GOLONGRL_REDIS_PASSWORD" "redis-password") }}
{{- end -}}

{{/* /tmp, the only writable folder. A pod that writes more than this size is evicted, before it fills the node's disk: "20Gi". */}}
{{- define "golongrl.scratch" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ . | quote }}
{{- end -}}

{{/* One key of the release's Secret: (list $ "NAME" "key"). */}}
{{- define "golongrl.envSecret" -}}
- name: {{ index . 1 }}
  valueFrom:
    secretKeyRef:
      name: {{ include "golongrl.authSecret" (index . 0) | quote }}
      key: {{ index . 2 }}
{{- end -}}

{{/* Both keys of an engine: one is for its normal endpoints, the other for those that control it. */}}
{{- define "golongrl.envEngineKeys" -}}
{{ include "golongrl.envSecret" (list . "GOLONGRL_ENGINE_API_KEY" "engine-api-key") }}
{{ include "golongrl.envSecret" (list . "GOLONGRL_ENGINE_ADMIN_API_KEY" "engine-admin-api-key") }}
{{- end -}}

{{/* Environment of the collective libraries. */}}
{{- define "golongrl.envNetwork" -}}
{{- with .Values.network.socketInterface }}
- {name: NCCL_SOCKET_IFNAME, value: {{ . | quote }}}
- {name: GLOO_SOCKET_IFNAME, value: {{ . | quote }}}
{{- end }}
{{- range $name, $value := .Values.network.ncclEnv }}
- {name: {{ $name | quote }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}
