{{- /* what the pods are called in labels */}}
{{- define "nodetrust.name" -}}
{{- default "nodetrust" .Values.nameOverride -}}
{{- end }}

{{- /* what the objects are called, those outside of the namespace too: by the release, so that two releases do not collide */}}
{{- define "nodetrust.fullname" -}}
{{- $name := include "nodetrust.name" . }}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- /* by which pods are selected. A release of the usual name has the label of manifests/base alone; a selector cannot change later */}}
{{- define "nodetrust.selector" -}}
app.kubernetes.io/name: {{ include "nodetrust.name" . }}
{{- if ne (include "nodetrust.fullname" .) "nodetrust" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- end }}

{{- /* labels of every object */}}
{{- define "nodetrust.labels" -}}
{{- merge (include "nodetrust.selector" . | fromYaml) .Values.commonLabels | toYaml -}}
{{- end }}

{{- /* the account of the agents, which has their rights */}}
{{- define "nodetrust.account" -}}
{{- if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else if .Values.serviceAccount.create -}}
{{- include "nodetrust.fullname" . -}}
{{- else -}}
{{- fail "want `serviceAccount.name` with `serviceAccount.create: false`: every pod of the namespace has the account `default`" -}}
{{- end -}}
{{- end }}

{{- /* "true" where the admission policies are part of the release */}}
{{- define "nodetrust.policy" -}}
{{- if eq (toString .Values.admissionPolicy) "auto" -}}
{{- .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" -}}
{{- else -}}
{{- .Values.admissionPolicy -}}
{{- end -}}
{{- end }}

{{- /* "true" where OpenShift's constraints are part of the release */}}
{{- define "nodetrust.scc" -}}
{{- if eq (toString .Values.openshiftSCC) "auto" -}}
{{- .Capabilities.APIVersions.Has "security.openshift.io/v1/SecurityContextConstraints" -}}
{{- else -}}
{{- .Values.openshiftSCC -}}
{{- end -}}
{{- end }}

{{- /* `affinity`, with the nodes that are no machines of their own excluded by every term */}}
{{- define "nodetrust.affinity" -}}
{{- $virtual := list
  (dict "key" "eks.amazonaws.com/compute-type" "operator" "NotIn" "values" (list "fargate"))
  (dict "key" "type" "operator" "NotIn" "values" (list "virtual-kubelet"))
  (dict "key" "liqo.io/type" "operator" "NotIn" "values" (list "virtual-node"))
  (dict "key" "node.kubernetes.io/instance-type" "operator" "NotIn" "values" (list "eklet"))
}}
{{- $affinity := deepCopy .Values.affinity }}
{{- $node := default dict $affinity.nodeAffinity }}
{{- $required := default dict $node.requiredDuringSchedulingIgnoredDuringExecution }}
{{- $terms := list }}
{{- range (default (list dict) $required.nodeSelectorTerms) }}
{{- $terms = append $terms (merge (dict "matchExpressions" (concat (default list .matchExpressions) $virtual)) .) }}
{{- end }}
{{- $_ := set $required "nodeSelectorTerms" $terms }}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" $required }}
{{- $_ := set $affinity "nodeAffinity" $node }}
{{- toYaml $affinity }}
{{- end }}

{{- /* where the agent listens; the kubelet's probes ask there */}}
{{- define "nodetrust.address" -}}
{{- $http := default dict .Values.config.http }}
{{- $address := default (printf "[::]:%d" (int .Values.port)) $http.address }}
{{- if not (hasSuffix (printf ":%d" (int .Values.port)) $address) }}
{{- fail (printf "`config.http.address` is `%s`: want the port of `port`, %d, where the kubelet's probes ask" $address (int .Values.port)) }}
{{- end }}
{{- $address }}
{{- end }}

{{- /* what the probes need beside path and port: the address, where the agent listens on one alone, and HTTPS */}}
{{- define "nodetrust.probe" -}}
{{- $host := include "nodetrust.address" . | trimSuffix (printf ":%d" (int .Values.port)) }}
{{- if not (has $host (list "0.0.0.0" "[::]")) }}
host: {{ $host | trimPrefix "[" | trimSuffix "]" | quote }}
{{- end }}
{{- if eq (include "nodetrust.scheme" .) "HTTPS" }}
scheme: HTTPS
{{- end }}
{{- end }}

{{- /* HTTPS where the agent has a certificate of its own, else HTTP */}}
{{- define "nodetrust.scheme" -}}
{{- if or .Values.tlsSecret (default dict (default dict .Values.config.http).tls).certFile -}}
HTTPS
{{- else -}}
HTTP
{{- end -}}
{{- end }}
