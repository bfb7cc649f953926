{{/* What the evaluation runs, as JSON. */}}
{{- define "golongrl.evaluation.command" -}}
{{- $store := include "golongrl.store" . -}}
{{- with .Values.evaluation -}}
{{- $pool := eq .target "pool" -}}
{{- $gpus := int .gpus -}}
{{- if and $pool (or $.Values.operator.enabled $.Values.operator.external) -}}
{{- fail "evaluation.target: pool is for a release without the operator, which evaluates the weights of runs that have ended" -}}
{{- end -}}
{{- if and $pool $gpus -}}
{{- fail "evaluation.gpus: must be 0 with evaluation.target pool, whose engines have GPUs of their own" -}}
{{- end -}}
{{- if and $gpus (include "golongrl.isLearnerImage" .image.repository) -}}
{{- fail "evaluation.image: golongrl/golongrl-learner has no SGLang, which evaluation.gpus needs; name an image that has it (docs/evaluation.md says how to build one), or set evaluation.gpus to 0" -}}
{{- end -}}
{{- $known := $.Files.Get "files/suites.json" | fromJsonArray -}}
{{- if and (include "golongrl.isLearnerImage" .image.repository) (not (has .suite $known)) -}}
{{- fail (printf "evaluation.suite: '%s' is none of %s" .suite (join ", " $known)) -}}
{{- end -}}
{{- $words := list "golongrl" "eval" "run" .suite "--target" -}}
{{- if $pool -}}
{{- $words = append $words (printf "release:%s" (include "golongrl.fullname" $)) -}}
{{- $model := (include "golongrl.recipe" $ | fromJson).model.path -}}
{{- with .tokenizer | default (ternary $model "" (hasPrefix "/store/" $model)) -}}
{{- $words = concat $words (list "--tokenizer" .) -}}
{{- end -}}
{{- else -}}
{{- $words = concat $words (list (printf "%s/run" $store) "--last") -}}
{{- end -}}
{{- $words = concat $words (list "--data" (printf "%s/%s" $store .data) "--out" (printf "%s/evals/%s" $store .suite)) -}}
{{- $words = concat $words (list "--metrics-host" "0.0.0.0" "--metrics-port" "8090") -}}
{{- /* The kubelet keeps this file's text in the pod's status, from where the operator reads the scores. */}}
{{- $words = concat $words (list "--summary" "/dev/termination-log") -}}
{{- with .judge.url -}}
{{- $words = concat $words (list "--judge" .) -}}
{{- end -}}
{{- with .judge.model -}}
{{- $words = concat $words (list "--judge-model" .) -}}
{{- end -}}
{{- if $gpus -}}
{{- range list "target.engine=sglang" (printf "target.gpus=%d" $gpus) (printf "target.sglang_venv=%s" .sglangPrefix) -}}
{{- $words = concat $words (list "--set" .) -}}
{{- end -}}
{{- end -}}
{{- toJson (concat $words (.args | default list)) -}}
{{- end -}}
{{- end -}}

{{/*
The evaluation Job: (list $ NAME LABELS). evaluation/job.yaml installs it; operator/release.yaml hands it to the operator,
which names each run's suite, weights and folder.
*/}}
{{- define "golongrl.evaluation.job" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $labels := index . 2 -}}
{{- with $root.Values.evaluation -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- $labels | nindent 4 }}
spec:
  backoffLimit: {{ int .backoffLimit }}
  # A pod that was evicted by a drain does not count as a failure.
  podFailurePolicy:
    rules:
      - action: Ignore
        onPodConditions:
          - {type: DisruptionTarget, status: "True"}
  {{- with int .activeDeadlineSeconds }}
  activeDeadlineSeconds: {{ . }}
  {{- end }}
  template:
    metadata:
      labels:
        {{- include "golongrl.podLabels" (list $root "evaluation" .) | nindent 8 }}
      {{- with .podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      {{- include "golongrl.podCommon" (list $root "evaluation" .) | nindent 6 }}
      restartPolicy: Never
      # Engines are stopped and the report is written.
      terminationGracePeriodSeconds: 60
      containers:
        - name: evaluation
          image: {{ include "golongrl.image" (list $root .image) | quote }}
          imagePullPolicy: {{ .image.pullPolicy }}
          # A dollar sign is doubled: Kubernetes would replace $(NAME) by a variable.
          command: {{ include "golongrl.evaluation.command" $root | replace "$" "$$" }}
          # What a failed evaluation said last.
          terminationMessagePolicy: FallbackToLogsOnError
          env:
            {{- include "golongrl.envHome" $root | nindent 12 }}
            {{- include "golongrl.learner.env.token" (list "GOLONGRL_JUDGE_API_KEY" .judge) | nindent 12 }}
            {{- if eq .target "pool" }}
            {{- include "golongrl.envSecret" (list $root "GOLONGRL_EVAL_API_KEY" "engine-api-key") | nindent 12 }}
            {{- end }}
            {{- with .env }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - {name: http, containerPort: 8090}
          resources:
            {{- include "golongrl.resources" (list .resources .gpuResource .gpus dict) | nindent 12 }}
          securityContext:
            {{- include "golongrl.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            - {name: store, mountPath: /store}
            - {name: tmp, mountPath: /tmp}
            - {name: shm, mountPath: /dev/shm}
      volumes:
        - name: store
          persistentVolumeClaim:
            claimName: {{ include "golongrl.claim" $root | quote }}
        {{- include "golongrl.scratch" .scratch | nindent 8 }}
        - name: shm
          emptyDir:
            medium: Memory
            sizeLimit: {{ .sharedMemory | quote }}
{{- end -}}
{{- end -}}
