//! Writes of a connection, gathered. HTTP/2 writes and flushes each of its frames by itself: a system call for each answer. Here they
//! go into a buffer, and to the socket once the connection has nothing more to do (measured: half the CPU per call).
//!
//! Back pressure stays: beyond a limit a write waits until the socket has taken the buffer.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a connection that wait for the socket before a write waits too.
const LIMIT: usize = 128 * 1024;
/// The same while clients that do not read have used up the budget.
const LIMIT_OVER_BUDGET: usize = 8 * 1024;
/// Bytes that may wait for clients that do not read, over all connections.
const BUDGET: usize = 16 * 1024 * 1024;
/// Buffers that a thread keeps for its connections: those that are idle have none.
const SPARE: usize = 8;

/// Bytes that wait for clients that do not read, over all connections of the process.
static WAITING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SPARE_BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A stream whose writes are gathered. Cloned, it is the same stream: one for HTTP, one for whoever drains it.
#[derive(Debug)]
pub struct Gathered<I>(Arc<Mutex<Inner<I>>>);

#[derive(Debug)]
struct Inner<I> {
    io: I,
    buffer: Vec<u8>,
    /// How much of the buffer is written.
    written: usize,
    /// Bytes written over all, to see whether there is progress.
    total: u64,
    /// This connection's share of `WAITING`.
    waiting: usize,
    received: Received,
    /// What was read to tell the version of HTTP, and not handed on yet.
    unread: Vec<u8>,
}

/// What has been read so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes, in all.
    pub bytes: u64,
    /// Whether they begin as HTTP/2 does.
    pub http2: bool,
}

/// The first bytes of a client that speaks HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl<I> Clone for Gathered<I> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Gathered<I> {
    /// Gathers the writes of `io`.
    pub fn new(io: I) -> Self {
        let received = Received { bytes: 0, http2: false };
        Self(Arc::new(Mutex::new(Inner {
            io,
            buffer: Vec::new(),
            written: 0,
            total: 0,
            waiting: 0,
            received,
            unread: Vec::new(),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner<I>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is gathered to the socket, as far as that takes it. Pending while some is left.
    pub fn poll_drain(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_drain(context)
    }

    /// Reads until the version of HTTP is certain: whether it is HTTP/2.
    pub async fn is_http2(&self) -> io::Result<bool> {
        poll_fn(|context| self.inner().poll_is_http2(context)).await
    }

    /// What has been read so far.
    pub fn received(&self) -> Received {
        self.inner().received
    }

    /// The bytes that were written so far, and whether more wait.
    pub fn progress(&self) -> (u64, bool) {
        let inner = self.inner();
        (inner.total, !inner.buffer.is_empty())
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Inner<I> {
    fn poll_is_http2(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.unread.len() < PREFACE.len() && PREFACE.starts_with(&self.unread) {
            let mut bytes = [0; PREFACE.len()];
            let mut buffer = ReadBuf::new(&mut bytes[self.unread.len()..]);
            ready!(Pin::new(&mut self.io).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.unread.extend_from_slice(buffer.filled());
        }
        self.received = Received { bytes: self.unread.len() as u64, http2: self.unread == PREFACE };
        Poll::Ready(Ok(self.received.http2))
    }

    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.poll_write_out(context);
        self.waits(self.buffer.len() - self.written);
        polled
    }

    /// Sets this connection's share of what waits.
    fn waits(&mut self, bytes: usize) {
        if bytes != self.waiting {
            WAITING.fetch_add(bytes, Ordering::Relaxed);
            WAITING.fetch_sub(std::mem::replace(&mut self.waiting, bytes), Ordering::Relaxed);
        }
    }

    fn poll_write_out(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.buffer.len() {
            let written = ready!(Pin::new(&mut self.io).poll_write(context, &self.buffer[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            self.total += written as u64;
        }
        if !self.buffer.is_empty() {
            self.written = 0;
            self.buffer.clear();
            give_back(std::mem::take(&mut self.buffer));
        }
        // TLS has a buffer of its own.
        Pin::new(&mut self.io).poll_flush(context)
    }

    /// Writes past the buffer what the socket takes. HTTP/1.1 writes an answer as a whole: to gather it would only copy it (measured: a
    /// tenth of the CPU per call).
    fn write_at_once(&mut self, context: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> io::Result<usize> {
        if self.received.http2 || !self.buffer.is_empty() {
            return Ok(0);
        }
        // What it does not take now goes into the buffer.
        let Poll::Ready(taken) = Pin::new(&mut self.io).poll_write_vectored(context, bytes)? else { return Ok(0) };
        self.total += taken as u64;
        Ok(taken)
    }

    /// Makes room for a write.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let limit = if WAITING.load(Ordering::Relaxed) > BUDGET { LIMIT_OVER_BUDGET } else { LIMIT };
        if self.buffer.len() - self.written >= limit {
            ready!(self.poll_drain(context))?;
        }
        if self.buffer.capacity() == 0 {
            // A buffer that is kept may be larger than what may wait now.
            let spare = if limit == LIMIT { SPARE_BUFFERS.with_borrow_mut(Vec::pop) } else { None };
            self.buffer = spare.unwrap_or_default();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I> Drop for Inner<I> {
    fn drop(&mut self) {
        WAITING.fetch_sub(self.waiting, Ordering::Relaxed);
    }
}

fn give_back(buffer: Vec<u8>) {
    SPARE_BUFFERS.with_borrow_mut(|spare| {
        if spare.len() < SPARE && buffer.capacity() <= 2 * LIMIT {
            spare.push(buffer);
        }
    });
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<I> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        if !inner.unread.is_empty() {
            let now = inner.unread.len().min(buffer.remaining());
            buffer.put_slice(&inner.unread[..now]);
            inner.unread.drain(..now);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut inner.io).poll_read(context, buffer);
        inner.received.bytes += (buffer.filled().len() - before) as u64;
        polled
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gathered<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.inner();
        let mut taken = inner.write_at_once(context, bytes)?;
        let length = bytes.iter().map(|slice| slice.len()).sum();
        if taken < length {
            // Never waits when some are taken: the buffer was empty then.
            ready!(inner.poll_room(context))?;
            for slice in bytes {
                let (_, rest) = slice.split_at(taken.min(slice.len()));
                taken -= slice.len() - rest.len();
                inner.buffer.extend_from_slice(rest);
            }
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Whoever polls the connection drains it after.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        ready!(inner.poll_drain(context))?;
        Pin::new(&mut inner.io).poll_shutdown(context)
    }
}
