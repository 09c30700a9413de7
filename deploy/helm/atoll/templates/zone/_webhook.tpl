{{- /* Where a webhook is, and what all have. Takes a dict of `root` and `path`. */ -}}
{{- define "atoll.webhook" -}}
admissionReviewVersions: [v1]
sideEffects: None
matchPolicy: Equivalent
timeoutSeconds: {{ .root.Values.injection.timeoutSeconds }}
clientConfig:
  service: {name: atoll-admission, namespace: {{ .root.Release.Namespace }}, port: 443, path: {{ .path }}}
{{- end -}}

{{- /* The control plane does not ask itself. */ -}}
{{- define "atoll.others" -}}
- name: not-of-the-control-plane
  expression: request.userInfo.username != 'system:serviceaccount:{{ .Release.Namespace }}:atoll-zone-cp'
{{- end -}}
