{{- define "rdrec.name" -}}
{{- if contains "rdrec" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-rdrec{{ end }}
{{- end }}

{{- define "rdrec.selector" -}}
app.kubernetes.io/name: rdrec
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rdrec.labels" -}}
{{ include "rdrec.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "rdrec.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag }}{{ end }}
{{- end }}

{{- define "rdrec.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- define "rdrec.bundleMount" -}}
{{- if eq .Values.bundle.source "volume" -}}
{{- if .Values.refresh.enabled -}}
- { name: bundle, mountPath: /bundles, readOnly: true } # all of them: a link among them leads to the newest
{{- else -}}
- { name: bundle, mountPath: /bundles/current, subPath: {{ .Values.bundle.volume.subPath | quote }}, readOnly: true }
{{- end }}
{{- else -}}
- { name: bundle, mountPath: /bundles/current }
{{- end }}
{{- end }}

{{- define "rdrec.bundlePath" -}}
/bundles/{{ if .Values.refresh.enabled }}{{ .Values.bundle.volume.subPath }}{{ else }}current{{ end }}
{{- end }}
