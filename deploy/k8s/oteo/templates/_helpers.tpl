{{/* First part of all names. */}}
{{- define "oteo.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What selects the pods of a part; never changes between versions: StatefulSets would have to be made anew. Takes root, part. */}}
{{- define "oteo.selector" -}}
oteo/release: {{ include "oteo.name" .root }}
oteo/part: {{ .part }}
{{- end -}}

{{/* Labels of everything of a part. Takes root, part. */}}
{{- define "oteo.labels" -}}
{{ include "oteo.selector" . }}
app.kubernetes.io/name: oteo
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Full DNS name of a Service. Takes root, service. */}}
{{- define "oteo.host" -}}
{{ include "oteo.name" .root }}-{{ .service }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}
{{- end -}}

{{/* An image of Oteo's. Takes root, part. */}}
{{- define "oteo.image" -}}
{{- $image := .root.Values.image -}}
{{- with $image.registry }}{{ . }}/{{ end }}{{ index .root.Values.images .part }}:{{ default .root.Chart.AppVersion $image.tag -}}
{{- end -}}

{{- define "oteo.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The pod's part of Pod Security "restricted". */}}
{{- define "oteo.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.podIds.user | int64 }}
runAsGroup: {{ .Values.podIds.group | int64 }}
fsGroup: {{ .Values.podIds.group | int64 }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* The container's part. */}}
{{- define "oteo.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Where pods may run. Takes an object with nodeSelector and tolerations. */}}
{{- define "oteo.placing" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- range . }}
  - operator: {{ default "Equal" .operator }}
    {{- with .key }}
    key: {{ . | quote }}
    {{- end }}
    {{- with .value }}
    value: {{ . | quote }}
    {{- end }}
    {{- with .effect }}
    effect: {{ . }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Takes root, part. */}}
{{- define "oteo.spread" -}}
{{- if .root.Values.topologySpread.enabled }}
topologySpreadConstraints:
  {{- $selector := include "oteo.selector" . }}
  {{- range .root.Values.topologySpread.keys }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: {{ $.root.Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "oteo.resources" -}}
requests:
  cpu: {{ .requests.cpu | quote }}
  memory: {{ .requests.memory | quote }}
limits:
  cpu: {{ .limits.cpu | quote }}
  memory: {{ .limits.memory | quote }}
{{- end -}}

{{/* The object store as clients of S3 see it; empty: AWS. */}}
{{- define "oteo.s3.endpoint" -}}
{{- if eq .Values.s3.mode "bundled" -}}
http://{{ include "oteo.host" (dict "root" . "service" "s3") }}:7070
{{- else -}}
{{ .Values.s3.endpoint }}
{{- end -}}
{{- end -}}

{{/* Triton's way of naming the same: s3://host:port/bucket/path, with https:// before the host where it is encrypted. */}}
{{- define "oteo.triton.repository" -}}
{{- $endpoint := include "oteo.s3.endpoint" . -}}
{{- $path := printf "%s/%s" .Values.s3.bucket .Values.s3.repositoryPrefix -}}
{{- if not $endpoint -}}
s3://{{ $path }}
{{- else if hasPrefix "https://" $endpoint -}}
s3://{{ $endpoint }}{{ if not (regexMatch ":[0-9]+$" $endpoint) }}:443{{ end }}/{{ $path }}
{{- else -}}
s3://{{ trimPrefix "http://" $endpoint }}{{ if not (regexMatch ":[0-9]+$" $endpoint) }}:80{{ end }}/{{ $path }}
{{- end -}}
{{- end -}}

{{- define "oteo.s3.credentials" -}}
{{- if eq .Values.s3.credentials "secret" }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ .Values.secrets.s3.name }}
      key: {{ .Values.secrets.s3.accessKey }}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .Values.secrets.s3.name }}
      key: {{ .Values.secrets.s3.secretKey }}
{{- end }}
{{- end -}}

{{- define "oteo.database" -}}
- name: OTEO_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.secrets.database.name }}
      key: {{ .Values.secrets.database.url }}
{{- end -}}

{{/* Variables of a service's own settings. */}}
{{- define "oteo.settings" -}}
{{- range $name, $value := . }}
- name: OTEO_{{ upper $name }}
  value: {{ if kindIs "string" $value }}{{ $value | quote }}{{ else }}{{ toJson $value | quote }}{{ end }}
{{- end }}
{{- end -}}

{{/* Mounts and volumes of the tokens and, with TLS, of a part's certificate. */}}
{{- define "oteo.secretMounts" -}}
- name: token
  mountPath: /etc/oteo/token
  readOnly: true
- name: ray-token
  mountPath: /etc/oteo/ray
  readOnly: true
{{- if .Values.traffic.tls.enabled }}
- name: tls
  mountPath: /etc/oteo/tls
  readOnly: true
{{- end }}
{{- end -}}

{{/* Takes root, part. */}}
{{- define "oteo.secretVolumes" -}}
- name: token
  secret:
    secretName: {{ .root.Values.secrets.token.name }}
    defaultMode: 0440
    items:
      - key: {{ .root.Values.secrets.token.key }}
        path: token
- name: ray-token
  secret:
    secretName: {{ .root.Values.secrets.ray.name }}
    defaultMode: 0440
    items:
      - key: {{ .root.Values.secrets.ray.key }}
        path: auth_token
{{- if .root.Values.traffic.tls.enabled }}
- name: tls
  secret:
    secretName: {{ include "oteo.name" .root }}-{{ .part }}-tls
    defaultMode: 0440
{{- end }}
{{- end -}}

{{/* The key under which identifiers of DICOM are hashed, for the parts that handle DICOM: one key and one path for all, so that a service's setting holds for its
jobs on Ray, wherever they run. */}}
{{- define "oteo.deidentification.setting" -}}
- name: OTEO_DEIDENTIFICATION_KEY_FILE
  value: /etc/oteo/deidentification/key
{{- end -}}

{{- define "oteo.deidentification.mount" -}}
- name: deidentification-key
  mountPath: /etc/oteo/deidentification
  readOnly: true
{{- end -}}

{{- define "oteo.deidentification.volume" -}}
- name: deidentification-key
  secret:
    secretName: {{ .Values.secrets.deidentification.name }}
    defaultMode: 0440
    items:
      - key: {{ .Values.secrets.deidentification.key }}
        path: key
{{- end -}}

{{/* What the gateway's door reads. Whole volumes, not single files: those are followed when they change. */}}
{{- define "oteo.accessMounts" -}}
{{- if .Values.secrets.tokens.name }}
- name: tokens
  mountPath: /etc/oteo/tokens
  readOnly: true
{{- end }}
{{- if .Values.access.issuerCaConfigMap }}
- name: issuer-ca
  mountPath: /etc/oteo/issuer-ca
  readOnly: true
{{- end }}
{{- if .Values.access.certificates.enabled }}
- name: callers-ca
  mountPath: /etc/oteo/callers-ca
  readOnly: true
{{- end }}
{{- end -}}

{{- define "oteo.accessVolumes" -}}
{{- with .Values.secrets.tokens }}
{{- if .name }}
- name: tokens
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: tokens.json
{{- end }}
{{- end }}
{{- with .Values.access.issuerCaConfigMap }}
- name: issuer-ca
  configMap:
    name: {{ . }}
{{- end }}
{{- with .Values.access.certificates }}
{{- if .enabled }}
- name: callers-ca
  configMap:
    name: {{ .caConfigMap }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Where a process of ours may write. Takes size of the scratch. */}}
{{- define "oteo.scratchMounts" -}}
- name: scratch
  mountPath: /var/lib/oteo
  subPath: home
- name: scratch
  mountPath: /tmp
  subPath: tmp
{{- end -}}

{{/* Probes of a gRPC server. Kubernetes' own cannot speak TLS: with it, the program asks that is in the image. Takes root, port. */}}
{{- define "oteo.grpcCheck" -}}
{{- if .root.Values.traffic.tls.enabled -}}
exec:
  command: [python, -m, oteo_core.probe, "localhost:{{ .port }}"]
{{- else -}}
grpc:
  port: {{ .port }}
{{- end -}}
{{- end -}}

{{- define "oteo.grpcProbes" -}}
{{- $check := include "oteo.grpcCheck" . -}}
startupProbe:
  {{- $check | nindent 2 }}
  periodSeconds: 3
  timeoutSeconds: 10
  failureThreshold: 60
readinessProbe:
  {{- $check | nindent 2 }}
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 2
livenessProbe:
  {{- $check | nindent 2 }}
  periodSeconds: 20
  timeoutSeconds: 15
  failureThreshold: 6
{{- end -}}

{{- define "oteo.priority" -}}
{{- with . }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* The pods of a service. Takes root, part, port. */}}
{{- define "oteo.service.pod" -}}
{{- $root := .root -}}
{{- $values := index $root.Values .part -}}
{{- $dicom := list "gateway" "augment" -}}
metadata:
  labels:
    {{- include "oteo.labels" . | nindent 4 }}
  annotations:
    # What the pods read at their start: another content, other pods.
    oteo/settings: {{ include "oteo.commonSettings" $root | sha256sum | trunc 16 }}
