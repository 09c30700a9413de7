{{- /* How the control plane knows an ingress. Takes the name of the mesh. */ -}}
{{- define "atoll.ingress.labels" -}}
k8s.kuma.io/zone-proxy-type: ingress
kuma.io/mesh: {{ . }}
{{- end -}}

{{- /* The settings of zone-ingress. Takes a dict of `root` and `ingress`. */ -}}
{{- define "atoll.ingress.settings" -}}
zone:
  address: https://atoll-zone-cp.{{ .root.Release.Namespace }}.svc:5678
  caFile: /etc/atoll/zone/ca.crt
tokenFile: /var/run/secrets/atoll/token
readiness:
  address: 0.0.0.0:9902
{{- end -}}
