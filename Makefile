.PHONY: demo test soak lint bench

# The treemap on this machine, from nothing. DATA=folder: from real reports and a company list, else from a sample.
demo:
	scripts/setup.sh cc postgres grpcurl
	cargo build --release --locked
	scripts/demo.sh

# All tests, against a Postgres of their own.
test:
	scripts/setup.sh cc postgres grpcurl pgbouncer faketime
	cargo test --locked

# What takes minutes: replicas that come and go, and load through slow refreshes.
soak:
	scripts/setup.sh cc postgres
	cargo test --release --locked --test it -- --ignored --nocapture --test-threads=1

# Format, lints, documentation.
lint:
	scripts/setup.sh cc
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

# Every figure that README and docs quote, beside its bar; on the real reports where they are at hand.
bench:
	scripts/setup.sh cc postgres h2load
	cargo bench --locked --bench database --bench serving
