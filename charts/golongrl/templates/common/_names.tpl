{{/*
Names. Every object is called FULLNAME-COMPONENT. FULLNAME has at most 30 characters, so that the longest name made from
it is within every limit: 47 for a RayJob ("-learner-" and 8 characters of a hash follow), 52 for a LeaderWorkerSet. A
longer FULLNAME is cut and ends in a hash, so that two releases never have the same.
*/}}
{{- define "golongrl.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 30 | trimAll "-." -}}
{{- end -}}

{{- define "golongrl.fullname" -}}
{{- $name := include "golongrl.name" . -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- end -}}
{{- /* Services and RayJobs need a DNS-1035 label: a letter first, no dots. */ -}}
{{- $full = $full | replace "." "-" -}}
{{- if regexMatch "^[0-9]" $full -}}
{{- $full = printf "g%s" $full -}}
{{- end -}}
{{- if gt (len $full) 30 -}}
{{- $full = printf "%s-%s" ($full | trunc 21 | trimSuffix "-") (sha256sum $full | trunc 8) -}}
{{- end -}}
{{- $full -}}
{{- end -}}

{{- define "golongrl.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Selector labels of a component: (list $ "reward"). app.kubernetes.io/name is not among them, because other operators change it. */}}
{{- define "golongrl.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* All labels of a component's objects: (list $ "reward"), or (list $ "reward" $more). */}}
{{- define "golongrl.labels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "golongrl.name" $root | quote }}
{{ include "golongrl.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: golongrl
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ include "golongrl.chart" $root }}
{{- with merge dict (len . | eq 3 | ternary (last .) dict | default dict) ($root.Values.commonLabels | default dict) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of pods: without the chart's version, which would replace every pod at every upgrade. (list $ "reward" $placement) */}}
{{- define "golongrl.podLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "golongrl.name" $root | quote }}
{{ include "golongrl.selector" . }}
app.kubernetes.io/part-of: golongrl
{{- with merge dict ((index . 2).podLabels | default dict) ($root.Values.commonLabels | default dict) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "golongrl.serviceAccountName" -}}
{{- $root := index . 0 -}}
{{- /* A Role is bound to these accounts, which therefore must not be the namespace's default. */ -}}
{{- if or $root.Values.serviceAccount.create (eq (index . 1) "operator") (and (eq (index . 1) "construction") (include "golongrl.passrate" $root)) -}}
{{ include "golongrl.fullname" $root }}-{{ index . 1 }}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{- define "golongrl.authSecret" -}}
{{- .Values.auth.existingSecret | default (printf "%s-auth" (include "golongrl.fullname" .)) -}}
{{- end -}}

{{- define "golongrl.claim" -}}
{{- .Values.storage.existingClaim | default (printf "%s-store" (include "golongrl.fullname" .)) -}}
{{- end -}}

{{/* The folder of this release inside the shared volume. */}}
{{- define "golongrl.store" -}}
{{- with .Values.storage.folder -}}
/store/{{ . }}
{{- else -}}
/store
{{- end -}}
{{- end -}}

{{- define "golongrl.run" -}}
{{- .Values.run | default .Release.Name -}}
{{- end -}}

{{- define "golongrl.redisUrl" -}}
{{- $external := .Values.redis.external -}}
{{- if $external.host -}}
{{ ternary "rediss" "redis" $external.tls }}://{{ $external.host }}:{{ int $external.port }}/{{ int $external.database }}
{{- else -}}
redis://{{ include "golongrl.fullname" . }}-redis:6379/0
{{- end -}}
{{- end -}}

{{- define "golongrl.redisPort" -}}
{{- if .Values.redis.external.host -}}{{ int .Values.redis.external.port }}{{- else -}}6379{{- end -}}
{{- end -}}

{{- define "golongrl.rewardUrl" -}}
http://{{ include "golongrl.fullname" . }}-reward:8080
{{- end -}}

{{/* An image reference: (list $ $image). */}}
{{- define "golongrl.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := $root.Values.global.imageRegistry | default $image.registry -}}
{{- with $registry }}{{ . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest -}}@{{ $image.digest }}{{- else -}}:{{ $image.tag | default $root.Chart.AppVersion }}{{- end -}}
{{- end -}}

{{/* Not empty if the image's repository is the learner's, which has no SGLang. */}}
{{- define "golongrl.isLearnerImage" -}}
{{- if hasSuffix "golongrl/golongrl-learner" . }}true{{ end -}}
{{- end -}}

{{/* Not empty if the release, or a TrainingRun of it, may have evaluation Jobs. */}}
{{- define "golongrl.evaluates" -}}
{{- if or .Values.evaluation.enabled .Values.operator.enabled .Values.operator.external }}true{{ end -}}
{{- end -}}
