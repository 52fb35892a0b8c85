{{- define "usagebridge.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Cut so that "-init-" and a vendor's number still fit. */}}
{{- define "usagebridge.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "usagebridge.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "usagebridge.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "usagebridge.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "usagebridge.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* What tells one part of the release from the others: (list . "worker"). */}}
{{- define "usagebridge.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "usagebridge.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "usagebridge.labels" -}}
{{- $root := index . 0 -}}
{{ include "usagebridge.selector" . }}
app.kubernetes.io/part-of: usagebridge
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "usagebridge.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Numbers of the values are floats to Helm, which would write a million as 1e+06. */}}
{{- define "usagebridge.plain" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) -}}
{{- int64 . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* The address of NATS: a dict of url and urlSecret. */}}
{{- define "usagebridge.natsURL" -}}
- name: USAGEBRIDGE_NATS_URL
{{- if .urlSecret.name }}
  valueFrom:
    secretKeyRef:
      name: {{ .urlSecret.name }}
      key: {{ .urlSecret.key }}
{{- else }}
  value: {{ .url | quote }}
{{- end }}
{{- end -}}

{{/* The files that workers read: a list of the variable, the file's name, and where it comes from. */}}
{{- define "usagebridge.workerFiles" -}}
{{- with .Values.secrets -}}
{{- list
  (dict "variable" "MASTER_KEYSET" "file" "master-keyset.json" "from" .masterKeyset)
  (dict "variable" "NATS_NKEY" "file" "nats.nk" "from" .natsNKey)
  (dict "variable" "NATS_CREDS" "file" "nats.creds" "from" .natsCreds)
  (dict "variable" "NATS_CA" "file" "nats-ca.crt" "from" .natsCA)
  (dict "variable" "NATS_CERT" "file" "nats.crt" "from" .natsCert)
  (dict "variable" "NATS_KEY" "file" "nats.key" "from" .natsKey)
  (dict "variable" "INFORM_SECRET_FILE" "file" "inform" "from" .informSecret)
  (dict "variable" "OEM_CLIENT_SECRET_FILE" "file" "oem-client-secret" "from" .oemClientSecret)
  | toJson -}}
{{- end -}}
{{- end -}}

{{- define "usagebridge.initFiles" -}}
{{- $own := or .Values.init.urlSecret.name .Values.init.natsNKey.name .Values.init.natsCreds.name -}}
{{- $who := ternary .Values.init .Values.secrets (not (empty $own)) -}}
{{- with .Values.secrets -}}
{{- list
  (dict "variable" "NATS_NKEY" "file" "nats.nk" "from" $who.natsNKey)
  (dict "variable" "NATS_CREDS" "file" "nats.creds" "from" $who.natsCreds)
  (dict "variable" "NATS_CA" "file" "nats-ca.crt" "from" .natsCA)
  (dict "variable" "NATS_CERT" "file" "nats.crt" "from" .natsCert)
  (dict "variable" "NATS_KEY" "file" "nats.key" "from" .natsKey)
  | toJson -}}
{{- end -}}
{{- end -}}

{{/* The variables that name such files; a list of them in JSON. */}}
{{- define "usagebridge.fileEnv" -}}
{{- range fromJsonArray . }}
{{- if .from.name }}
- name: USAGEBRIDGE_{{ .variable }}
  value: /run/usagebridge/{{ .file }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Whether any of them comes from somewhere: "true" or nothing. */}}
{{- define "usagebridge.hasFiles" -}}
{{- range fromJsonArray . }}{{ if .from.name }}true{{ end }}{{ end -}}
{{- end -}}

{{- define "usagebridge.volumes" -}}
- name: mounted
  projected:
    defaultMode: 0400
    sources:
    {{- range fromJsonArray . }}
    {{- if .from.name }}
    - secret:
        name: {{ .from.name }}
        items:
        - key: {{ .from.key }}
          path: {{ .file }}
    {{- end }}
    {{- end }}
- name: secrets
  emptyDir:
    medium: Memory
    sizeLimit: 4Mi
{{- end -}}

{{/* Kubernetes gives these files to a group, and keys that others than their owner may read are refused. */}}
{{- define "usagebridge.copySecrets" -}}
- name: secrets
  image: {{ include "usagebridge.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [config, copy-secrets, /run/mounted, /run/usagebridge]
  securityContext:
    {{- toYaml .Values.securityContext | nindent 4 }}
  resources:
    requests: {cpu: 10m, memory: 32Mi}
    limits: {memory: 64Mi}
  volumeMounts:
  - name: mounted
    mountPath: /run/mounted
    readOnly: true
  - name: secrets
    mountPath: /run/usagebridge
{{- end -}}

{{/* What the schema cannot compare. */}}
{{- define "usagebridge.check" -}}
{{- $scaled := ne .Values.autoscaling.mode "off" -}}
{{- if and $scaled (lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) -}}
{{- fail (printf "autoscaling.maxReplicas: %d is less than minReplicas %d" (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) -}}
{{- end -}}
{{- $partitions := 0 -}}
{{- range .Values.vendors -}}
{{- $partitions = add $partitions (.partitions | default 16) -}}
{{- end -}}
{{- $most := ternary .Values.autoscaling.maxReplicas .Values.replicas $scaled -}}
{{- if and .Values.vendors (gt (int $most) (int $partitions)) -}}
{{- fail (printf "%d workers: the vendors have %d partitions together, and a worker without one has nothing to do" (int $most) (int $partitions)) -}}
{{- end -}}
{{- if and .Values.secrets.natsNKey.name .Values.secrets.natsCreds.name -}}
{{- fail "secrets.natsNKey and secrets.natsCreds are both set: want one of them" -}}
{{- end -}}
{{- if and .Values.init.natsNKey.name .Values.init.natsCreds.name -}}
{{- fail "init.natsNKey and init.natsCreds are both set: want one of them" -}}
{{- end -}}
{{- if ne (empty .Values.secrets.natsCert.name) (empty .Values.secrets.natsKey.name) -}}
{{- fail "secrets.natsCert and secrets.natsKey: want both, or none of them" -}}
{{- end -}}
{{- end -}}
