{{/* Names and labels that several templates share. */}}

{{- define "wattshift.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "wattshift.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "wattshift.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "wattshift.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "wattshift.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "wattshift.selector" . }}
{{- end -}}

{{- define "wattshift.selector" -}}
app.kubernetes.io/name: {{ include "wattshift.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "wattshift.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "wattshift.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "wattshift.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* PodSecurity "restricted" for every container but those of the node agent. */}}
{{- define "wattshift.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "wattshift.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/*
A token file must be readable by its owner alone, but a mounted Secret belongs to root. So a first
container copies it, as the user that will read it, into memory.
Call with: root, name of the key's copy, keys (list of dicts key, file).
*/}}
{{- define "wattshift.tokenCopy" -}}
name: tokens
image: {{ include "wattshift.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command:
  - sh
  - -ec
  - |
    {{- range .keys }}
    install -m 0600 /secrets/{{ .key }} /run/wattshift/{{ .file }}
    {{- end }}
volumeMounts:
  - {name: secrets, mountPath: /secrets, readOnly: true}
  - {name: tokens, mountPath: /run/wattshift}
{{- end -}}

{{- define "wattshift.tokenVolumes" -}}
- name: secrets
  secret:
    secretName: {{ .Values.tokens.existingSecret }}
    defaultMode: 0440
- name: tokens
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- end -}}
