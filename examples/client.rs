//! The program of docs/clients.md for Rust: the suite compiles and runs it here, with the build.rs of this repository.

use std::time::Duration;

use proto::shorts::v1alpha1::{GetIndustryTreeMapRequest, shorted_stocks_service_client::ShortedStocksServiceClient};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Request, transport::Endpoint};

#[allow(dead_code, clippy::all, clippy::pedantic)]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/proto.rs"));
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("the address?")?;
    let mut service = ShortedStocksServiceClient::new(Endpoint::from_shared(address)?.connect_lazy());
    // The last two are tonic's, for a call that it could not send because its connection ended.
    let may_pass = [Code::Unavailable, Code::ResourceExhausted, Code::Cancelled, Code::Internal];
    let end = Instant::now() + Duration::from_secs(5);
    let mut pause = Duration::from_millis(100);
    let treemap = loop {
        let mut request = Request::new(GetIndustryTreeMapRequest { period: "3m".into(), limit: 10, view_mode: 0 });
        request.set_timeout(end.saturating_duration_since(Instant::now()));
        match timeout_at(end, service.get_industry_tree_map(request)).await? {
            Err(status) if pause.as_secs() < 3 && may_pass.contains(&status.code()) => {
                timeout_at(end, sleep(pause.mul_f64(fastrand::f64()))).await?;
                pause *= 3;
            }
            answer => break answer?,
        }
    };
    let date = treemap.metadata().get("treemap-data-date").ok_or("no date")?;
    println!("as of {}", date.to_str()?);
    for stock in treemap.into_inner().stocks {
        println!("{} {} {}", stock.industry, stock.product_code, stock.short_position);
    }
    Ok(())
}
