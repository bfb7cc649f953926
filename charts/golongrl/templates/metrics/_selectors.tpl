{{/* Label matchers of a component's series: (list $ "rollout"). */}}
{{- define "golongrl.matchers" -}}
{{- $root := index . 0 -}}
namespace="{{ $root.Release.Namespace }}",pod=~"{{ include "golongrl.fullname" $root }}-{{ index . 1 }}-.*"
{{- end -}}
