{{/* Image of every container of the learner: (list $). */}}
{{- define "golongrl.learner.container" -}}
{{- $root := index . 0 -}}
{{- $learner := $root.Values.learner -}}
image: {{ include "golongrl.image" (list $root $learner.image) | quote }}
imagePullPolicy: {{ $learner.image.pullPolicy }}
{{- end -}}

{{/*
Environments, each with only the secrets that it needs. The driver connects to the queue, writes metrics and may download
a model. It passes the batches to the ranks, which therefore need no secret. The steps before it connect only to the hub.
*/}}
{{- define "golongrl.learner.env.driver" -}}
{{- include "golongrl.envHome" . }}
{{- include "golongrl.envTraces" . }}
{{ include "golongrl.envQueue" . }}
{{ include "golongrl.learner.env.libraries" . }}
{{- include "golongrl.learner.env.token" (list "HF_TOKEN" .Values.huggingface) }}
{{- include "golongrl.learner.env.token" (list "WANDB_API_KEY" .Values.wandb) }}
{{- include "golongrl.learner.env.network" . }}
{{- end -}}

{{- define "golongrl.learner.env.ranks" -}}
{{- include "golongrl.envHome" . }}
{{ include "golongrl.learner.env.libraries" . }}
{{- include "golongrl.learner.env.network" . }}
{{- end -}}

{{- define "golongrl.learner.env.prepare" -}}
{{- include "golongrl.envHome" . }}
{{ include "golongrl.learner.env.libraries" . }}
{{- include "golongrl.learner.env.token" (list "HF_TOKEN" .Values.huggingface) }}
{{- include "golongrl.learner.env.own" . }}
{{- end -}}

{{- define "golongrl.learner.env.libraries" -}}
# Downloads of the hub are kept on the shared volume, for all ranks and restarts.
- {name: HF_HOME, value: {{ include "golongrl.store" . }}/hf}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
{{- if eq (int .Values.learner.workers.gpus) 0 }}
{{- include "golongrl.envThreads" (list .Values.learner.env) }}
{{- end }}
{{- end -}}

{{/* One key of an existing Secret, if it is set: (list "NAME" $source). */}}
{{- define "golongrl.learner.env.token" -}}
{{- with index . 1 }}
{{- if .existingSecret }}
- name: {{ index $ 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret | quote }}
      key: {{ .key | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "golongrl.learner.env.network" -}}
{{- with include "golongrl.envNetwork" . | trim }}
{{ . }}
{{- end }}
{{- include "golongrl.learner.env.own" . }}
{{- end -}}

{{- define "golongrl.learner.env.own" -}}
{{- with .Values.learner.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Of the pods' grace period, the part in which the learner may finish its step; Ray ends in the rest. */}}
{{- define "golongrl.learner.drain" -}}
{{- max 5 (sub (int .Values.learner.drainSeconds) 30) -}}
{{- end -}}

{{/* Ray ends its processes at once when its pod gets the signal. Before that, the learner finishes its step. */}}
{{- define "golongrl.learner.preStop" -}}
lifecycle:
  preStop:
    exec:
      command: [python, -m, golongrl.learner.pre_stop, --seconds, {{ include "golongrl.learner.drain" . | quote }}]
{{- end -}}

{{- define "golongrl.learner.mounts" -}}
- {name: recipe, mountPath: /etc/golongrl, readOnly: true}
- {name: store, mountPath: /store}
- {name: tmp, mountPath: /tmp}
- {name: shm, mountPath: /dev/shm}
{{- if or .Values.model.existingClaim .Values.model.imageVolume.reference }}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- end -}}

{{- define "golongrl.learner.volumes" -}}
- name: recipe
  configMap:
    name: {{ include "golongrl.fullname" . }}-recipe
