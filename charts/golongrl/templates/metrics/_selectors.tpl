{{/* Label matchers of a component's series: (list $ "rollout"). */}}
{{- define "golongrl.matchers" -}}
{{- $root := index . 0 -}}
namespace="{{ $root.Release.Namespace }}",pod=~"{{ include "golongrl.fullname" $root }}-{{ index . 1 }}-.*"
{{- end -}}

{{/* "yes" to create objects of the Prometheus operator, "" otherwise: (list $ .Values.metrics.rules.enabled). */}}
{{- define "golongrl.observed" -}}
{{- $enabled := index . 1 -}}
{{- if kindIs "bool" $enabled -}}
{{- ternary "yes" "" $enabled -}}
{{- else -}}
{{- ternary "yes" "" ((index . 0).Capabilities.APIVersions.Has "monitoring.coreos.com/v1") -}}
{{- end -}}
{{- end -}}

{{/* Every series of a run's own pods has the run's name, which the dashboards select by. */}}
{{- define "golongrl.runLabel" -}}
targetLabel: run
replacement: {{ include "golongrl.run" . | quote }}
{{- end -}}

{{/* Seconds of a duration in minutes or hours: "90m". */}}
{{- define "golongrl.seconds" -}}
{{- if hasSuffix "h" . -}}{{ mul 3600 (trimSuffix "h" . | int) }}{{- else -}}{{ mul 60 (trimSuffix "m" . | int) }}{{- end -}}
{{- end -}}
