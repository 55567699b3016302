"""grpcio, with and without gzip: prints for each what it was answered, one JSON object per line. Usage: client.py ADDRESS WAITING DESCRIPTORS,
where WAITING is a server that has no treemap yet."""

import json
import sys

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
PATH = "/shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap"

for name, compression in [("grpcio", grpc.Compression.NoCompression), ("grpcio compressing", grpc.Compression.Gzip)]:
    with grpc.insecure_channel(address, compression=compression) as channel, grpc.insecure_channel(waiting) as slow:
        get = channel.unary_unary(PATH, Request.SerializeToString, Treemap.FromString)
        wait = slow.unary_unary(PATH, Request.SerializeToString, Treemap.FromString)
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
        print(json.dumps(result), flush=True)
