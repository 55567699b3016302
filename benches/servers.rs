//! The baseline servers: a bare tonic server that returns constant bytes through the same kind of codec, and a server
//! that runs the ranked window query for every request. The benchmark starts its own binary again as one of them.

use std::{convert::Infallible, env, future::Future, sync::Arc};

use bytes::{BufMut, Bytes};
use deadpool_postgres::{Manager, Pool};
use industry_treemap::proto::{
    shorts::v1alpha1::GetIndustryTreeMapRequest,
    stocks::v1alpha1::{IndustryTreeMap, TreemapShortPosition},
};
use tokio_postgres::NoTls;
use tonic::{
    Request, Response, Status,
    codec::{BufferSettings, Codec, EncodeBuf, Encoder},
    codegen::{Body, BoxFuture, Service, StdError, http},
    server::{Grpc, NamedService, UnaryService},
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::{ProstCodec, ProstDecoder};

/// The environment variable that turns this process into a server: `bare` or `query`.
pub const ROLE: &str = "TREEMAP_BENCH_SERVER";
/// The environment variable with the path of the answer that the bare server returns.
pub const ANSWER: &str = "TREEMAP_BENCH_ANSWER";

/// Runs the server that `ROLE` names until the process is killed. Returns at once when `ROLE` is not set.
pub fn serve_if_asked() {
    let Ok(role) = env::var(ROLE) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        eprintln!("listening on {}", listener.local_addr().unwrap());
        if role == "http1" {
            return bare_http1(listener, Bytes::from(std::fs::read(env::var(ANSWER).unwrap()).unwrap())).await;
        }
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        if role == "bare" {
            let answer = Bytes::from(std::fs::read(env::var(ANSWER).unwrap()).unwrap());
            let service = Unary::<_, ConstantCodec>::new(move |_| {
                let answer = answer.clone();
                async move { Ok(Response::new(answer)) }
            });
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        } else {
            let manager = Manager::new(env::var("DATABASE_URL").unwrap().parse().unwrap(), NoTls);
            let pool = Pool::builder(manager).max_size(8).build().unwrap();
            let service = Unary::<_, ProstCodec<IndustryTreeMap, GetIndustryTreeMapRequest>>::new(move |request| {
                ranked(pool.clone(), request)
            });
            Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        }
    });
}

/// hyper with HTTP/1.1 and constant bytes, and nothing else.
async fn bare_http1(listener: tokio::net::TcpListener, answer: Bytes) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| {
                let answer = answer.clone();
                async move {
                    http_body_util::BodyExt::collect(request.into_body()).await?;
                    let response = http::Response::builder().header("content-type", "application/json");
                    Ok::<_, hyper::Error>(response.body(http_body_util::Full::new(answer)).unwrap())
                }
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
        });
    }
}

/// One ranked window query, and a message built from its rows.
async fn ranked(pool: Pool, request: Request<GetIndustryTreeMapRequest>) -> Result<Response<IndustryTreeMap>, Status> {
    const QUERY: &str = r#"SELECT industry, product_code, current_short_position FROM (
            SELECT industry, product_code, current_short_position, row_number() OVER (
                PARTITION BY industry COLLATE "C" ORDER BY current_short_position DESC, product_code COLLATE "C") AS place
            FROM mv_treemap_data WHERE period_name = $1
        ) AS ranked WHERE place <= $2 ORDER BY industry COLLATE "C", place"#;
    let failed = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
    let client = pool.get().await.map_err(|error| failed(&error))?;
    let statement = client.prepare_cached(QUERY).await.map_err(|error| failed(&error))?;
    let request = request.get_ref();
    let rows = client.query(&statement, &[&request.period.to_lowercase(), &i64::from(request.limit)]).await;
    let mut answer = IndustryTreeMap::default();
    for row in rows.map_err(|error| failed(&error))? {
        let industry: String = row.get(0);
        if answer.industries.last() != Some(&industry) {
            answer.industries.push(industry.clone());
        }
        answer.stocks.push(TreemapShortPosition { industry, product_code: row.get(1), short_position: row.get(2) });
    }
    Ok(Response::new(answer))
}

/// Copies encoded bytes into tonic's buffer: the minimum work of a codec.
#[derive(Default, Clone, Copy)]
struct ConstantCodec;

impl Codec for ConstantCodec {
    type Encode = Bytes;
    type Decode = GetIndustryTreeMapRequest;
    type Encoder = Self;
    type Decoder = ProstDecoder<GetIndustryTreeMapRequest>;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

impl Encoder for ConstantCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, answer: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(answer.len());
        buffer.put_slice(&answer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(12 * 1024, 32 * 1024)
    }
}

/// The service with its only method, as tonic-build generates it, for any function.
struct Unary<F, C> {
    answer: Arc<F>,
    codec: std::marker::PhantomData<fn() -> C>,
}

impl<F, C> Unary<F, C> {
    fn new(answer: F) -> Self {
        Self { answer: Arc::new(answer), codec: std::marker::PhantomData }
    }
}

impl<F, C> Clone for Unary<F, C> {
    fn clone(&self) -> Self {
        Self { answer: self.answer.clone(), codec: self.codec }
    }
}

impl<F, C> NamedService for Unary<F, C> {
    const NAME: &'static str = "shorts.v1alpha1.ShortedStocksService";
}

struct Call<F>(Arc<F>);

impl<F, A, T> UnaryService<GetIndustryTreeMapRequest> for Call<F>
where
    F: Fn(Request<GetIndustryTreeMapRequest>) -> A,
    A: Future<Output = Result<Response<T>, Status>> + Send + 'static,
{
    type Response = T;
    type Future = BoxFuture<Response<T>, Status>;

    fn call(&mut self, request: Request<GetIndustryTreeMapRequest>) -> Self::Future {
        Box::pin((self.0)(request))
    }
}

impl<F, C, A, B> Service<http::Request<B>> for Unary<F, C>
where
    F: Fn(Request<GetIndustryTreeMapRequest>) -> A + Send + Sync + 'static,
    A: Future<Output = Result<Response<C::Encode>, Status>> + Send + 'static,
    C: Codec<Decode = GetIndustryTreeMapRequest> + Default + Send + 'static,
    C::Encode: Sync,
    C::Encoder: Sync,
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let call = Call(self.answer.clone());
        Box::pin(async move { Ok(Grpc::new(C::default()).unary(call, request).await) })
    }
}
