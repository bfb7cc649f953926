{{/*
The recipe of this release as JSON: the preset, changed by `recipe`. Merged by hand, because sprig's merge keeps the old
value where the new one is false, 0 or empty; a null removes the key.
*/}}
{{- define "golongrl.recipe" -}}
{{- $base := dict -}}
{{- with .Values.recipePreset -}}
{{- $text := $.Files.Get (printf "files/recipes/%s.json" .) -}}
{{- if not $text -}}
{{- fail (printf "recipePreset: the chart has no recipe %q" .) -}}
{{- end -}}
{{- $base = fromJson $text -}}
{{- end -}}
{{- $recipe := include "golongrl.merge" (list $base .Values.recipe) | fromJson -}}
{{- range list "name" "model" "data" -}}
{{- if not (hasKey $recipe .) -}}
{{- fail (printf "recipe.%s is missing: without recipePreset the recipe must be whole" .) -}}
{{- end -}}
{{- end -}}
{{- $recipe | toJson -}}
{{- end -}}

{{- define "golongrl.merge" -}}
{{- $result := deepCopy (index . 0) -}}
{{- range $key, $value := index . 1 -}}
{{- /* Helm's YAML reader takes an unquoted `n:` (recipe.rollout.n) for the boolean false. */ -}}
{{- if eq $key "false" -}}{{- $key = "n" -}}{{- end -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $result $key -}}
{{- else if and (kindIs "map" $value) (kindIs "map" (get $result $key)) -}}
{{- $_ := set $result $key (include "golongrl.merge" (list (get $result $key) $value) | fromJson) -}}
{{- else -}}
{{- $_ := set $result $key $value -}}
{{- end -}}
{{- end -}}
{{- $result | toJson -}}
{{- end -}}

{{/* Whether weights are broadcast between learner and engines: "true" or "". */}}
{{- define "golongrl.broadcast" -}}
{{- $recipe := include "golongrl.recipe" . | fromJson -}}
{{- if eq (dig "learner" "weights" "disk" $recipe) "broadcast" -}}true{{- end -}}
{{- end -}}

{{- define "golongrl.ranks" -}}
{{- $recipe := include "golongrl.recipe" . | fromJson -}}
{{- dig "learner" "ranks" 1 $recipe | int -}}
{{- end -}}
