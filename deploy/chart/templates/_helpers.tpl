{{- define "roadstead.labels" -}}
app.kubernetes.io/name: roadstead
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- define "roadstead.image" -}}
image: {{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- define "roadstead.env" -}}
env:
  - {name: ROADSTEAD_IN_CLUSTER, value: "true"}
  - {name: ROADSTEAD_NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
  {{- if has .component (list "ingress" "speaker") }}
  - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
  {{- end }}
  {{- if eq .component "ingress" }}
  - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  {{- end }}
  {{- with .Values.apiServer.host }}
  - {name: KUBERNETES_SERVICE_HOST, value: {{ . | quote }}}
  {{- end }}
  {{- with .Values.apiServer.port }}
  - {name: KUBERNETES_SERVICE_PORT, value: {{ . | quote }}}
  {{- end }}
envFrom:
  - configMapRef: {name: roadstead, optional: true}
{{- end }}

{{- define "roadstead.scrape" -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ . | quote }}
prometheus.io/path: /metrics
{{- end }}

{{- define "roadstead.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: metrics}
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: {path: /livez, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: {{ . }}
  timeoutSeconds: 5
{{- end }}

{{- define "roadstead.account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: roadstead-{{ .component }}
  namespace: {{ .namespace }}
  labels: {{- include "roadstead.labels" .component | nindent 4 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: roadstead-{{ .component }}
  labels: {{- include "roadstead.labels" .component | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: roadstead-{{ .component }}
subjects:
  - kind: ServiceAccount
    name: roadstead-{{ .component }}
    namespace: {{ .namespace }}
{{- end }}

{{- define "roadstead.roleBinding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: roadstead-{{ .component }}
  namespace: {{ .namespace }}
  labels: {{- include "roadstead.labels" .component | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: roadstead-{{ .component }}
subjects:
  - kind: ServiceAccount
    name: roadstead-{{ .component }}
    namespace: {{ .namespace }}
{{- end }}
