{{/* Stages that compute through Ray where it is on; the others ask models, or need a glance at all rows in one process. */}}
{{- define "golongrl.construction.onRay" -}}
{{- $stage := index . 1 -}}
{{- if and (index . 0).Values.construction.ray.enabled (not (has $stage (list "select" "verify" "passrate"))) -}}true{{- end -}}
{{- end -}}

{{/* The command line of all stages or of one, as a JSON list of words: (list $ "" ) or (list $ "sources"). */}}
{{- define "golongrl.construction.words" -}}
{{- $root := index . 0 -}}
{{- $stage := index . 1 -}}
{{- $values := $root.Values.construction -}}
{{- $pipeline := ternary "/etc/golongrl/pipeline.yaml" $values.preset (ne $values.pipeline "") -}}
{{- $out := printf "%s/%s" (include "golongrl.store" $root) $values.out -}}
{{- $words := list "golongrl" "data" "construct" $pipeline "--out" $out "--metrics-host" "0.0.0.0" "--metrics-port" "8090" -}}
{{- if $stage -}}
{{- $words = concat $words (list "--stage" $stage "--wait-s" (int $values.waitSeconds | toString)) -}}
{{- end -}}
{{- if has $stage (list "" "passrate") -}}
{{- $words = concat $words (list "--pool-redis-url" (include "golongrl.redisUrl" $root)) -}}
{{- if include "golongrl.passrate" $root -}}
{{- range $model := list "small" "large" -}}
{{- $words = concat $words (list "--pool-job" (printf "%s=%s" $model (include "golongrl.passrate.name" (list $root $model)))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if include "golongrl.construction.onRay" . -}}
{{- $words = concat $words (list "--on" "ray") -}}
{{- else -}}
{{- $words = concat $words (list "--workers" (int $values.processes | toString)) -}}
{{- end -}}
{{- $words | toJson -}}
{{- end -}}

{{/* Jobs cannot be changed: with other values or pods they are other Jobs, which make only what is missing: (list $ "verify" KIND). */}}
{{- define "golongrl.construction.hash" -}}
{{- $spec := (include (printf "golongrl.construction.%s" (index . 2)) (list (index . 0) (index . 1) "x") | fromYaml).spec -}}
{{- list (index . 0).Values.construction $spec | toJson | sha256sum | trunc 8 -}}
{{- end -}}

{{- define "golongrl.construction.podMetadata" -}}
labels:
  {{- include "golongrl.podLabels" (list . "construction" .Values.construction) | nindent 2 }}
{{- with .Values.construction.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "golongrl.construction.container" -}}
image: {{ include "golongrl.image" (list . .Values.construction.image) | quote }}
imagePullPolicy: {{ .Values.construction.image.pullPolicy }}
securityContext:
  {{- include "golongrl.containerSecurity" . | nindent 2 }}
{{- end -}}

{{/* Of the process that runs the stages: it alone asks models and connects to a pool's queue. */}}
{{- define "golongrl.construction.env.driver" -}}
{{- include "golongrl.construction.env.task" . }}
{{ include "golongrl.envSecret" (list . "GOLONGRL_REDIS_PASSWORD" "redis-password") }}
{{- include "golongrl.learner.env.token" (list "GOLONGRL_LLM_API_KEY" .Values.construction.llm) }}
{{- include "golongrl.learner.env.token" (list "HF_TOKEN" .Values.huggingface) }}
{{- end -}}

{{- define "golongrl.construction.env.task" -}}
{{- include "golongrl.envHome" . }}
- {name: HF_HOME, value: {{ include "golongrl.store" . }}/hf}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
{{- with .Values.construction.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "golongrl.construction.mounts" -}}
- {name: store, mountPath: /store}
- {name: tmp, mountPath: /tmp}
- {name: shm, mountPath: /dev/shm}
{{- if .Values.construction.pipeline }}
- {name: pipeline, mountPath: /etc/golongrl, readOnly: true}
{{- end }}
{{- if .Values.construction.documentsClaim }}
- {name: documents, mountPath: /documents, readOnly: true}
{{- end }}
{{- end -}}

{{- define "golongrl.construction.volumes" -}}
{{- $values := .Values.construction -}}
- name: store
  persistentVolumeClaim:
    claimName: {{ include "golongrl.claim" . | quote }}
{{ include "golongrl.scratch" $values.scratch }}
- name: shm
  emptyDir:
    medium: Memory
    sizeLimit: {{ $values.sharedMemory | quote }}
{{- if $values.pipeline }}
- name: pipeline
  configMap:
    name: {{ include "golongrl.fullname" . }}-construction
{{- end }}
{{- with $values.documentsClaim }}
- name: documents
  persistentVolumeClaim:
    claimName: {{ . | quote }}
    readOnly: true
{{- end }}
{{- end -}}

{{/* The process that runs `passrate` starts its engines' Jobs, and no other: (list $ "passrate"). */}}
{{- define "golongrl.construction.tokenMount" -}}
{{- if and (include "golongrl.passrate" (index . 0)) (has (index . 1) (list "" "passrate")) -}}
- {name: token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end -}}
{{- end -}}

{{- define "golongrl.construction.tokenVolume" -}}
{{- if and (include "golongrl.passrate" (index . 0)) (has (index . 1) (list "" "passrate")) -}}
{{- include "golongrl.passrate.token" . -}}
{{- end -}}
{{- end -}}
