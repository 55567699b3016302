"""grpcio, with and without gzip: prints for each what it was answered, one JSON object per line. Usage: client.py ADDRESS WAITING DESCRIPTORS,
where WAITING is a server that has no treemap yet. client.py ADDRESS watch DESCRIPTORS watches until the server ends it: prints the names of its
streams, then a line for each event."""

import json
import sys
import threading

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

address, waiting, descriptors = sys.argv[1:]
pool = descriptor_pool.DescriptorPool()
with open(descriptors, "rb") as file:
    for described in descriptor_pb2.FileDescriptorSet.FromString(file.read()).file:
        pool.Add(described)


def message(name):
    found = pool.FindMessageTypeByName(name)
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(found)
    return message_factory.MessageFactory(pool).GetPrototype(found)


Request = message("shorts.v1alpha1.GetIndustryTreeMapRequest")
Treemap = message("stocks.v1alpha1.IndustryTreeMap")
WatchRequest = message("treemap.v1.WatchTreemapRequest")
Watched = message("treemap.v1.WatchTreemapResponse")
GET = "/shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap"
WATCH = "/treemap.v1.TreemapService/WatchTreemap"
CHANNELS = [("grpcio", grpc.Compression.NoCompression), ("grpcio compressing", grpc.Compression.Gzip)]


def tell(result):
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def calls():
    for name, compression in CHANNELS:
        with grpc.insecure_channel(address, compression=compression) as channel, grpc.insecure_channel(waiting) as slow:
            get = channel.unary_unary(GET, Request.SerializeToString, Treemap.FromString)
            wait = slow.unary_unary(GET, Request.SerializeToString, Treemap.FromString)
            result = {"name": name, "answers": []}
            for period in ["3m", "6M", "1y", "2y", "5y", "max"]:
                for view_mode in [0, 1]:
                    treemap, call = get.with_call(Request(period=period, limit=10, view_mode=view_mode))
                    rows = [[stock.industry, stock.product_code, stock.short_position] for stock in treemap.stocks]
                    result["answers"].append(rows)
                    result["version"] = dict(call.initial_metadata())["treemap-version"]
            for outcome, call, request in [("refusal", get, Request(limit=-1)), ("deadline", wait, Request(period="3m"))]:
                try:
                    call(request, timeout=5 if call is get else 0.2)
                except grpc.RpcError as error:
                    result[outcome] = [error.code().name, error.details()]
            result["deadline"] = result["deadline"][0]
            tell(result)


def stream(name, channel, version=""):
    """One stream, to its end. That of a client without a version begins another one for the version of its first treemap."""
    other = None
    try:
        watch = channel.unary_stream(WATCH, WatchRequest.SerializeToString, Watched.FromString)
        for response in watch(WatchRequest(period="3m", limit=2, version=version), timeout=60):
            event = response.WhichOneof("event")
            seen = getattr(response, event)
            stocks = sum(len(industry.stocks) for industry in seen.industries) if event == "treemap" else None
            tell({"name": name, "event": event, "version": seen.version, "stocks": stocks, "stale": seen.stale})
            if not version and not other:
                other = threading.Thread(target=stream, args=(name + ", known", channel, seen.version))
                other.start()
    except grpc.RpcError as error:
        tell({"name": name, "event": "end", "code": error.code().name, "message": error.details()})
    if other:
        other.join()


def watches():
    tell({"streams": [name + known for name, _ in CHANNELS for known in ["", ", known"]]})
    for name, compression in CHANNELS:
        channel = grpc.insecure_channel(address, compression=compression)
        threading.Thread(target=stream, args=(name, channel)).start()


watches() if waiting == "watch" else calls()
