//! Who may come, how often, and from which origin: each annotation by its effect on real requests.

mod access;
