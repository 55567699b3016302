//! Attacks with whatever bytes, as fast as they can be sent, while clients that behave call: `make soak`. Each lasts for 30 s, or for
//! `TREEMAP_SOAK_SECONDS`. What is sent is made by hand: no library that speaks HTTP/2 would send it.

use std::{
    future::{Future, pending},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use industry_treemap::proto::treemap::v1::WatchTreemapRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, tcp::OwnedWriteHalf},
    sync::oneshot,
    task::{JoinHandle, JoinSet, yield_now},
    time::{interval, sleep, timeout},
};

use crate::support::{
    database::Database,
    eventually,
    raw::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GET_TREEMAP, GOAWAY, HEADERS, PADDED, PING, PREFACE,
        PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, headers_of, headers_of_get, literal,
        message, request_headers,
    },
    server::{Server, get, ready},
};

/// How long a client that behaves waits for an answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
/// Lines of the log that a whole attack may cost.
const LINES: usize = 20;
/// The memory of the container in deploy/kubernetes/deployment.yaml.
const CONTAINER_MIB: f64 = 192.0;

fn lasts() -> Duration {
    let seconds = std::env::var("TREEMAP_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(30))
}

/// Clients that behave: one by gRPC over a connection that stays, one by Connect over HTTP/1.1 with a connection for each call.
struct Good {
    stop: Arc<AtomicBool>,
    calling: [JoinHandle<(u64, u64)>; 2],
}

impl Good {
    async fn start(server: &Server) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (client, addr) = (server.client().await, server.addr.clone());
        let by_grpc = move || {
            let mut client = client.clone();
            async move { get(&mut client, "3m", 10, 0).await.is_ok() }
        };
        let by_connect = move || {
            let addr = addr.clone();
            async move { curl(&addr).await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) }
        };
        let calling = [
            tokio::spawn(call_until(stop.clone(), Duration::from_millis(10), by_grpc)),
            tokio::spawn(call_until(stop.clone(), Duration::from_millis(40), by_connect)),
        ];
        Self { stop, calling }
    }

    /// How many calls each has made, and how many of these failed.
    async fn stop(self) -> [(u64, u64); 2] {
        self.stop.store(true, Ordering::Relaxed);
        let [by_grpc, by_connect] = self.calling;
        [by_grpc.await.unwrap(), by_connect.await.unwrap()]
    }
}

async fn call_until<F: Future<Output = bool>>(
    stop: Arc<AtomicBool>,
    every: Duration,
    call: impl Fn() -> F,
) -> (u64, u64) {
    let (mut made, mut failed) = (0, 0);
    let mut beat = interval(every);
    while !stop.load(Ordering::Relaxed) {
        beat.tick().await;
        made += 1;
        if !timeout(ANSWERED_WITHIN, call()).await.unwrap_or(false) {
            failed += 1;
        }
    }
    (made, failed)
}

