{{/* Pods of this release: (list $ "rollout"). KubeRay and LeaderWorkerSet do not change these two labels. */}}
{{- define "golongrl.peer" -}}
- podSelector:
    matchLabels:
      {{- include "golongrl.selector" . | nindent 6 }}
{{- end -}}

{{- define "golongrl.outsidePeer" -}}
- namespaceSelector:
    {{- toYaml (.namespaceSelector | default dict) | nindent 4 }}
  {{- with .podSelector }}
  podSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "golongrl.policyMetadata" -}}
metadata:
  name: {{ include "golongrl.fullname" (index . 0) }}-{{ index . 1 }}
  namespace: {{ (index . 0).Release.Namespace | quote }}
  labels:
    {{- include "golongrl.labels" . | nindent 4 }}
{{- end -}}

{{- define "golongrl.dnsEgress" -}}
{{- $dns := .Values.networkPolicy.dns -}}
- to:
    {{- include "golongrl.outsidePeer" $dns | nindent 4 }}
    {{- range $dns.cidrs }}
    - ipBlock:
        cidr: {{ . | quote }}
    {{- end }}
  ports:
    {{- range uniq (list 53 (int $dns.port)) }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end -}}

{{- define "golongrl.redisEgress" -}}
{{- $external := .Values.redis.external -}}
{{- if not $external.host -}}
- to:
    {{- include "golongrl.peer" (list . "redis") | nindent 4 }}
  ports:
    - {port: 6379, protocol: TCP}
{{- else -}}
- ports:
    - {port: {{ int $external.port }}, protocol: TCP}
  {{- with $external.cidrs }}
  to:
    {{- range . }}
    - ipBlock:
        cidr: {{ . | quote }}
    {{- end }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* To the dashboard of a Ray head, from KubeRay's operator. */}}
{{- define "golongrl.kuberayIngress" -}}
{{- $operator := .Values.networkPolicy.kuberayOperator -}}
- from:
    {{- include "golongrl.outsidePeer" $operator | nindent 4 }}
    {{- with $operator.podSelector }}
    - podSelector:
        {{- toYaml . | nindent 8 }}
    {{- end }}
  ports:
    - {port: 8265, protocol: TCP}
{{- end -}}

{{/* To the API server, which is not a pod. */}}
{{- define "golongrl.apiServerEgress" -}}
{{- with .Values.operator -}}
- ports:
    {{- range .apiServerPorts }}
    - {port: {{ int . }}, protocol: TCP}
    {{- end }}
  {{- with .apiServerCidrs }}
  to:
    {{- range . }}
    - ipBlock:
        cidr: {{ . | quote }}
    {{- end }}
  {{- end }}
{{- end -}}
{{- end -}}
