{{/*
The RayJob: (list $ NAME LABELS). learner/rayjob.yaml installs it; operator/release.yaml hands it to the operator, and to
`golongrl render rayjob`, which change its recipe and its name.
*/}}
{{- define "golongrl.learner.rayjob" -}}
{{- $root := index . 0 -}}
apiVersion: ray.io/v1
kind: RayJob
metadata:
  name: {{ index . 1 }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- index . 2 | nindent 4 }}
    {{- with $root.Values.learner.gang }}
    {{- if eq .scheduler "kueue" }}
    # Kueue's webhook suspends a new job with this label and releases it when the whole cluster fits. `suspend` is not set
    # here: an upgrade would stop a running job, or fail because the field belongs to Kueue.
    kueue.x-k8s.io/queue-name: {{ .queue | quote }}
    {{- else if eq .scheduler "volcano" }}
    ray.io/scheduler-name: volcano
    volcano.sh/queue-name: {{ .queue | quote }}
    {{- else if eq .scheduler "yunikorn" }}
    ray.io/scheduler-name: yunikorn
    ray.io/gang-scheduling-enabled: "true"
    yunikorn.apache.org/app-id: {{ include "golongrl.fullname" $root }}-learner
    yunikorn.apache.org/queue: {{ .queue | quote }}
    {{- end }}
    {{- end }}
spec:
  {{- include "golongrl.learner.rayjob.spec" $root | nindent 2 }}
{{- end -}}

{{- define "golongrl.learner.rayjob.spec" -}}
{{- $learner := .Values.learner -}}
{{- $own := not $learner.clusterSelector -}}
{{- if $own -}}
entrypoint: {{ include "golongrl.learner.entrypoint" . | quote }}
{{- else -}}
{{- /* The pods of an existing cluster have no prepare step of ours. */}}
{{- $prepare := printf "golongrl data prepare /etc/golongrl/recipe.yaml --out %s/data" (include "golongrl.store" .) -}}
{{- $line := printf "%s && exec %s" $prepare (include "golongrl.learner.entrypoint" .) -}}
entrypoint: {{ printf "sh -c %s" (include "golongrl.shellQuote" $line) | quote }}
clusterSelector:
  ray.io/cluster: {{ $learner.clusterSelector | quote }}
{{- end }}
submissionMode: {{ $learner.submissionMode }}
{{- if $own }}
# A retry is a new cluster. The learner resumes from its last checkpoint, and the queue gives it the same groups again.
backoffLimit: {{ int $learner.backoffLimit }}
shutdownAfterJobFinishes: true
ttlSecondsAfterFinished: {{ int $learner.ttlSecondsAfterFinished }}
{{- end }}
{{- with int $learner.activeDeadlineSeconds }}
activeDeadlineSeconds: {{ . }}
{{- end }}
{{- with int $learner.preRunningDeadlineSeconds }}
preRunningDeadlineSeconds: {{ . }}
{{- end }}
{{- if eq $learner.submissionMode "K8sJobMode" }}
submitterConfig:
  backoffLimit: 2
submitterPodTemplate:
  metadata:
    {{- include "golongrl.learner.podMetadata" . | nindent 4 }}
  spec:
    {{- include "golongrl.podCommon" (list . "learner" $learner) | nindent 4 }}
    restartPolicy: Never
    containers:
      - name: submitter
        {{- include "golongrl.learner.container" (list .) | nindent 8 }}
        env:
          {{- include "golongrl.envHome" . | nindent 10 }}
        resources:
          {{- include "golongrl.resources" (list $learner.submitter) | nindent 10 }}
        securityContext:
          {{- include "golongrl.containerSecurity" . | nindent 10 }}
        volumeMounts:
          - {name: tmp, mountPath: /tmp}
    volumes:
      {{- include "golongrl.scratch" "1Gi" | nindent 6 }}
{{- end }}
{{- if $own }}
rayClusterSpec:
  rayVersion: {{ include "golongrl.rayVersion" . | quote }}
  {{- if $learner.tokenAuthentication }}
  # KubeRay makes a Secret with a token for each cluster, and gives it to the cluster's pods and its submitter.
  authOptions:
    mode: token
  {{- end }}
  headGroupSpec:
    rayStartParams:
      dashboard-host: 0.0.0.0
      {{- with $learner.head.rayStartParams }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    template:
      metadata:
        {{- include "golongrl.learner.podMetadata" . | nindent 8 }}
      spec:
        {{- include "golongrl.podCommon" (list . "learner" $learner) | nindent 8 }}
        terminationGracePeriodSeconds: {{ int $learner.drainSeconds }}
        initContainers:
          {{- include "golongrl.learner.prepare" . | trim | nindent 10 }}
        containers:
          - name: ray-head
            {{- include "golongrl.learner.container" (list .) | nindent 12 }}
            env:
              {{- include "golongrl.learner.env.driver" . | nindent 14 }}
              # When KubeRay deletes the RayJob, Ray asks the driver to stop, and kills it after this time (else 3 s).
              - {name: RAY_JOB_STOP_WAIT_TIME_S, value: {{ include "golongrl.learner.drain" . | quote }}}
            {{- include "golongrl.learner.preStop" . | nindent 12 }}
            ports:
              - {name: gcs-server, containerPort: 6379}
              - {name: dashboard, containerPort: 8265}
              - {name: client, containerPort: 10001}
              - {name: metrics, containerPort: 8080}
              - {name: http, containerPort: 8090}
            resources:
              {{- include "golongrl.resources" (list $learner.head.resources) | nindent 14 }}
            securityContext:
              {{- include "golongrl.containerSecurity" . | nindent 14 }}
            volumeMounts:
              {{- include "golongrl.learner.mounts" . | nindent 14 }}
        volumes:
          {{- include "golongrl.learner.volumes" . | nindent 10 }}
  {{- with $learner.workers }}
  {{- if int .replicas }}
  workerGroupSpecs:
    - groupName: ranks
      replicas: {{ int .replicas }}
      minReplicas: {{ int .replicas }}
      maxReplicas: {{ int .replicas }}
      {{- if .rayStartParams }}
      rayStartParams:
        {{- toYaml .rayStartParams | nindent 8 }}
      {{- else }}
      rayStartParams: {}
      {{- end }}
      template:
        metadata:
          {{- include "golongrl.learner.podMetadata" $ | nindent 10 }}
        spec:
          {{- include "golongrl.podCommon" (list $ "learner" $learner) | nindent 10 }}
          terminationGracePeriodSeconds: {{ int $learner.drainSeconds }}
          containers:
            - name: ray-worker
              {{- include "golongrl.learner.container" (list $) | nindent 14 }}
              env:
                {{- include "golongrl.learner.env.ranks" $ | nindent 16 }}
              {{- include "golongrl.learner.preStop" $ | nindent 14 }}
              ports:
                - {name: metrics, containerPort: 8080}
              resources:
                {{- include "golongrl.resources" (list .resources .gpuResource .gpus $.Values.network.rdma) | nindent 16 }}
              securityContext:
                {{- include "golongrl.gpuContainerSecurity" $ | nindent 16 }}
              volumeMounts:
                {{- include "golongrl.learner.mounts" $ | nindent 16 }}
          volumes:
            {{- include "golongrl.learner.volumes" $ | nindent 12 }}
  {{- end }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Version of Ray in the learner's image, which KubeRay needs to know. */}}
{{- define "golongrl.rayVersion" -}}
2.60.0
{{- end -}}
