{{/* A stage, or with "" all of them, on a Ray cluster of its own: (list $ "sources" HASH). Its head runs the stages. */}}
{{- define "golongrl.construction.rayjob" -}}
{{- $root := index . 0 -}}
{{- $values := $root.Values.construction -}}
{{- $learner := $root.Values.learner -}}
apiVersion: ray.io/v1
kind: RayJob
metadata:
  # KubeRay allows 47 characters, too few for the stage's name.
  name: {{ include "golongrl.fullname" $root }}-data-{{ index . 2 }}
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- include "golongrl.labels" (list $root "construction") | nindent 4 }}
    golongrl.io/stage: {{ index . 1 | default "all" }}
spec:
  # No word of it means anything to a shell: names and folders are checked by the values' schema.
  entrypoint: {{ include "golongrl.construction.words" . | fromJsonArray | join " " | quote }}
  submissionMode: {{ $learner.submissionMode }}
  # A retry makes what is missing.
  backoffLimit: {{ int $values.backoffLimit }}
  shutdownAfterJobFinishes: true
  ttlSecondsAfterFinished: {{ int $values.ray.ttlSecondsAfterFinished }}
  {{- with int $values.activeDeadlineSeconds }}
  activeDeadlineSeconds: {{ . }}
  {{- end }}
  {{- if eq $learner.submissionMode "K8sJobMode" }}
  submitterConfig:
    backoffLimit: 2
  submitterPodTemplate:
    metadata:
      {{- include "golongrl.construction.podMetadata" $root | nindent 6 }}
    spec:
      {{- include "golongrl.podCommon" (list $root "construction" $values) | nindent 6 }}
      restartPolicy: Never
      containers:
        - name: submitter
          {{- include "golongrl.construction.container" $root | nindent 10 }}
          env:
            {{- include "golongrl.envHome" $root | nindent 12 }}
          resources:
            {{- include "golongrl.resources" (list $learner.submitter) | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
      volumes:
        {{- include "golongrl.scratch" "1Gi" | nindent 8 }}
  {{- end }}
  rayClusterSpec:
    rayVersion: {{ include "golongrl.rayVersion" $root | quote }}
    {{- if $learner.tokenAuthentication }}
    authOptions:
      mode: token
    {{- end }}
    headGroupSpec:
      rayStartParams:
        dashboard-host: 0.0.0.0
      template:
        metadata:
          {{- include "golongrl.construction.podMetadata" $root | nindent 10 }}
        spec:
          {{- include "golongrl.podCommon" (list $root "construction" $values) | nindent 10 }}
          containers:
            - name: ray-head
              {{- include "golongrl.construction.container" $root | nindent 14 }}
              env:
                {{- include "golongrl.construction.env.driver" $root | nindent 16 }}
              ports:
                - {name: gcs-server, containerPort: 6379}
                - {name: dashboard, containerPort: 8265}
                - {name: client, containerPort: 10001}
                - {name: http, containerPort: 8090}
              resources:
                {{- include "golongrl.resources" (list $values.resources) | nindent 16 }}
              volumeMounts:
                {{- include "golongrl.construction.mounts" $root | nindent 16 }}
                {{- include "golongrl.construction.tokenMount" . | nindent 16 }}
          volumes:
            {{- include "golongrl.construction.volumes" $root | nindent 12 }}
            {{- include "golongrl.construction.tokenVolume" . | nindent 12 }}
    workerGroupSpecs:
      - groupName: tasks
        replicas: {{ int $values.ray.replicas }}
        minReplicas: {{ int $values.ray.replicas }}
        maxReplicas: {{ int $values.ray.replicas }}
        rayStartParams: {}
        template:
          metadata:
            {{- include "golongrl.construction.podMetadata" $root | nindent 12 }}
          spec:
            {{- include "golongrl.podCommon" (list $root "construction" $values) | nindent 12 }}
            containers:
              - name: ray-worker
                {{- include "golongrl.construction.container" $root | nindent 16 }}
                env:
                  {{- include "golongrl.construction.env.task" $root | nindent 18 }}
                resources:
                  {{- include "golongrl.resources" (list $values.ray.resources) | nindent 18 }}
                volumeMounts:
                  {{- include "golongrl.construction.mounts" $root | nindent 18 }}
            volumes:
              {{- include "golongrl.construction.volumes" $root | nindent 14 }}
{{- end -}}
