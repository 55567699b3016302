# The treemap service: one binary on distroless. It runs as an unprivileged user and writes nothing, unless TREEMAP_MODEL_FILE names a file.
# Built by `make image`.
FROM docker.io/library/rust:1.95-slim-bookworm AS build
ENV CARGO_HOME=/usr/local/cargo
WORKDIR /src

# Builds only the dependencies, with placeholder sources. The layer is cached until Cargo.toml or Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches tests/conformance \
 && echo 'fn main() {}' | tee build.rs src/main.rs benches/database.rs benches/scaling.rs benches/serving.rs tests/conformance/main.rs >/dev/null \
 && touch src/lib.rs \
 && cargo build --profile dist --locked --bin treemap \
 && rm -r src benches build.rs

COPY build.rs ./
COPY proto proto
COPY migrations migrations
COPY src src
COPY benches benches
# What `treemap --version` says of the commit: there is no git folder here.
ARG REVISION
ARG SOURCE_DATE_EPOCH
# Makes the sources newer than the placeholders, whatever their file times are.
RUN touch build.rs src/main.rs src/lib.rs \
 && TREEMAP_COMMIT=$REVISION cargo build --profile dist --locked --bin treemap \
 && mkdir -p /state/treemap

# Has the C library, the CAs of the system and the time zones. Has no shell and no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION
ARG REVISION
ARG CREATED
LABEL org.opencontainers.image.title="treemap" \
      org.opencontainers.image.description="gRPC service for the industry treemap of ASX short positions" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /src/target/dist/treemap /treemap
# A folder for TREEMAP_MODEL_FILE: a volume that is mounted there for the first time takes its owner from here.
COPY --from=build --chown=65532:65532 /state /var/lib
USER 65532:65532
# PORT, so that a container platform can set another.
ENV PORT=50051 \
    TREEMAP_ADMIN_ADDR=[::]:8080
EXPOSE 50051 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/treemap", "healthcheck"]
ENTRYPOINT ["/treemap"]
CMD ["serve"]
