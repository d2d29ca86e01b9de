#!/bin/sh
# Runs what build.sh made: sh run.sh FOLDER DEPLOYMENT IMAGE. JARS: the folder of the libraries, where they are not Debian's.
set -eu
folder=$1
classpath=$folder/classes
shift
for library in protobuf grpc-api grpc-context grpc-core grpc-stub grpc-protobuf grpc-protobuf-lite grpc-netty guava perfmark-api \
  netty-buffer netty-codec netty-codec-http netty-codec-http2 netty-codec-socks netty-common netty-handler netty-handler-proxy \
  netty-resolver netty-tcnative netty-transport netty-transport-native-unix-common; do
  classpath=$classpath:${JARS:-/usr/share/java}/$library.jar
done
exec java -Djava.library.path="$folder/native" -cp "$classpath" Predict "$@"