- name: store
  persistentVolumeClaim:
    claimName: {{ include "golongrl.claim" . | quote }}
{{ include "golongrl.scratch" .Values.learner.scratch }}
- name: shm
  emptyDir:
    medium: Memory
    sizeLimit: {{ .Values.learner.sharedMemory | quote }}
{{- if .Values.model.existingClaim }}
- name: models
  persistentVolumeClaim:
    claimName: {{ .Values.model.existingClaim | quote }}
    readOnly: true
{{- else if .Values.model.imageVolume.reference }}
- name: models
  image:
    reference: {{ .Values.model.imageVolume.reference | quote }}
    pullPolicy: {{ .Values.model.imageVolume.pullPolicy }}
{{- end }}
{{- end -}}

{{/* Steps before the learner: download the model, prepare the data. Both keep what already exists. */}}
{{- define "golongrl.learner.prepare" -}}
{{- $root := . -}}
{{- range $kind := list "model" "dataset" }}
{{- with (index $root.Values $kind).download }}
{{- if .repo }}
- name: download-{{ $kind }}
  {{- include "golongrl.learner.container" (list $root) | nindent 2 }}
  command: [hf, download, {{ .repo | quote }}, --repo-type, {{ $kind }}, --revision, {{ .revision | quote }}, --local-dir, {{ include "golongrl.store" $root }}/{{ $kind }}s/{{ base .repo }}]
  env:
    {{- include "golongrl.learner.env.prepare" $root | nindent 4 }}
  resources:
    {{- include "golongrl.resources" (list $root.Values.learner.head.resources) | nindent 4 }}
  securityContext:
    {{- include "golongrl.containerSecurity" $root | nindent 4 }}
  volumeMounts:
    {{- include "golongrl.learner.mounts" $root | nindent 4 }}
{{- end }}
{{- end }}
{{- end }}
- name: prepare-data
  {{- include "golongrl.learner.container" (list $root) | nindent 2 }}
  command: [golongrl, data, prepare, /etc/golongrl/recipe.yaml, --out, {{ include "golongrl.store" . }}/data]
  env:
    {{- include "golongrl.learner.env.prepare" . | nindent 4 }}
  resources:
    {{- include "golongrl.resources" (list .Values.learner.head.resources) | nindent 4 }}
  securityContext:
    {{- include "golongrl.containerSecurity" . | nindent 4 }}
  volumeMounts:
    {{- include "golongrl.learner.mounts" . | nindent 4 }}
{{- end -}}

{{/* The learner's command line, as a JSON list of words. */}}
{{- define "golongrl.learner.words" -}}
{{- $store := include "golongrl.store" . -}}
{{- $words := list "golongrl" "learner" "--recipe" "/etc/golongrl/recipe.yaml" -}}
{{- $words = concat $words (list "--data" (printf "%s/data" $store) "--weights" (printf "%s/weights" $store)) -}}
{{- $words = concat $words (list "--out" (printf "%s/run" $store)) -}}
{{- /* In an existing cluster the port may be in use, and its pods do not name it. */ -}}
{{- if not .Values.learner.clusterSelector -}}
{{- $words = concat $words (list "--host" "0.0.0.0" "--port" "8090") -}}
{{- end -}}
{{- concat $words (.Values.learner.args | default list) | toJson -}}
{{- end -}}

{{/*
The same for Ray, whose entrypoint is text that several programs read: with K8sJobMode and SidecarMode bash in KubeRay's
submitter, then Ray's own quoting (subprocess.list2cmdline), then the shell of Ray's head; with HTTPMode that shell alone.
A word that one of them could change is passed as --encoded=WORD, percent-encoded, and decoded by `golongrl learner`:
in double quotes, which is all the quoting that list2cmdline knows, a shell still reads $, `, " and \.
*/}}
{{- define "golongrl.learner.entrypoint" -}}
{{- range $number, $word := include "golongrl.learner.words" . | fromJsonArray -}}
{{- if $number }} {{ end -}}
{{- if regexMatch "^[A-Za-z0-9_@%+=:,./-]+$" $word -}}
{{- $word -}}
{{- else if regexMatch "^[^$`\"\\\\ ]* [^$`\"\\\\]*$" $word -}}
{{- include "golongrl.shellQuote" $word -}}
{{- else -}}
--encoded={{ urlquery $word }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* One word of a POSIX shell. */}}
{{- define "golongrl.shellQuote" -}}
'{{ replace "'" "'\\''" . }}'
{{- end -}}

