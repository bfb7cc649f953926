{{/* A stage, or with "" all of them, in one pod: (list $ "verify" HASH). */}}
{{- define "golongrl.construction.job" -}}
{{- $root := index . 0 -}}
{{- $values := $root.Values.construction -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ include "golongrl.fullname" $root }}-data-{{ index . 1 | default "all" }}-{{ index . 2 }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "golongrl.labels" (list $root "construction") | nindent 4 }}
    golongrl.io/stage: {{ index . 1 | default "all" }}
spec:
  # A retry makes what is missing, and repeats only the calls that were in flight.
  backoffLimit: {{ int $values.backoffLimit }}
  # A pod that was evicted by a drain does not count as a failure.
  podFailurePolicy:
    rules:
      - action: Ignore
        onPodConditions:
          - {type: DisruptionTarget, status: "True"}
  {{- with int $values.activeDeadlineSeconds }}
  activeDeadlineSeconds: {{ . }}
  {{- end }}
  template:
    metadata:
      {{- include "golongrl.construction.podMetadata" $root | nindent 6 }}
    spec:
      {{- include "golongrl.podCommon" (list $root "construction" $values) | nindent 6 }}
      restartPolicy: Never
      containers:
        - name: construction
          {{- include "golongrl.construction.container" $root | nindent 10 }}
          command: {{ include "golongrl.construction.words" . }}
          env:
            {{- include "golongrl.construction.env.driver" $root | nindent 12 }}
          ports:
            - {name: http, containerPort: 8090}
          resources:
            {{- include "golongrl.resources" (list $values.resources) | nindent 12 }}
          volumeMounts:
            {{- include "golongrl.construction.mounts" $root | nindent 12 }}
            {{- include "golongrl.construction.tokenMount" . | nindent 12 }}
      volumes:
        {{- include "golongrl.construction.volumes" $root | nindent 8 }}
        {{- include "golongrl.construction.tokenVolume" . | nindent 8 }}
{{- end -}}
