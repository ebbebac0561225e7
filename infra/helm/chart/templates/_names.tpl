{{- define "platform.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Of one part of this chart: {{ include "platform.selector" (list "exporter" .) }} */}}
{{- define "platform.selector" -}}
app.kubernetes.io/name: {{ (index . 1).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 1).Release.Name }}
app.kubernetes.io/component: {{ index . 0 }}
{{- end }}

{{- define "platform.image" -}}
{{ .Values.image.repository }}:{{ required "image.tag is needed: the tag of your server image, such as sha-<commit> (--set image.tag=...)" .Values.image.tag }}
{{- end }}

{{- define "platform.jobsNamespace" -}}
{{ .Values.jobs.namespace | default .Release.Namespace }}
{{- end }}

{{- define "platform.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* uid 10001 is the images' own; everything of this chart runs as it, postgres' tools as well. */}}
{{- define "platform.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "platform.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What the alert rules go by; without it the job would be the Service's name: {{ include "platform.targetLabels" (list "prefect-api" .) }} */}}
{{- define "platform.targetLabels" -}}
- {targetLabel: job, replacement: {{ index . 0 }}}
{{- with (index . 1).Values.environment }}
- {targetLabel: environment, replacement: {{ . | quote }}}
{{- end }}
{{- end }}

{{/* Does the exporter see the backups' folder? */}}
{{- define "platform.backupsSeen" -}}
{{- if and .Values.backup.enabled (not .Values.backup.s3.bucket) (eq .Values.backup.volume.accessMode "ReadWriteMany") }}yes{{ end -}}
{{- end }}
