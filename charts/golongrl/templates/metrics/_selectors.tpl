{{/*
Label matchers of a component's series: (list $ "rollout"). Pods of a release whose own name is FULLNAME-rollout have a
component's name after that, and are not ours.
*/}}
{{- define "golongrl.matchers" -}}
{{- $root := index . 0 -}}
{{- $pods := printf "%s-%s" (include "golongrl.fullname" $root) (index . 1) -}}
namespace="{{ $root.Release.Namespace }}",pod=~"{{ $pods }}-.*",pod!~"{{ $pods }}-(.*-)?(redis|reward|rollout|learner|operator|evaluation|data|passrate)-.*"
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
