{{/* The learner without KubeRay: one pod, which starts its own Ray. */}}
{{- define "golongrl.learner.job.spec" -}}
{{- $learner := .Values.learner -}}
# A retry resumes from the last checkpoint.
backoffLimit: {{ int $learner.backoffLimit }}
# A pod that was evicted by a drain does not count as a failure.
podFailurePolicy:
  rules:
    - action: Ignore
      onPodConditions:
        - {type: DisruptionTarget, status: "True"}
{{- with int $learner.activeDeadlineSeconds }}
activeDeadlineSeconds: {{ . }}
{{- end }}
template:
  metadata:
    {{- include "golongrl.learner.podMetadata" . | nindent 4 }}
  spec:
    {{- include "golongrl.podCommon" (list . "learner" $learner) | nindent 4 }}
    restartPolicy: Never
    terminationGracePeriodSeconds: {{ int $learner.drainSeconds }}
    initContainers:
      {{- include "golongrl.learner.prepare" . | trim | nindent 6 }}
    containers:
      - name: learner
        {{- include "golongrl.learner.container" (list .) | nindent 8 }}
        # A dollar sign is doubled: Kubernetes would replace $(NAME) by a variable.
        command: {{ include "golongrl.learner.words" . | replace "$" "$$" }}
        env:
          {{- include "golongrl.learner.env.driver" . | nindent 10 }}
          {{- if include "golongrl.broadcast" . }}
          # The address at which engines ask for weights. The ranks of a local Ray know only 127.0.0.1.
          - name: GOLONGRL_POD_IP
            valueFrom: {fieldRef: {fieldPath: status.podIP}}
          {{- end }}
        ports:
          - {name: http, containerPort: 8090}
        resources:
          {{- include "golongrl.resources" (list $learner.head.resources) | nindent 10 }}
        securityContext:
          {{- include "golongrl.containerSecurity" . | nindent 10 }}
        volumeMounts:
          {{- include "golongrl.learner.mounts" . | nindent 10 }}
    volumes:
      {{- include "golongrl.learner.volumes" . | nindent 6 }}
{{- end -}}
