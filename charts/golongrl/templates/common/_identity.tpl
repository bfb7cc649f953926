{{/* What an object is to the API server, whatever the version of its kind: (list $object $namespace). */}}
{{- define "golongrl.identity" -}}
{{- $object := index . 0 -}}
{{- $group := regexReplaceAll "/?[^/]*$" $object.apiVersion "" -}}
{{- printf "%s %s %s/%s" $group $object.kind ($object.metadata.namespace | default (index . 1)) $object.metadata.name -}}
{{- end -}}

{{/* The objects that the chart itself renders with these values, as JSON: identity -> "the chart". */}}
{{- define "golongrl.ownObjects" -}}
{{- $found := dict -}}
{{- range $name := regexSplit "\\s+" (include "golongrl.templates" .) -1 -}}
{{- range regexSplit "(?m)^---$" (include (printf "%s/%s.yaml" $.Template.BasePath $name) $) -1 -}}
{{- with fromYaml . -}}
{{- $_ := set $found (include "golongrl.identity" (list . $.Release.Namespace)) "the chart" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* All templates of objects: Helm does not tell a chart which it has (tests/charts/test_shapes.py compares). */}}
{{- define "golongrl.templates" -}}
common/rbac common/recipe common/secret common/serviceaccounts common/storage
construction/jobs construction/passrate
evaluation/job evaluation/pool
learner/job learner/pdb learner/rayjob
metrics/dashboards metrics/monitors metrics/rules
network/policies
operator/deployment operator/metrics operator/rbac operator/release operator/serviceaccount operator/trainingrun
redis/config redis/pdb redis/service redis/statefulset
reward/deployment reward/hpa reward/pdb reward/service
rollout/deployment rollout/leaderworkerset rollout/pdb rollout/scaledobject
tests/smoke
{{- end -}}
