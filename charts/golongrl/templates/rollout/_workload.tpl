{{/*
The pool: (list $ LABELS). A Deployment, or a LeaderWorkerSet if an engine has several nodes. rollout/deployment.yaml and
rollout/leaderworkerset.yaml install it; operator/release.yaml hands it to the operator, which makes pools like it for
runs that cannot share the release's.
*/}}
{{- define "golongrl.rollout.workload" -}}
{{- $root := index . 0 -}}
{{- $rollout := $root.Values.rollout -}}
{{- $single := eq (int $rollout.nodes) 1 -}}
apiVersion: {{ ternary "apps/v1" "leaderworkerset.x-k8s.io/v1" $single }}
kind: {{ ternary "Deployment" "LeaderWorkerSet" $single }}
metadata:
  name: {{ include "golongrl.fullname" $root }}-rollout
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- index . 1 | nindent 4 }}
spec:
  # An autoscaler or the operator sets it, and an upgrade would set it back.
  {{- if not (or $rollout.autoscaling.enabled $root.Values.operator.enabled $root.Values.operator.external) }}
  replicas: {{ int $rollout.replicas }}
  {{- end }}
  {{- if $single }}
  # Longer than the drain of an old pod, or the hour in which a first pod waits for weights, plus the slowest load of
  # weights. Otherwise Kubernetes reports a healthy update as failed.
  progressDeadlineSeconds: {{ add (max 3600 (int $rollout.drainSeconds)) (int $rollout.engine.startupSeconds) 900 }}
  selector:
    matchLabels:
      {{- include "golongrl.selector" (list $root "rollout") | nindent 6 }}
  strategy:
    rollingUpdate:
      # No additional pods, because there are rarely free GPUs: an old pod drains before a new one is created.
      maxSurge: 0
      maxUnavailable: {{ $rollout.maxUnavailable }}
  template:
    metadata:
      {{- include "golongrl.rollout.metadata" (list $root "leader") | nindent 6 }}
    spec:
      {{- include "golongrl.rollout.pod" (list $root "leader") | nindent 6 }}
  {{- else }}
  startupPolicy: LeaderCreated
  rolloutStrategy:
    type: RollingUpdate
    rollingUpdateConfiguration:
      maxSurge: 0
      maxUnavailable: {{ $rollout.maxUnavailable }}
  leaderWorkerTemplate:
    size: {{ int $rollout.nodes }}
    # If one rank is lost, all are restarted: the others would wait in a collective operation without end.
    restartPolicy: RecreateGroupOnPodRestart
    leaderTemplate:
      metadata:
        {{- include "golongrl.rollout.metadata" (list $root "leader") | nindent 8 }}
      spec:
        {{- include "golongrl.rollout.pod" (list $root "leader") | nindent 8 }}
    workerTemplate:
      metadata:
        {{- include "golongrl.rollout.metadata" (list $root "follower") | nindent 8 }}
      spec:
        {{- include "golongrl.rollout.pod" (list $root "follower") | nindent 8 }}
  {{- end }}
{{- end -}}
