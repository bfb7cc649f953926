{{/* Pod Security `restricted`, pod level. */}}
{{- define "golongrl.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
# A volume of many files is not relabelled at every start.
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Pod Security `restricted`, container level. */}}
{{- define "golongrl.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/*
Containers that use RDMA: the opt-out. A non-root process never gets an added capability, so pinning memory needs root;
everything but IPC_LOCK stays dropped.
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
What placement needs where nobody says more: (list $ "rollout" $placement).
- A volume that one node can attach keeps its pods on that node, where they would else hang in a Multi-Attach error. The
  first pod may go anywhere, because it matches itself.
- Engines take GPUs after the learner's ranks have theirs, which need whole nodes: engines spread over all of them would
  leave none, and wait for weights that nobody can publish. One domain is the whole cluster here (every node's OS).
*/}}
{{- define "golongrl.affinity" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $storage := $root.Values.storage -}}
{{- $learner := $root.Values.learner -}}
{{- if and (has $component (list "rollout" "learner")) (not $storage.existingClaim) (not (has "ReadWriteMany" $storage.accessModes)) -}}
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
        matchExpressions:
          - key: app.kubernetes.io/component
            operator: In
            values: [learner, rollout]
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
How pods spread where nobody says more: (list $ "reward" $placement). A lost node should not take all of a stateless part;
softly, because a full or small cluster runs it all the same. By node alone: with zones named too, a cluster that labels
none would not spread by node either.
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
# Kubernetes would set REWARD_PORT and the like for every Service, which collide with flags read from the environment.
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

{{/* Environment of every process of ours: the scratch volume is the only place to write. */}}
{{- define "golongrl.envHome" -}}
- {name: HOME, value: /tmp}
# Libraries that ask for the user's name fail for an id without an entry in /etc/passwd.
- {name: USER, value: golongrl}
- {name: LOGNAME, value: golongrl}
{{- end -}}

{{/* Environment of what speaks to the queue. */}}
{{- define "golongrl.envQueue" -}}
- {name: GOLONGRL_RUN, value: {{ include "golongrl.run" . | quote }}}
- {name: GOLONGRL_RECIPE, value: /etc/golongrl/recipe.yaml}
- {name: GOLONGRL_DATA, value: {{ include "golongrl.store" . }}/data}
- {name: GOLONGRL_WEIGHTS, value: {{ include "golongrl.store" . }}/weights}
- {name: GOLONGRL_REDIS_URL, value: {{ include "golongrl.redisUrl" . | quote }}}
{{ include "golongrl.envSecret" (list . "GOLONGRL_REDIS_PASSWORD" "redis-password") }}
{{- end -}}

{{/* /tmp, the only place to write of a read-only root. A pod that writes more than its size is evicted, before it fills the node: "20Gi". */}}
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

{{/* Both engine keys: normal endpoints take one, control endpoints only the other. */}}
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
