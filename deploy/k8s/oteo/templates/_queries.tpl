{{/* PromQL that scales and alerts: here alone, so that what is tested is what runs. */}}

{{/* Requests inside Triton, waiting or running: by Little's law their rate times their time, over the last minute; or those that wait at this moment, where these are more. */}}
{{- define "oteo.query.inside" -}}
{{- $triton := printf "namespace=\"%s\",service=\"%s-triton\"" .Release.Namespace (include "oteo.name" .) -}}
((sum(rate(nv_inference_request_duration_us{ {{- $triton -}} }[1m])) / 1e6) > sum(nv_inference_pending_request_count{ {{- $triton -}} })) or sum(nv_inference_pending_request_count{ {{- $triton -}} })
{{- end -}}

{{/* Predictions that wait at the gateways, and calls that found no replica lately. */}}
{{- define "oteo.query.wake" -}}
{{- $gateway := printf "namespace=\"%s\",service=\"%s-gateway-headless\"" .Release.Namespace (include "oteo.name" .) -}}
(sum(oteo_predict_waiting{ {{- $gateway -}} }) or vector(0)) + (sum(increase(oteo_predict_refused_total{ {{- $gateway -}} ,reason=~"DEPLOYMENT_NOT_READY|NO_REPLICA"}[2m])) or vector(0))
{{- end -}}

{{/* Deployments that wait to be served, trainings (their models are proven on a replica), and what callers asked and got lately. Not what Triton counts: the gateway probes every model
every few seconds, so that a Triton with models is never without a request. */}}
{{- define "oteo.query.needed" -}}
{{- $gateway := printf "namespace=\"%s\",service=\"%s-gateway-headless\"" .Release.Namespace (include "oteo.name" .) -}}
{{- $automl := printf "namespace=\"%s\",service=\"%s-automl\"" .Release.Namespace (include "oteo.name" .) -}}
(max(oteo_deployments_waiting{ {{- $gateway -}} }) or vector(0)) + (sum(oteo_operations_unfinished{ {{- $automl -}} ,state="RUNNING"}) or vector(0)) + (sum(increase(oteo_predict_stage_seconds_count{ {{- $gateway -}} ,stage="total"}[2m])) or vector(0)) + (sum(increase(oteo_rpc_handled_total{ {{- $gateway -}} ,method=~"/inference.GRPCInferenceService/Model(Infer|StreamInfer)",code="OK"}[2m])) or vector(0)) + (sum(oteo_rpc_in_flight{ {{- $gateway -}} ,method="/inference.GRPCInferenceService/ModelStreamInfer"}) or vector(0))
{{- end -}}

{{- define "oteo.query.queue" -}}
sum(rate(nv_inference_queue_duration_us{<<.LabelMatchers>>}[2m])) by (<<.GroupBy>>) / clamp_min(sum(rate(nv_inference_request_success{<<.LabelMatchers>>}[2m])) by (<<.GroupBy>>), 0.001) / 1000
{{- end -}}
