// Real clients for Node: prints for each what it was answered, one JSON object per line. Usage: node client.mjs ADDRESS WAITING DESCRIPTORS,
// where WAITING is a server that has no treemap yet.
import { readFileSync } from "node:fs";
import { create, createFileRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import * as node from "@connectrpc/connect-node";
import * as web from "@connectrpc/connect-web";
import * as grpc from "@grpc/grpc-js";
import grpcWeb from "grpc-web";
import xhr2 from "xhr2";

globalThis.XMLHttpRequest = xhr2.XMLHttpRequest ?? xhr2;
const [address, waiting, descriptors] = process.argv.slice(2);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
const service = registry.getService("shorts.v1alpha1.ShortedStocksService");
const request = registry.getMessage("shorts.v1alpha1.GetIndustryTreeMapRequest");
const response = registry.getMessage("stocks.v1alpha1.IndustryTreeMap");
const path = "/shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap";
const rows = (treemap) => treemap.stocks.map((stock) => [stock.industry, stock.productCode, stock.shortPosition]);

// `call(fields)` gives [treemap, version], or throws [code, message]; `wait` does so with a deadline of 200 ms.
async function report(name, call, wait) {
  const result = { name, answers: [] };
  for (const period of ["3m", "6M", "1y", "2y", "5y", "max"]) {
    for (const viewMode of [0, 1]) {
      const [treemap, version] = await call({ period, limit: 10, viewMode });
      result.answers.push(rows(treemap));
      result.version = version;
    }
  }
  const refused = (called) => called.then(() => ["ok", ""], (error) => error);
  result.refusal = await refused(call({ limit: -1 }));
  result.deadline = (await refused(wait({ period: "3m" })))[0];
  console.log(JSON.stringify(result));
}

function connect(name, createTransport, options = {}) {
  const caller = (address, timeoutMs) => async (fields) => {
    const client = createClient(service, createTransport({ baseUrl: `http://${address}`, ...options }));
    let version;
    try {
      const treemap = await client.getIndustryTreeMap(fields, {
        timeoutMs,
        onHeader: (headers) => (version = headers.get("treemap-version")),
      });
      return [treemap, version];
    } catch (error) {
      const { code, rawMessage } = ConnectError.from(error);
      throw [Code[code], rawMessage];
    }
  };
  return report(name, caller(address), caller(waiting, 200));
}

function grpcJs(name, options) {
  const write = (fields) => Buffer.from(toBinary(request, create(request, fields)));
  const read = (bytes) => fromBinary(response, bytes);
  const caller = (address, timeout) => (fields) =>
    new Promise((resolve, reject) => {
      let version;
      const deadline = timeout === undefined ? Infinity : Date.now() + timeout;
      const client = new grpc.Client(address, grpc.credentials.createInsecure(), options);
      const call = client.makeUnaryRequest(path, write, read, fields, new grpc.Metadata(), { deadline }, (error, treemap) =>
        error ? reject([grpc.status[error.code], error.details]) : resolve([treemap, version]),
      );
      call.on("metadata", (metadata) => (version = metadata.get("treemap-version")[0]));
    });
  return report(name, caller(address), caller(waiting, 200));
}

function googleGrpcWeb(name, format) {
  const client = new grpcWeb.GrpcWebClientBase({ format });
  const write = (message) => toBinary(request, message);
  const read = (bytes) => fromBinary(response, bytes);
  const method = new grpcWeb.MethodDescriptor(path, grpcWeb.MethodType.UNARY, Object, Object, write, read);
  const caller = (address, timeout) => (fields) =>
    new Promise((resolve, reject) => {
      const metadata = timeout === undefined ? {} : { deadline: String(Date.now() + timeout) };
      const call = client.rpcCall(`http://${address}${path}`, create(request, fields), metadata, method, (error, treemap) =>
        error ? reject([String(error.code), error.message]) : setTimeout(() => resolve([treemap, version])),
      );
      let version;
      call.on("metadata", (metadata) => (version = metadata["treemap-version"]));
    });
  return report(name, caller(address), caller(waiting, 200));
}

await connect("connect-node JSON, HTTP/1.1", node.createConnectTransport, { httpVersion: "1.1", useBinaryFormat: false });
await connect("connect-node binary, HTTP/1.1", node.createConnectTransport, { httpVersion: "1.1" });
await connect("connect-node binary, HTTP/2", node.createConnectTransport, { httpVersion: "2" });
await connect("connect-node GET", node.createConnectTransport, { httpVersion: "1.1", useHttpGet: true });
await connect("connect-node compressing", node.createConnectTransport, { httpVersion: "1.1", sendCompression: node.compressionGzip, compressMinBytes: 0 });
await connect("connect-node gRPC", node.createGrpcTransport);
await connect("connect-node gRPC-Web", node.createGrpcWebTransport, { httpVersion: "1.1" });
await connect("connect-web JSON", web.createConnectTransport);
await connect("connect-web binary", web.createConnectTransport, { useBinaryFormat: true });
await connect("connect-web GET", web.createConnectTransport, { useHttpGet: true });
await connect("connect-web gRPC-Web", web.createGrpcWebTransport);
await grpcJs("grpc-js", {});
await grpcJs("grpc-js compressing", { "grpc.default_compression_algorithm": 2 });
await googleGrpcWeb("grpc-web text", "text");
await googleGrpcWeb("grpc-web binary", "binary");
process.exit(0);
