{{/* Redis' configuration; the pod carries its hash, so that a changed one restarts it and a new chart version does not. */}}
{{- define "golongrl.redis.config" -}}
bind * -::*
port 6379
dir /data
# The log is the store: snapshots would add a fork and lose what came after them.
appendonly yes
appendfsync {{ .Values.redis.appendfsync }}
save ""
# A sample is never evicted; the queue bounds its bytes when it gives out leases.
maxmemory-policy noeviction
# A client that died without a word is noticed after a minute.
tcp-keepalive 60
{{- end -}}
