{{- /* The settings of zone-cp. */ -}}
{{- define "atoll.zone.settings" -}}
{{- $namespace := .Release.Namespace -}}
environment: kubernetes
store:
  type: kubernetes
zone:
  name: {{ .Values.zone.name }}
{{- with .Values.zone.global.address }}
global:
  address: {{ . }}
  caFile: /etc/atoll/global/ca.crt
  tokenFile: /etc/atoll/global/token
{{- end }}
dataDir: /var/lib/atoll/zone-cp
api:
  hosts:
  - atoll-zone-cp
  - atoll-zone-cp.{{ $namespace }}
  - atoll-zone-cp.{{ $namespace }}.svc
admin:
  listen: 0.0.0.0:5680
dns:
  listen: 0.0.0.0:5653
kubernetes:
  systemNamespace: {{ $namespace }}
  admission:
    listen: 0.0.0.0:5443
  injector:
    sidecarImage: {{ include "atoll.image" (dict "root" . "program" "sidecar") }}
    initImage: {{ include "atoll.image" (dict "root" . "program" "atoll") }}
{{- end -}}
