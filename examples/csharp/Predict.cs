// Answers for one image: dotnet run -- DEPLOYMENT IMAGE
//
// As the SDK does, it takes the gateway's address from OTEO_ADDRESS and the token from OTEO_TOKEN, and speaks TLS where
// OTEO_CA_FILE names the authority's certificates (PEM) or OTEO_TLS is "true" (the authorities that the system knows).

using System.Globalization;
using System.Security.Cryptography.X509Certificates;
using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using Grpc.Core;
using Grpc.Net.Client;
using Oteo.Gateway.V1;
// By name, where a whole namespace would bring a second Task or Status.
using ErrorInfo = Google.Rpc.ErrorInfo;
using ImageSource = Oteo.Type.V1.ImageSource;
using RetryInfo = Google.Rpc.RetryInfo;
using RpcStatus = Google.Rpc.Status;

internal static class Predict
{
    // Time for all attempts together.
    private static readonly TimeSpan Timeout = TimeSpan.FromSeconds(10);
    private const int Attempts = 5;
    // The gateway's own limit of a message; gRPC's is 4 MiB, less than a drawing may need.
    private const int LargestMessage = 64 * 1024 * 1024;

    public static async Task<int> Main(string[] arguments)
    {
        if (arguments.Length != 2)
        {
            Console.Error.WriteLine("usage: dotnet run -- DEPLOYMENT IMAGE");
            return 2;
        }
        string image = arguments[1];
        PredictRequest request = new PredictRequest
        {
            Deployment = "deployments/" + arguments[0],
            Image = new ImageSource { Content = ByteString.CopyFrom(await File.ReadAllBytesAsync(image)) },
        };
        using GrpcChannel channel = OpenChannel();
        InferenceService.InferenceServiceClient inference = new InferenceService.InferenceServiceClient(channel);
        try
        {
            Print(image, await Call(inference, request));
            return 0;
        }
        catch (RpcException refused)
        {
            ErrorInfo? info = Detail<ErrorInfo>(refused);
            Console.Error.WriteLine($"{refused.StatusCode} {info?.Reason}: {refused.Status.Detail}");
            return 1;
        }
    }

    private static GrpcChannel OpenChannel()
    {
        string address = Environment.GetEnvironmentVariable("OTEO_ADDRESS") ?? "127.0.0.1:7000";
        string? authority = Environment.GetEnvironmentVariable("OTEO_CA_FILE");
        bool given = !string.IsNullOrEmpty(authority);
        bool tls = given || Environment.GetEnvironmentVariable("OTEO_TLS") == "true";
        SocketsHttpHandler handler = new SocketsHttpHandler();
        if (given)
        {
            // The name in the certificate is still checked.
            X509ChainPolicy policy = new X509ChainPolicy
            {
                TrustMode = X509ChainTrustMode.CustomRootTrust,
                RevocationMode = X509RevocationMode.NoCheck,
            };
            policy.CustomTrustStore.ImportFromPemFile(authority!);
            handler.SslOptions.CertificateChainPolicy = policy;
        }
        GrpcChannelOptions options = new GrpcChannelOptions { HttpHandler = handler, MaxReceiveMessageSize = LargestMessage };
        return GrpcChannel.ForAddress((tls ? "https://" : "http://") + address, options);
    }

    private static Metadata Token()
    {
        Metadata headers = new Metadata();
        string? token = Environment.GetEnvironmentVariable("OTEO_TOKEN");
        if (!string.IsNullOrEmpty(token))
        {
            headers.Add("authorization", "Bearer " + token);
        }
        return headers;
    }

    // Calls again where the gateway was UNAVAILABLE, after the pause that it asks for, never beyond the deadline.
    private static async Task<PredictResponse> Call(InferenceService.InferenceServiceClient inference, PredictRequest request)
    {
        DateTime deadline = DateTime.UtcNow + Timeout;
        for (int attempt = 1; ; attempt++)
        {
            try
            {
                return await inference.PredictAsync(request, Token(), deadline);
            }
            catch (RpcException refused) when (refused.StatusCode == StatusCode.Unavailable && attempt < Attempts)
            {
                TimeSpan pause = Pause(refused, attempt);
                if (DateTime.UtcNow + pause >= deadline)
                {
                    throw;
                }
                Console.Error.WriteLine($"unavailable; again in {pause.TotalMilliseconds:F0} ms");
                await Task.Delay(pause);
            }
        }
    }

    // The pause that RetryInfo asks for; without one a growing one, drawn so that callers do not come back all at once.
    private static TimeSpan Pause(RpcException refused, int attempt)
    {
        RetryInfo? asked = Detail<RetryInfo>(refused);
        return asked?.RetryDelay is Duration delay ? delay.ToTimeSpan() : TimeSpan.FromMilliseconds(Random.Shared.Next(100 << attempt));
    }

    // The detail of an error that has this type: errors carry a google.rpc.Status in a trailer.
    private static T? Detail<T>(RpcException refused) where T : class, IMessage, new()
    {
        byte[]? packed = refused.Trailers.GetValueBytes("grpc-status-details-bin");
        if (packed == null)
        {
            return null;
        }
        RpcStatus status = RpcStatus.Parser.ParseFrom(packed);
        foreach (Any any in status.Details)
        {
            if (any.Is(new T().Descriptor))
            {
                T detail = new T();
                detail.MergeFrom(any.Value);
                return detail;
            }
        }
        return null;
    }

    private static void Print(string image, PredictResponse answer)
    {
        switch (answer.ResultCase)
        {
            case PredictResponse.ResultOneofCase.Classification:
                ClassificationResult classes = answer.Classification;
                Console.WriteLine($"{image}: {classes.Decision}{(classes.Refer ? " (a human should look)" : "")}");
                foreach (ClassificationResult.Types.Score score in classes.Scores)
                {
                    Console.WriteLine($"  {score.ClassName} {score.Probability.ToString("F3", CultureInfo.InvariantCulture)}");
                }
                break;
            case PredictResponse.ResultOneofCase.Detection:
                DetectionResult found = answer.Detection;
                Console.WriteLine($"{image}: objects {string.Join(", ", found.Counts.Select(pair => $"{pair.Key}={pair.Value}"))}");
                break;
            case PredictResponse.ResultOneofCase.Segmentation:
                foreach (SegmentationResult.Types.Region region in answer.Segmentation.Regions)
                {
                    Console.WriteLine($"{image}: {region.ClassName}, {region.Area} pixels");
                }
                break;
            default:
                Console.WriteLine($"{image}: no result");
                break;
        }
    }
}