/// A call by Connect over a connection of its own; gives all that comes back.
async fn curl(addr: &str) -> Option<String> {
    let body = r#"{"period":"3m","limit":10}"#;
    let head = format!("POST {GET_TREEMAP} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n");
    let mut stream = TcpStream::connect(addr).await.ok()?;
    let request = format!("{head}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

/// A connection that sends any bytes, from an address of this machine that no client has which behaves.
struct Attacker {
    write: OwnedWriteHalf,
    reading: JoinHandle<()>,
}

impl Attacker {
    /// Connects; takes what comes, or nothing at all. `None` when it cannot connect.
    async fn connect(addr: SocketAddr, source: u8, deaf: bool) -> Option<Self> {
        let socket = TcpSocket::new_v4().ok()?;
        socket.bind((Ipv4Addr::new(127, 0, 1, source), 0).into()).ok()?;
        let (mut read, write) = timeout(ANSWERED_WITHIN, socket.connect(addr)).await.ok()?.ok()?.into_split();
        let reading = tokio::spawn(async move {
            if deaf {
                pending::<()>().await;
            }
            let mut taken = vec![0; 4096];
            while matches!(read.read(&mut taken).await, Ok(1..)) {}
        });
        Some(Self { write, reading })
    }

    /// Sends bytes; false when the server does not take them, or has closed the connection.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = timeout(ANSWERED_WITHIN, self.write.write_all(bytes)).await;
        yield_now().await;
        matches!(sent, Ok(Ok(()))) && !self.reading.is_finished()
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        // Its port is free again at once: there are fewer ports than connections in 30 s.
        let _ = self.write.as_ref().set_zero_linger();
        self.reading.abort();
    }
}

/// What an attack was, in numbers.
struct Sent {
    name: &'static str,
    events: u64,
    connections: u64,
}

/// What is sent over a connection, until the server closes it.
struct Flood {
    name: &'static str,
    settings: &'static [u8],
    /// Takes nothing that comes.
    deaf: bool,
    /// An event, by its number on the connection.
    event: fn(u32) -> Vec<u8>,
}

const fn flood(name: &'static str, event: fn(u32) -> Vec<u8>) -> Flood {
    Flood { name, settings: &[], deaf: false, event }
}

/// Windows of no byte.
const NO_WINDOW: &[u8] = &[0, 4, 0, 0, 0, 0];
/// Events that are sent together.
const BURST: u32 = 50;

fn stream(number: u32) -> u32 {
    2 * number + 1
}

fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request_headers(&[]))
}

fn call(stream: u32) -> Vec<u8> {
    [open(stream), frame(DATA, END_STREAM, stream, &[0; 5])].concat()
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

fn window_update(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// Frames of data on one call after another; each has as many as its window takes.
fn data(number: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    const EACH: u32 = 200;
    let call = stream(number / EACH);
    let data = frame(DATA, flags, call, payload);
    match number % EACH {
        0 => [open(call), data].concat(),
        last if last == EACH - 1 => [data, reset(call)].concat(),
        _ => data,
    }
}

/// Headers that are large only once they are decoded: one large header, and its number in the table, thousands of times.
fn bomb(number: u32) -> Vec<u8> {
    let mut block = request_headers(&[]);
    block.extend([0x40, 1, b'x']);
    literal(&mut block, &[b'y'; 3900]);
    block.extend([0xbe; 8000]);
    frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &block)
}

/// The kinds of floods, by what they are about.
fn floods() -> [(&'static str, Vec<Flood>); 4] {
    [
        ("streams", about_streams()),
        ("headers", about_headers()),
        ("control", about_control()),
        ("data and windows", about_data()),
    ]
}

fn about_streams() -> Vec<Flood> {
    vec![
        flood("rapid reset", |number| [open(stream(number)), reset(stream(number))].concat()),
        flood("rapid reset of whole calls", |number| [call(stream(number)), reset(stream(number))].concat()),
        // An update by nothing is an error of the stream.
        flood("resets that the server has to send", |number| {
            [open(stream(number)), window_update(stream(number), 0)].concat()
        }),
        flood("more calls than allowed", |number| open(stream(number))),
        flood("HEADERS on stream 0", |_| open(0)),
        flood("HEADERS on even streams", |number| open(stream(number) + 1)),
        flood("RST_STREAM of idle streams", |number| reset(stream(number))),
        flood("PUSH_PROMISE", |number| frame(PUSH_PROMISE, END_HEADERS, stream(number), &[0, 0, 0, 2, 0x82])),
    ]
}

fn about_headers() -> Vec<Flood> {
    vec![
        flood("CONTINUATION without end", |number| match number {
            0 => frame(HEADERS, 0, 1, &request_headers(&[])),
            _ => frame(CONTINUATION, 0, 1, &[0, 1, b'x', 1, b'y']),
        }),
        flood("CONTINUATION without end or content", |number| match number {
            0 => frame(HEADERS, 0, 1, &request_headers(&[])),
            _ => frame(CONTINUATION, 0, 1, &[]),
        }),
        flood("HPACK bomb", bomb),
        flood("thousands of headers", |number| {
            let block = [request_headers(&[]), [0, 1, b'x', 1, b'y'].repeat(3000)].concat();
            frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &block)
        }),
        flood("updates of the HPACK table", |number| {
            let block = [[0x20, 0x3f, 0xe1, 0x1f].repeat(1000), request_headers(&[])].concat();
            frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &block)
        }),
        flood("HPACK that cannot be read", |number| frame(HEADERS, END_HEADERS, stream(number), &[0xff; 40])),
        flood("trailers without end", |_| open(1)),
    ]
}

