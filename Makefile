.PHONY: demo demo-check test picture test-postgres clients-java conformance soak lint proto proto-release bench image image-check bare-check release manifests

# Sets up and serves the treemap on this machine. DATA=folder loads real reports and a company list; without it, a sample.
demo:
	scripts/setup.sh rust cc postgres
	cargo build --locked
	scripts/demo.sh

# All tests, against their own Postgres. Then the tests of the serving path again, behind PgBouncer in transaction mode.
test:
	scripts/setup.sh rust cc postgres pg_cron grpcurl pgbouncer faketime asyncpg npm chromium curl grpcio systemd buf clients nginx
	cargo test --locked -- --test-threads=4
	TREEMAP_TEST_POOLER=1 cargo test --locked --test it -- --test-threads=4 refresher:: reload:: rpc:: serve::

# The tests that face SQL against another version of Postgres, 14 to 18: make test-postgres VERSION=18. With TESTS= all of tests/it.
TESTS = answer:: load_companies:: load_shorts:: migrations:: odd_databases:: privileges:: refresh:: refresher:: reload:: status:: view::
test-postgres:
	scripts/setup.sh rust cc postgres faketime npm
	TREEMAP_TEST_PG_BIN=$$(scripts/postgres-version.sh $(VERSION)) cargo test --locked --test it -- --test-threads=4 $(TESTS)

# Checks make demo: it answers, and Ctrl-C leaves nothing behind.
demo-check:
	scripts/setup.sh rust curl grpcurl
	scripts/demo-check.sh

# The test of the program for Java in docs/clients.md, with Maven.
clients-java:
	scripts/setup.sh rust cc postgres clients-java
	cargo test --locked --test it -- --ignored clients_page::

# The Connect conformance suite: every case for unary calls and server streams, in three protocols, over HTTP/1.1 and HTTP/2, with TLS and without.
conformance:
	scripts/setup.sh rust cc conformance
	TREEMAP_CONFORMANCE=$(CURDIR)/.tools/bin/connectconformance TREEMAP_CONFORMANCE_PROTO=$(CURDIR)/.tools/conformance \
		cargo test --locked --test conformance

# Tests that take minutes: replicas that start and stop, load during slow refreshes, and attacks (floods::).
soak:
	scripts/setup.sh rust cc postgres
	cargo test --release --locked --test it -- --ignored --nocapture --test-threads=1 --skip clients_page::
	TREEMAP_DAMAGED_REPORTS=100000 cargo test --release --locked --lib -- damaged_report

# Draws the picture of README and docs anew, from the built-in sample.
picture:
	scripts/setup.sh rust cc postgres
	TREEMAP_STORE=1 cargo test --locked --test it -- picture::the_picture_of_the_docs

# Checks the format, the lints, the documentation, the crates that we use (deny.toml), and proto/.
lint: proto
	scripts/setup.sh rust cc deny
	scripts/rust-version.sh
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	.tools/deny/bin/cargo-deny --locked check --hide-inclusion-graph licenses bans sources

# Lints proto/, and finds what would break clients of the last release (proto/released.json).
proto:
	scripts/setup.sh npm buf
	.tools/buf/node_modules/.bin/buf lint
	.tools/buf/node_modules/.bin/buf breaking --against proto/released.json

# Part of a release: from now on clients may rely on what proto/ has today.
proto-release: proto
	.tools/buf/node_modules/.bin/buf build --exclude-source-info --output proto/released.json

# Measures the figures of docs/performance.md, scaling.md and materialized-view.md; on the real reports if TREEMAP_TEST_DATA (or ../shared/data) has them.
bench:
	scripts/setup.sh rust cc postgres h2load nghttpd
	cargo bench --locked --bench database --bench serving --bench scaling

# Builds the container image with docker, podman or buildah. If no registry is reachable, BASES names a script that makes the base images.
image:
	$(BASES)
	scripts/image.sh

# Runs the image as in production: as nobody, read-only, as process 1. Needs root.
image-check:
	scripts/setup.sh postgres grpcurl buildah
	$(BASES)
	scripts/image.sh
	scripts/image-check.sh

# Tries make demo and the setup of make test in bare containers of Debian 12 and 13. Needs root; BASES as for image.
bare-check:
	scripts/setup.sh buildah
	$(BASES)
	scripts/bare-check.sh

# Leaves a release of the version in Cargo.toml in target/release-VERSION: docs/developing.md, "A release".
release:
	scripts/setup.sh rust cc
	scripts/release.sh

# Checks the Kubernetes manifests against the published schemas.
manifests:
	scripts/setup.sh venv kustomize
	scripts/manifests-check.sh
