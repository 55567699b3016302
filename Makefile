.PHONY: demo test test-postgres soak lint bench image image-check manifests

# The treemap on this machine, from nothing. DATA=folder: from real reports and a company list, else from a sample.
demo:
	scripts/setup.sh cc postgres grpcurl
	cargo build --release --locked
	scripts/demo.sh

# All tests, against a Postgres of their own; then those of the serving path once more, behind PgBouncer in transaction mode.
test:
	scripts/setup.sh cc postgres pg_cron grpcurl pgbouncer faketime asyncpg
	cargo test --locked
	TREEMAP_TEST_POOLER=1 cargo test --locked --test it -- answer:: refresher:: reload:: rpc:: serve::

# The same tests against another version of Postgres, 14 to 18: make test-postgres VERSION=18
test-postgres:
	scripts/setup.sh cc postgres pg_cron grpcurl pgbouncer faketime asyncpg npm
	TREEMAP_TEST_PG_BIN=$$(scripts/postgres-version.sh $(VERSION)) cargo test --locked

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
	cargo bench --locked --bench database --bench serving --bench scaling

# The container image, with docker, podman or buildah. Where no registry can be reached, BASES names a script that makes its bases.
image:
	$(BASES)
	scripts/image.sh

# Runs the image as ops do: as nobody, read-only, as process 1. Needs root.
image-check:
	scripts/setup.sh postgres grpcurl buildah
	$(BASES)
	scripts/image.sh
	scripts/image-check.sh

# The Kubernetes manifests against the published schemas.
manifests:
	scripts/manifests-check.sh
