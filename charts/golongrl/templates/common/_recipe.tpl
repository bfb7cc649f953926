{{/*
The recipe of this release as JSON: the preset, changed by `recipe`. Not merged with sprig, whose merge keeps the old
value if the new one is false, 0 or empty. A null removes the key.
*/}}
{{- define "golongrl.recipe" -}}
{{- $base := dict -}}
{{- with .Values.recipePreset -}}
{{- $text := $.Files.Get (printf "files/recipes/%s.json" .) -}}
{{- if not $text -}}
{{- fail (printf "recipePreset: the chart has no recipe %q; set it to the name of a packaged recipe (golongrl recipe list), or to \"\" with a complete `recipe`" .) -}}
{{- end -}}
{{- $base = fromJson $text -}}
{{- end -}}
{{- $recipe := include "golongrl.merge" (list $base .Values.recipe) | fromJson -}}
{{- range list "name" "model" "data" -}}
{{- if not (hasKey $recipe .) -}}
{{- fail (printf "recipe.%s is missing: without recipePreset the recipe must be complete" .) -}}
{{- end -}}
{{- end -}}
{{- range list "path" "context_length" -}}
{{- if not (hasKey $recipe.model .) -}}
{{- fail (printf "recipe.model.%s is missing: every recipe needs it" .) -}}
{{- end -}}
{{- end -}}
{{- with regexFind "[^\"]*[\\x{7f}-\\x{9f}\\x{fffe}\\x{ffff}][^\"]*" ($recipe | toJson) -}}
{{- fail (printf "recipe: %q has a control character, which YAML cannot hold" .) -}}
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
{{- if eq (include "golongrl.setting" (list . "learner" "weights")) "broadcast" -}}true{{- end -}}
{{- end -}}

{{/* Whether workers keep a copy of the weights, because some versions are stored as deltas: "true" or "". */}}
{{- define "golongrl.weightsCopy" -}}
{{- if and (not (include "golongrl.broadcast" .)) (gt (int (include "golongrl.setting" (list . "learner" "weight_base_every"))) 1) -}}true{{- end -}}
{{- end -}}

{{/* One setting of the recipe as text, or its default: (list $ "queue" "max_staleness"). */}}
{{- define "golongrl.setting" -}}
{{- $root := index . 0 -}}
{{- $section := index . 1 -}}
{{- $key := index . 2 -}}
{{- $recipe := include "golongrl.recipe" $root | fromJson -}}
{{- $defaults := $root.Files.Get "files/recipe-defaults.json" | fromJson -}}
{{- dig $section $key (dig $section $key "" $defaults) $recipe -}}
{{- end -}}

{{/* Where spans are sent, or nothing. Its default is null, which would print as text. */}}
{{- define "golongrl.tracesEndpoint" -}}
{{- with dig "telemetry" "otlp_endpoint" "" (include "golongrl.recipe" . | fromJson) -}}{{- . -}}{{- end -}}
{{- end -}}
