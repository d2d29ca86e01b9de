#!/bin/sh
# Generates the contract's Java code and compiles the example into FOLDER, with Debian's packages (README.md beside this file).
#   sh build.sh CONTRACT FOLDER     CONTRACT: what `python tools/export_protos.py CONTRACT` wrote
# Elsewhere: PLUGIN names protoc's plugin for gRPC and JARS the folder of the libraries.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
contract=$1
folder=$2
plugin=${PLUGIN:-$(command -v grpc_java_plugin)}
jars=${JARS:-/usr/share/java}
classpath=$jars/protobuf.jar:$jars/grpc-api.jar:$jars/grpc-context.jar:$jars/grpc-stub.jar:$jars/grpc-protobuf.jar:$jars/guava.jar:$jars/jsr305.jar:$jars/geronimo-annotation-1.3-spec.jar

rm -rf "$folder/generated" "$folder/classes" "$folder/native"
mkdir -p "$folder/generated" "$folder/classes" "$folder/native"
# Inference and all that it imports; a program that follows operations also needs google/longrunning/operations.proto.
protoc -I "$contract" --plugin=protoc-gen-grpc-java="$plugin" --java_out="$folder/generated" --grpc-java_out="$folder/generated" \
  oteo/gateway/v1/inference.proto \
  oteo/type/v1/annotation.proto oteo/type/v1/image.proto oteo/type/v1/report.proto oteo/type/v1/task.proto \
  google/api/field_behavior.proto google/rpc/error_details.proto google/rpc/status.proto buf/validate/validate.proto
find "$folder/generated" -name '*.java' > "$folder/sources"
javac -nowarn -proc:none -encoding UTF-8 -cp "$classpath" -d "$folder/classes" @"$folder/sources" "$here/Predict.java"
# Debian's Netty does TLS through OpenSSL alone, and looks for the library under another name than Debian's; a link it refuses.
for library in /usr/lib/*/jni/libnetty-tcnative.so; do
  if [ -e "$library" ]; then cp "$library" "$folder/native/libnetty_tcnative.so"; fi
done
