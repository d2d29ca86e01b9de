{{/* Alerts. Errors and slowness burn a budget: an alert fires where it burns so fast that it would be gone in hours (page) or days (ticket), over a long
window and, so that it stops in time, a short one (Google's SRE workbook, chapter 5, "multiwindow, multi-burn-rate"). */}}
{{- define "oteo.rules" -}}
{{- $name := include "oteo.name" . -}}
{{- $rules := .Values.monitoring.rules -}}
{{- $in := printf "namespace=\"%s\"" .Release.Namespace -}}
{{- $predict := printf "namespace=\"%s\",service=\"%s-gateway-headless\",method=~\"/(oteo.gateway.v1.InferenceService/Predict|inference.GRPCInferenceService/ModelInfer)\"" .Release.Namespace $name -}}
{{- $of := printf "namespace=\"%s\",release=\"%s\"" .Release.Namespace $name -}}
{{- $bad := "code=~\"UNKNOWN|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL|UNAVAILABLE|DATA_LOSS\"" -}}
groups:
  - name: {{ $name }}-shares
    rules:
      {{- range $window := list "5m" "30m" "1h" "6h" }}
      - record: oteo:predict_errors:ratio_rate{{ $window }}
        expr: sum(rate(oteo_rpc_handled_total{ {{- $predict }},{{ $bad -}} }[{{ $window }}])) / sum(rate(oteo_rpc_handled_total{ {{- $predict -}} }[{{ $window }}]))
        labels: {namespace: {{ $.Release.Namespace }}, release: {{ $name }}}
      - record: oteo:predict_slow:ratio_rate{{ $window }}
        expr: 1 - sum(rate(oteo_rpc_seconds_bucket{ {{- $predict }},le="{{ $rules.latencySeconds -}}" }[{{ $window }}])) / sum(rate(oteo_rpc_seconds_count{ {{- $predict -}} }[{{ $window }}]))
        labels: {namespace: {{ $.Release.Namespace }}, release: {{ $name }}}
      {{- end }}
  - name: {{ $name }}-budgets
    rules:
      {{- range $kind := list "errors" "slow" }}
      {{- $budget := subf 1 (ternary $rules.availability $rules.latencyShare (eq $kind "errors")) }}
      {{- $alert := ternary "OteoPredictErrors" "OteoPredictSlow" (eq $kind "errors") }}
      {{- $what := ternary "of the predictions fail" (printf "of the predictions take longer than %s s" $rules.latencySeconds) (eq $kind "errors") }}
      - alert: {{ $alert }}
        expr: oteo:predict_{{ $kind }}:ratio_rate1h{ {{- $of -}} } > {{ mulf 14.4 $budget }} and oteo:predict_{{ $kind }}:ratio_rate5m{ {{- $of -}} } > {{ mulf 14.4 $budget }}
        for: 2m
        labels:
          severity: page
        annotations:
          summary: {{ printf "{{ $value | humanizePercentage }} %s; at this rate the budget of 30 days is gone in two days." $what | quote }}
          description: Look at the gateway's log for what it answers, at Triton's replicas (oteo deploy list), and at the dashboard Oteo serving.
      - alert: {{ $alert }}
        expr: oteo:predict_{{ $kind }}:ratio_rate6h{ {{- $of -}} } > {{ mulf 6 $budget }} and oteo:predict_{{ $kind }}:ratio_rate30m{ {{- $of -}} } > {{ mulf 6 $budget }}
        for: 15m
        labels:
          severity: ticket
        annotations:
          summary: {{ printf "{{ $value | humanizePercentage }} %s over six hours; at this rate the budget of 30 days is gone in five days." $what | quote }}
          description: Look at the gateway's log for what it answers, at Triton's replicas (oteo deploy list), and at the dashboard Oteo serving.
      {{- end }}
  - name: {{ $name }}-states
    rules:
      - alert: OteoOperationSilent
        expr: max by (service) (label_replace(oteo_operations_silent_seconds{ {{- $in -}} }, "service", "$1", "exported_service", "(.+)")) > {{ $rules.silentSeconds | int64 }}
        for: 5m
        labels:
          severity: ticket
        annotations:
          summary: {{ `An operation of {{ $labels.service }} has had no news for {{ $value | humanizeDuration }}.` | quote }}
          description: It waits for Ray, for a GPU worker that does not come, or for a replica of Triton. See oteo operations list, and the pods of Ray.
      - alert: OteoServiceAbsent
        expr: {{ range $i, $part := list "gateway-headless" "augment" "automl" "translate" }}{{ if $i }} or {{ end }}absent(up{ {{- $in }},service="{{ $name }}-{{ $part -}}" } == 1){{ end }}
        for: 5m
        labels:
          severity: page
        annotations:
          summary: {{ `No replica of {{ $labels.service }} answers.` | quote }}
          description: Its pods do not run or cannot be reached by Prometheus.
      # At once: as the chart is set, whatever cannot be recorded is refused; and what was answered without a record gets none later.
      - alert: OteoAuditLogFails
        expr: sum by (pod) (increase(oteo_audit_failures_total{ {{- $in -}} }[10m])) > 0
        labels:
          severity: page
        annotations:
          summary: {{ `The audit log of {{ $labels.pod }} cannot be written.` | quote }}
          description: Its folder is full, read-only or away; changes are refused, and predictions unless gateway.settings.audit_without is answer. See the gateway's log and gateway.audit; when it is well again, oteo audit verify says what is missing.
      - alert: OteoTritonModelFails
        expr: sum by (model) (rate(nv_inference_request_failure{ {{- $in -}} }[10m])) > 0.1 * sum by (model) (rate(nv_inference_request_success{ {{- $in -}} }[10m]) + rate(nv_inference_request_failure{ {{- $in -}} }[10m]))
        for: 10m
        labels:
          severity: ticket
        annotations:
          summary: {{ `{{ $labels.model }} fails more than a tenth of its requests in Triton.` | quote }}
          description: See Triton's log; the gateway loads a model again that does not answer.
      - alert: OteoShift
        expr: max by (deployment) (oteo_shift_alarm{ {{- $in -}} }) > 0
        for: 5m
        labels:
          severity: ticket
        annotations:
          summary: {{ `The images that {{ $labels.deployment }} sees differ from its model's training images.` | quote }}
          description: Ask whether a scanner, stain or protocol was changed; oteo deploy show says what moved; what can be done about it say oteo shift and oteo translate.
      - alert: OteoGpuMemory
        expr: max by (gpu_uuid) (nv_gpu_memory_used_bytes{ {{- $in -}} } / nv_gpu_memory_total_bytes{ {{- $in -}} }) > {{ $rules.gpuMemoryShare }}
        for: 10m
        labels:
          severity: ticket
        annotations:
          summary: {{ `The memory of GPU {{ $labels.gpu_uuid }} is {{ $value | humanizePercentage }} full.` | quote }}
          description: The next model may not load. Take deployments out, or give Triton a larger GPU.
      - alert: OteoCertificateEnds
        expr: min by (name) (certmanager_certificate_expiration_timestamp_seconds{ {{- $in -}} }) - time() < {{ mul (int $rules.certificateDays) 86400 }}
        for: 1h
        labels:
          severity: ticket
        annotations:
          summary: {{ `The certificate {{ $labels.name }} ends in {{ $value | humanizeDuration }} and was not renewed.` | quote }}
          description: See the Certificate's events; its issuer may be away.
{{- end -}}
