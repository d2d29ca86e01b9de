import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.ChannelCredentials;
import io.grpc.Deadline;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import oteo.gateway.v1.ClassificationResult;
import oteo.gateway.v1.InferenceServiceGrpc;
import oteo.gateway.v1.InferenceServiceGrpc.InferenceServiceBlockingStub;
import oteo.gateway.v1.PredictRequest;
import oteo.gateway.v1.PredictResponse;
import oteo.type.v1.ImageSource;

/**
 * Answers for one image: {@code java Predict DEPLOYMENT IMAGE}.
 *
 * <p>As the SDK does, it takes the gateway's address from OTEO_ADDRESS and the token from OTEO_TOKEN, and speaks TLS where
 * OTEO_CA_FILE names the authority's certificates (PEM) or OTEO_TLS is "true" (the authorities that Java knows).
 */
public final class Predict {
  /** Time for all attempts together, seconds. */
  private static final long TIMEOUT_SECONDS = 10;

  private static final int ATTEMPTS = 5;

  /** The gateway's own limit of a message, bytes; gRPC's is 4 MiB, less than a drawing may need. */
  private static final int LARGEST_MESSAGE = 64 * 1024 * 1024;

  private Predict() {}

  /** Prints the answer; ends with 1 where there is none. */
  public static void main(String[] arguments) throws IOException, InterruptedException {
    if (arguments.length != 2) {
      System.err.println("usage: java Predict DEPLOYMENT IMAGE");
      System.exit(2);
    }
    Path image = Path.of(arguments[1]);
    PredictRequest request =
        PredictRequest.newBuilder()
            .setDeployment("deployments/" + arguments[0])
            .setImage(ImageSource.newBuilder().setContent(ByteString.copyFrom(Files.readAllBytes(image))))
            .build();
    ManagedChannel channel = openChannel();
    try {
      InferenceServiceBlockingStub inference = InferenceServiceGrpc.newBlockingStub(channel).withInterceptors(MetadataUtils.newAttachHeadersInterceptor(token()));
      print(image, predict(inference, request));
    } catch (StatusRuntimeException refused) {
      String reason = detail(refused, ErrorInfo.class).map(ErrorInfo::getReason).orElse("");
      System.err.println(refused.getStatus().getCode() + " " + reason + ": " + refused.getStatus().getDescription());
      System.exit(1);
    } finally {
      channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  private static ManagedChannel openChannel() throws IOException {
    String authority = System.getenv("OTEO_CA_FILE");
    ChannelCredentials credentials = InsecureChannelCredentials.create();
    if (authority != null && !authority.isEmpty()) {
      credentials = TlsChannelCredentials.newBuilder().trustManager(new File(authority)).build();
    } else if ("true".equals(System.getenv("OTEO_TLS"))) {
      credentials = TlsChannelCredentials.create();
    }
    String address = System.getenv().getOrDefault("OTEO_ADDRESS", "127.0.0.1:7000");
    return Grpc.newChannelBuilder(address, credentials).maxInboundMessageSize(LARGEST_MESSAGE).build();
  }

  private static Metadata token() {
    Metadata headers = new Metadata();
    String token = System.getenv("OTEO_TOKEN");
    if (token != null && !token.isEmpty()) {
      headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + token);
    }
    return headers;
  }

  /** Calls again where the gateway was UNAVAILABLE, after the pause that it asks for, never beyond the deadline. */
  private static PredictResponse predict(InferenceServiceBlockingStub inference, PredictRequest request) throws InterruptedException {
    Deadline deadline = Deadline.after(TIMEOUT_SECONDS, TimeUnit.SECONDS);
    for (int attempt = 1; ; attempt++) {
      try {
        return inference.withDeadline(deadline).predict(request);
      } catch (StatusRuntimeException refused) {
        long pause = pauseMillis(refused, attempt);
        boolean again = refused.getStatus().getCode() == Status.Code.UNAVAILABLE && attempt < ATTEMPTS;
        if (!again || pause >= deadline.timeRemaining(TimeUnit.MILLISECONDS)) {
          throw refused;
        }
        System.err.println("unavailable; again in " + pause + " ms");
        Thread.sleep(pause);
      }
    }
  }

  /** The pause that RetryInfo asks for; without one a growing one, drawn so that callers do not come back all at once. */
  private static long pauseMillis(StatusRuntimeException refused, int attempt) {
    return detail(refused, RetryInfo.class)
        .map(info -> info.getRetryDelay().getSeconds() * 1000 + info.getRetryDelay().getNanos() / 1_000_000)
        .orElseGet(() -> ThreadLocalRandom.current().nextLong(100L << attempt));
  }

  /** The detail of an error that has this type. */
  private static <T extends com.google.protobuf.Message> Optional<T> detail(StatusRuntimeException refused, Class<T> type) {
    com.google.rpc.Status status = StatusProto.fromThrowable(refused);
    if (status == null) {
      return Optional.empty();
    }
    for (Any packed : status.getDetailsList()) {
      if (packed.is(type)) {
        try {
          return Optional.of(packed.unpack(type));
        } catch (InvalidProtocolBufferException broken) {
          return Optional.empty();
        }
      }
    }
    return Optional.empty();
  }

  private static void print(Path image, PredictResponse answer) {
    switch (answer.getResultCase()) {
      case CLASSIFICATION:
        ClassificationResult classes = answer.getClassification();
        System.out.println(image + ": " + classes.getDecision() + (classes.getRefer() ? " (a human should look)" : ""));
        for (ClassificationResult.Score score : classes.getScoresList()) {
          System.out.printf("  %s %.3f%n", score.getClassName(), score.getProbability());
        }
        break;
      case DETECTION:
        System.out.println(image + ": objects " + answer.getDetection().getCountsMap());
        break;
      case SEGMENTATION:
        answer.getSegmentation().getRegionsList().forEach(
            region -> System.out.println(image + ": " + region.getClassName() + ", " + region.getArea() + " pixels"));
        break;
      default:
        System.out.println(image + ": no result");
    }
  }
}