{{- define "golongrl.learner.podMetadata" -}}
labels:
  {{- include "golongrl.podLabels" (list . "learner" .Values.learner) | nindent 2 }}
{{- with .Values.learner.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* "rayjob" or "job". A server lists both kinds and groups; `helm template --api-versions` only what it was given. */}}
{{- define "golongrl.learner.kind" -}}
{{- $mode := .Values.learner.mode -}}
{{- if eq $mode "auto" -}}
{{- ternary "rayjob" "job" (or (.Capabilities.APIVersions.Has "ray.io/v1/RayJob") (.Capabilities.APIVersions.Has "ray.io/v1")) -}}
{{- else -}}
{{- $mode -}}
{{- end -}}
{{- end -}}

{{/*
The learner's name ends in a hash of everything that it runs. Jobs are immutable, so a changed learner is a new job, which
resumes from the checkpoint of the old one (the queue refuses the old learner from then on). An upgrade that does not
change the learner leaves its job running.
*/}}
{{- define "golongrl.learner.name" -}}
{{- $spec := include (printf "golongrl.learner.%s.spec" (include "golongrl.learner.kind" .)) . -}}
{{- $hash := printf "%s%s" (include "golongrl.recipe" .) $spec | sha256sum | trunc 8 -}}
{{- printf "%s-learner-%s" (include "golongrl.fullname" .) $hash -}}
{{- end -}}

{{- define "golongrl.learner.check" -}}
{{- $ranks := include "golongrl.setting" (list . "learner" "ranks") | int -}}
{{- $workers := .Values.learner.workers -}}
{{- $gpus := mul (int $workers.replicas) (int $workers.gpus) -}}
{{- if and (not .Values.learner.clusterSelector) (gt $gpus 0) (ne $gpus $ranks) -}}
{{- fail (printf "learner.workers: %d replicas x %d gpus are not the recipe's learner.ranks %d; the two must be equal" (int $workers.replicas) (int $workers.gpus) $ranks) -}}
{{- end -}}
{{- if and (gt (int $workers.replicas) 0) (eq (include "golongrl.learner.kind" .) "job") -}}
{{- fail "learner.workers.replicas: a plain Job has only one pod; install KubeRay, or render with --api-versions ray.io/v1" -}}
{{- end -}}
{{- include "golongrl.learner.checkRayJob" . -}}
{{- end -}}

{{- define "golongrl.learner.checkRayJob" -}}
{{- if and (ne .Values.learner.gang.scheduler "none") (not .Values.learner.gang.queue) -}}
{{- fail "learner.gang.queue names no queue, which learner.gang.scheduler needs" -}}
{{- end -}}
{{- if and (eq .Values.learner.gang.scheduler "none") .Values.learner.gang.queue -}}
{{- fail "learner.gang.queue: learner.gang.scheduler is none, so that nobody reads it; set the scheduler, or remove the queue" -}}
{{- end -}}
{{- if has .Values.learner.gang.scheduler (list "kueue" "volcano") -}}
{{- include "golongrl.check.name" (list "learner.gang.queue" .Values.learner.gang.queue "queue") -}}
{{- end -}}
{{- if and .Values.model.existingClaim .Values.model.imageVolume.reference -}}
{{- fail "model: existingClaim and imageVolume.reference are both mounted at /models; remove one of them" -}}
{{- end -}}
{{- if and .Values.learner.clusterSelector (eq .Values.learner.submissionMode "SidecarMode") -}}
{{- fail "learner.submissionMode: SidecarMode does not work with an existing cluster; unset learner.clusterSelector" -}}
{{- end -}}
{{- if and (ne .Values.learner.gang.scheduler "none") .Values.learner.clusterSelector -}}
{{- fail "learner.gang: an existing cluster cannot be gang scheduled; unset learner.clusterSelector" -}}
{{- end -}}
{{- end -}}