spec:
  serviceAccountName: {{ include "oteo.name" $root }}-{{ .part }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- include "oteo.pullSecrets" $root | nindent 2 }}
  {{- include "oteo.priority" $root.Values.priorities.serving.name | nindent 2 }}
  terminationGracePeriodSeconds: {{ add $values.drainSeconds 20 }}
  securityContext:
    {{- include "oteo.podSecurity" $root | nindent 4 }}
  {{- include "oteo.placing" $values | nindent 2 }}
  {{- include "oteo.spread" . | nindent 2 }}
  containers:
    - name: {{ .part }}
      image: {{ include "oteo.image" . }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: [python, -m, oteo_{{ .part }}]
      envFrom:
        - configMapRef:
            name: {{ include "oteo.name" $root }}-settings
      env:
        - name: OTEO_LISTEN
          value: "0.0.0.0:{{ .port }}"
        - name: OTEO_DRAIN_SECONDS
          value: {{ $values.drainSeconds | int | quote }}
        {{- if eq .part "gateway" }}
        - name: OTEO_AUDIT_FOLDER
          value: /var/lib/oteo/audit
        - name: OTEO_AUDIT_KEY_FILE
          value: /etc/oteo/audit/key
        - name: OTEO_AUDIT_ARCHIVE
          # A pod's own folder may go with it; what lies in the object store stays.
          value: "true"
        - name: OTEO_TRITON_URLS
          # Replicas that are not ready are among them: it is the gateway that has them load what is deployed.
          value: dns:///{{ include "oteo.host" (dict "root" $root "service" "triton-all") }}:8001
        {{- if $root.Values.traffic.tls.enabled }}
        - name: OTEO_TLS_CLIENT_AUTH
          # Callers from outside bear tokens, not certificates.
          value: "false"
        {{- end }}
        {{- if $root.Values.secrets.tokens.name }}
        - name: OTEO_TOKENS_FILE
          value: /etc/oteo/tokens/tokens.json
        {{- end }}
        {{- if $root.Values.access.issuerCaConfigMap }}
        - name: OTEO_OIDC_CA
          value: /etc/oteo/issuer-ca/ca.crt
        {{- end }}
        {{- if $root.Values.access.certificates.enabled }}
        - name: OTEO_CERTIFICATES_LISTEN
          value: "0.0.0.0:{{ int $root.Values.access.certificates.port }}"
        - name: OTEO_CERTIFICATES_CA
          value: /etc/oteo/callers-ca/ca.crt
        {{- end }}
        {{- end }}
        {{- if has .part $dicom }}{{ include "oteo.deidentification.setting" $root | nindent 8 }}{{ end }}
        {{- include "oteo.database" $root | nindent 8 }}
        {{- include "oteo.s3.credentials" $root | nindent 8 }}
        {{- include "oteo.settings" $values.settings | nindent 8 }}
      ports:
        - name: grpc
          containerPort: {{ .port }}
        {{- if and (eq .part "gateway") $root.Values.access.certificates.enabled }}
        - name: grpc-mutual
          containerPort: {{ int $root.Values.access.certificates.port }}
        {{- end }}
        - name: metrics
          containerPort: {{ $root.Values.monitoring.metricsPort }}
      {{- include "oteo.grpcProbes" . | nindent 6 }}
      lifecycle:
        preStop:
          # Addresses of this pod are still being taken out of DNS and routes when it is told to end.
          exec:
            command: [sleep, "5"]
      resources:
        {{- include "oteo.resources" $values.resources | nindent 8 }}
      securityContext:
        {{- include "oteo.security" $root | nindent 8 }}
      volumeMounts:
        {{- include "oteo.secretMounts" $root | nindent 8 }}
        {{- if eq .part "gateway" }}{{ include "oteo.accessMounts" $root | nindent 8 }}{{ end }}
        {{- if has .part $dicom }}{{ include "oteo.deidentification.mount" $root | nindent 8 }}{{ end }}
        {{- include "oteo.scratchMounts" $root | nindent 8 }}
        {{- if eq .part "gateway" }}
        - name: audit
          mountPath: /var/lib/oteo/audit
        - name: audit-key
          mountPath: /etc/oteo/audit
          readOnly: true
        {{- end }}
  volumes:
    {{- include "oteo.secretVolumes" . | nindent 4 }}
    {{- if eq .part "gateway" }}{{ include "oteo.accessVolumes" $root | nindent 4 }}{{ end }}
    {{- if has .part $dicom }}{{ include "oteo.deidentification.volume" $root | nindent 4 }}{{ end }}
    {{- if eq .part "gateway" }}
    - name: audit-key
      secret:
        secretName: {{ $root.Values.secrets.audit.name }}
        defaultMode: 0440
        items:
          - key: {{ $root.Values.secrets.audit.key }}
            path: key
    - name: audit
      {{- if $values.audit.claim }}
      persistentVolumeClaim:
        claimName: {{ $values.audit.claim }}
      {{- else }}
      emptyDir:
        sizeLimit: {{ $values.audit.size }}
      {{- end }}
    {{- end }}
    - name: scratch
      emptyDir:
        sizeLimit: {{ $values.scratch }}
{{- end -}}
