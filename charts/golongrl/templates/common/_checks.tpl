{{/*
Values that do not fit each other, which a schema cannot say: refused with their path, as the API server would refuse the
object. The walk finds them wherever they stand, by the keys that Kubernetes gives them: (list "learner" $value $known),
with the variables that the chart sets (env) and the registry of all images.
*/}}
{{- define "golongrl.check" -}}
{{- $path := index . 0 -}}
{{- $value := index . 1 -}}
{{- $known := index . 2 -}}
{{- if kindIs "map" $value -}}
{{- include "golongrl.check.keys" . -}}
{{- range $key, $part := $value -}}
{{- include "golongrl.check.prefix" (list $path $key) -}}
{{- if has $key (list "key" "topologyKey" "resource" "gpuResource") -}}
{{- include "golongrl.check.prefix" (list (printf "%s.%s" $path $key) (toString $part)) -}}
{{- end -}}
{{- if has $key (list "env" "tolerations" "topologySpreadConstraints" "matchExpressions" "ports" "to" "subjects") -}}
{{- range $number, $entry := $part -}}
{{- include (printf "golongrl.check.%s" $key) (list (printf "%s.%s.%d" $path $key $number) $entry $known) -}}
{{- end -}}
{{- end -}}
{{- include "golongrl.check" (list (printf "%s.%s" $path $key | trimPrefix ".") $part $known) -}}
{{- end -}}
{{- else if kindIs "slice" $value -}}
{{- range $number, $part := $value -}}
{{- include "golongrl.check" (list (printf "%s.%d" $path $number) $part $known) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Keys of one mapping that depend on each other. */}}
{{- define "golongrl.check.keys" -}}
{{- $path := index . 0 -}}
{{- $value := index . 1 -}}
{{- range $key := list "env" "topologySpreadConstraints" -}}
{{- $seen := list -}}
{{- range $entry := get $value $key | default list -}}
{{- $name := $entry.name | default (printf "%s, %s" $entry.topologyKey $entry.whenUnsatisfiable) -}}
{{- if has $name $seen -}}
{{- fail (printf "%s.%s: %s stands there twice" $path $key $name) -}}
{{- end -}}
{{- $seen = append $seen $name -}}
{{- end -}}
{{- end -}}
{{- range $key := list "matchLabelKeys" "mismatchLabelKeys" -}}
{{- with get $value $key -}}
{{- if not $value.labelSelector -}}
{{- fail (printf "%s.%s: needs a labelSelector" $path $key) -}}
{{- end -}}
{{- $known := keys ($value.labelSelector.matchLabels | default dict) -}}
{{- range $value.labelSelector.matchExpressions }}{{ $known = append $known .key }}{{ end -}}
{{- if eq $key "matchLabelKeys" }}{{ $known = concat $known ($value.mismatchLabelKeys | default list) }}{{ end -}}
{{- range . -}}
{{- include "golongrl.check.prefix" (list (printf "%s.%s" $path $key) .) -}}
{{- if has . $known -}}
{{- fail (printf "%s.%s: %s stands there twice, or in the labelSelector or mismatchLabelKeys too" $path $key .) -}}
{{- end -}}
{{- $known = append $known . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $value.ipBlock -}}
{{- $cidr := .cidr -}}
{{- range .except -}}
{{- if not (include "golongrl.within" (list . $cidr)) -}}
{{- fail (printf "%s.ipBlock.except: %s is not a part of the cidr %s" $path . $cidr) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if hasKey $value "repository" -}}
{{- $registry := (index . 2).registry | default $value.registry -}}
{{- if gt (len (printf "%s/%s" $registry $value.repository)) 255 -}}
{{- fail (printf "%s: registry (or global.imageRegistry) and repository have more than 255 characters together" $path) -}}
{{- end -}}
{{- end -}}
{{- if gt (len (regexReplaceAll "(:[^/:@]+)?(@.*)?$" ($value.reference | default "" | toString) "")) 255 -}}
{{- fail (printf "%s.reference: has more than 255 characters before its tag" $path) -}}
{{- end -}}
{{- if or $value.requests $value.limits -}}
{{- include "golongrl.check.resources" . -}}
{{- end -}}
{{- if and (hasKey $value "tensorParallel") (has (int $value.port) (list 8090 20000 20001)) -}}
{{- fail (printf "%s.port: %d is used by the worker, or between the nodes of an engine; choose another" $path (int $value.port)) -}}
{{- end -}}
{{- if hasKey $value "tensorParallel" -}}
{{- range $number, $word := $value.args -}}
{{- if regexMatch "^--config(=|$)" $word -}}
{{- fail (printf "%s.args.%d: %s: the chart gives the engine its keys by this argument; remove it" $path $number $word) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not (hasSuffix ".rayStartParams" $path) -}}
{{- range $key := list "commonLabels" "podLabels" "labels" -}}
{{- range $name, $_ := get $value $key | default dict -}}
{{- if or (regexMatch "^(app\\.kubernetes\\.io/(name|instance|component|version|part-of|managed-by)|helm\\.sh/chart)$" $name) (hasPrefix "golongrl.io/" $name) (hasPrefix "ray.io/" $name) -}}
{{- fail (printf "%s: the chart or KubeRay sets the label %s itself; remove it" (printf "%s.%s" $path $key | trimPrefix ".") $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $key := list "podAnnotations" "annotations" -}}
{{- range $name, $_ := get $value $key | default dict -}}
{{- if or (hasPrefix "checksum/" $name) (hasPrefix "helm.sh/" $name) (hasPrefix "golongrl.io/" $name) -}}
{{- fail (printf "%s.%s: the chart sets the annotation %s itself; remove it" $path $key $name) -}}
{{- end -}}
{{- end -}}
{{- $size := 0 -}}
{{- range $name, $text := get $value $key | default dict }}{{ $size = add $size (len $name) (len $text) }}{{ end -}}
{{- /* Of the 256 KiB that an object may have, the chart's own take less than one. */ -}}
{{- if gt $size 261120 -}}
{{- fail (printf "%s.%s: has %d bytes of names and values, and may have 261120" (trimPrefix "." $path) $key $size) -}}
{{- end -}}
{{- end -}}
{{- else if hasKey $value "labels" -}}
{{- fail (printf "%s.labels: KubeRay refuses it; set podLabels" $path) -}}
{{- end -}}
{{- end -}}

{{/* The part of a qualified name before the slash, which a pattern cannot bound together with its labels. */}}
{{- define "golongrl.check.prefix" -}}
{{- if regexMatch "^[^/]{254,}/" (index . 1) -}}
{{- fail (printf "%s: %s... has more than 253 characters before the slash" (index . 0) (trunc 40 (index . 1))) -}}
{{- end -}}
{{- end -}}

{{/* The name of an object, where other kinds may have others: (list PATH NAME KIND). */}}
{{- define "golongrl.check.name" -}}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" (index . 1)) -}}
{{- fail (printf "%s: no %s is called %s; use lower-case letters, digits, - and ." (index . 0) (index . 2) (index . 1)) -}}
{{- end -}}
{{- end -}}

{{- define "golongrl.check.env" -}}
{{- $path := index . 0 -}}
{{- with index . 1 -}}
{{- if has .name (index $ 2).env -}}
{{- fail (printf "%s: %s is set by the chart, or by another value; remove it here" $path .name) -}}
{{- end -}}
{{- if hasKey . "valueFrom" -}}
{{- if ne (len .valueFrom) 1 -}}
{{- fail (printf "%s.valueFrom: needs exactly one source" $path) -}}
{{- end -}}
{{- with .valueFrom.resourceFieldRef -}}
{{- $divisor := .divisor | default 1 | toString -}}
{{- if and (not (has $divisor (list "0" "1"))) (ne (eq $divisor "1m") (hasSuffix ".cpu" .resource)) -}}
{{- fail (printf "%s.valueFrom.resourceFieldRef.divisor: %s does not fit %s" $path $divisor .resource) -}}
{{- end -}}
{{- $there := get (index $ 2).containers (regexReplaceAll "\\.env\\.[0-9]+$" $path "") | default list -}}
{{- if and .containerName (not (has .containerName $there)) -}}
{{- fail (printf "%s.valueFrom.resourceFieldRef: not every pod with this variable has a container %s; remove containerName, which then is the variable's own" $path .containerName) -}}
{{- end -}}
{{- end -}}
{{- if .value -}}
{{- fail (printf "%s: %s has a value and valueFrom; remove one of them" $path .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Containers that are in every pod which gets the variables of a part, as JSON: part -> names. The API server takes any name,
and the kubelet never starts a container that asks for another's resources which is not there.
*/}}
{{- define "golongrl.check.containers" -}}
{{- $main := ternary "ray-head" "learner" (eq (include "golongrl.learner.kind" .) "rayjob") -}}
{{- $learner := ternary (list $main "prepare-data") list (eq (int .Values.learner.workers.replicas) 0) -}}
{{- $construction := ternary list (list "construction") .Values.construction.ray.enabled -}}
{{- $engine := ternary (list "engine" "worker") (list "engine") (eq (int .Values.rollout.nodes) 1) -}}
{{- $found := dict "learner" $learner "construction" $construction "rollout" (list "worker" "engine") "rollout.engine" $engine -}}
{{- range list "redis" "reward" "operator" "evaluation" }}{{ $_ := set $found . (list .) }}{{ end -}}
{{- range list "small" "small.engine" "large" "large.engine" -}}
{{- $_ := set $found (printf "construction.passrate.%s" .) (list "engine" "worker") -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/*
What only a parent chart may set: its own charts' global values, and whether it has this one, once. Selectors are made of
the release's name: of two copies the Services of each would send to the pods of both. All charts of a release share .Release.
*/}}
{{- define "golongrl.check.root" -}}
{{- with .Release.golongrl -}}
{{- fail (printf "the release has this chart twice, as %s and as %s; install the second as a release of its own" . $.Chart.Name) -}}
{{- end -}}
{{- $_ := set .Release "golongrl" .Chart.Name -}}
{{- if .Chart.IsRoot -}}
{{- range $key, $_ := omit .Values.global "imageRegistry" "imagePullSecrets" -}}
{{- fail (printf "global.%s: no such key; only a parent chart may have others than imageRegistry and imagePullSecrets" $key) -}}
{{- end -}}
{{- if eq .Values.enabled false -}}
{{- fail "enabled: is for the condition of a parent chart; remove it, or run `helm uninstall` to end the release" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Names of Secrets, and variables of the collective libraries, which stand beside the chart's own. */}}
{{- define "golongrl.check.lists" -}}
{{- $secrets := .Values.global.imagePullSecrets | default list -}}
{{- if ne (len $secrets) (len (uniq $secrets)) -}}
{{- fail "global.imagePullSecrets: a name stands there twice" -}}
{{- end -}}
{{- $own := concat (include "golongrl.ownEnv" . | fromJsonArray) (list "OMP_NUM_THREADS" "OMP_WAIT_POLICY") -}}
{{- range $name, $_ := .Values.network.ncclEnv -}}
{{- if has $name $own -}}
{{- fail (printf "network.ncclEnv: %s is set by the chart, or by another value; remove it here" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Variables that the chart sets; those of the libraries' threads give way to the user's. */}}
{{- define "golongrl.takenEnv" -}}
{{- concat (include "golongrl.ownEnv" . | fromJsonArray) (keys (.Values.network.ncclEnv | default dict)) | toJson -}}
{{- end -}}

{{- define "golongrl.ownEnv" -}}
{{- $names := splitList " " "HOME USER LOGNAME HF_HOME REDISCLI_AUTH RAY_USAGE_STATS_ENABLED RAY_JOB_STOP_WAIT_TIME_S SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION" -}}
{{- if .Values.network.socketInterface }}{{ $names = concat $names (list "NCCL_SOCKET_IFNAME" "GLOO_SOCKET_IFNAME") }}{{ end -}}
{{- if .Values.huggingface.existingSecret }}{{ $names = append $names "HF_TOKEN" }}{{ end -}}
{{- if .Values.wandb.existingSecret }}{{ $names = append $names "WANDB_API_KEY" }}{{ end -}}
{{- if .Values.evaluation.judge.existingSecret }}{{ $names = append $names "GOLONGRL_JUDGE_API_KEY" }}{{ end -}}
{{- if .Values.construction.llm.existingSecret }}{{ $names = append $names "GOLONGRL_LLM_API_KEY" }}{{ end -}}
{{- if include "golongrl.tracesEndpoint" . }}{{ $names = concat $names (splitList " " "OTEL_EXPORTER_OTLP_ENDPOINT OTEL_EXPORTER_OTLP_HEADERS OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") }}{{ end -}}
{{- range splitList " " "RUN RECIPE DATA WEIGHTS WEIGHTS_COPY REDIS_URL REDIS_PASSWORD WORKER ENGINE_URL ENGINE_API_KEY ENGINE_ADMIN_API_KEY REWARD_URL REWARD_TOKEN EVAL_API_KEY POD_IP" -}}
{{- $names = append $names (printf "GOLONGRL_%s" .) -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{/* Threads that spin would slow down the other processes of a small machine: (list $env), the user's variables. */}}
{{- define "golongrl.envThreads" -}}
{{- $given := list -}}
{{- range index . 0 }}{{ $given = append $given .name }}{{ end -}}
{{- range $name, $value := dict "OMP_NUM_THREADS" "1" "OMP_WAIT_POLICY" "passive" -}}
{{- if not (has $name $given) }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "golongrl.check.tolerations" -}}
{{- $path := index . 0 -}}
{{- $operator := (index . 1).operator | default "Equal" -}}
{{- if and (not (index . 1).key) (ne $operator "Exists") -}}
{{- fail (printf "%s: operator %s needs a key; without a key the operator must be Exists" $path $operator) -}}
{{- end -}}
{{- with index . 1 -}}
{{- if and .value (eq $operator "Exists") -}}
{{- fail (printf "%s: operator Exists takes no value; remove value, or use Equal" $path) -}}
{{- end -}}
{{- if and (has $operator (list "Lt" "Gt")) (not (regexMatch "^(0|[1-9][0-9]{0,18})$" (.value | default ""))) -}}
{{- fail (printf "%s.value: operator %s needs a whole number" $path $operator) -}}
{{- end -}}
{{- if and (hasKey . "tolerationSeconds") (ne (.effect | default "") "NoExecute") -}}
{{- fail (printf "%s: tolerationSeconds needs the effect NoExecute" $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "golongrl.check.topologySpreadConstraints" -}}
{{- $path := index . 0 -}}
{{- with index . 1 -}}
{{- if and .minDomains (ne .whenUnsatisfiable "DoNotSchedule") -}}
{{- fail (printf "%s: minDomains needs whenUnsatisfiable DoNotSchedule" $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "golongrl.check.matchExpressions" -}}
{{- $path := index . 0 -}}
{{- with index . 1 -}}
{{- $values := len (.values | default list) -}}
{{- if and (has .operator (list "In" "NotIn")) (eq $values 0) -}}
{{- fail (printf "%s: operator %s needs values" $path .operator) -}}
{{- else if and (has .operator (list "Exists" "DoesNotExist")) (gt $values 0) -}}
{{- fail (printf "%s: operator %s takes no values" $path .operator) -}}
{{- else if and (has .operator (list "Gt" "Lt")) (or (ne $values 1) (not (regexMatch "^[0-9]{1,18}$" (first (append (.values | default list) ""))))) -}}
{{- fail (printf "%s: operator %s needs one value, a whole number" $path .operator) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "golongrl.check.ports" -}}
{{- $path := index . 0 -}}
{{- with index . 1 -}}
{{- if hasKey . "endPort" -}}
{{- if not (kindIs "float64" .port | or (kindIs "int64" .port) (kindIs "int" .port)) -}}
{{- fail (printf "%s: endPort needs a port that is a number" $path) -}}
{{- else if lt (int .endPort) (int .port) -}}
{{- fail (printf "%s: endPort %d is below port %d" $path (int .endPort) (int .port)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "golongrl.check.to" -}}
{{- $path := index . 0 -}}
{{- with index . 1 -}}
{{- if and (hasKey . "ipBlock") (gt (len .) 1) -}}
{{- fail (printf "%s: ipBlock excludes podSelector and namespaceSelector; make two peers of it" $path) -}}
{{- end -}}
{{- else -}}
{{- fail (printf "%s: names nobody; set podSelector, namespaceSelector or ipBlock, or remove it" $path) -}}
{{- end -}}
{{- end -}}

{{- define "golongrl.check.subjects" -}}
{{- $path := index . 0 -}}
{{- with index . 1 -}}
{{- if eq .kind "ServiceAccount" -}}
{{- if not .namespace -}}
{{- fail (printf "%s: a ServiceAccount needs its namespace" $path) -}}
{{- end -}}
{{- include "golongrl.check.name" (list (printf "%s.name" $path) .name "ServiceAccount") -}}
{{- if .apiGroup -}}
{{- fail (printf "%s.apiGroup: must be empty for a ServiceAccount" $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "golongrl.check.resources" -}}
{{- $path := index . 0 -}}
{{- $requests := (index . 1).requests | default dict -}}
{{- $limits := (index . 1).limits | default dict -}}
{{- range $name, $request := $requests -}}
{{- $extended := or (contains "/" $name) (hasPrefix "hugepages-" $name) -}}
{{- if hasKey $limits $name -}}
{{- $limit := get $limits $name -}}
{{- $least := include "golongrl.amount" $request | float64 -}}
{{- $most := include "golongrl.amount" $limit | float64 -}}
{{- if gt $least $most -}}
{{- fail (printf "%s: requests.%s %v is more than limits.%s %v" $path $name $request $name $limit) -}}
{{- else if and $extended (lt $least $most) -}}
{{- fail (printf "%s: requests.%s %v and limits.%s %v must be equal" $path $name $request $name $limit) -}}
{{- end -}}
{{- else if $extended -}}
{{- fail (printf "%s: requests.%s needs a limit of the same amount" $path $name) -}}
{{- end -}}
{{- end -}}
{{- range $part, $amounts := dict "requests" $requests "limits" $limits -}}
{{- range $name, $amount := $amounts -}}
{{- if or (hasPrefix "kubernetes.io/" $name) (hasPrefix "requests." $name) -}}
{{- fail (printf "%s.%s: %s is not a resource of a container" $path $part $name) -}}
{{- end -}}
{{- if and (hasPrefix "hugepages-" $name) (not (or $requests.cpu $requests.memory $limits.cpu $limits.memory)) -}}
{{- fail (printf "%s.%s: %s needs an amount of cpu or memory too" $path $part $name) -}}
{{- end -}}
{{- if hasPrefix "hugepages-" $name -}}
{{- $page := include "golongrl.amount" (trimPrefix "hugepages-" $name) | float64 | int64 -}}
{{- if mod (include "golongrl.amount" $amount | float64 | int64) $page -}}
{{- fail (printf "%s.%s.%s: %v is no multiple of the page" $path $part $name $amount) -}}
{{- end -}}
{{- end -}}
{{- if and (contains "/" $name) (not (regexMatch "^[0-9]+([kMGTPE]i?|Ki)?$" (toString $amount))) -}}
{{- fail (printf "%s.%s.%s: %v is not a whole number" $path $part $name $amount) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* An amount as a plain number: "1.5Gi". */}}
{{- define "golongrl.amount" -}}
{{- if not (kindIs "string" .) -}}
{{- printf "%f" (float64 .) -}}
{{- else -}}
{{- $suffix := regexFind "([KMGTPE]i|[numkMGTPE])$" . -}}
{{- $units := dict "" 1.0 "n" 0.000000001 "u" 0.000001 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 -}}
{{- printf "%.9f" (mulf (trimSuffix $suffix . | float64) (get $units $suffix)) -}}
{{- end -}}
{{- end -}}

{{/* Not empty if one range of addresses is a true part of another: (list "10.1.0.0/16" "10.0.0.0/8"). */}}
{{- define "golongrl.within" -}}
{{- $inner := splitList "/" (index . 0) -}}
{{- $outer := splitList "/" (index . 1) -}}
{{- $groups := include "golongrl.groups" (first $inner) | fromYamlArray -}}
{{- $others := include "golongrl.groups" (first $outer) | fromYamlArray -}}
{{- $width := ternary 8 16 (eq (len $groups) 4) -}}
{{- $same := and (eq (len $groups) (len $others)) (gt (last $inner | int) (last $outer | int)) -}}
{{- if $same -}}
{{- range $number, $group := $groups -}}
{{- /* How much of this group the outer mask leaves open. */ -}}
{{- $open := 1 -}}
{{- range until (min $width (max 0 (sub (mul (add1 $number) $width) (last $outer | int))) | int) }}{{ $open = mul $open 2 }}{{ end -}}
{{- if ne (div (int $group) $open) (div (index $others $number | int) $open) }}{{ $same = false }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if $same }}true{{ end -}}
{{- end -}}

{{/* The groups of an address as a list of numbers: four of IPv4, eight of IPv6. */}}
{{- define "golongrl.groups" -}}
{{- if not (contains ":" .) -}}
[{{ splitList "." . | join ", " }}]
{{- else -}}
{{- $address := . -}}
{{- with regexFind "[0-9]+\\.[0-9.]+$" . -}}
{{- $tail := splitList "." . -}}
{{- $pairs := printf "%x:%x" (add (mul (index $tail 0 | int) 256) (index $tail 1 | int)) (add (mul (index $tail 2 | int) 256) (index $tail 3 | int)) -}}
{{- $address = printf "%s%s" (trimSuffix . $address) $pairs -}}
{{- end -}}
{{- $given := regexFindAll "[0-9A-Fa-f]+" $address -1 | len -}}
{{- $zeros := printf ":%s" (repeat (sub 8 $given | max 0 | int) "0:") -}}
{{- $groups := list -}}
{{- range regexFindAll "[0-9A-Fa-f]+" (replace "::" $zeros $address) -1 -}}
{{- $number := 0 -}}
{{- range splitList "" (lower .) }}{{ $number = add (mul $number 16) (regexFind (printf "^[^%s]*" .) "0123456789abcdef" | len) }}{{ end -}}
{{- $groups = append $groups $number -}}
{{- end -}}
{{- toJson $groups -}}
{{- end -}}
{{- end -}}