fn about_control() -> Vec<Flood> {
    vec![
        flood("SETTINGS", |number| {
            let value = |id: u16, value: u32| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
            frame(SETTINGS, 0, 0, &[value(1, number % 4096), value(4, number % 65_536)].concat())
        }),
        flood("SETTINGS without content", |_| frame(SETTINGS, 0, 0, &[])),
        flood("acknowledgements that nobody wants", |_| frame(SETTINGS, ACK, 0, &[])),
        flood("PING", |number| frame(PING, 0, 0, &u64::from(number).to_be_bytes())),
        Flood { deaf: true, ..flood("PING, deaf", |_| frame(PING, 0, 0, &[7; 8])) },
        flood("PRIORITY", |number| frame(PRIORITY, 0, stream(number), &[0, 0, 0, 0, 9])),
        flood("GOAWAY", |_| frame(GOAWAY, 0, 0, &[0; 100])),
        flood("unknown kinds", |number| frame(u8::try_from(32 + number % 200).unwrap(), 0xff, number % 9, &[0; 60])),
        flood("frames that are too long", |_| frame(PING, 0, 0, &[0; 20_000])),
    ]
}

fn about_data() -> Vec<Flood> {
    vec![
        flood("DATA of one byte", |number| data(number, 0, &[0])),
        flood("DATA without content", |number| data(number, 0, &[])),
        flood("DATA of padding", |number| data(number, PADDED, &[60; 61])),
        flood("DATA on idle streams", |number| frame(DATA, 0, stream(number), &[0; 9])),
        flood("DATA beyond the window", |number| match number {
            0 => open(1),
            _ => frame(DATA, 0, 1, &[0; 16_000]),
        }),
        flood("WINDOW_UPDATE", |number| match number {
            0 => [open(1), window_update(1, 1)].concat(),
            _ => window_update(number % 2, 1),
        }),
        flood("WINDOW_UPDATE beyond the limit", |_| window_update(0, 0x7fff_ffff)),
        flood("WINDOW_UPDATE beyond the limit of a stream", |number| {
            [open(stream(number)), window_update(stream(number), 0x7fff_ffff)].concat()
        }),
        Flood { settings: NO_WINDOW, ..flood("windows of no byte", |number| call(stream(number))) },
        Flood { deaf: true, ..flood("calls, deaf", |number| call(stream(number))) },
    ]
}

impl Flood {
    async fn run(self, addr: SocketAddr, source: u8, until: Instant) -> Sent {
        let mut sent = Sent { name: self.name, events: 0, connections: 0 };
        while Instant::now() < until {
            let Some(mut attacker) = Attacker::connect(addr, source, self.deaf).await else {
                sleep(Duration::from_millis(10)).await;
                continue;
            };
            sent.connections += 1;
            let begin = [PREFACE, &frame(SETTINGS, 0, 0, self.settings)].concat();
            let mut open = attacker.send(&begin).await;
            let mut number = 0;
            while open && Instant::now() < until {
                let burst: Vec<u8> = (number..number + BURST).flat_map(self.event).collect();
                open = attacker.send(&burst).await;
                number += BURST;
                sent.events += u64::from(BURST);
            }
        }
        sent
    }
}

