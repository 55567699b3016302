//! How many connections the number of file descriptors allows.

use super::{CROWD, admin::CONNECTIONS as ADMIN};

/// Descriptors beside those of clients: connections to Postgres, files, the runtimes' own.
const OTHERS: usize = 64;

/// Raises the soft limit of file descriptors until `wanted` connections fit; gives how many fit, and says so when they are fewer.
pub fn connections_that_fit(wanted: usize) -> usize {
    let beside = CROWD + ADMIN + OTHERS;
    let needed = u64::try_from(wanted.saturating_add(beside)).unwrap_or(u64::MAX);
    let allowed = match rlimit::Resource::NOFILE.get_soft() {
        Ok(soft) if soft >= needed => return wanted,
        Ok(_) => rlimit::increase_nofile_limit(needed),
        Err(error) => Err(error),
    };
    match allowed {
        Ok(allowed) if allowed < needed => {
            let all = usize::try_from(allowed).unwrap_or(usize::MAX);
            // Where even the others do not fit, clients have half.
            let fit = all.saturating_sub(beside).max(all / 2);
            tracing::warn!(
                "{needed} file descriptors are needed for TREEMAP_MAX_CONNECTIONS={wanted}, and {allowed} are allowed; \
                 serving {fit} connections: raise the hard limit (ulimit -Hn, LimitNOFILE)"
            );
            fit
        }
        Ok(_) => wanted,
        Err(error) => {
            tracing::warn!("cannot read the limit of file descriptors: {error}");
            wanted
        }
    }
}
