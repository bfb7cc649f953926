{{/* Redis' configuration. The pod has its hash as an annotation, so that a change restarts the pod and a new chart version does not. */}}
{{- define "golongrl.redis.config" -}}
bind * -::*
port 6379
dir /data
# The AOF is the only store. Snapshots would add a fork, and lose everything written after them.
appendonly yes
appendfsync {{ .Values.redis.appendfsync }}
save ""
# Samples must never be evicted. The queue limits its size when it gives out leases.
maxmemory-policy noeviction
# A client that died without closing its connection is noticed after a minute.
tcp-keepalive 60
{{- end -}}