/// Runs an attack on a thread of its own while others call, and prints the figures. None of their calls fails, the memory stays within twice
/// of what it was, and the log has no line per event.
async fn endure<A>(name: &str, server: &Server, attack: impl FnOnce() -> A + Send + 'static) -> A::Output
where
    A: Future<Output: Send + 'static>,
{
    let good = Good::start(server).await;
    // What was there before includes what their own calls take.
    sleep(Duration::from_secs(1)).await;
    let (before, lines) = (server.memory_mib(), server.log().lines().count());
    let (result, peak) = run_and_watch(server, attack).await;
    let [(grpc, grpc_failed), (connect, connect_failed)] = good.stop().await;
    let lines = server.log().lines().count() - lines;
    println!(
        "{name}: {grpc} calls by gRPC ({grpc_failed} failed), {connect} by Connect ({connect_failed} failed); \
         {before:.1} MiB before, {peak:.1} at most; {lines} lines of the log"
    );
    assert!(grpc > 100 && connect > 50);
    assert_eq!((grpc_failed, connect_failed), (0, 0), "{name}");
    assert!(peak <= 2.0 * before, "{name}");
    assert!(lines <= LINES, "{name}: {}", server.log());
    result
}

/// Runs an attack on a thread of its own; gives its result, and the most memory that the server had.
async fn run_and_watch<A>(server: &Server, attack: impl FnOnce() -> A + Send + 'static) -> (A::Output, f64)
where
    A: Future<Output: Send + 'static>,
{
    let (done, mut ended) = oneshot::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _ = done.send(runtime.block_on(attack()));
    });
    let mut peak = server.memory_mib();
    loop {
        tokio::select! {
            result = &mut ended => return (result.expect("the attack itself does not fail"), peak),
            () = sleep(Duration::from_millis(20)) => peak = peak.max(server.memory_mib()),
        }
    }
}

/// It answers as before, and stops in its time.
async fn answers_and_stops(mut server: Server) {
    assert!(get(&mut server.client().await, "3m", 10, 0).await.is_ok());
    assert!(curl(&server.addr).await.unwrap().starts_with("HTTP/1.1 200"));
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
    let begun = Instant::now();
    server.signal("TERM");
    assert!(server.wait_for_exit().await.success());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make soak"]
async fn no_flood_of_http2_fails_a_call_takes_memory_or_fills_the_log() {
    let (_database, server) = ready(&[]).await;
    let addr = server.addr.parse().unwrap();
    for (about, floods) in floods() {
        let attack = move || async move {
            let until = Instant::now() + lasts();
            let mut running = JoinSet::new();
            for (source, flood) in (1..).zip(floods) {
                running.spawn(flood.run(addr, source, until));
            }
            running.join_all().await
        };
        for Sent { name, events, connections } in endure(about, &server, attack).await {
            println!("  {name}: {events} events over {connections} connections");
            assert!(events > 100, "{name} does not arrive");
        }
    }
    answers_and_stops(server).await;
}

/// The same bytes with a few faults.
fn mutated(random: &mut Rng, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.usize(1..6) {
        let place = random.usize(..=bytes.len());
        let end = (place + random.usize(..20)).min(bytes.len());
        match random.u8(..6) {
            0 | 1 if place < bytes.len() => bytes[place] = random.u8(..),
            2 => bytes.insert(place, random.u8(..)),
            3 => drop(bytes.drain(place..end)),
            4 => {
                let again = bytes[place..end].to_vec();
                drop(bytes.splice(place..place, again));
            }
            5 if random.u8(..4) == 0 => bytes.truncate(place),
            _ => {}
        }
    }
    bytes
}

/// What one connection of HTTP/2 sends: frames of any kind that are valid in their length only, or a call with a few faults.
fn frames(random: &mut Rng) -> Vec<u8> {
    if random.bool() {
        let call = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &call(1), &call(3)].concat();
        // Mostly with a sound preface: what follows is looked at only then.
        let sound = if random.u8(..10) == 0 { 0 } else { PREFACE.len() };
        return [&call[..sound], &mutated(random, &call[sound..])].concat();
    }
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for _ in 0..random.usize(1..40) {
        let longest = [10, 200, 16_384][usize::from(random.u8(..8)).saturating_sub(5)];
        let mut payload = vec![0; random.usize(..=longest)];
        random.fill(&mut payload);
        if random.bool() {
            payload = request_headers(&[]);
        }
        let kind = if random.u8(..10) == 0 { random.u8(..) } else { random.u8(..10) };
        let stream = if random.u8(..10) == 0 { random.u32(..) } else { random.u32(..9) };
        bytes.extend(frame(kind, random.u8(..), stream, &payload));
    }
    bytes
}

