// Real clients for Node: prints for each what it was answered, one JSON object per line. Usage: node client.mjs ADDRESS WAITING DESCRIPTORS,
// where WAITING is a server that has no treemap yet. node client.mjs ADDRESS watch DESCRIPTORS watches until the server ends it: prints the names
// of its streams, then a line for each event.
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

// One stream, to its end. `open(version)` gives its messages, each with its event as protobuf-es has a oneof. The stream of a client without a
// version begins another one for the version of its first treemap.
async function stream(name, open, version = "") {
  let other;
  try {
    for await (const { event } of open({ period: "3m", limit: 2, version })) {
      const { version: seen, industries, stale } = event.value;
      const stocks = industries?.flatMap((industry) => industry.stocks).length;
      console.log(JSON.stringify({ name, event: event.case, version: seen, stocks, stale }));
      if (!version) other ??= stream(`${name}, known`, open, seen);
    }
    console.log(JSON.stringify({ name, event: "end", code: "ok" }));
  } catch (error) {
    const [code, message] = Array.isArray(error) ? error : [Code[ConnectError.from(error).code], ConnectError.from(error).rawMessage];
    console.log(JSON.stringify({ name, event: "end", code, message }));
  }
  await other;
}

const watchService = registry.getService("treemap.v1.TreemapService");
const [watchRequest, watched] = ["WatchTreemapRequest", "WatchTreemapResponse"].map((name) => registry.getMessage(`treemap.v1.${name}`));
const watchPath = "/treemap.v1.TreemapService/WatchTreemap";

function connectStream(createTransport, options = {}) {
  const client = createClient(watchService, createTransport({ baseUrl: `http://${address}`, ...options }));
  return (fields) => client.watchTreemap(fields);
}

// The messages of a call that has events, as of gRPC: until it ends or fails.
async function* messages(call) {
  const arrived = [];
  let wake = () => {};
  const push = (thing) => { arrived.push(thing); wake(); };
  call.on("data", (message) => push({ message }));
  call.on("error", (error) => push({ error }));
  for (;;) {
    while (arrived.length === 0) await new Promise((resolve) => (wake = resolve));
    const { message, error } = arrived.shift();
    if (error) throw [grpc.status[error.code], error.details ?? error.message];
    yield message;
  }
}

const write = (fields) => Buffer.from(toBinary(watchRequest, create(watchRequest, fields)));
const read = (bytes) => fromBinary(watched, bytes);

function grpcJsStream() {
  const client = new grpc.Client(address, grpc.credentials.createInsecure());
  return (fields) => messages(client.makeServerStreamRequest(watchPath, write, read, fields));
}

// XMLHttpRequest as a browser has it, which hands on a body as it arrives; xhr2 does so when it is whole.
class StreamingRequest {
  readyState = 0;
  status = 0;
  responseText = "";
  #headers = {};
  #url;

  open(_, url) {
    this.#url = url;
  }

  setRequestHeader(name, value) {
    this.#headers[name] = value;
  }

  getAllResponseHeaders() {
    return [...this.answered.headers].map(([name, value]) => `${name}: ${value}\r\n`).join("");
  }

  getResponseHeader(name) {
    return this.answered.headers.get(name);
  }

  abort() {}

  async send(body) {
    this.answered = await fetch(this.#url, { method: "POST", headers: this.#headers, body });
    this.status = this.answered.status;
    this.#turns(2);
    for await (const text of this.answered.body.pipeThrough(new TextDecoderStream())) {
      this.responseText += text;
      this.#turns(3);
    }
    this.#turns(4);
  }

  #turns(state) {
    this.readyState = state;
    this.onreadystatechange?.();
  }
}

function googleGrpcWebStream() {
  globalThis.XMLHttpRequest = StreamingRequest;
  const client = new grpcWeb.GrpcWebClientBase({ format: "text" });
  const method = new grpcWeb.MethodDescriptor(watchPath, grpcWeb.MethodType.SERVER_STREAMING, Object, Object, write, read);
  return (fields) => messages(client.serverStreaming(`http://${address}${watchPath}`, fields, {}, method));
}

async function watches() {
  const streams = {
    "connect-node JSON, HTTP/1.1": connectStream(node.createConnectTransport, { httpVersion: "1.1", useBinaryFormat: false }),
    "connect-node binary, HTTP/2": connectStream(node.createConnectTransport, { httpVersion: "2" }),
    "connect-node gRPC": connectStream(node.createGrpcTransport),
    "connect-node gRPC-Web": connectStream(node.createGrpcWebTransport, { httpVersion: "1.1" }),
    "connect-web JSON": connectStream(web.createConnectTransport),
    "connect-web binary": connectStream(web.createConnectTransport, { useBinaryFormat: true }),
    "connect-web gRPC-Web": connectStream(web.createGrpcWebTransport),
    "grpc-js": grpcJsStream(),
    "grpc-web text": googleGrpcWebStream(),
  };
  console.log(JSON.stringify({ streams: Object.keys(streams).flatMap((name) => [name, `${name}, known`]) }));
  await Promise.all(Object.entries(streams).map(([name, open]) => stream(name, open)));
}

async function calls() {
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
}

await (waiting === "watch" ? watches() : calls());
process.exit(0);
