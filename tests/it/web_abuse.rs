//! HTTP/1.1 as no client should speak it: bounded, counted, and without effect on others.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{eventually, outage::Calls, raw::GET_TREEMAP, server::ready, web::Web};

const BODY: &str = r#"{"period":"3m","limit":1}"#;

/// The head of a call, as far as its end.
pub fn head(more: &str) -> String {
    format!("POST {GET_TREEMAP} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n{more}")
}

/// Sends bytes over a connection of their own, and gives all that comes until the server closes it, or for `patience`.
pub async fn exchange(addr: &str, bytes: &[u8], patience: Duration) -> (String, bool) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let closed =
        timeout(patience, async { while matches!(stream.read_buf(&mut answer).await, Ok(1..)) {} }).await.is_ok();
    (String::from_utf8_lossy(&answer).into_owned(), closed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_and_bodies_that_take_too_long_are_ended_and_nobody_else_notices() {
    let (_database, server) = ready(&[]).await;
    let calls = Calls::start(&server.client().await);
    // A head that never ends, one that trickles, and one on a connection that has answered before.
    let trickle = async |before: bool| {
        let mut stream = TcpStream::connect(&server.addr).await.unwrap();
        if before {
            let call = head(&format!("content-length: {}\r\n\r\n{BODY}", BODY.len()));
            stream.write_all(call.as_bytes()).await.unwrap();
            assert!(stream.read(&mut [0; 8192]).await.unwrap() > 0);
            // Idle for longer than a head may take: that is allowed.
            tokio::time::sleep(Duration::from_secs(7)).await;
        }
        stream.write_all(head("").as_bytes()).await.unwrap();
        let begun = Instant::now();
        let mut ended = false;
        while !ended && begun.elapsed() < Duration::from_secs(15) {
            ended = stream.write_all(b"x: y\r\n").await.is_err()
                || matches!(timeout(Duration::from_millis(500), stream.read(&mut [0; 8192])).await, Ok(Ok(0) | Err(_)));
        }
        begun.elapsed()
    };
    let slow_head = async { exchange(&server.addr, head("").as_bytes(), Duration::from_secs(15)).await };
    // A body that never comes: refused in time, and in words.
    let slow_body = head("content-length: 25\r\n\r\n{");
    let slow_body = async { exchange(&server.addr, slow_body.as_bytes(), Duration::from_secs(15)).await };
    let begun = Instant::now();
    let (first, second, (_, head_closed), (refused, body_closed)) =
        tokio::join!(trickle(false), trickle(true), slow_head, slow_body);
    for took in [first, second] {
        assert!((4.0..9.0).contains(&took.as_secs_f64()), "{took:?}");
    }
    assert!(head_closed && body_closed, "{:?}", begun.elapsed());
    assert!(refused.contains("504") && refused.contains("the request was not complete in time"), "{refused}");
    calls.assert_none_failed().await;
    eventually("the slow heads are counted", async || {
        (server.metric("treemap_connections_closed_total{why=\"silent\"}").await >= 3.0).then_some(())
    })
    .await;
    assert_eq!(server.metric("treemap_calls_in_flight").await, 0.0);
}

#[tokio::test]
async fn requests_that_two_servers_could_read_differently_are_refused() {
    let (_database, server) = ready(&[]).await;
    let chunked = format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
    let smuggled = format!("{}{chunked}", head("transfer-encoding: chunked\r\n\r\n"));
    for (shape, bytes) in [
        ("two lengths", head("content-length: 25\r\ncontent-length: 26\r\n\r\n") + BODY),
        ("a length that is no number", head("content-length: +25\r\n\r\n") + BODY),
        ("chunked, but not last", head("transfer-encoding: chunked, identity\r\n\r\n") + &chunked),
        ("a chunk without a size", head("transfer-encoding: chunked\r\n\r\nxyz\r\n") + BODY),
        ("a name with a space", head("content-length : 25\r\n\r\n") + BODY),
        ("a folded line", head("x: y\r\n z\r\ncontent-length: 25\r\n\r\n") + BODY),
    ] {
        let (answer, closed) = exchange(&server.addr, bytes.as_bytes(), Duration::from_secs(8)).await;
        assert!(closed && answer.starts_with("HTTP/1.1 400 "), "{shape}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{shape}: {answer}");
    }
    // Both a length and chunks: the chunks count, and what follows the request is not read as another.
    let both = head(&format!(
        "content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n{chunked}",
        chunked.len() + smuggled.len()
    ));
    let (answer, closed) = exchange(&server.addr, (both + &smuggled).as_bytes(), Duration::from_secs(3)).await;
    assert!(closed && answer.matches("HTTP/1.1 ").count() == 1, "{answer}");
}

#[tokio::test]
async fn large_heads_and_bodies_are_refused_and_cost_no_memory() {
    let (_database, server) = ready(&[]).await;
    let before = server.memory_mib();
    let mut fat = head("");
    for _ in 0..2000 {
        fat.push_str("x: 0123456789012345678901234567890123456789\r\n");
    }
    let (answer, closed) = exchange(&server.addr, fat.as_bytes(), Duration::from_secs(8)).await;
    // What was still being sent may have reset the connection.
    assert!(closed && (answer.is_empty() || answer.starts_with("HTTP/1.1 431")), "{answer}");
    let filled = fat[..8000].rsplit_once("\r\n").unwrap().0.len() + 2;
    let (answer, _) = exchange(&server.addr, &fat.as_bytes()[..filled + 300], Duration::from_secs(8)).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    // The second is the published server's largest: 5 MB, read to its end before it is refused.
    for length in [200_000, 5_000_000] {
        let large = Web::json(&format!(r#"{{"x":"{}"}}"#, "y".repeat(length)));
        for answer in [large.http1(&server.addr).await, large.http2(&server.addr).await] {
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (429, "resource_exhausted"));
        }
    }
    // Without end: not read for ever.
    let mut stream = TcpStream::connect(&server.addr).await.unwrap();
    stream.write_all(head("transfer-encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    let chunk = format!("4000\r\n{}\r\n", "z".repeat(0x4000));
    let begun = Instant::now();
    while matches!(timeout(Duration::from_secs(5), stream.write_all(chunk.as_bytes())).await, Ok(Ok(()))) {
        assert!(begun.elapsed() < Duration::from_secs(12), "a body without end");
    }
    assert!(server.memory_mib() - before < 16.0, "{before} MiB, now {}", server.memory_mib());
    assert_eq!(Web::json(BODY).http1(&server.addr).await.status, 200);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_garbage_ends_the_connection() {
    let (_database, server) = ready(&[]).await;
    let call = head(&format!("content-length: {}\r\n\r\n{BODY}", BODY.len()));
    let refused = head("content-length: 12\r\n\r\n{\"limit\":-1}");
    let (answer, _) =
        exchange(&server.addr, (call.repeat(3) + &refused + &call).as_bytes(), Duration::from_secs(2)).await;
    let statuses: Vec<_> = answer.match_indices("HTTP/1.1 ").map(|(at, _)| &answer[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "200", "200", "400", "200"]);
    for garbage in [
        &b"\0\0\0\0 garbage that is longer than a preface"[..],
        b"GET\r\n\r\n and more that is no request at all",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ] {
        let (answer, closed) = exchange(&server.addr, garbage, Duration::from_secs(3)).await;
        assert!(closed && !answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn http_1_connections_are_limited_by_age_and_drained() {
    let (_database, mut server) = ready(&["--max-connection-age", "1s"]).await;
    // Kept alive until an answer says that it is the last: no request meets a connection that is closed.
    let mut stream = TcpStream::connect(&server.addr).await.unwrap();
    let call = head(&format!("content-length: {}\r\n\r\n{BODY}", BODY.len()));
    let begun = Instant::now();
    let mut answers = 0;
    while !is_last(&mut stream, &call).await {
        answers += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "it is never closed");
    }
    assert!(answers > 10 && begun.elapsed() > Duration::from_millis(800), "{answers}");
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0, "closed after its last answer");
    eventually("it is counted", async || {
        (server.metric("treemap_connections_closed_total{why=\"age\"}").await == 1.0).then_some(())
    })
    .await;
    // Idle ones end with the server, at once: one that was called, and one that never was.
    let mut kept = TcpStream::connect(&server.addr).await.unwrap();
    assert!(!is_last(&mut kept, &call).await);
    let idle = TcpStream::connect(&server.addr).await.unwrap();
    server.signal("TERM");
    let stopped = Instant::now();
    assert!(server.wait_for_exit().await.success());
    assert!(stopped.elapsed() < Duration::from_secs(5));
    drop((idle, kept));
}

/// Whether the answer to a call says that the connection ends with it.
async fn is_last(stream: &mut TcpStream, call: &str) -> bool {
    stream.write_all(call.as_bytes()).await.unwrap();
    let mut answer = vec![0; 65536];
    let read = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.contains("connection: close")
}

#[tokio::test]
async fn a_replica_that_is_about_to_stop_says_so_with_its_answers_over_http_1() {
    let (_database, mut server) = ready(&["--drain-delay", "8s"]).await;
    let mut stream = TcpStream::connect(&server.addr).await.unwrap();
    let call = head(&format!("content-length: {}\r\n\r\n{BODY}", BODY.len()));
    assert!(!is_last(&mut stream, &call).await);
    server.signal("TERM");
    eventually("it is not ready", async || {
        (Web::new("GET", "/health").http1(&server.addr).await.status == 503).then_some(())
    })
    .await;
    assert!(is_last(&mut stream, &call).await);
    assert!(server.wait_for_exit().await.success());
}

#[tokio::test]
async fn a_connection_over_http_1_that_is_idle_after_an_answer_is_closed() {
    let (_database, server) = ready(&[]).await;
    let mut stream = TcpStream::connect(&server.addr).await.unwrap();
    assert!(!is_last(&mut stream, &head(&format!("content-length: {}\r\n\r\n{BODY}", BODY.len()))).await);
    let begun = Instant::now();
    let read = timeout(Duration::from_secs(100), stream.read(&mut [0; 16])).await.expect("it is closed");
    assert_eq!(read.unwrap(), 0);
    assert!(begun.elapsed() > Duration::from_secs(70), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_client_over_http_1_that_never_takes_its_answers_is_closed() {
    let (_database, server) = ready(&[]).await;
    let mut stream = TcpStream::connect(&server.addr).await.unwrap();
    let call = head(&format!("content-length: {}\r\n\r\n{BODY}", BODY.len())).repeat(1000);
    let begun = Instant::now();
    // Until neither side's buffers take more.
    while matches!(timeout(Duration::from_secs(2), stream.write_all(call.as_bytes())).await, Ok(Ok(()))) {
        assert!(begun.elapsed() < Duration::from_secs(30), "it takes without end");
    }
    // Two rounds of 20 s, longer than others are waited for.
    while server.metric("treemap_connections_closed_total{why=\"stalled\"}").await < 1.0 {
        assert!(begun.elapsed() < Duration::from_secs(75), "it is never closed");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(Web::json(BODY).http1(&server.addr).await.status, 200);
}