/// Correct requests of HTTP/1.1.
fn requests() -> Vec<Vec<u8>> {
    let json = r#"{"period":"3m","limit":10}"#;
    let post = |kind: &str, more: &str, body: &[u8]| {
        let head = format!("POST {GET_TREEMAP} HTTP/1.1\r\nhost: test\r\ncontent-type: {kind}\r\n{more}\r\n");
        [head.as_bytes(), body].concat()
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: test\r\naccept-encoding: gzip\r\n\r\n").into_bytes();
    let chunked = format!("5\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n", &json[..5], json.len() - 5, &json[5..]);
    vec![
        post("application/json", &format!("content-length: {}\r\n", json.len()), json.as_bytes()),
        post("application/json", "transfer-encoding: chunked\r\n", chunked.as_bytes()),
        post("application/grpc-web+proto", "content-length: 9\r\n", &[0, 0, 0, 0, 4, 10, 2, b'3', b'm']),
        post("application/grpc-web-text", "content-length: 8\r\n", b"AAAAAAA="),
        get(&format!("{GET_TREEMAP}?connect=v1&encoding=json&message=%7B%22period%22%3A%223m%22%7D")),
        get("/treemap.svg?period=3m&limit=10"),
        get("/health"),
    ]
}

/// What one connection of HTTP/1.1 sends: a few requests with faults, wrong lengths, headers that are large, chunks that are none.
fn faulty_requests(random: &mut Rng, correct: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..5) {
        let request = &correct[random.usize(..correct.len())];
        match random.u8(..8) {
            0 => bytes.extend(request),
            1 => {
                let text = String::from_utf8_lossy(request);
                let length = [random.u64(..), random.u64(..40)][usize::from(random.bool())];
                bytes.extend(text.replacen("content-length: ", &format!("content-length: {length}"), 1).into_bytes());
            }
            2 => {
                let large = format!(
                    "host: test\r\n{}: {}\r\n",
                    "x".repeat(random.usize(1..3000)),
                    "y".repeat(random.usize(..100_000))
                );
                bytes.extend(String::from_utf8_lossy(request).replacen("host: test\r\n", &large, 1).into_bytes());
            }
            3 => {
                let mut garbage = vec![0; random.usize(..300)];
                random.fill(&mut garbage);
                bytes.extend(
                    String::from_utf8_lossy(request)
                        .replacen("content-length", "transfer-encoding: chunked\r\nx", 1)
                        .into_bytes(),
                );
                bytes.extend(format!("{:x}\r\n", random.u64(..)).into_bytes());
                bytes.extend(garbage);
            }
            _ => bytes.extend(mutated(random, request)),
        }
    }
    bytes
}

/// Sends what `make` makes, over one connection after another, in pieces of any length.
async fn fuzz(
    name: &'static str,
    (addr, source, until): (SocketAddr, u8, Instant),
    seed: u64,
    make: impl Fn(&mut Rng) -> Vec<u8>,
) -> Sent {
    let mut sent = Sent { name, events: 0, connections: 0 };
    while Instant::now() < until {
        // Each connection can be made again by its number.
        let mut random = Rng::with_seed(seed + sent.connections);
        let Some(mut attacker) = Attacker::connect(addr, source, false).await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        sent.connections += 1;
        let bytes = make(&mut random);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = if random.bool() { rest.len() } else { random.usize(1..=rest.len()) };
            let (piece, after) = rest.split_at(length);
            sent.events += 1;
            if !attacker.send(piece).await {
                break;
            }
            rest = after;
        }
        // Some wait for an answer, and some are gone before.
        if random.u8(..4) == 0 {
            let _ = timeout(Duration::from_millis(20), &mut attacker.reading).await;
        }
    }
    sent
}

