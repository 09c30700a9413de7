{{- /* The labels of everything. Takes a dict of `root` and `component`. */ -}}
{{- define "atoll.labels" -}}
{{ include "atoll.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{- /* The labels that say which pods are meant. */ -}}
{{- define "atoll.selector" -}}
app.kubernetes.io/name: atoll
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- /* The image of a program. Takes a dict of `root` and `program`. */ -}}
{{- define "atoll.image" -}}
{{ .root.Values.image.registry }}/{{ .program }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end -}}

{{- /* What every pod says of itself. Takes a dict of `root` and `pod`, the values of that pod. */ -}}
{{- define "atoll.pod" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- with .pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .pod.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.tolerations }}
tolerations:
{{ toYaml . }}
{{- end }}
{{- with .pod.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* What the containers of all programs have. Takes a dict of `root` and `program`. */ -}}
{{- define "atoll.container" -}}
image: {{ include "atoll.image" . }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: [--config, /etc/atoll/settings/settings.yaml]
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- /* The probes of a program, on its port `admin`. */ -}}
{{- define "atoll.probes" -}}
readinessProbe:
  httpGet: {path: /ready, port: admin}
  periodSeconds: 2
livenessProbe:
  httpGet: {path: /live, port: admin}
  periodSeconds: 10
  failureThreshold: 6
{{- end -}}

{{- /* Nodes and zones of the provider carry as many pods each as the other ones. */ -}}
{{- define "atoll.spread" -}}
topologySpreadConstraints:
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- topologyKey: {{ . }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "atoll.selector" $ | nindent 6 }}
{{- end }}
{{- end -}}

{{- /* The settings of a program, as its file has them: what the chart says, and over it what the values say. */ -}}
{{- define "atoll.settings" -}}
{{ toYaml (mergeOverwrite (fromYaml .computed) (deepCopy .settings)) }}
{{- end -}}
