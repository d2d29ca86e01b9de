#!/bin/sh
# Answers for one image: sh predict.sh DEPLOYMENT IMAGE
# As the SDK does, it takes the gateway's address from OTEO_ADDRESS and the token from OTEO_TOKEN, and speaks TLS where OTEO_CA_FILE
# names the authority's certificates (PEM) or OTEO_TLS is "true". The server has reflection, so no file of the contract is needed.
set -eu
if [ $# -ne 2 ]; then
  echo "usage: sh predict.sh DEPLOYMENT IMAGE" >&2
  exit 2
fi
deployment=$1
image=$2
set -- -max-time 10 -max-msg-sz 67108864
if [ -n "${OTEO_CA_FILE:-}" ]; then
  set -- "$@" -cacert "$OTEO_CA_FILE"
elif [ "${OTEO_TLS:-}" != true ]; then
  set -- "$@" -plaintext
fi
# The request goes through standard input, since an argument holds 128 kB at most; grpcurl itself puts the token in, so that it is
# not in the list of processes.
{
  printf '{"deployment": "deployments/%s", "image": {"content": "' "$deployment"
  base64 < "$image" | tr -d '\n'
  printf '"}}'
} | grpcurl "$@" -expand-headers -H 'authorization: Bearer ${OTEO_TOKEN}' -d @ \
  "${OTEO_ADDRESS:-127.0.0.1:7000}" oteo.gateway.v1.InferenceService/Predict