/// Two attackers that send what `make` makes.
async fn fuzz_a_server(name: &'static str, make: fn(&mut Rng) -> Vec<u8>) {
    let (_database, server) = ready(&[]).await;
    let addr = server.addr.parse().unwrap();
    let seed = fastrand::u64(..1 << 40);
    println!("{name}: seed {seed}");
    let attack = move || async move {
        let until = Instant::now() + lasts();
        let one = fuzz(name, (addr, 1, until), seed, make);
        let other = fuzz(name, (addr, 2, until), seed + (1 << 32), make);
        tokio::join!(one, other)
    };
    let (one, other) = endure(name, &server, attack).await;
    for Sent { events, connections, .. } in [one, other] {
        println!("  {events} writes over {connections} connections");
        assert!(connections > 100);
    }
    answers_and_stops(server).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make soak"]
async fn no_frames_of_http2_fail_a_call_take_memory_or_fill_the_log() {
    fuzz_a_server("random and faulty frames", frames).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make soak"]
async fn no_bytes_of_http_1_fail_a_call_take_memory_or_fill_the_log() {
    fuzz_a_server("faulty requests of HTTP/1.1", |random| faulty_requests(random, &requests())).await;
}

/// A request that never ends, of a message of `declared` bytes.
fn unfinished(stream: u32, path: &str, declared: u32, sent: usize) -> Vec<u8> {
    let head = [&[0][..], &declared.to_be_bytes(), &vec![0; sent]].concat();
    [frame(HEADERS, END_HEADERS, stream, &headers_of(path, &[])), frame(DATA, 0, stream, &head)].concat()
}

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const WATCH_TREEMAP: &str = "/treemap.v1.TreemapService/WatchTreemap";

/// One connection of the attack on all at once, again and again: what it sends, and how long it then waits.
async fn attack_on_all(addr: SocketAddr, source: u8, kind: usize, until: Instant) {
    while Instant::now() < until {
        let Some(mut attacker) = Attacker::connect(addr, source, false).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        // No room for any byte of an answer, or for one byte of each.
        let settings: &[u8] = match kind % 6 {
            4 => &[0, 4, 0, 0, 0, 0],
            5 => &[0, 4, 0, 0, 0, 1],
            _ => &[],
        };
        let mut open = attacker.send(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()).await;
        // On each, a health check that never ends, of a size that nobody takes.
        open &= attacker.send(&unfinished(1, CHECK, 4 << 20, 600)).await;
        let mut number = 1;
        while open && Instant::now() < until {
            let (burst, pause) = match kind % 6 {
                0 => (unfinished(stream(number), CHECK, 4 << 20, 600), 50),
                1 => (unfinished(stream(number), GET_TREEMAP, 4096, 400), 50),
                2 => (call_of(WATCH, stream(number)), 100),
                // Pictures and treemaps of which none is like another.
                4 => {
                    let width = 160 + (usize::from(source) * 2503 + kind * 31 + number as usize) % 7520;
                    let path = format!("/treemap.svg?limit=500&width={width}");
                    (frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &headers_of_get(&path)), 50)
                }
                5 => {
                    let limit = i32::try_from(1 + (kind * 7 + number as usize) % 500).unwrap();
                    let request = WatchTreemapRequest { period: "max".into(), limit, ..Default::default() };
                    let headers = frame(HEADERS, END_HEADERS, stream(number), &headers_of(WATCH_TREEMAP, &[]));
                    ([headers, frame(DATA, END_STREAM, stream(number), &message(&request))].concat(), 50)
                }
                _ => ((number..number + 10).flat_map(open_and_reset).collect(), 50),
            };
            open = attacker.send(&burst).await;
            number += if kind % 6 == 3 { 10 } else { 1 };
            sleep(Duration::from_millis(pause)).await;
        }
        // A connection that was refused is not made again at once: it would only measure how fast this machine connects.
        sleep(Duration::from_millis(100)).await;
    }
}

fn call_of(path: &str, stream: u32) -> Vec<u8> {
    let headers = frame(HEADERS, END_HEADERS, stream, &headers_of(path, &[]));
    [headers, frame(DATA, END_STREAM, stream, &[0; 5])].concat()
}

fn open_and_reset(number: u32) -> Vec<u8> {
    [open(stream(number)), reset(stream(number))].concat()
}

/// A connection to the admin port that sends a byte now and then.
async fn slow_admin(addr: SocketAddr, source: u8, until: Instant) {
    while Instant::now() < until {
        if let Some(mut attacker) = Attacker::connect(addr, source, false).await {
            let mut bytes = b"GET /metrics HTTP/1.1\r\nx: ".iter().chain(std::iter::repeat(&b'y'));
            while Instant::now() < until && attacker.send(&[*bytes.next().unwrap()]).await {
                sleep(Duration::from_millis(200)).await;
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Attacks all that is limited at once, from some addresses with 250 connections each: their share.
async fn all_at_once(addresses: u8) {
    // Both ends of a connection have a descriptor, one of them here.
    rlimit::increase_nofile_limit(4096).unwrap();
    let database = Database::with_sample();
    database.add_a_thousand_stocks();
    let arguments = ["--max-connections-per-client", "25%", "--log", "debug"];
    let server = Server::start_with(&database.url(), &arguments).await;
    server.wait_until_ready().await;
    let (addr, admin) = (server.addr.parse().unwrap(), server.admin().await.parse().unwrap());
    let good = Good::start(&server).await;
    sleep(Duration::from_secs(1)).await;
    let before = server.memory_mib();
    server.read_log(false);
    let attack = move || async move {
        let until = Instant::now() + lasts();
        let mut running = JoinSet::new();
        for source in 1..=addresses {
            for kind in 0..250 {
                running.spawn(attack_on_all(addr, source, kind, until));
            }
        }
        for _ in 0..70 {
            running.spawn(slow_admin(admin, 200, until));
        }
        running.join_all().await;
    };
    let ((), peak) = run_and_watch(&server, attack).await;
    let ended = Instant::now();
    let [(grpc, grpc_failed), (connect, connect_failed)] = good.stop().await;
    eventually("all is as before", async || {
        let answer = curl(&server.addr).await?;
        let open = server.metric("treemap_connections").await;
        (answer.starts_with("HTTP/1.1 200") && open <= 10.0).then_some(())
    })
    .await;
    let recovered = ended.elapsed().as_secs_f64();
    println!(
        "{} connections from {addresses} addresses: {grpc} calls by gRPC ({grpc_failed} failed), {connect} by Connect \
         ({connect_failed} failed); {before:.1} MiB before, {peak:.1} at most, {:.1} after; as before after {recovered:.1} s",
        u32::from(addresses) * 250,
        server.memory_mib()
    );
    assert!(peak < CONTAINER_MIB, "{peak} MiB");
    assert_eq!(grpc_failed, 0, "over the connection that was there before");
    // Beyond the places, new connections are refused.
    if addresses < 4 {
        assert_eq!(connect_failed, 0, "over new connections");
    }
    server.read_log(true);
    answers_and_stops(server).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make soak"]
async fn three_addresses_that_attack_all_at_once_fail_no_call_of_others() {
    all_at_once(3).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make soak"]
async fn when_all_places_are_taken_and_attacked_no_call_fails_that_has_a_connection() {
    all_at_once(5).await;
}
