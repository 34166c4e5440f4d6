{{- define "payflow.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What every object of a release has in common. */}}
{{- define "payflow.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: payflow
{{ include "payflow.selector" . }}
{{- end -}}

{{- define "payflow.selector" -}}
app.kubernetes.io/name: payflow
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* A value as the text of an environment variable. Helm knows numbers as floats, and would write 1e+06. */}}
{{- define "payflow.text" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) -}}
{{- printf "%.0f" . -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end -}}

{{/* A service as it is to be: `defaults` with what `services` says of it. As YAML; takes dict root, name. */}}
{{- define "payflow.service" -}}
{{- $own := get .root.Values.services .name -}}
{{- $found := mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy $own) -}}
{{- if and (has "heads" $found.needs) (ne .root.Values.auditHeads.accessMode "ReadWriteMany") -}}
{{- /* Two pods cannot hold the volume: one, and none while it is replaced. */ -}}
{{- $_ := set $found "replicas" 1 -}}
{{- $_ := set $found.autoscaling "enabled" false -}}
{{- $_ := set $found "recreate" true -}}
{{- end -}}
{{- $least := ternary $found.autoscaling.minReplicas $found.replicas $found.autoscaling.enabled -}}
{{- $_ := set $found "leastReplicas" $least -}}
{{- toYaml $found -}}
{{- end -}}

{{- define "payflow.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "payflow.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "payflow.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* PostgreSQL's address for a role; takes dict root, role. */}}
{{- define "payflow.postgresUrl" -}}
{{- $postgres := .root.Values.postgres -}}
{{- printf "postgresql://%s@%s:%s/%s?sslmode=%s" .role $postgres.host (include "payflow.text" $postgres.port) $postgres.database $postgres.sslMode -}}
{{- if hasPrefix "verify-" $postgres.sslMode -}}
{{- print "&sslrootcert=/etc/payflow/postgres/ca.crt" -}}
{{- end -}}
{{- end -}}

{{- define "payflow.postgresCaVolume" -}}
{{- if hasPrefix "verify-" .Values.postgres.sslMode }}
- name: postgres-ca
  secret:
    secretName: {{ .Values.postgres.ca.existingSecret }}
    defaultMode: 0440
    items:
      - {key: {{ .Values.postgres.ca.key | quote }}, path: ca.crt}
{{- end }}
{{- end -}}

{{- define "payflow.postgresCaMount" -}}
{{- if hasPrefix "verify-" .Values.postgres.sslMode }}
- {name: postgres-ca, mountPath: /etc/payflow/postgres, readOnly: true}
{{- end }}
{{- end -}}

{{/* What the pods of services, migration and command line have in common. */}}
{{- define "payflow.podSpec" -}}
automountServiceAccountToken: false
# Kubernetes would add PAYFLOW_* variables of its own, which look like mistyped settings.
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Takes dict root, command. */}}
{{- define "payflow.container" -}}
image: {{ include "payflow.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- with .command }}
command:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .root.Values.securityContext | nindent 2 }}
{{- end -}}
