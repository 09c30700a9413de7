{{- /* The settings of global-cp. */ -}}
{{- define "atoll.global.settings" -}}
{{- $here := list "atoll-global-cp" (printf "atoll-global-cp.%s" .Release.Namespace) (printf "atoll-global-cp.%s.svc" .Release.Namespace) -}}
{{- $names := concat $here .Values.global.names -}}
dataDir: /var/lib/atoll/global-cp
tls:
  names:
  {{- toYaml $names | nindent 2 }}
api:
  hosts:
  {{- toYaml $names | nindent 2 }}
admin:
  listen: 0.0.0.0:5680
{{- end -}}
