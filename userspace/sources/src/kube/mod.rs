//! An API server as the source of objects.
//!
//! A `feed` says what is asked for, a `follow`er lists and watches it, `objects` converts and merges by the code that reads
//! manifests, and `run` hands out snapshots. `reach` knows whether the server is there, for all of them. What is known goes on
//! to serve while it is not; `standing` tells how old it is.
//!
//! Back goes what the daemons put into the `outbox`: `posts` and `announcements` say what is to be sent, the `writer` sends it, and of
//! several processes the one that leads (`lease`, `leader`) writes what is for one to write.

mod announcements;
mod backoff;
mod connect;
mod failure;
mod feed;
mod fetch;
mod follow;
mod interest;
mod leader;
mod lease;
mod look;
mod objects;
mod outbox;
mod posts;
mod reach;
mod run;
mod standing;
mod wire;
mod writer;

pub(crate) use connect::Access;
pub(crate) use connect::own_namespace;
pub use interest::Interest;
pub(crate) use look::announcements;
pub(crate) use outbox::Outbox;
pub(crate) use run::{Running, start};
pub(crate) use standing::Standing;
pub use wire::fuzz_wire;
